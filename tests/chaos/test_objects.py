"""Stray objects in a job's prefix change nothing; missing ones are named, and the job fails."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from fan_out.aws import clients as aws
from tests.chaos.scenarios import (
    Answer,
    Scenario,
    baseline,
    check_same,
    check_tally,
    disturb,
    finalize,
    read,
    undisturbed,
)
from tests.support import machine as machines
from tests.support.machine import BUCKET, Boundary, Machine, key, names

SCENARIO = Scenario("daily-plan", 16, shard_size=3)

STRAYS = {
    # Of a step whose attempt listed something else and died before its part.
    "shards/0000-000000-000000-00000000deadbeef.jsonl": b'{"id":"stray"}\n',
    "shards/0000-000001-000000-00000000deadbeef.jsonl": b'{"id":"stray"}\n',
    # Of steps and segments that the listing does not have.
    "parts/0000-000007.json": b'{"shards":[{"key":"x","count":9,"bytes":9}],"skipped":0,"cursor":null}',
    "parts/0009-000000.json": b'{"shards":[{"key":"x","count":9,"bytes":9}],"skipped":0,"cursor":null}',
    # Of shards that the manifest does not have, and of attempts that were not the first to commit.
    "partials/00009999.json": b'{"counts":{"succeeded":9,"failed":0,"quarantined":0,"unprocessed":0}}',
    "partials/00000000-00000000deadbeef.lines": b"0 stray\t{}\n",
    "checkpoints/00009999.json": b"{}",
    "reduce/0-0000000-00000000deadbeef.lines": b"0 stray\t{}\n",
    "reduce/7-0000000.json": b"{}",
    "results/whatever/SUCCEEDED_0.json": b"[]",
}


def test_stray_objects_of_dead_attempts_are_never_taken_in(machine: Machine) -> None:
    expected = baseline(machine, SCENARIO)
    machine.wipe()
    SCENARIO.lay_out()
    for name, body in STRAYS.items():
        aws.s3().put_object(Bucket=BUCKET, Key=key(name), Body=body)
    answer = read(machine.run(SCENARIO.document()))
    check_tally(machine, answer)
    check_same(answer, expected)


def lose(name: Callable[[str], bool], function: str) -> Callable[[Boundary, Callable[[], Any]], Any]:
    """Delete the first object so named before the first call of the function; `lost` keeps its name."""
    lost: list[str] = []

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.service == "states" and boundary.function == function and not lost:
            lost.append(next(each for each in names() if name(each)))
            aws.s3().delete_object(Bucket=BUCKET, Key=key(lost[0]))
        return cross()

    around.lost = lost  # type: ignore[attr-defined]
    return around


def run_without(machine: Machine, around: Any) -> tuple[Answer, str]:
    machine.wipe()
    SCENARIO.lay_out()
    machine.around = around
    answer = read(machine.run(SCENARIO.document() | {"toleratedFailurePercentage": 100}))
    undisturbed(machine)
    return answer, around.lost[0]


def test_a_missing_shard_fails_the_job_and_is_named(machine: Machine) -> None:
    answer, lost = run_without(machine, lose(lambda name: name.startswith("shards/"), "Worker"))
    record = answer.record
    assert answer.ended.error == record["error"]["name"] == "AccountingError"
    assert lost in record["error"]["message"]
    assert "Shard 0" in record["error"]["message"]
    counts = record["counts"]
    assert counts["listed"] == sum(counts.values()) - counts["listed"]
    assert 0 < counts["unprocessed"] <= SCENARIO.shard_size
    assert record["shards"]["failed"] == 1
    # Nobody knows which tasks these were: a retry of what the account names would leave them out.
    check_all_is_had_by_a_retry(machine)


def check_all_is_had_by_a_retry(machine: Machine) -> None:
    ended = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert ended.status == "SUCCEEDED", ended
    assert read(ended, "job-2").plan == baseline(machine, SCENARIO).plan


def test_a_missing_part_fails_the_job_and_is_named(machine: Machine) -> None:
    answer, lost = run_without(machine, lose(lambda name: name.startswith("parts/"), "Manifest"))
    assert answer.ended.error == answer.record["error"]["name"] == "AccountingError"
    assert lost in answer.record["error"]["message"]


def test_the_tasks_of_a_missing_partial_are_unprocessed(machine: Machine) -> None:
    answer, _ = run_without(
        machine,
        lose(lambda name: name.startswith("partials/") and name.endswith(".json"), "Reducer"),
    )
    check_tally(machine, answer)
    assert answer.record["status"] == "PARTIAL"
    assert answer.record["shards"]["failed"] == 1
    assert answer.record["counts"]["unprocessed"] == len(answer.failures) > 0


@pytest.mark.parametrize("kept", ["partials/", "manifest.jsonl"])
def test_an_object_that_the_reducer_needs_is_named(machine: Machine, kept: str) -> None:
    around = lose(lambda name: name.startswith(kept) and not name.endswith(".json"), "Reducer")
    answer, lost = run_without(machine, around)
    assert answer.ended.status == "FAILED"
    if not answer.has_record:
        finalize(machine)
        answer = read(answer.ended)
    record = answer.record
    assert record["status"] == "FAILED"
    assert record["error"]["name"] == "AccountingError"
    assert lost in record["error"]["message"]
    counts = record["counts"]
    assert counts["listed"] == sum(counts.values()) - counts["listed"] > 0
    check_all_is_had_by_a_retry(machine)


def test_a_manifest_that_lost_lines_fails_the_job(machine: Machine) -> None:
    machine.wipe()
    SCENARIO.lay_out()

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        answer = cross()
        if boundary.service == "states" and boundary.function == "Manifest":
            kept = machines.stored("manifest.jsonl").splitlines(keepends=True)[:-1]
            aws.s3().put_object(Bucket=BUCKET, Key=key("manifest.jsonl"), Body=b"".join(kept))
        return answer

    machine.around = around
    answer = read(machine.run(SCENARIO.document()))
    assert answer.ended.status == "FAILED"
    undisturbed(machine)
    if not answer.has_record:
        finalize(machine)
    assert read(answer.ended).record["error"]["name"] == "AccountingError"


def test_a_manifest_that_names_a_shard_twice_fails_the_job(machine: Machine) -> None:
    """Though its sums are right."""
    machine.wipe()
    SCENARIO.lay_out()

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        answer = cross()
        if boundary.service == "states" and boundary.function == "Manifest":
            lines = [json.loads(line) for line in machines.stored("manifest.jsonl").splitlines()]
            first, second = next(
                pair for pair in itertools.combinations(lines, 2) if pair[0]["count"] == pair[1]["count"]
            )
            second |= first
            body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            aws.s3().put_object(Bucket=BUCKET, Key=key("manifest.jsonl"), Body=body)
        return answer

    machine.around = around
    answer = read(machine.run(SCENARIO.document() | {"toleratedFailurePercentage": 100}))
    assert answer.ended.status == "FAILED"
    assert answer.record["error"]["name"] == "AccountingError"


def test_a_shard_that_lost_a_task_fails_the_job(machine: Machine) -> None:
    machine.wipe()
    SCENARIO.lay_out()

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.service == "states" and boundary.function == "Manifest":
            name = next(each for each in names() if each.startswith("shards/"))
            kept = machines.stored(name).splitlines(keepends=True)[:-1]
            aws.s3().put_object(Bucket=BUCKET, Key=key(name), Body=b"".join(kept))
        return cross()

    machine.around = around
    answer = read(machine.run(SCENARIO.document() | {"toleratedFailurePercentage": 100}))
    assert answer.ended.error == "AccountingError"
    assert "Shard 0" in answer.record["error"]["message"]
    # Nobody has worked on what is left of it.
    assert answer.record["shards"]["failed"] == 1


def test_faults_without_objects_leave_no_trace_of_suspicion(machine: Machine) -> None:
    run = disturb(machine, SCENARIO)
    assert run.answer.ended.status == "SUCCEEDED"
    assert not [name for name in names() if name.startswith("checkpoints/")]
