"""Every object of a job, damaged in every way: the job ends, its record is true or names the object, and a retry
follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fan_out.aws import clients as aws
from fan_out.aws.storage import JobStore
from fan_out.steps import reduction
from task_service.aws import dynamodb
from tests.support import damage, hostile
from tests.support import machine as machines
from tests.support.context import Context
from tests.support.damage import COUNT, DAMAGES, DOCUMENT, TARGETS, WHOLE, Damager, Target
from tests.support.factories import task
from tests.support.machine import BUCKET, Boundary, Ended, KilledError, Machine, put_tasks

# The bucket of each test's deployment.
OBJECTS = damage.Bucket(aws.s3, BUCKET)
# The kind of these jobs is found once this is imported.
assert hostile.CASES


def die() -> None:
    raise KilledError


def run(machine: Machine, job_id: str, target: Target, way: str | None) -> tuple[Ended, str | None]:
    """Run the job with this damage, if any; and the name of the damaged object."""
    damager = Damager(OBJECTS, job_id, target, way, die)
    calls: dict[str, int] = {}

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.service != "states":
            answer = cross()
            if boundary.request is not None and boundary.operation == "PutObject":
                damager.saved(boundary.request.url)
            return answer
        number = calls.get(boundary.function, 0)
        calls[boundary.function] = number + 1
        damager.before(boundary.function, number)
        answer = cross()
        damager.after(boundary.function, number)
        return answer

    machine.around = around
    # A reducer makes one node a call.
    machine.contexts["Reducer"] = lambda: Context(iter([900_000, *[1] * 99]).__next__)
    try:
        return machine.run(DOCUMENT, job_id), damager.damaged
    finally:
        machine.around = lambda boundary, cross: cross()
        machine.contexts.clear()


def record_of(job_id: str) -> Any:
    return json.loads(machines.stored("record.json", job_id))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_damaged_object_is_lost_and_named(machine: Machine, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "FAN_IN", 2)
    monkeypatch.setattr("fan_out.model.plan.SEGMENTS", 1)
    put_tasks([task(number) for number in range(100, 104)])
    run(machine, f"other-{target.source}", target, None)
    reset_tasks(COUNT)
    assert run(machine, f"whole-{target.source}", target, None)[0].output["counts"] == WHOLE
    for number, way in enumerate(DAMAGES):
        job_id = f"job-{number}"
        ended, name = run(machine, job_id, target, way)
        assert name is not None
        damage.check_record(record_of(job_id), vars(ended), job_id, name, way, target)
        if way in ("missing", "truncated"):
            again = f"{job_id}-again"
            ended = machine.run({"source": {"failedIn": job_id}}, again)
            records = [record_of(each) for each in (job_id, again)]
            damage.check_retry(vars(ended), records, way)


def reset_tasks(count: int) -> None:
    for task_id in machines.tasks():
        dynamodb().delete_item(TableName=machines.TABLE, Key={"id": {"S": task_id}})
    put_tasks([task(number) for number in range(count)])


@pytest.mark.parametrize("way", [way for way in DAMAGES if way != "missing"])
def test_a_damaged_list_of_failures_is_not_retried_from(
    machine: Machine, trial: Any, store: JobStore, way: str
) -> None:
    put_tasks([task(number) for number in range(COUNT)])
    trial.on["task-00001"] = ValueError("no")
    machine.run({**DOCUMENT, "kind": "trial", "params": {}})
    body = machines.stored("failures.jsonl")
    damaged = DAMAGES[way](body, b'{"task":{"id":"task-00009"}}\n')
    OBJECTS.write("job-1", "failures.jsonl", body[:-9] if damaged == body else damaged)
    ended = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert ended.output["counts"] == WHOLE


def test_a_retry_without_its_plan_says_that_it_is_lost(machine: Machine, trial: Any, store: JobStore) -> None:
    put_tasks([task(number) for number in range(COUNT)])
    trial.on["task-00001"] = ValueError("no")
    machine.run({**DOCUMENT, "kind": "trial", "params": {}})
    OBJECTS.write("job-1", "job.json", None)
    ended = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert ended.error == "InvalidJobError"
    assert "job.json can be read" in str(ended.cause)


def test_the_table_names_every_object_of_a_job() -> None:
    """So that a new object gets its damages: the guide's list of objects is the table's."""
    named = {target.begin for target in TARGETS.values()} | set(damage.AFTERWARDS)
    guide = (
        (machines.ROOT / "docs/how-it-works.md").read_text().partition("## A job's objects")[2].partition("\n### ")[0]
    )
    listed = [line.split("`")[1].replace("{level}", "0") for line in guide.splitlines() if line.startswith("| `")]
    assert len(listed) >= 15
    # Empty ones, those that Step Functions writes, another kind's file and the Finalizer's lease.
    beside = ("excess", "results/", "plan.jsonl", "reduce/finalizer.json")
    for name in listed:
        assert name.startswith(beside) or any(name.startswith(each) for each in named), name
