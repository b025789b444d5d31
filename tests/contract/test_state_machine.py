"""What no validator of state machines finds: the definition against the handlers, their errors and their time."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fan_out import errors
from fan_out.model.costs import LONGEST_JOB
from fan_out.model.job_input import JobInput
from fan_out.steps import shard_runner as work
from infra.constructs import workflow
from infra.functions import FUNCTIONS, STATES
from tests.support.machine import ROOT

TEXT = (ROOT / "statemachines/fan_out.asl.json").read_text()
MACHINE: dict[str, Any] = json.loads(TEXT)
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
RESERVED = {
    "States.ALL", "States.DataLimitExceeded", "States.ExceedToleratedFailureThreshold", "States.HeartbeatTimeout",
    "States.Http.Socket", "States.IntrinsicFailure", "States.ItemReaderFailed", "States.NoChoiceMatched",
    "States.ParameterPathFailure", "States.Permissions", "States.ResultPathMatchFailure",
    "States.ResultWriterFailed", "States.Runtime", "States.TaskFailed", "States.Timeout",
}  # fmt: skip
# What Lambda and the SDK in front of it raise, which CDK's own retrier names too, and what stands for 429.
OF_LAMBDA = {
    "Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException",
    "Lambda.ClientExecutionTimeoutException", "Lambda.Unknown", "Lambda.TooManyRequestsException",
}  # fmt: skip


def machines(machine: dict[str, Any] = MACHINE) -> Iterator[dict[str, Any]]:
    """The machine and every machine within its maps."""
    yield machine
    for state in machine["States"].values():
        if "ItemProcessor" in state:
            yield from machines(state["ItemProcessor"])


def states(type_: str | None = None) -> dict[str, dict[str, Any]]:
    return {
        name: state
        for machine in machines()
        for name, state in machine["States"].items()
        if type_ is None or state["Type"] == type_
    }


TASKS = states("Task")
RETRIERS = [
    (f"{name}-{number}", retrier)
    for name, state in TASKS.items()
    for number, retrier in enumerate(state["Retry"])
]
each_task = pytest.mark.parametrize("name", TASKS)
each_retrier = pytest.mark.parametrize(
    "retrier", [of for _, of in RETRIERS], ids=[name for name, _ in RETRIERS]
)


def following(state: dict[str, Any]) -> list[str]:
    """The states that may come after this one."""
    ways = [state[name] for name in ("Next", "Default") if name in state]
    return ways + [way["Next"] for way in [*state.get("Choices", []), *state.get("Catch", [])]]


def strings(node: Any) -> Iterator[tuple[str, str]]:
    """Every text of the definition with the name of its field."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, str):
            yield str(name), value
        elif isinstance(value, dict | list):
            yield from strings(value)


# --- names


def test_every_name_is_unique_over_all_maps() -> None:
    assert len(states()) == sum(len(machine["States"]) for machine in machines())


def test_placeholders_are_exactly_what_the_stack_substitutes() -> None:
    placeholders = set(re.findall(r"\$\{(\w+)\}", TEXT))
    assert placeholders == {"BucketName", *(f"{row.name}Arn" for row in STATES)}
    # The stack reads this file, and substitutes by the same table.
    assert ROOT / "statemachines/fan_out.asl.json" == workflow.DEFINITION
    source = inspect.getsource(workflow.Workflow._add_machine)
    assert '"BucketName": bucket.bucket_name' in source
    assert 'f"{row.name}Arn"' in source


def test_state_function_handler_and_placeholder_have_one_name() -> None:
    assert set(TASKS) == {row.name for row in STATES}
    for name, state in TASKS.items():
        assert state["Resource"] == "arn:aws:states:::lambda:invoke"
        assert state["Parameters"]["FunctionName"] == f"${{{name}Arn}}"
        assert FUNCTIONS[name].module == f"fan_out.{name.lower()}"
        assert callable(importlib.import_module(FUNCTIONS[name].module).handler)


@each_task
def test_an_answer_is_unwrapped_from_what_lambda_says_around_it(name: str) -> None:
    assert TASKS[name]["OutputPath"] == "$.Payload"


def test_a_handler_gets_what_it_reads() -> None:
    """A field that a handler reads from its event without a default is in its state's payload."""
    for name, state in TASKS.items():
        source = inspect.getsource(inspect.unwrap(importlib.import_module(FUNCTIONS[name].module).handler))
        sent = {field.removesuffix(".$") for field in state["Parameters"]["Payload"]}
        assert set(re.findall(r'event\["(\w+)"\]', source)) <= sent, name
        assert "jobId" in sent


# --- time


@each_task
def test_a_state_waits_longer_than_its_function_runs(name: str) -> None:
    # The function's own time-out comes first, so that its error, and not the state's, is what is seen.
    assert TASKS[name]["TimeoutSeconds"] > FUNCTIONS[name].timeout


def test_a_stuck_job_ends_some_day() -> None:
    assert 0 < MACHINE["TimeoutSeconds"] == LONGEST_JOB <= 14 * 86400


