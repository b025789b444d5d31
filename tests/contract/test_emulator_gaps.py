"""One contract for each gap of ministack that fanout/local/gaps closes: the embedded AWS does here what AWS does.

Everything runs on tiny functions and machines of the test's own, on a server that has nothing else on it.
"""

from __future__ import annotations

import base64
import datetime
import itertools
import json
import os
import signal
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from fanout.local import gaps, server
from fanout.local.deploy import session
from tests.conftest import WAIT_SCALE
from tests.support.emulator import Emulator, distributed, task

ECHO = """
    import time

    class NotYetError(Exception): ...
    class TaskServiceError(Exception): ...

    calls = 0

    def handler(event, context):
        global calls
        calls += 1
        if not isinstance(event, dict):
            return event
        time.sleep(event.get("sleep", 0))
        if event.get("fail"):
            raise globals()[event["fail"]](event.get("message", "no"))
        return {**event, "calls": calls}
"""

FAIL = {"Type": "Fail", "Error": "TaskError", "Cause": "as asked"}
DONE = {"Type": "Succeed"}
FAIL_IF_ASKED: dict[str, Any] = {
    "Asked": {
        "Type": "Choice",
        "Choices": [{"Variable": "$.fail", "BooleanEquals": True, "Next": "Failed"}],
        "Default": "Done",
    },
    "Failed": FAIL,
    "Done": DONE,
}


@pytest.fixture(scope="module")
def echo(emulator: Emulator) -> str:
    return emulator.function(ECHO)


def items(count: int, failing: int = 0) -> dict[str, Any]:
    return {"items": [{"index": index, "fail": index < failing} for index in range(count)]}


def test_the_gaps_are_closed_for_the_pinned_ministack() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert f"ministack=={gaps.MINISTACK_VERSION}" in project["dependencies"]


# Distributed Map


@pytest.mark.parametrize("bound", [1, 3])
def test_a_map_run_keeps_to_the_bound_of_its_path(emulator: Emulator, echo: str, bound: int) -> None:
    shards = distributed({"Work": task(echo)}, MaxConcurrencyPath="$.bound")
    data = {"items": [{"sleep": 0.02}] * 9, "bound": bound}
    ended = emulator.run({"Shards": shards}, data)
    assert ended["status"] == "SUCCEEDED"
    assert emulator.peak(ended["executionArn"]) == bound
    assert emulator.map_run(ended["executionArn"])["maxConcurrency"] == bound


@pytest.mark.parametrize(
    ("field", "tolerated", "status"),
    [
        ("ToleratedFailurePercentagePath", 30, "SUCCEEDED"),
        ("ToleratedFailurePercentagePath", 29.9, "FAILED"),
        ("ToleratedFailureCountPath", 3, "SUCCEEDED"),
        ("ToleratedFailureCountPath", 2, "FAILED"),
    ],
)
def test_a_map_run_tolerates_the_failures_that_the_path_says(
    emulator: Emulator, field: str, tolerated: float, status: str
) -> None:
    data = items(10, failing=3) | {"tolerated": tolerated}
    ended = emulator.run({"Shards": distributed(FAIL_IF_ASKED, **{field: "$.tolerated"})}, data)
    assert ended["status"] == status
    assert ended.get("error") == (None if status == "SUCCEEDED" else "States.ExceedToleratedFailureThreshold")


@pytest.mark.parametrize("mode", ["DISTRIBUTED", "INLINE"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1, "MaxConcurrency cannot be negative."),
        ("3", 'The MaxConcurrencyPath field refers to value "3" which is not a valid integer: $.n'),
        (None, 'The MaxConcurrencyPath field refers to value "null" which is not a valid integer: $.n'),
        (True, 'The MaxConcurrencyPath field refers to value "true" which is not a valid integer: $.n'),
        (1.5, 'The MaxConcurrencyPath field refers to value "1.5" which is not a valid integer: $.n'),
    ],
)
def test_a_path_to_no_number_fails_a_map(emulator: Emulator, mode: str, value: object, said: str) -> None:
    shards = distributed({"Done": DONE}, MaxConcurrencyPath="$.n")
    shards["ItemProcessor"]["ProcessorConfig"]["Mode"] = mode
    ended = emulator.run({"Shards": shards}, {"items": [1], "n": value})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
    place = "An error occurred while executing the state 'Shards' (entered at the event id #2). "
    assert ended["cause"].startswith(place + said)


@pytest.mark.parametrize(
    ("percentage", "said"),
    [
        (100.5, "cannot be greater than 100."),
        (-1, "cannot be negative."),
        ("x", 'refers to value "x" which is no'),
    ],
)
def test_a_percentage_that_is_none_fails_a_map(emulator: Emulator, percentage: object, said: str) -> None:
    shards = distributed({"Done": DONE}, ToleratedFailurePercentagePath="$.n")
    ended = emulator.run({"Shards": shards}, {"items": [1], "n": percentage})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
    assert f"ToleratedFailurePercentage{'Path field' if percentage == 'x' else ''} {said}" in ended["cause"]


def test_a_failed_iteration_ends_an_inline_map_at_once(emulator: Emulator, echo: str) -> None:
    slow = {"Type": "Choice", "Choices": [{"Variable": "$.fail", "BooleanEquals": True, "Next": "Failed"}]}
    states = {
        "Asked": slow | {"Default": "Work"},
        "Failed": FAIL,
        "Work": task(echo, Next="More"),
        "More": DONE,
    }
    inline = {
        "Type": "Map",
        "ItemsPath": "$.items",
        "ItemProcessor": {"StartAt": "Asked", "States": states},
        "End": True,
    }
    started = time.monotonic()
    ended = emulator.run({"Segments": inline}, {"items": [{"fail": False, "sleep": 6}, {"fail": True}]})
    assert (ended["error"], ended["cause"]) == ("TaskError", "as asked")
    assert time.monotonic() - started < 5
    types = [event["type"] for event in emulator.history(ended["executionArn"])]
    assert types[-3:] == ["MapIterationFailed", "MapStateFailed", "ExecutionFailed"]


@pytest.mark.parametrize(
    ("form", "body"), [("JSON", b'{"no": "list"}'), ("JSON", b"{"), ("JSONL", b"{}\n{"), ("JSONL", b"\xff")]
)
def test_items_that_cannot_be_read_are_caught(emulator: Emulator, form: str, body: bytes) -> None:
    bucket = emulator.bucket()
    emulator.client("s3").put_object(Bucket=bucket, Key="k", Body=body)
    reader = {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": {"InputType": form},
        "Parameters": {"Bucket": bucket, "Key": "k"},
    }
    ended = emulator.run({"Shards": distributed({"Done": DONE}, ItemReader=reader)}, items(1))
    assert (ended["status"], ended["error"]) == ("FAILED", "States.ItemReaderFailed")
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Done"}]
    states = {"Shards": distributed({"Done": DONE}, ItemReader=reader, Catch=catch, Next="Done"), "Done": DONE}
    assert emulator.run(states, items(1))["status"] == "SUCCEEDED"


