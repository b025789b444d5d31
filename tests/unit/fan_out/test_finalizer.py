from __future__ import annotations

import json
from typing import Any

import pytest

from fan_out.aws.storage import JobStore
from fan_out.errors import ServiceUnavailableError
from tests.support.context import Context
from tests.support.events import execution_ended
from tests.support.factories import put_plan, task
from tests.support.machine import Call, KilledError, Machine, make_tasks, names, put_tasks

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
    assert machine.run({"shardSize": 2}).error == "UnaccountedJobError"
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
