"""Every object of a job, damaged in every way: the job ends, its record is true or names the object, and a retry
follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fan_out.aws import clients as aws
from fan_out.aws.storage import JobStore
from fan_out.model.documents import encode
from fan_out.steps import reduction
from task_service.aws import dynamodb
from tests.support import machine as machines
from tests.support.context import Context
from tests.support.factories import task
from tests.support.machine import BUCKET, Boundary, Ended, KilledError, Machine, key, names, put_tasks

COUNT = 5
DOCUMENT = {"kind": "trial", "shardSize": 2, "toleratedFailurePercentage": 100}
# What the job comes to without damage: one of its tasks fails.
WHOLE = {"listed": 5, "succeeded": 4, "failed": 1, "quarantined": 0, "unprocessed": 0}
NUMBERS = {
    "count",
    "listed",
    "shards",
    "skipped",
    "succeeded",
    "failed",
    "next",
    "done",
    "deaths",
    "shardSize",
}


def with_numbers(body: bytes, change: Callable[[int], int]) -> bytes:
    """The same document, or lines of documents, with other counts."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            name: change(each) if name in NUMBERS and isinstance(each, int) else walk(each)
            for name, each in value.items()
        }

    try:
        return b"\n".join(encode(walk(json.loads(line))) for line in body.splitlines())
    except ValueError:
        # Lines of a kind's file have a key before their JSON.
        return body.replace(b"length", b"height")


# From the object's bytes and those of the same object of another job.
DAMAGES: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "missing": lambda body, other: None,
    "empty": lambda body, other: b"",
    "truncated": lambda body, other: body[: len(body) // 2],
    "null": lambda body, other: b"null",
    "{}": lambda body, other: b"{}",
    "[]": lambda body, other: b"[]",
    "wrong counts": lambda body, other: with_numbers(body, lambda number: number + 1),
    "another job's": lambda body, other: other,
}


@dataclass(frozen=True)
class Target:
    """The first object whose name begins and ends so, at the call of this number of a function.

    `is_made_again` says that the job does not need it; `planted` that it is there before its time; `is_deadly` that
    workers die at their checkpoints and markers, so that there are some.
    """

    begin: str
    end: str
    function: str
    call: int = 0
    is_made_again: bool = False
    planted: bool = False
    is_deadly: bool = False

    def find(self, job_id: str) -> str | None:
        found = [name for name in names(job_id) if name.startswith(self.begin) and name.endswith(self.end)]
        return min(found, default=None)


TARGETS = {
    "plan before listing": Target("job.json", "", "Lister"),
    "plan before working": Target("job.json", "", "Worker"),
    "plan before reducing": Target("job.json", "", "Reducer"),
    "part": Target("parts/", ".json", "Manifest"),
    "planted part": Target("parts/", ".json", "Lister", is_made_again=True, planted=True),
    "sums": Target("manifest.json", ".json", "Reducer"),
    "manifest": Target("manifest.jsonl", "", "Reducer"),
    "shard": Target("shards/", ".jsonl", "Worker"),
    "partial": Target("partials/", ".json", "Reducer"),
    "planted partial": Target("partials/", "0.json", "Worker", is_made_again=True, planted=True),
    "lines of a partial": Target("partials/", ".lines", "Reducer"),
    "failures of a partial": Target("partials/", ".failures", "Reducer"),
    "checkpoint": Target("checkpoints/", "0.json", "Worker", 2, is_made_again=True, is_deadly=True),
    "marker": Target("checkpoints/", ".marker.json", "Worker", 2, is_made_again=True, is_deadly=True),
    "node": Target("reduce/0", ".json", "Reducer", 1),
    "planted node": Target("reduce/0", ".json", "Reducer", is_made_again=True, planted=True),
    "lines of a node": Target("reduce/0", ".lines", "Reducer", 1),
    "failures of a node": Target("reduce/0", ".failures", "Reducer", 1),
    "marker of the reduction": Target("reduce/marker", ".json", "Reducer", 1, is_made_again=True),
    "planted root": Target("root", ".json", "Reducer", is_made_again=True, planted=True),
    "planted record": Target("record", ".json", "Reducer", is_made_again=True, planted=True),
}


def put(job_id: str, name: str, body: bytes | None) -> None:
    if body is None:
        aws.s3().delete_object(Bucket=BUCKET, Key=key(name, job_id))
    else:
        aws.s3().put_object(Bucket=BUCKET, Key=key(name, job_id), Body=body)