def test_nothing_waits_for_a_token_that_nobody_sends() -> None:
    assert "waitForTaskToken" not in TEXT
    assert not states("Wait")


# --- retries


@each_task
def test_lambdas_429_is_retried_patiently(name: str) -> None:
    (retrier,) = [of for of in TASKS[name]["Retry"] if "Lambda.TooManyRequestsException" in of["ErrorEquals"]]
    assert retrier["MaxAttempts"] >= 10
    assert retrier["MaxDelaySeconds"] >= 30


@each_retrier
def test_a_retrier_backs_off_with_jitter_or_never_retries(retrier: dict[str, Any]) -> None:
    if retrier["MaxAttempts"] == 0:
        assert set(retrier) == {"ErrorEquals", "MaxAttempts"}
        return
    assert retrier["JitterStrategy"] == "FULL"
    assert retrier["BackoffRate"] >= 1.5
    assert retrier["IntervalSeconds"] >= 1
    # Twelve doublings of a second are more than an hour.
    assert retrier["IntervalSeconds"] <= retrier["MaxDelaySeconds"] <= 300


@each_task
def test_what_is_not_named_is_retried_too_and_stands_last(name: str) -> None:
    assert alone_and_last(TASKS[name]["Retry"])
    assert TASKS[name]["Retry"][-1]["MaxAttempts"] > 0


@each_task
def test_permanent_errors_are_not_retried_and_come_first(name: str) -> None:
    for number, retrier in enumerate(TASKS[name]["Retry"]):
        for error in retrier["ErrorEquals"]:
            if error in RESERVED | OF_LAMBDA:
                continue
            is_transient = issubclass(getattr(errors, error), errors.RetryableError)
            assert (retrier["MaxAttempts"] > 0) == is_transient, error
            assert is_transient or number == 0, error


def test_every_error_that_is_never_retried_has_its_place_in_a_retrier() -> None:
    permanent = {
        name
        for name, class_ in vars(errors).items()
        if inspect.isclass(class_) and "Never retried" in (class_.__doc__ or "")
    }
    named = {
        error
        for state in TASKS.values()
        for retrier in state["Retry"]
        if retrier["MaxAttempts"] == 0
        for error in retrier["ErrorEquals"]
    }
    assert permanent == named


@each_task
def test_no_error_is_named_twice(name: str) -> None:
    named = [error for retrier in TASKS[name]["Retry"] for error in retrier["ErrorEquals"]]
    assert len(set(named)) == len(named)