def test_items_that_are_no_list_fail_a_map(emulator: Emulator) -> None:
    ended = emulator.run({"Shards": distributed({"Done": DONE})}, {"items": 3})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")


def test_a_map_run_over_its_threshold_ends_at_once(emulator: Emulator, echo: str) -> None:
    slow_or_failing = {"items": [{"sleep": 5}, *[{"fail": "NotYetError"}] * 50]}
    states = {"Shards": distributed({"Work": task(echo)}, MaxConcurrency=2, ToleratedFailureCount=3)}
    started = time.monotonic()
    ended = emulator.run(states, slow_or_failing)
    assert time.monotonic() - started < 4
    assert ended["error"] == "States.ExceedToleratedFailureThreshold"
    run = emulator.map_run(ended["executionArn"])
    assert run["status"] == "FAILED"
    counts = run["executionCounts"]
    assert (counts["failed"], counts["aborted"], counts["running"], counts["pending"]) == (4, 1, 0, 46)
    statuses = [child["status"] for child in emulator.children(ended["executionArn"])]
    assert sorted(statuses) == ["ABORTED"] + ["FAILED"] * 4


def test_a_result_writer_writes_the_files_of_aws(emulator: Emulator) -> None:
    bucket = emulator.bucket()
    writer = {
        "Resource": "arn:aws:states:::s3:putObject",
        "Parameters": {"Bucket": bucket, "Prefix.$": "States.Format('jobs/{}/results', $$.Execution.Name)"},
    }
    shards = distributed(FAIL_IF_ASKED, ResultWriter=writer, ToleratedFailurePercentage=100)
    ended = emulator.run({"Shards": shards}, items(3, failing=1))
    run_arn = emulator.map_run(ended["executionArn"])["mapRunArn"]
    folder = f"jobs/{ended['name']}/results/{run_arn.rpartition(':')[2]}"
    assert json.loads(ended["output"]) == {
        "MapRunArn": run_arn,
        "ResultWriterDetails": {"Bucket": bucket, "Key": f"{folder}/manifest.json"},
    }
    files = emulator.objects(bucket)
    manifest = files[f"{folder}/manifest.json"]
    assert (manifest["DestinationBucket"], manifest["MapRunArn"]) == (bucket, run_arn)
    assert {kind: [file["Key"] for file in listed] for kind, listed in manifest["ResultFiles"].items()} == {
        "FAILED": [f"{folder}/FAILED_0.json"],
        "PENDING": [],
        "SUCCEEDED": [f"{folder}/SUCCEEDED_0.json"],
    }
    (failed,) = files[f"{folder}/FAILED_0.json"]
    assert (failed["Status"], failed["Error"], failed["Cause"]) == ("FAILED", "TaskError", "as asked")
    assert json.loads(failed["Input"]) == {"index": 0, "fail": True}
    succeeded = files[f"{folder}/SUCCEEDED_0.json"]
    assert [json.loads(child["Output"])["index"] for child in succeeded] == [1, 2]
    assert {child["ExecutionArn"] for child in [failed, *succeeded]} == {
        child["executionArn"] for child in emulator.children(ended["executionArn"])
    }


def test_a_failed_map_run_writes_what_never_started_as_pending(
    emulator: Emulator,
) -> None:
    bucket = emulator.bucket()
    writer = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": bucket, "Prefix": "r"}}
    caught = {"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}
    shards = distributed(FAIL_IF_ASKED, ResultWriter=writer, MaxConcurrency=1, **caught)
    ended = emulator.run({"Shards": shards, "Caught": {"Type": "Pass", "End": True}}, items(5, failing=5))
    assert json.loads(ended["output"])["Error"] == "States.ExceedToleratedFailureThreshold"
    files = emulator.objects(bucket)
    (pending,) = [file for key, file in files.items() if key.endswith("PENDING_0.json")]
    assert [json.loads(child["Input"])["index"] for child in pending] == [1, 2, 3, 4]


def test_a_child_is_an_execution_of_its_own(emulator: Emulator) -> None:
    own = {"Type": "Pass", "Parameters": {"id.$": "$$.Execution.Id", "parent.$": "$.parent"}, "End": True}
    selector = {"parent.$": "$$.Execution.Id", "index.$": "$$.Map.Item.Index"}
    ended = emulator.run({"Shards": distributed({"Own": own}, ItemSelector=selector)}, items(1))
    (output,) = json.loads(ended["output"])
    (child,) = emulator.children(ended["executionArn"])
    assert output == {"id": child["executionArn"], "parent": ended["executionArn"]}
    assert [event["type"] for event in emulator.history(child["executionArn"])] == [
        "ExecutionStarted",
        "PassStateEntered",
        "PassStateExited",
        "ExecutionSucceeded",
    ]


@pytest.mark.parametrize("field", [{"ItemBatcher": {"MaxItemsPerBatch": 2}}])
def test_a_field_of_a_map_that_the_embedded_aws_lacks_is_refused(emulator: Emulator, field: dict[str, Any]) -> None:
    ended = emulator.run({"Shards": distributed({"Done": DONE}, **field)}, items(2))
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")


# Executions


def test_a_machine_times_out_and_says_so_on_the_event_bus(emulator: Emulator, echo: str) -> None:
    sqs, events = emulator.client("sqs"), emulator.client("events")
    queue = sqs.create_queue(QueueName=emulator.name("queue"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    machine = emulator.machine({"Work": task(echo)}, TimeoutSeconds=1)
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [machine], "status": ["TIMED_OUT"]}}
    rule = emulator.name("rule")
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, Targets=[{"Id": "q", "Arn": arn}])

    execution = emulator.start(machine, {"sleep": 1.5, "fail": "NotYetError"})
    ended = emulator.wait(execution)
    assert ended["status"] == "TIMED_OUT"
    assert emulator.history(execution)[-1]["type"] == "ExecutionTimedOut"
    (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    assert json.loads(message["Body"])["detail"]["executionArn"] == execution
    time.sleep(0.8)
    assert emulator.describe(execution)["status"] == "TIMED_OUT", "a task that fails later changes nothing"


def test_a_task_result_over_256_kib_is_caught(emulator: Emulator) -> None:
    large = emulator.function("def handler(event, context): return 'x' * event")
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    states = {"Work": task(large, Catch=catch), "Caught": DONE}
    limit = 256 * 1024
    # Beside the payload a Task gets what Lambda says of the call.
    assert json.loads(emulator.run(states, limit - 300)["output"]) == "x" * (limit - 300)
    ended = emulator.run(states, limit)
    assert ended["status"] == "SUCCEEDED"
    assert json.loads(ended["output"]) == {
        "Error": "States.DataLimitExceeded",
        "Cause": "The state/task 'lambda' returned a result with a size exceeding the maximum number of bytes service "
        "limit.",
    }


def test_a_state_output_over_256_kib_is_not_caught(emulator: Emulator) -> None:
    """What a function may return, twice, in the output of the state."""
    large = emulator.function("def handler(event, context): return 'x' * 200_000")
    both = {"a.$": "$.Payload", "b.$": "$.Payload"}
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    work = task(large, Catch=catch, ResultSelector=both, OutputPath="$")
    ended = emulator.run({"Work": work, "Caught": DONE}, {})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.DataLimitExceeded")


def test_a_task_that_times_out_has_no_cause(emulator: Emulator, echo: str) -> None:
    states = {"Work": task(echo, TimeoutSeconds=1)}
    ended = emulator.run(states, {"sleep": 2})
    assert (ended["error"], ended.get("cause")) == ("States.Timeout", None)
    types = [event["type"] for event in emulator.history(ended["executionArn"])]
    assert types[-2:] == ["TaskTimedOut", "ExecutionFailed"]
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]
    ended = emulator.run({"Work": task(echo, TimeoutSeconds=1, Catch=catch), "Caught": DONE}, {"sleep": 2})
    assert json.loads(ended["output"]) == {"Error": "States.Timeout", "Cause": ""}


