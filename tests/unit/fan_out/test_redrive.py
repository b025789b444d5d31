"""An execution that is redriven enters its machine again, with its name, its start and the input of the state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fan_out.aws.storage import JobStore
from tests.support.events import execution_ended
from tests.support.factories import task
from tests.support.machine import (
    DEFINITION,
    Call,
    Ended,
    Machine,
    StoppedError,
    forget_processes,
    names,
    put_tasks,
    stored,
    tasks,
)

# Every third task has changed meanwhile, and fails.
COUNT, FAILING = 30, range(0, 30, 3)
# The states at which a job can have failed, been stopped or timed out.
STATES = ("Planner", "Segments", "Manifest", "AnyShards", "Shards", "Reducer")


def first_run(machine: Machine, document: dict[str, Any], stop_at: str | None = None) -> dict[str, Any]:
    """Run a job, and finalize it if it is stopped; the input of each of its states."""
    put_tasks([task(number, dueAt="2026-11-01T00:00:00Z") for number in range(COUNT)])
    inputs: dict[str, Any] = {"Planner": document}

    def before(call: Call) -> None:
        if call.function == "Manifest":
            put_tasks([task(number, dueAt="2026-11-02T00:00:00Z", version=2) for number in FAILING])
        if call.function == stop_at and call.event.get("shard", {}).get("index", 2) >= 2:
            raise StoppedError

    def after(call: Call, answer: Any) -> Any:
        if call.function == "Planner":
            inputs["Segments"] = answer
        if call.function == "Manifest":
            inputs["Manifest"] = inputs["Segments"] | {"listing": call.event["listing"]}
            inputs.update(dict.fromkeys(("AnyShards", "Shards", "Reducer"), answer))
        return answer

    machine.before, machine.after = before, after
    status = machine.run(document).status
    machine.before, machine.after = lambda call: None, lambda call, answer: answer
    machine.call("Finalizer", execution_ended(status if status != "SUCCEEDED" else "FAILED"))
    forget_processes()
    return inputs


def redrive(machine: Machine, state: str, entered_with: Any) -> Ended:
    definition = json.loads(DEFINITION.read_text()) | {"StartAt": state}
    return machine.run(entered_with, definition=json.dumps(definition))


def outcome() -> tuple[Any, ...]:
    """All that a job has done: its record, result and failures, and the tasks."""
    kept = ("record.json", "result.json", "failures.jsonl")
    return (*(stored(name) for name in kept if name in names()), tasks())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("tolerated", "status"), [(50, "PARTIAL"), (0, "FAILED")], ids=["a job that ended well", "one that failed"]
)
def test_a_redriven_job_changes_no_record_and_no_task(
    machine: Machine, store: JobStore, state: str, tolerated: int, status: str
) -> None:
    document = {"kind": "reschedule-overdue", "shardSize": 5, "toleratedFailurePercentage": tolerated}
    inputs = first_run(machine, document)
    before = outcome()
    assert json.loads(before[0])["status"] == status
    ended = redrive(machine, state, inputs[state])
    assert outcome() == before
    assert ended.status == ("FAILED" if status == "FAILED" else "SUCCEEDED")


@pytest.mark.parametrize("state", ["Planner", "Segments", "Manifest", "Reducer"])
def test_a_stopped_job_that_is_redriven_works_on_nothing(machine: Machine, store: JobStore, state: str) -> None:
    inputs = first_run(machine, {"kind": "reschedule-overdue", "shardSize": 5}, stop_at="Worker")
    before = outcome()
    assert json.loads(before[0])["counts"]["unprocessed"] > 0
    machine.calls.clear()
    ended = redrive(machine, state, inputs[state])
    assert outcome() == before
    assert (ended.status, ended.error) == ("FAILED", "JobStoppedError")
    assert not [call for call in machine.calls if call.function == "Worker"]
