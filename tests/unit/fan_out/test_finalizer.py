from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from moto.backends import get_backend

from fan_out import finalizer
from fan_out.aws import clients as aws
from fan_out.aws.storage import Bucket, JobStore
from fan_out.errors import ServiceUnavailableError
from fan_out.steps.finalizing import SWEPT, finalize, status_change
from tests.support.context import Context
from tests.support.events import execution_ended
from tests.support.factories import put_plan, task
from tests.support.machine import (
    ACCOUNT,
    BUCKET,
    REGION,
    Call,
    KilledError,
    Machine,
    make_tasks,
    names,
    put_tasks,
)

# 2026-11-23T09:00:00.123Z, as EventBridge says it.
ENDINGS = {
    "ABORTED": ("STOPPED", "JobStoppedError"),
    "TIMED_OUT": ("FAILED", "JobTimedOutError"),
    "FAILED": ("FAILED", "ExecutionFailedError"),
}


def call(machine: Machine, status: str, job_id: str = "job-1") -> Any:
    return machine.call("Finalizer", execution_ended(status, job_id))


class StoppedError(BaseException):
    """The execution is stopped here: neither the function nor the machine goes on."""


def stop_at(machine: Machine, function: str, number: int, **asked: Any) -> None:
    """Run a job and stop it before the n-th call of a function."""
    seen = 0

    def before(call: Call) -> None:
        nonlocal seen
        if call.function == function:
            seen += 1
            if seen > number:
                raise StoppedError

    machine.before = before
    with pytest.raises(StoppedError):
        machine.run({"shardSize": 5} | asked)
    machine.before = lambda call: None


@pytest.mark.parametrize("status", ENDINGS)
def test_a_job_that_ended_midway_gets_its_record(machine: Machine, store: JobStore, status: str) -> None:
    put_tasks(make_tasks(30, complete=0))
    stop_at(machine, "Worker", 3)
    assert not store.has("record.json")
    expected, error = ENDINGS[status]
    assert call(machine, status) == {"jobId": "job-1", "status": expected}
    record = store.require("record.json")
    assert (record["status"], record["error"]["name"]) == (expected, error)
    assert record["counts"]["listed"] == 30
    assert sum(record["counts"].values()) == 60
    assert record["counts"]["succeeded"] > 0
    assert record["counts"]["unprocessed"] > 0
    unprocessed = [json.loads(line.text) for line in store.lines("failures.jsonl")]
    assert len(unprocessed) == record["counts"]["unprocessed"]


@pytest.mark.parametrize("status", ENDINGS)
def test_a_job_that_ended_while_listing_lists_no_tasks(machine: Machine, store: JobStore, status: str) -> None:
    put_tasks(make_tasks(30))
    stop_at(machine, "Lister", 2)
    assert call(machine, status)["status"] == ENDINGS[status][0]
    record = store.require("record.json")
    assert record["kind"] == "daily-plan"
    assert record["counts"]["listed"] == 0
    assert record["startedAt"] == "2026-11-23T09:00:00Z"
    assert record["error"]["name"] == ENDINGS[status][1]
    assert "record.json" in names()


def test_a_job_that_never_had_a_plan_has_a_record_too(machine: Machine, store: JobStore) -> None:
    call(machine, "ABORTED")
    record = store.require("record.json")
    assert (record["status"], record["kind"], record["startedAt"]) == (
        "STOPPED",
        None,
        "2026-11-23T09:00:00Z",
    )


@pytest.mark.parametrize("status", ENDINGS)
def test_a_job_that_has_its_record_keeps_it(machine: Machine, store: JobStore, status: str) -> None:
    put_tasks(make_tasks(10))
    machine.run()
    before = store.bucket.get(store.key("record.json"))
    assert call(machine, status) == {"jobId": "job-1", "status": "SUCCEEDED"}
    assert store.bucket.get(store.key("record.json")) == before


def test_a_refused_job_keeps_the_reason_that_its_reducer_wrote(machine: Machine, store: JobStore) -> None:
    machine.run({"shardSize": 0})
    assert call(machine, "FAILED")["status"] == "FAILED"
    assert store.require("record.json")["error"]["name"] == "InvalidJobError"


def test_a_job_without_its_reducers_record_gets_it_here(machine: Machine, store: JobStore) -> None:
    put_tasks([task(number) for number in range(9)])

    def die(call: Call) -> None:
        if call.function == "Reducer":
            raise KilledError

    machine.before = die
    assert machine.run({"shardSize": 2}).error == "RecordNotWrittenError"
    machine.before = lambda call: None
    assert call(machine, "FAILED")["status"] == "FAILED"
    assert store.require("record.json")["counts"]["succeeded"] == 9