def test_a_fail_state_without_error_gives_none(emulator: Emulator) -> None:
    ended = emulator.run({"Failed": {"Type": "Fail"}})
    assert (ended["status"], ended.get("error"), ended.get("cause")) == ("FAILED", None, None)


def test_a_number_equals_no_boolean(emulator: Emulator) -> None:
    for value, status in ((True, "FAILED"), (1, "SUCCEEDED")):
        assert emulator.run(FAIL_IF_ASKED, {"fail": value})["status"] == status


def test_an_execution_fails_at_25_000_events(emulator: Emulator) -> None:
    ended = emulator.run({"Again": {"Type": "Pass", "Next": "Again"}})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
    assert "25000" in ended["cause"]
    assert len(emulator.history(ended["executionArn"])) == 25_000


def test_an_inline_map_has_the_events_of_its_iterations(emulator: Emulator, echo: str) -> None:
    inline = {
        "Type": "Map",
        "ItemsPath": "$.items",
        "ItemProcessor": {"StartAt": "Work", "States": {"Work": task(echo)}},
        "End": True,
    }
    ended = emulator.run({"Segments": inline}, items(1))
    assert [event["type"] for event in emulator.history(ended["executionArn"])] == [
        "ExecutionStarted",
        "MapStateEntered",
        "MapStateStarted",
        "MapIterationStarted",
        "TaskStateEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskSucceeded",
        "TaskStateExited",
        "MapIterationSucceeded",
        "MapStateSucceeded",
        "MapStateExited",
        "ExecutionSucceeded",
    ]


@pytest.mark.parametrize(
    "state",
    [
        {"Type": "Pass", "Parameters": {"a.$": "$.missing"}, "End": True},
        {"Type": "Pass", "Parameters": {"a": {"b.$": "$$.Execution.Missing"}}, "End": True},
        {"Type": "Pass", "InputPath": "$.missing", "End": True},
        {"Type": "Pass", "OutputPath": "$.missing", "End": True},
        {
            "Type": "Choice",
            "Choices": [{"Variable": "$.missing", "BooleanEquals": True, "Next": "Done"}],
            "Default": "Done",
        },
    ],
)
def test_a_path_that_selects_nothing_fails_the_execution(emulator: Emulator, state: dict[str, Any]) -> None:
    ended = emulator.run({"First": state, "Done": DONE}, {"there": None})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")


def test_a_path_that_selects_null_is_no_error(emulator: Emulator) -> None:
    state = {"Type": "Pass", "Parameters": {"a.$": "$.there"}, "End": True}
    assert json.loads(emulator.run({"First": state}, {"there": None})["output"]) == {"a": None}


def test_a_result_path_needs_an_object(emulator: Emulator) -> None:
    state = {"Type": "Pass", "Result": 1, "ResultPath": "$.here", "End": True}
    assert emulator.run({"First": state}, [])["error"] == "States.ResultPathMatchFailure"


def test_the_context_object_is_read_everywhere(emulator: Emulator, echo: str) -> None:
    selector = {"input.$": "$$.Execution.Input", "retries.$": "$$.State.RetryCount", "all.$": "$$"}
    work = task(echo, ResultSelector=selector, OutputPath="$")
    output = json.loads(emulator.run({"Work": work}, {"here": 1})["output"])
    assert (output["input"], output["retries"]) == ({"here": 1}, 0)
    assert output["all"].keys() == {"Execution", "StateMachine", "State"}
    first = {"Type": "Pass", "InputPath": "$$", "End": True}
    context = json.loads(emulator.run({"First": first}, {"here": 1})["output"])
    assert context["Execution"]["Input"] == {"here": 1}
    assert context["State"].keys() == {"Name", "EnteredTime"}


def test_format_writes_values_as_java_does(emulator: Emulator) -> None:
    texts = "States.Format('{} {} {}', $.a, States.Format('<{}>', $.b), $.c)"
    state = {"Type": "Pass", "Parameters": {"text.$": texts}, "End": True}
    ended = emulator.run({"First": state}, {"a": None, "b": {"x": [True, "y"]}, "c": "{}"})
    assert json.loads(ended["output"]) == {"text": "null <{x=[true, y]}> {}"}


# Calls of functions


@pytest.mark.parametrize(
    ("given", "got"),
    [({"a": 1}, {"a": 1, "calls": 1}), (None, {"calls": 1}), ("7", 7), ('"text"', "text"), ("no", None)],
)
def test_a_payload_that_is_text_is_json(emulator: Emulator, given: Any, got: Any) -> None:
    ended = emulator.run({"Work": task(emulator.function(ECHO), OutputPath="$")}, given)
    if got is None:
        assert ended["error"] == "Lambda.InvalidRequestContentException"
        return
    answer = json.loads(ended["output"])
    assert (answer["Payload"], answer["StatusCode"], answer["ExecutedVersion"]) == (got, 200, "$LATEST")


def test_a_function_that_is_not_there_is_named(emulator: Emulator) -> None:
    arn = emulator.function(ECHO).rpartition(":")[0] + ":nowhere"
    ended = emulator.run({"Work": task(arn)}, {})
    assert ended["error"] == "Lambda.ResourceNotFoundException"
    assert ended["cause"].startswith(f"Function not found: {arn} (Service: Lambda, Status Code: 404, Request ID: ")


def test_a_time_out_is_read_from_its_path(emulator: Emulator, echo: str) -> None:
    states = {"Work": task(echo, TimeoutSecondsPath="$.seconds")}
    assert emulator.run(states, {"sleep": 2, "seconds": 1})["error"] == "States.Timeout"
    assert emulator.run(states, {"sleep": 0, "seconds": 1})["status"] == "SUCCEEDED"