def deaths_to_quarantine(tasks: int) -> int:
    """How many workers a deadly task ends until it is found alone and has killed DEADLY of them."""
    # The first dies unmarked. Each after it dies in a stretch, a part of the one before.
    deaths, suspects = 1, max(1, tasks // work.STRETCHES)
    while suspects > 1:
        deaths += 1
        suspects = max(1, suspects // work.STRETCHES)
    return deaths + work.DEADLY


def test_a_worker_is_retried_more_often_than_finding_a_deadly_task_takes() -> None:
    largest = next(
        of.le for of in JobInput.model_fields["shard_size"].metadata if getattr(of, "le", None) is not None
    )
    retries = TASKS["Worker"]["Retry"][-1]["MaxAttempts"]
    # And some for deaths of another reason meanwhile, which shows as a stuck shard if they are too many.
    assert retries >= deaths_to_quarantine(largest) + work.STALLS


# --- ways through


def test_every_state_can_be_reached_and_every_way_leads_on() -> None:
    for machine in machines():
        reached, waiting = set(), [machine["StartAt"]]
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += following(machine["States"][name])
        assert reached == set(machine["States"])


def test_only_succeed_and_fail_end_a_machine() -> None:
    for name, state in states().items():
        assert state["Type"] in {"Task", "Map", "Choice", "Succeed", "Fail"}, name
        assert "End" not in state, name
        assert bool(following(state)) == (state["Type"] not in {"Succeed", "Fail"}), name


def test_every_failure_of_the_job_reaches_the_reducer_and_the_reducers_own_a_fail_state() -> None:
    parent = MACHINE["States"]
    for name, state in parent.items():
        if state["Type"] in {"Task", "Map"}:
            assert alone_and_last(state["Catch"]), name
            assert len(state["Catch"]) == 1, name
            expected = "Unaccounted" if name == "Reducer" else "Reducer"
            assert state["Catch"][0]["Next"] == expected, name
    assert parent["Unaccounted"]["Type"] == "Fail"
    assert "Unaccounted" not in {
        way for name in parent if name != "Reducer" for way in following(parent[name])
    }


def test_nothing_is_caught_inside_a_map_so_that_its_tolerance_sees_it() -> None:
    for machine in machines():
        if machine is not MACHINE:
            assert not any("Catch" in state for state in machine["States"].values())


def test_every_loop_and_every_ending_looks_at_a_field_that_its_handler_always_answers() -> None:
    choices = states("Choice")
    for name, again in {"MoreToList": "Lister", "MoreToWork": "Worker", "MoreToReduce": "Reducer"}.items():
        (choice,) = choices[name]["Choices"]
        assert (choice["Variable"], choice["BooleanEquals"], choice["Next"]) == ("$.done", False, again)
    assert choices["AnyShards"]["Choices"][0] == {
        "Variable": "$.shards",
        "NumericEquals": 0,
        "Next": "Reducer",
    }
    assert choices["Outcome"]["Choices"][0] == {
        "Variable": "$.error",
        "IsNull": True,
        "Next": "Succeeded",
    }
    assert (choices["Outcome"]["Default"], choices["AnyShards"]["Default"]) == ("Failed", "Shards")


def test_a_job_ends_with_its_record_or_with_its_error() -> None:
    parent = MACHINE["States"]
    assert parent["Succeeded"]["OutputPath"] == "$.record"
    assert parent["Failed"]["Type"] == "Fail"
    assert (parent["Failed"]["ErrorPath"], parent["Failed"]["CausePath"]) == ("$.error.name", "$.error.cause")
    assert not {"Error", "Cause"} & set(parent["Failed"])


def test_every_error_name_is_reserved_or_one_of_ours() -> None:
    named = {
        error
        for state in states().values()
        for handler in [*state.get("Retry", []), *state.get("Catch", [])]
        for error in handler["ErrorEquals"]
    }
    ours = {
        name
        for name, class_ in vars(errors).items()
        if inspect.isclass(class_) and issubclass(class_, errors.FanOutError)
    }
    assert named <= RESERVED | OF_LAMBDA | ours
    assert named & ours


def alone_and_last(handlers: list[dict[str, Any]]) -> bool:
    """Whether States.ALL is the whole last handler, and in no other: Step Functions refuses it elsewhere."""
    *before, last = handlers
    return last["ErrorEquals"] == ["States.ALL"] and not any(
        "States.ALL" in of["ErrorEquals"] for of in before
    )


# --- maps


def test_the_shards_are_run_by_children_under_the_jobs_own_bounds() -> None:
    shards = MACHINE["States"]["Shards"]
    assert shards["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert shards["MaxConcurrencyPath"] == "$.workers"
    assert shards["ToleratedFailurePercentagePath"] == "$.toleratedFailurePercentage"
    assert shards["Label"] == "Shards"
    # A bound that stands in the file would win over, or clash with, the job's own.
    assert not {"MaxConcurrency", "ToleratedFailurePercentage", "ToleratedFailureCount", "ItemBatcher"} & set(
        shards
    )


def test_the_manifest_is_what_the_map_reads() -> None:
    reader = MACHINE["States"]["Shards"]["ItemReader"]
    assert reader["Resource"] == "arn:aws:states:::s3:getObject"
    assert reader["ReaderConfig"] == {"InputType": "JSONL"}
    assert reader["Parameters"] == {"Bucket": "${BucketName}", "Key.$": "$.manifestKey"}


def test_what_the_children_answer_goes_to_the_bucket_and_not_into_the_state() -> None:
    shards = MACHINE["States"]["Shards"]
    assert shards["ResultWriter"]["Resource"] == "arn:aws:states:::s3:putObject"
    assert shards["ResultWriter"]["Parameters"]["Bucket"] == "${BucketName}"
    assert shards["ResultWriter"]["Parameters"]["Prefix.$"] == "States.Format('jobs/{}/results', $.jobId)"
    assert "ResultPath" in shards
    assert shards["ResultPath"] is None


def test_the_listing_runs_a_bounded_number_of_segments_at_a_time() -> None:
    segments = MACHINE["States"]["Segments"]
    assert segments["ItemProcessor"]["ProcessorConfig"] == {"Mode": "INLINE"}
    # An inline map runs at most 40 at a time.
    assert 1 <= segments["MaxConcurrency"] <= 40
    # The one result that is kept has a few numbers a segment, of which there are few.
    assert segments["ResultPath"] == "$.listing"


def test_a_worker_learns_its_attempt_from_the_machine() -> None:
    payload = TASKS["Worker"]["Parameters"]["Payload"]
    assert payload["attempt.$"] == "$$.State.RetryCount"
    assert MACHINE["States"]["Shards"]["ItemSelector"]["resume"] is False


# --- language


def test_everything_is_json_path() -> None:
    assert MACHINE["QueryLanguage"] == "JSONPath"
    assert "JSONata" not in TEXT
    assert "{%" not in TEXT
    for machine in machines():
        assert machine is MACHINE or "QueryLanguage" not in machine
    for state in states().values():
        assert not {"Arguments", "Output", "Assign", "Items", "Condition", "QueryLanguage"} & set(state)


def test_a_path_stands_where_a_path_is_read() -> None:
    paths = {"Variable", "ItemsPath", "OutputPath", "ErrorPath", "CausePath", "ResultPath"}
    for name, value in strings(MACHINE):
        is_path = value.startswith("$.") or value == "$" or value.startswith(("$$.", "States."))
        if name in paths or name.endswith((".$", "Path")):
            assert is_path, (name, value)
        elif not name.isdecimal():
            assert not is_path, (name, value)


def test_every_state_says_what_it_is_for() -> None:
    for name, state in states().items():
        if state["Type"] in {"Task", "Map"}:
            assert state.get("Comment"), name