def test_a_record_may_take_several_calls(machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fan_out.steps.reduction.FAN_IN", 2)
    put_tasks([task(number) for number in range(30)])
    stop_at(machine, "Worker", 3)
    machine.contexts["Finalizer"] = lambda: Context(iter([900_000, 900_000, *[1] * 99]).__next__)
    with pytest.raises(ServiceUnavailableError, match="takes another call"):
        call(machine, "ABORTED")
    machine.contexts.clear()
    assert [name for name in names() if name.startswith("reduce/")]
    assert call(machine, "ABORTED")["status"] == "STOPPED"


def test_a_kind_that_kills_the_finalizer_costs_the_result(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks([task(number) for number in range(30)])
    stop_at(machine, "Worker", 3, kind="trial")

    def kill(*_: Any) -> Any:
        raise KilledError

    monkeypatch.setattr(type(trial), "merge", kill)
    # Lambda calls an asynchronous function three times.
    for _ in range(2):
        with pytest.raises(KilledError):
            call(machine, "ABORTED")
    assert call(machine, "ABORTED")["status"] == "STOPPED"
    record = store.require("record.json")
    assert record["counts"]["listed"] == 30 == sum(record["counts"].values()) - 30
    assert "result" not in record


def test_a_stopped_job_can_be_retried_over_what_it_did_not_reach(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\n" + b"".join(b"Row %d\n" % n for n in range(20)))

    def stop(call: Call) -> None:
        if call.function == "Worker" and call.event["shard"]["index"] == 2:
            raise StoppedError

    machine.before = stop
    with pytest.raises(StoppedError):
        machine.run({"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}, "shardSize": 5})
    machine.before = lambda call: None
    call(machine, "ABORTED")
    retried = machine.run({"source": {"failedIn": "job-1"}}, "job-2").output
    assert (retried["status"], retried["origin"]) == ("SUCCEEDED", "job-1")
    assert retried["counts"]["listed"] == store.require("record.json")["counts"]["unprocessed"] == 10


def test_a_job_that_was_stopped_while_planned_keeps_its_kind(machine: Machine, store: JobStore) -> None:
    put_plan(store, kind="reschedule-overdue")
    call(machine, "TIMED_OUT")
    assert store.require("record.json")["kind"] == "reschedule-overdue"


def test_a_status_change_is_made_as_eventbridge_sends_it() -> None:
    event = execution_ended("ABORTED")
    detail = event["detail"]
    dates = {name: datetime.fromtimestamp(detail[name] / 1000, UTC) for name in ("startDate", "stopDate")}
    del detail["input"], detail["output"]
    assert status_change(detail | dates | {"more": 1}) == event


# --- one call at a time


def other_call(machine: Machine, status: str = "ABORTED") -> Any:
    machine.contexts["Finalizer"] = lambda: Context(aws_request_id="another")
    try:
        return call(machine, status)
    finally:
        machine.contexts.clear()


def test_a_call_beside_another_leaves_the_job_to_it(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would count as a death of the other one, and cost the job its result."""
    put_tasks([task(number) for number in range(30)])
    stop_at(machine, "Worker", 3, kind="trial")
    beside: list[Any] = []
    merge = type(trial).merge

    def merged(*arguments: Any) -> Any:
        if len(beside) < 4:
            beside.append(None)
            beside[-1] = other_call(machine)
        return merge(*arguments)

    monkeypatch.setattr(type(trial), "merge", merged)
    assert call(machine, "ABORTED")["status"] == "STOPPED"
    assert beside == [{"jobId": "job-1", "status": "FINALIZING"}] * 4
    assert "result" in store.require("record.json")


def test_a_call_that_died_is_followed_by_another(
    machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_plan(store)
    store.put_once(finalizer.LEASE, {"call": "one that died", "begun": time.time()})
    assert call(machine, "ABORTED")["status"] == "FINALIZING"
    now = time.time() + finalizer.LEASED
    monkeypatch.setattr("fan_out.finalizer.time", SimpleNamespace(time=lambda: now))
    assert call(machine, "ABORTED")["status"] == "STOPPED"


# --- the sweep


@pytest.fixture
def executions(machine: Machine) -> Iterator[list[Any]]:
    """Step Functions' executions of the machine, which end as a test says."""
    backend = get_backend("stepfunctions")[ACCOUNT][REGION]
    boto3.client("stepfunctions").create_state_machine(
        name="FanOut",
        definition='{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}',
        roleArn=f"arn:aws:iam::{ACCOUNT}:role/machine",
    )
    yield backend.state_machines[-1].executions
    backend.state_machines.clear()


def end(executions: list[Any], job_id: str, status: str) -> None:
    arn = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:FanOut"
    started = boto3.client("stepfunctions").start_execution(stateMachineArn=arn, name=job_id)
    boto3.client("stepfunctions").stop_execution(executionArn=started["executionArn"])
    executions[-1].status = status


def sweep(machine: Machine) -> Any:
    return machine.call("Finalizer", {"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}})


def recorded(job_id: str) -> Any:
    return JobStore(Bucket(BUCKET), job_id).get("record.json")


def test_a_sweep_finalizes_every_job_without_a_record(machine: Machine, executions: list[Any]) -> None:
    for status in (*ENDINGS, "SUCCEEDED", "RUNNING"):
        end(executions, f"job-{status}", status)
    machine.run({"shardSize": 0}, "refused")
    end(executions, "refused", "FAILED")
    assert sweep(machine) == {"finalized": 3}
    assert {name: recorded(f"job-{name}")["status"] for name in ENDINGS} == {
        name: status for name, (status, _) in ENDINGS.items()
    }
    assert recorded("job-SUCCEEDED") is recorded("job-RUNNING") is None
    assert recorded("refused")["error"]["name"] == "InvalidJobError"
    assert sweep(machine) == {"finalized": 0}


def test_a_sweep_reads_every_page_of_executions(
    machine: Machine, executions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        end(executions, f"job-{number}", "ABORTED")
    client = aws.step_functions()
    paginator = client.get_paginator("list_executions")
    paged = paginator.paginate
    monkeypatch.setattr(paginator, "paginate", lambda **asked: paged(**asked, PaginationConfig={"PageSize": 2}))
    monkeypatch.setattr(client, "get_paginator", lambda _: paginator)
    assert sweep(machine) == {"finalized": 5}


def test_a_sweep_leaves_the_jobs_of_earlier_weeks(
    machine: Machine, executions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    end(executions, "job-1", "ABORTED")
    now = time.time() + SWEPT.total_seconds() + 60
    monkeypatch.setattr("fan_out.finalizer.time", SimpleNamespace(time=lambda: now))
    assert sweep(machine) == {"finalized": 0}
    assert recorded("job-1") is None


def test_a_job_that_fails_the_sweep_stops_no_other(
    machine: Machine, executions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        end(executions, f"job-{number}", "ABORTED")

    def failing(store: JobStore, *arguments: Any, **named: Any) -> Any:
        if store.job_id == "job-1":
            raise ServiceUnavailableError("not now")
        return finalize(store, *arguments, **named)

    monkeypatch.setattr("fan_out.finalizer.finalize", failing)
    # Lambda repeats the call, and the dead-letter queue gets it in the end.
    with pytest.raises(ServiceUnavailableError, match="not now"):
        sweep(machine)
    assert recorded("job-0")["status"] == recorded("job-2")["status"] == "STOPPED"
    assert recorded("job-1") is None


def test_a_late_sweep_ends_and_is_repeated(machine: Machine, executions: list[Any]) -> None:
    for number in range(3):
        end(executions, f"job-{number}", "ABORTED")
    machine.contexts["Finalizer"] = lambda: Context(iter([900_000, 900_000, 900_000, *[1] * 99]).__next__)
    with pytest.raises(ServiceUnavailableError, match="takes another call"):
        sweep(machine)
    machine.contexts.clear()
    assert cast("int", sweep(machine)["finalized"]) == 2


# --- the metric of failed jobs


def counted(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """The metrics of failed jobs that were written to the log."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return [metric for metric in map(json.loads, lines) if "JobsFailed" in metric]


@pytest.mark.parametrize(
    ("document", "status", "count"),
    [
        ({"kind": "trial", "shardSize": 5}, "FAILED", 1),
        ({"maxCostUsd": 0.0000001}, "FAILED", 1),
        ({"shardSize": 0}, "FAILED", 0),
        ({"kind": "import-tasks", "source": {"csv": "uploads/none.csv"}}, "FAILED", 0),
        ({}, "SUCCEEDED", 0),
    ],
)
def test_a_failed_job_is_counted_and_a_refused_one_is_not(
    machine: Machine,
    store: JobStore,
    trial: Any,
    capsys: pytest.CaptureFixture[str],
    document: Any,
    status: str,
    count: int,
) -> None:
    trial.on.update(dict.fromkeys((f"task-{number:05d}" for number in range(5)), ValueError("no")))
    put_tasks([task(number) for number in range(5)])
    machine.run(document)
    assert store.require("record.json")["status"] == status
    # The execution's end is an event, too.
    call(machine, "FAILED")
    metrics = counted(capsys)
    assert [metric["JobsFailed"] for metric in metrics] == [[1.0]] * count
    assert all((metric["StackName"], metric["service"]) == ("FanOut", "test") for metric in metrics)


@pytest.mark.parametrize(("status", "count"), [("ABORTED", 0), ("TIMED_OUT", 1), ("FAILED", 1)])
def test_a_job_that_failed_early_is_counted_once(
    machine: Machine, store: JobStore, capsys: pytest.CaptureFixture[str], status: str, count: int
) -> None:
    put_tasks([task(number) for number in range(9)])
    stop_at(machine, "Worker", 1)
    for _ in range(2):
        call(machine, status)
    assert len(counted(capsys)) == count


def test_of_two_attempts_only_one_counts_the_job(
    machine: Machine, store: JobStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks([task(number) for number in range(9)])
    stop_at(machine, "Worker", 1)
    put_once, beside = JobStore.put_once, iter([True])

    def late(store: JobStore, name: str, *arguments: Any) -> Any:
        if name == "record.json" and next(beside, False):
            monkeypatch.setattr("fan_out.steps.finalizing.now", lambda: "2026-11-23T10:00:00Z")
            call(machine, "FAILED")
        return put_once(store, name, *arguments)

    monkeypatch.setattr(JobStore, "put_once", late)
    call(machine, "FAILED")
    assert len(counted(capsys)) == 1