@pytest.mark.parametrize(("resource", "kind"), [(None, "Task"), ("function", "LambdaFunction")])
def test_the_history_tells_what_a_task_sent(emulator: Emulator, echo: str, resource: str | None, kind: str) -> None:
    work = task(echo) if resource is None else {"Type": "Task", "Resource": echo, "End": True}
    execution = emulator.run({"Work": work}, {"here": 1})["executionArn"]
    events = {event["type"]: event for event in emulator.history(execution)}
    scheduled = events[f"{kind}Scheduled"][f"{kind[0].lower()}{kind[1:]}ScheduledEventDetails"]
    sent = json.loads(scheduled["parameters"] if resource is None else scheduled["input"])
    assert sent == ({"FunctionName": echo, "Payload": {"here": 1}} if resource is None else {"here": 1})
    assert f"{kind}Succeeded" in events
    assert [event["previousEventId"] for event in events.values()] == [0, 0, 2, 3, 4, 5, 6]


def test_a_map_run_fails_if_its_reader_does(emulator: Emulator) -> None:
    bucket = emulator.bucket()
    emulator.client("s3").put_object(Bucket=bucket, Key="bad", Body=b"{")
    for key in ("missing", "bad"):
        reader = {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSONL"},
            "Parameters": {"Bucket": bucket, "Key": key},
        }
        shards = {name: value for name, value in distributed({"Done": DONE}).items() if name != "ItemsPath"}
        ended = emulator.run({"Shards": {**shards, "ItemReader": reader}}, {})
        assert ended["error"] == "States.ItemReaderFailed"
        types = [event["type"] for event in emulator.history(ended["executionArn"])]
        assert types[2:-1] == ["MapStateStarted", "MapRunStarted", "MapRunFailed", "MapStateFailed"]
        assert emulator.map_run(ended["executionArn"])["status"] == "FAILED"


def test_a_failed_execution_has_no_output(emulator: Emulator) -> None:
    assert emulator.run({"Failed": FAIL}).get("output") is None


def test_every_deviation_has_a_reason() -> None:
    """What recordings of AWS have otherwise; the form is that of the program that replays them."""
    deviations = json.loads(Path("tests/contract/deviations.json").read_text())
    assert deviations
    assert all(len(reason) > 40 and reason.endswith(".") for reason in deviations.values())


# Start and stop


def test_starting_a_running_execution_again_answers_with_it(emulator: Emulator, echo: str) -> None:
    machine = emulator.machine({"Work": task(echo)})
    first = emulator.start(machine, {"sleep": 0.5}, name="same")
    assert emulator.start(machine, {"sleep": 0.5}, name="same") == first
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        emulator.start(machine, {"sleep": 0}, name="same")
    emulator.wait(first)
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        emulator.start(machine, {"sleep": 0.5}, name="same")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": "no spaces"}, "InvalidName"),
        ({"name": "a/b"}, "InvalidName"),
        ({"input": "{"}, "InvalidExecutionInput"),
        ({"input": json.dumps("x" * 256 * 1024)}, "InvalidExecutionInput"),
    ],
)
def test_a_start_that_aws_refuses_is_refused(emulator: Emulator, options: dict[str, str], error: str) -> None:
    machine = emulator.machine({"Done": DONE})
    with pytest.raises(ClientError, match=error):
        emulator.client("stepfunctions").start_execution(stateMachineArn=machine, **options)


def test_a_stopped_execution_aborts_its_children(emulator: Emulator, echo: str) -> None:
    states = {"Shards": distributed({"Work": task(echo, Next="More"), "More": task(echo)}, MaxConcurrency=2)}
    execution = emulator.start(emulator.machine(states), {"items": [{"sleep": 0.4}] * 6})
    while emulator.describe(execution)["status"] == "RUNNING" and len(_scheduled(emulator, execution)) < 2:
        time.sleep(0.02)
    emulator.client("stepfunctions").stop_execution(executionArn=execution, error="Stopped", cause="by a test")
    stopped = emulator.describe(execution)
    assert (stopped["status"], stopped["error"], stopped["cause"]) == ("ABORTED", "Stopped", "by a test")
    run = emulator.map_run(execution)
    assert (run["status"], run["executionCounts"]["aborted"], run["executionCounts"]["pending"]) == (
        "ABORTED",
        2,
        4,
    )
    time.sleep(0.9)
    assert len(_scheduled(emulator, execution)) == 2, "no child took another step"
    assert {child["status"] for child in emulator.children(execution)} == {"ABORTED"}
    assert emulator.map_run(execution)["executionCounts"] == run["executionCounts"]


def _scheduled(emulator: Emulator, execution: str) -> list[dict[str, Any]]:
    if not emulator.client("stepfunctions").list_map_runs(executionArn=execution)["mapRuns"]:
        return []
    children = emulator.children(execution)
    events = [event for child in children for event in emulator.history(child["executionArn"])]
    return [event for event in events if event["type"] == "TaskScheduled"]


@pytest.mark.parametrize("later", [{}, {"fail": "NotYetError"}])
def test_an_aborted_execution_stays_aborted(emulator: Emulator, echo: str, later: dict[str, str]) -> None:
    execution = emulator.start(emulator.machine({"Work": task(echo)}), {"sleep": 0.3, **later})
    time.sleep(0.1)
    emulator.client("stepfunctions").stop_execution(executionArn=execution)
    time.sleep(0.5)
    assert emulator.describe(execution)["status"] == "ABORTED"
    assert emulator.history(execution)[-1]["type"] == "ExecutionAborted"


def test_a_stop_interrupts_a_wait(emulator: Emulator) -> None:
    wait = {"Type": "Wait", "Seconds": 3600, "End": True}
    execution = emulator.start(emulator.machine({"Wait": wait}))
    time.sleep(0.1)
    emulator.client("stepfunctions").stop_execution(executionArn=execution)
    assert emulator.describe(execution)["status"] == "ABORTED"


# Retry


def delays(emulator: Emulator, execution: str) -> list[float]:
    """Seconds between a failed attempt and the next one, as if waits were not shortened."""
    moments: list[tuple[str, datetime.datetime]] = [
        (event["type"], event["timestamp"])
        for event in emulator.history(execution)
        if event["type"] in ("TaskFailed", "TaskScheduled")
    ]
    pairs = itertools.pairwise(moments)
    return [
        (later - earlier).total_seconds() / WAIT_SCALE for (kind, earlier), (_, later) in pairs if kind == "TaskFailed"
    ]