def run(machine: Machine, job_id: str, target: Target, way: str | None) -> tuple[Ended, str | None]:
    """Run the job with this damage, if any; and the name of the damaged object."""
    calls = [0]
    damaged: list[str] = []

    def damage(way: str) -> None:
        source = "whole" if target.planted else job_id
        if (name := target.find(source)) is not None:
            other = target.find("other")
            assert other is not None
            body = DAMAGES[way](machines.stored(name, source), machines.stored(other, "other"))
            put(job_id, name, body)
            damaged.append(name)

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if (boundary.service, boundary.function) == ("states", target.function):
            if calls[0] == target.call and way is not None:
                damage(way)
            calls[0] += 1
            if target.is_deadly and calls[0] == 1:
                raise KilledError
        answer = cross()
        request = boundary.request
        saved = request.url if request is not None and boundary.operation == "PutObject" else ""
        if target.is_deadly and "/checkpoints/" in saved and saved.endswith(target.end) and calls[0] <= 2:
            raise KilledError
        return answer

    machine.around = around
    # A reducer makes one node a call.
    machine.contexts["Reducer"] = lambda: Context(iter([900_000, *[1] * 99]).__next__)
    try:
        return machine.run(DOCUMENT, job_id), damaged[0] if damaged else None
    finally:
        machine.around = lambda boundary, cross: cross()
        machine.contexts.clear()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_damaged_object_is_lost_and_named(
    machine: Machine, trial: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "FAN_IN", 2)
    monkeypatch.setattr("fan_out.model.plan.SEGMENTS", 1)
    put_tasks([task(number) for number in range(100, 104)])
    trial.on |= {"task-00001": ValueError("no"), "task-00101": ValueError("no")}
    run(machine, "other", target, None)
    reset_tasks(COUNT)
    assert run(machine, "whole", target, None)[0].output["counts"] == WHOLE
    for number, way in enumerate(DAMAGES):
        job_id = f"job-{number}"
        ended, name = run(machine, job_id, target, way)
        assert name is not None
        check_record(ended, job_id, name, way, target)
        if way in ("missing", "truncated"):
            check_retry(machine, job_id, way)


def reset_tasks(count: int) -> None:
    for task_id in machines.tasks():
        dynamodb().delete_item(TableName=machines.TABLE, Key={"id": {"S": task_id}})
    put_tasks([task(number) for number in range(count)])


def check_record(ended: Ended, job_id: str, name: str, way: str, target: Target) -> None:
    record = json.loads(machines.stored("record.json", job_id))
    counts, error = record["counts"], record.get("error")
    assert counts["listed"] == sum(counts.values()) - counts["listed"], (way, counts)
    assert min(counts.values()) >= 0
    assert counts["listed"] in (0, COUNT)
    if target.is_made_again:
        assert (counts, record["status"], ended.output) == (WHOLE, "PARTIAL", record), (way, error)
    elif way == "missing" and name.endswith("0.json") and name.startswith("partials/"):
        # No different from a shard that no worker has finished.
        assert (record["status"], counts["unprocessed"], error) == ("PARTIAL", 2, None)
    else:
        assert (record["status"], ended.error) == ("FAILED", "AccountingError"), (way, record)
        assert error is not None
        assert key(name, job_id) in error["message"], (way, error)


def check_retry(machine: Machine, job_id: str, way: str) -> None:
    """A retry does all that is left, or says why it cannot."""
    ended = machine.run({"source": {"failedIn": job_id}}, f"{job_id}-again")
    if ended.error == "InvalidJobError":
        assert "job.json can be read" in str(ended.cause), way
        return
    assert ended.output is not None, (way, ended)
    both = [json.loads(machines.stored("record.json", each)) for each in (job_id, f"{job_id}-again")]
    # The one that always fails is retried and fails again.
    done = sum(record["counts"]["succeeded"] for record in both if "resultUrl" in record)
    assert done == WHOLE["succeeded"] or both[1]["counts"] == WHOLE, (way, both)


@pytest.mark.parametrize("way", [way for way in DAMAGES if way != "missing"])
def test_a_damaged_list_of_failures_is_not_retried_from(
    machine: Machine, trial: Any, store: JobStore, way: str
) -> None:
    put_tasks([task(number) for number in range(COUNT)])
    trial.on["task-00001"] = ValueError("no")
    machine.run(DOCUMENT)
    body = machines.stored("failures.jsonl")
    damaged = DAMAGES[way](body, b'{"task":{"id":"task-00009"}}\n')
    put("job-1", "failures.jsonl", body[:-9] if damaged == body else damaged)
    ended = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert ended.output["counts"] == WHOLE