def test_a_retrier_waits_at_most_its_max_delay(emulator: Emulator, echo: str) -> None:
    retrier = {"ErrorEquals": ["NotYetError"], "IntervalSeconds": 1, "BackoffRate": 10, "MaxAttempts": 3}
    ended = emulator.run({"Work": task(echo, Retry=[{**retrier, "MaxDelaySeconds": 2}])}, {"fail": "NotYetError"})
    first, *rest = delays(emulator, ended["executionArn"])
    assert 0.9 < first < 1.9
    assert all(1.9 < delay < 2.9 for delay in rest)
    assert len(rest) == 2


def test_full_jitter_waits_a_random_part_of_the_delay(emulator: Emulator, echo: str) -> None:
    retrier = {"ErrorEquals": ["NotYetError"], "IntervalSeconds": 2, "BackoffRate": 1, "MaxAttempts": 8}
    states = {"Work": task(echo, Retry=[{**retrier, "JitterStrategy": "FULL"}])}
    waited = delays(emulator, emulator.run(states, {"fail": "NotYetError"})["executionArn"])
    assert len(waited) == 8
    assert all(delay < 3 for delay in waited)
    assert max(waited) - min(waited) > 0.3


# Lambda


def test_an_exception_is_caught_by_its_class_name(emulator: Emulator, echo: str) -> None:
    catch = [
        {"ErrorEquals": ["Runtime.HandlerError"], "Next": "Wrong"},
        {"ErrorEquals": ["TaskServiceError"], "Next": "Right"},
    ]
    states = {
        "Work": task(echo, Catch=catch),
        "Wrong": FAIL,
        "Right": {"Type": "Pass", "Parameters": {"cause.$": "States.StringToJson($.Cause)"}, "End": True},
    }
    ended = emulator.run(states, {"fail": "TaskServiceError", "message": "down"})
    cause = json.loads(ended["output"])["cause"]
    assert (cause["errorType"], cause["errorMessage"]) == ("TaskServiceError", "down")
    assert "in handler" in cause["stackTrace"][0]


CRASHES = """
    import ctypes, os, signal, sys, time

    def handler(event, context):
        match event:
            case "exit": os._exit(3)
            case "exit 0": os._exit(0)
            case "sys.exit": sys.exit(4)
            case "kill": os.kill(os.getpid(), signal.SIGKILL)
            case "segfault": ctypes.string_at(0)
            case "sleep": time.sleep(60)
            case "unmarshalable": return object()
            case "large": return "x" * 7_000_000
        return os.getpid()
"""


@pytest.mark.parametrize(
    ("crash", "error", "message"),
    [
        ("exit", "Runtime.ExitError", "Error: Runtime exited with error: exit status 3"),
        ("exit 0", "Runtime.ExitError", "Error: Runtime exited without providing a reason"),
        ("sys.exit", "Runtime.ExitError", "Error: Runtime exited with error: exit status 4"),
        ("kill", "Runtime.ExitError", "Error: Runtime exited with error: signal: killed"),
        ("segfault", "Runtime.ExitError", "Error: Runtime exited with error: signal: segmentation fault"),
        ("sleep", "Sandbox.Timedout", "Error: Task timed out after 1.00 seconds"),
        ("unmarshalable", "Runtime.MarshalError", "Object of type object is not JSON serializable"),
        ("large", "Function.ResponseSizeTooLarge", "Response payload size exceeded"),
    ],
)
def test_a_function_that_dies_is_reported_as_lambda_does(
    emulator: Emulator, crashes: str, crash: str, error: str, message: str
) -> None:
    kind, payload = emulator.invoke(crashes, crash)
    assert (kind, payload["errorType"]) == ("Unhandled", error)
    assert message in payload["errorMessage"]
    assert emulator.invoke(crashes, "well")[0] is None, "the next invocation finds an environment that works"

    if crash in ("exit", "sleep"):
        ended = emulator.run({"Work": task(crashes)}, json.dumps(crash))
        assert (ended["status"], ended["error"]) == ("FAILED", error)
        assert message in json.loads(ended["cause"])["errorMessage"]


@pytest.fixture(scope="module")
def crashes(emulator: Emulator) -> str:
    return emulator.function(CRASHES, timeout=1)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (
            "import nowhere",
            "Runtime.ImportModuleError",
            "Unable to import module 'main': No module named 'nowhere'",
        ),
        ("x = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'main'"),
        ("def (", "Runtime.UserCodeSyntaxError", "Syntax error in module 'main'"),
        ("raise ValueError('BUCKET_NAME')", "ValueError", "BUCKET_NAME"),
        ("import os; os._exit(7)", "Runtime.ExitError", "exit status 7"),
    ],
)
def test_a_function_that_cannot_be_loaded_says_why(emulator: Emulator, code: str, error: str, message: str) -> None:
    kind, payload = emulator.invoke(emulator.function(code))
    assert (kind, payload["errorType"]) == ("Unhandled", error)
    assert message in payload["errorMessage"]


def test_an_environment_retired_during_a_call_has_crashed(
    emulator: Emulator,
) -> None:
    """On Lambda it would end its work first; a crash, at least, is tried again."""
    function = emulator.function("import time\ndef handler(event, context): time.sleep(8)")
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(emulator.invoke, function, {})
        time.sleep(1.5)
        emulator.client("lambda").update_function_configuration(FunctionName=function, Timeout=9)
        kind, payload = working.result()
    assert (kind, payload["errorType"]) == ("Unhandled", "Runtime.ExitError")


def test_an_environment_survives_an_exception(emulator: Emulator) -> None:
    function = emulator.function(ECHO)
    emulator.invoke(function, {})
    emulator.invoke(function, {"fail": "NotYetError"})
    assert emulator.invoke(function, {})[1] == {"calls": 3}


@pytest.mark.parametrize("what", ["sys.stdout = None", "sys.stderr.close()", "sys.stdout = object()"])
def test_an_environment_survives_the_streams_of_its_code(emulator: Emulator, what: str) -> None:
    code = "import sys\nCALLS = []\ndef handler(event, context):\n    CALLS.append(event)\n"
    function = emulator.function(f"{code}    {what}\n    return len(CALLS)")
    assert [emulator.invoke(function, {}) for _ in range(2)] == [(None, 1), (None, 2)]


# A Lambda environment that dies


DAMAGES = """
    import ctypes, os, socket, time

    CALLS = []

    def channel():
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                found = socket.socket(fileno=os.dup(fd))
            except OSError:
                continue
            if found.family == socket.AF_UNIX:
                return found

    def fork(at_c_level):
        return ctypes.CDLL(None).fork() if at_c_level else os.fork()

    def handler(event, context):
        CALLS.append(event)
        way, at_c_level = event["way"], event.get("c", False)
        if way == "hold" and fork(at_c_level):
            os._exit(3)
        elif way == "hold":
            time.sleep(60)
        if way == "return":
            fork(at_c_level)
        if way == "garbage":
            channel().sendall(b"no answer\\n")
        if way == "foreign":
            channel().sendall(b'another-id {"result": "stale"}\\n')
        if way == "after":
            import threading
            threading.Timer(0.2, channel().sendall, [b'x {"result": "stale"}\\n']).start()
        return len(CALLS)
"""


@pytest.fixture
def damages(emulator: Emulator) -> str:
    return emulator.function(DAMAGES, timeout=20)


@pytest.mark.parametrize("at_c_level", [True, False])
def test_a_child_that_holds_the_channel_delays_nothing(damages: str, emulator: Emulator, at_c_level: bool) -> None:
    started = time.monotonic()
    kind, payload = emulator.invoke(damages, {"way": "hold", "c": at_c_level})
    assert time.monotonic() - started < 8
    assert (kind, payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert payload["errorMessage"].endswith("exit status 3")
    assert emulator.invoke(damages, {"way": "well"}) == (None, 1)


@pytest.mark.parametrize("way", ["garbage", "foreign"])
def test_an_answer_to_no_call_retires_the_environment(damages: str, emulator: Emulator, way: str) -> None:
    kind, payload = emulator.invoke(damages, {"way": way})
    assert (kind, payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert emulator.invoke(damages, {"way": "well"}) == (None, 1), "a new environment"


def test_a_stale_answer_reaches_no_later_call(damages: str, emulator: Emulator) -> None:
    assert emulator.invoke(damages, {"way": "after"}) == (None, 1)
    time.sleep(0.5)
    assert emulator.invoke(damages, {"way": "well"}) == (None, 1), "a new environment"


def test_a_forked_child_that_returns_answers_nothing(damages: str, emulator: Emulator) -> None:
    assert emulator.invoke(damages, {"way": "return"}) == (None, 1)
    assert [emulator.invoke(damages, {"way": "well"})[1] for _ in range(3)] == [2, 3, 4]


def kill_the_fork_server(emulator: Emulator) -> None:
    shown = subprocess.run(
        ["pgrep", "-P", str(emulator.server.pid), "-f", "multiprocessing.forkserver"],
        capture_output=True,
        text=True,
        check=True,
    )
    os.kill(int(shown.stdout), signal.SIGKILL)


def test_a_killed_fork_server_is_a_service_error_and_is_replaced(emulator: Emulator) -> None:
    """What runs in its environments is retried by a state machine, as a failure of Lambda itself."""
    function = emulator.function("import time\ndef handler(event, context): time.sleep(event['seconds'])")
    retry = [{"ErrorEquals": ["Lambda.ServiceException"], "IntervalSeconds": 1, "MaxAttempts": 9}]
    machine = emulator.machine({"Work": task(function, Retry=retry)})
    execution = emulator.start(machine, {"seconds": 1})
    caught = emulator.start(emulator.machine({"Work": task(function)}), {"seconds": 1})
    time.sleep(0.7)
    kill_the_fork_server(emulator)
    assert emulator.wait(execution)["status"] == "SUCCEEDED"
    assert emulator.wait(caught)["error"] == "Lambda.ServiceException"


def test_a_service_error_of_an_invocation_is_a_500(emulator: Emulator) -> None:
    function = emulator.function("import time\ndef handler(event, context): time.sleep(1)")
    config = Config(retries={"total_max_attempts": 1})
    once = session().client("lambda", endpoint_url=emulator.endpoint_url, config=config)
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(once.invoke, FunctionName=function)
        time.sleep(0.7)
        kill_the_fork_server(emulator)
        with pytest.raises(ClientError, match="ServiceException") as refused:
            working.result()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert emulator.invoke(function) == (None, None)


def test_a_refused_invocation_is_caught_as_429(emulator: Emulator) -> None:
    function = emulator.function(ECHO)
    emulator.client("lambda").put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    catch = [{"ErrorEquals": ["Lambda.TooManyRequestsException"], "Next": "Caught"}]
    ended = emulator.run({"Work": task(function, Catch=catch), "Caught": DONE})
    assert ended["status"] == "SUCCEEDED"


def test_a_function_sees_the_environment_of_lambda_only(emulator: Emulator) -> None:
    function = emulator.function(
        """
        import os, sys
        def handler(event, context):
            return [dict(os.environ), sys.path, os.listdir(os.environ["TMPDIR"])]
        """,
        Environment={"Variables": {"BUCKET_NAME": "b", "AWS_LAMBDA_FUNCTION_NAME": "not yours"}},
    )
    _, (variables, path, private) = emulator.invoke(function)
    own = {name for name in variables if not name.startswith(("AWS_", "LAMBDA_", "_"))}
    assert own == {"BUCKET_NAME", "HOME", "LANG", "PATH", "TMPDIR", "TZ"}
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == function.rpartition(":")[2]
    assert variables["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert variables["AWS_ENDPOINT_URL"] == emulator.endpoint_url
    assert private == []
    assert str(Path.cwd()) not in path
    assert str(Path.cwd() / "lambdas") not in path


def test_the_virtual_environment_stands_in_for_layers(emulator: Emulator) -> None:
    layer = emulator.client("lambda").publish_layer_version(
        LayerName=emulator.name("layer"),
        Content={"ZipFile": base64.b64decode("UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==")},
    )["LayerVersionArn"]
    code = "import pydantic, aws_lambda_powertools\ndef handler(event, context): return pydantic.VERSION"
    kind, version = emulator.invoke(emulator.function(code, Layers=[layer]))
    assert (kind, type(version)) == (None, str)


def test_what_a_function_prints_is_in_its_log_group(emulator: Emulator) -> None:
    code = "import logging\ndef handler(event, context):\n print('printed')\n logging.warning('warned')"
    function = emulator.function(code)
    emulator.invoke(function)
    group = f"/aws/lambda/{function.rpartition(':')[2]}"
    events = emulator.client("logs").filter_log_events(logGroupName=group)["events"]
    messages = [event["message"] for event in events]
    assert "printed" in messages
    assert any("warned" in message for message in messages)


def test_a_log_group_that_is_gone_is_not_made_by_a_log(emulator: Emulator) -> None:
    logs, name = emulator.client("logs"), emulator.name("group")
    logs.create_log_group(logGroupName=name)
    function = emulator.function("def handler(event, context): print('printed')", LoggingConfig={"LogGroup": name})
    emulator.invoke(function)
    assert "printed" in [event["message"] for event in logs.filter_log_events(logGroupName=name)["events"]]
    logs.delete_log_group(logGroupName=name)
    emulator.invoke(function)
    assert logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"] == []


def may_put(bucket: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*"}


def writer_of(emulator: Emulator, bucket: str, role: str) -> str:
    """A function that writes an object to the bucket."""
    code = f"""
        import boto3
        def handler(event, context):
            return boto3.client("s3").put_object(Bucket="{bucket}", Key="k", Body=b"")["ETag"]
    """
    return emulator.function(code, role=role)


def test_a_function_may_do_what_its_role_allows_and_nothing_else(emulator: Emulator) -> None:
    bucket = emulator.bucket()
    kind, payload = emulator.invoke(writer_of(emulator, bucket, emulator.role()))
    assert (kind, "AccessDenied" in payload["errorMessage"]) == ("Unhandled", True)
    assert emulator.invoke(writer_of(emulator, bucket, emulator.role(may_put(bucket))))[0] is None


@pytest.mark.parametrize("operation", ["get_object", "head_object"])
def test_a_missing_object_is_forbidden_to_who_may_not_list(emulator: Emulator, operation: str) -> None:
    bucket = emulator.bucket()
    emulator.client("s3").put_object(Bucket=bucket, Key="there", Body=b"")
    code = f"""
        import boto3
        def handler(event, context):
            return boto3.client("s3").{operation}(Bucket="{bucket}", Key=event)["ContentLength"]
    """
    read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    listing = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"}
    for role, said in ((emulator.role(read), "403 AccessDenied"), (emulator.role(read, listing), "404 NoSuchKey")):
        function = emulator.function(code, role=role)
        assert emulator.invoke(function, "there") == (None, 0)
        kind, payload = emulator.invoke(function, "missing")
        assert kind == "Unhandled"
        # The answer to a HEAD has no body, and so nothing but the status.
        assert f"({said.split()[operation == 'get_object']})" in payload["errorMessage"]


def test_the_accounts_settings_are_read_by_who_may(emulator: Emulator) -> None:
    code = """
        import boto3
        def handler(event, context):
            return boto3.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    """
    kind, payload = emulator.invoke(emulator.function(code))
    assert (kind, "AccessDenied" in payload["errorMessage"]) == ("Unhandled", True)
    may = {"Effect": "Allow", "Action": "lambda:GetAccountSettings", "Resource": "*"}
    assert emulator.invoke(emulator.function(code, role=emulator.role(may)))[0] is None


def test_a_tls_only_bucket_answers_on_loopback(emulator: Emulator) -> None:
    bucket = emulator.bucket()
    deny = {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [deny]}
    emulator.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    kind, payload = emulator.invoke(writer_of(emulator, bucket, emulator.role(may_put(bucket))))
    assert kind is None, payload


def test_the_ref_of_a_secret_is_its_arn(emulator: Emulator) -> None:
    template = {
        "Resources": {"Secret": {"Type": "AWS::SecretsManager::Secret", "Properties": {"GenerateSecretString": {}}}},
        "Outputs": {"Ref": {"Value": {"Ref": "Secret"}}},
    }
    cloudformation, stack = emulator.client("cloudformation"), emulator.name("stack")
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps(template))
    settled = {"StackName": stack, "WaiterConfig": {"Delay": 0.05, "MaxAttempts": 200}}
    cloudformation.get_waiter("stack_create_complete").wait(**settled)
    (output,) = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    arn = output["OutputValue"]
    assert arn.startswith("arn:aws:secretsmanager:")
    assert emulator.client("secretsmanager").get_secret_value(SecretId=arn)["ARN"] == arn
    template["Resources"]["Secret"]["Properties"]["Description"] = "new"  # type: ignore[index]
    cloudformation.update_stack(StackName=stack, TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_update_complete").wait(**settled)
    assert emulator.client("secretsmanager").describe_secret(SecretId=arn)["Description"] == "new"
    cloudformation.delete_stack(StackName=stack)
    cloudformation.get_waiter("stack_delete_complete").wait(**settled)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        emulator.client("secretsmanager").get_secret_value(SecretId=arn)


# The API


@pytest.fixture(scope="module")
def api(emulator: Emulator) -> str:
    """The address of a REST API that asks for IAM and hands every request to a function that returns its event."""
    function = emulator.function(
        """
        import json
        def handler(event, context):
            return {"statusCode": 202, "body": json.dumps(event)}
        """
    )
    gateway = emulator.client("apigateway")
    api = gateway.create_rest_api(name=emulator.name("api"), binaryMediaTypes=["text/csv"])["id"]
    (root,) = gateway.get_resources(restApiId=api)["items"]
    resource = gateway.create_resource(restApiId=api, parentId=root["id"], pathPart="{proxy+}")["id"]
    method = {"restApiId": api, "resourceId": resource, "httpMethod": "ANY"}
    gateway.put_method(**method, authorizationType="AWS_IAM")
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"
    gateway.put_integration(**method, type="AWS_PROXY", integrationHttpMethod="POST", uri=uri)
    gateway.create_deployment(restApiId=api, stageName="v1")
    emulator.client("lambda").add_permission(
        FunctionName=function,
        StatementId="api",
        Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
        SourceArn=f"arn:aws:execute-api:us-east-1:000000000000:{api}/*/*/*",
    )
    return f"{emulator.endpoint_url}/_aws/execute-api/{api}/v1"


ROOT = Credentials(server.ACCESS_KEY_ID, server.SECRET_ACCESS_KEY)


def call(
    url: str,
    credentials: Credentials | None,
    method: str = "GET",
    body: bytes = b"",
    service: str = "execute-api",
    **headers: str,
) -> tuple[int, Any]:
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    if credentials is not None:
        SigV4Auth(credentials, service, "us-east-1").add_auth(request)
    return send(url, method, body, dict(request.headers))


def send(url: str, method: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    sent = urllib.request.Request(url, method=method, data=body or None, headers=headers)
    try:
        with urllib.request.urlopen(sent, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_a_signed_request_reaches_the_function(api: str) -> None:
    status, event = call(f"{api}/tasks/a%20b?isComplete=true&dueBefore=2026-01-01T00%3A00%3A00Z", ROOT)
    assert status == 202
    assert (event["httpMethod"], event["path"]) == ("GET", "/tasks/a b")
    assert event["queryStringParameters"] == {"isComplete": "true", "dueBefore": "2026-01-01T00:00:00Z"}
    assert event["requestContext"]["stage"] == "v1"


def test_an_unsigned_request_is_refused(api: str) -> None:
    assert call(f"{api}/tasks", None) == (403, {"message": "Missing Authentication Token"})


@pytest.mark.parametrize(
    ("credentials", "service", "minutes", "said"),
    [
        (
            Credentials("test", "wrong"),
            "execute-api",
            0,
            "The request signature we calculated does not match",
        ),
        (
            Credentials("nobody", "test"),
            "execute-api",
            0,
            "The security token included in the request is invalid",
        ),
        (
            Credentials("test", "test", "x"),
            "execute-api",
            0,
            "The security token included in the request is invalid",
        ),
        (ROOT, "s3", 0, "Credential should be scoped to correct service: 'execute-api'."),
        (ROOT, "execute-api", -20, "Signature expired"),
        (ROOT, "execute-api", 20, "Signature not yet current"),
    ],
)
def test_a_wrongly_signed_request_is_refused(
    api: str,
    monkeypatch: pytest.MonkeyPatch,
    credentials: Credentials,
    service: str,
    minutes: int,
    said: str,
) -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: then)
    status, answer = call(f"{api}/tasks", credentials, service=service)
    assert (status, list(answer)) == (403, ["message"])
    assert answer["message"].startswith(said)


def test_a_signature_holds_for_its_own_request_only(api: str) -> None:
    request = AWSRequest("POST", f"{api}/tasks?limit=1", data=b"{}", headers={"X-Amz-Meta": "1"})
    SigV4Auth(ROOT, "execute-api", "us-east-1").add_auth(request)
    signed = dict(request.headers)
    assert send(f"{api}/tasks?limit=1", "POST", b"{}", signed)[0] == 202
    for url, method, body, headers in [
        (f"{api}/tasks?limit=2", "POST", b"{}", signed),
        (f"{api}/jobs?limit=1", "POST", b"{}", signed),
        (f"{api}/tasks?limit=1", "PUT", b"{}", signed),
        (f"{api}/tasks?limit=1", "POST", b"[]", signed),
        (f"{api}/tasks?limit=1", "POST", b"{}", signed | {"X-Amz-Meta": "2"}),
    ]:
        status, answer = send(url, method, body, headers)
        assert (status, answer["message"][:40]) == (403, "The request signature we calculated does")


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        ("Bearer x", "Invalid key=value pair (missing equal-sign) in Authorization header"),
        (
            "AWS4-HMAC-SHA256 Credential=test/20261124/us-east-1/execute-api/aws4_request",
            "Authorization header requires",
        ),
    ],
)
def test_an_incomplete_signature_is_refused(api: str, authorization: str, said: str) -> None:
    status, answer = send(f"{api}/tasks", "GET", b"", {"Authorization": authorization})
    assert (status, answer["message"].startswith(said)) == (403, True)


@pytest.mark.parametrize(
    "options",
    [["/tasks?isComplete=true"], ["/tasks", "-d", "{}"], ["/tasks/1", "-X", "DELETE"]],
)
def test_a_request_that_curl_signs_reaches_the_function(api: str, options: list[str]) -> None:
    sign = ["--aws-sigv4", "aws:amz:us-east-1:execute-api", "--user", f"{ROOT.access_key}:{ROOT.secret_key}"]
    shown = ["-s", "-o", os.devnull, "-w", "%{http_code}"]
    curl = subprocess.run(["curl", *shown, *sign, api + options[0], *options[1:]], capture_output=True, check=True)
    assert curl.stdout == b"202"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_wrong_or_late_presigned_address_is_refused(emulator: Emulator, version: str) -> None:
    bucket = emulator.bucket()
    emulator.client("s3").put_object(Bucket=bucket, Key="a b/ü", Body=b"1")
    s3 = session().client("s3", endpoint_url=emulator.endpoint_url, config=Config(signature_version=version))
    place = {"Bucket": bucket, "Key": "a b/ü"}
    url, late = (s3.generate_presigned_url("get_object", Params=place, ExpiresIn=n) for n in (60, 1))
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"1"
    for wrong in (
        url.replace("Signature=", "Signature=0"),
        url.replace("/a", "/b"),
        url.replace("ires=", "ires=9"),
    ):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(wrong)
    time.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(late)


def test_a_request_signed_by_a_role_needs_its_permission(emulator: Emulator, api: str) -> None:
    iam = emulator.client("iam")
    allowed = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}
    for statements, status in [((), 403), ((allowed,), 202)]:
        user = emulator.name("user")
        iam.create_user(UserName=user)
        if statements:
            policy = {"Version": "2012-10-17", "Statement": list(statements)}
            iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=user)["AccessKey"]
        credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
        assert call(f"{api}/jobs", credentials, "POST", b"{}")[0] == status
    forged = Credentials(key["AccessKeyId"], "wrong")
    assert call(f"{api}/jobs", forged, "POST", b"{}")[0] == 403


def test_a_csv_body_arrives_byte_for_byte(api: str) -> None:
    body = '\ufefftitle,detail\r\n"a\nb",ü\xff\r\n'.encode("utf-8") + b"\xff\xfe"
    status, event = call(f"{api}/tasks/upload", ROOT, "POST", body, **{"Content-Type": "text/csv"})
    assert status == 202
    assert (event["isBase64Encoded"], base64.b64decode(event["body"])) == (True, body)
    _, event = call(f"{api}/tasks/upload", ROOT, "POST", b"{}", **{"Content-Type": "application/json"})
    assert (event["isBase64Encoded"], event["body"]) == (False, "{}")


# S3


def test_an_object_is_created_only_once_if_asked(emulator: Emulator) -> None:
    s3, bucket = emulator.client("s3"), emulator.bucket()
    s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"


def test_a_presigned_address_takes_an_upload(emulator: Emulator) -> None:
    s3, bucket = emulator.client("s3"), emulator.bucket()
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "uploads/x.csv"})
    # The default signature covers the Content-Type, which urllib would choose.
    headers = {"Content-Type": ""}
    request = urllib.request.Request(url, method="PUT", data=b"title\r\n", headers=headers)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert s3.get_object(Bucket=bucket, Key="uploads/x.csv")["Body"].read() == b"title\r\n"


def test_a_listing_comes_in_ordered_pages_of_1000(emulator: Emulator) -> None:
    s3, bucket = emulator.client("s3"), emulator.bucket()
    keys = [f"shards/{number:05}" for number in range(1001)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="shards/"))
    assert [len(page["Contents"]) for page in pages] == [1000, 1]
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == keys


def test_an_object_uploaded_in_parts_is_the_parts_together(emulator: Emulator) -> None:
    s3, bucket = emulator.client("s3"), emulator.bucket()
    place = {"Bucket": bucket, "Key": "plan.jsonl"}
    upload = s3.create_multipart_upload(**place)["UploadId"]
    parts = [b"a" * 5 * 1024 * 1024, b"b"]
    tags = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**place, UploadId=upload, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": tags})
    assert s3.get_object(**place)["Body"].read() == b"".join(parts)


# Who may talk to the server


@pytest.mark.parametrize("headers", [{"Origin": "https://example.com"}, {"Host": "example.com:80"}])
def test_a_web_page_is_refused(emulator: Emulator, headers: dict[str, str]) -> None:
    request = urllib.request.Request(f"{emulator.endpoint_url}/_ministack/health", headers=headers)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)


def test_no_answer_allows_every_origin(emulator: Emulator) -> None:
    with urllib.request.urlopen(f"{emulator.endpoint_url}/_ministack/health") as answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    answered = emulator.client("s3").list_buckets()["ResponseMetadata"]["HTTPHeaders"]
    assert not [name for name in answered if name.startswith("access-control-")]
