"""Mass failure stops a job early; failures within its tolerance never do."""

from __future__ import annotations

from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from fan_out.outcomes import Counts
from fan_out.work import proves_mass_failure
from tests.chaos.scenarios import check_account, read
from tests.machine import Machine, make_tasks, put_tasks


def test_a_job_whose_tasks_all_fail_works_on_few_shards(machine: Machine) -> None:
    put_tasks(make_tasks(80))
    answer = read(
        machine.run({"kind": "poison", "params": {"refuse_all": True}, "shardSize": 2, "maxConcurrency": 1})
    )
    check_account(machine, answer)
    counts, shards = answer.record["counts"], answer.record["shards"]
    assert answer.record["status"] == "FAILED"
    assert answer.record["error"]["name"] == "ToleranceExceededError"
    worked = {call.event["shard"]["index"] for call in machine.calls if call.function == "Worker"}
    assert len(worked) <= shards["planned"] * 0.05 + 2
    assert counts["failed"] == len(worked) * 2
    assert counts["unprocessed"] == counts["listed"] - counts["failed"]
    assert {line["outcome"] for line in answer.failures} == {"failed", "unprocessed"}


def test_a_job_that_tolerates_everything_is_worked_on_to_its_end(machine: Machine) -> None:
    put_tasks(make_tasks(20))
    document = {"kind": "poison", "params": {"refuse_all": True}, "shardSize": 2}
    answer = read(machine.run(document | {"toleratedFailurePercentage": 100}))
    check_account(machine, answer)
    assert answer.record["status"] == "PARTIAL"
    assert answer.record["counts"]["failed"] == 20


def test_a_job_fails_when_it_exceeds_its_tolerance_by_one_task(machine: Machine) -> None:
    tasks = make_tasks(40)
    put_tasks(tasks)
    for bad, status in ((2, "PARTIAL"), (3, "FAILED")):
        refused = [task["id"] for task in tasks[:bad]]
        document = {"kind": "poison", "params": {"refuse": refused}, "shardSize": 10}
        answer = read(machine.run(document, f"job-{bad}"), f"job-{bad}")
        assert answer.record["status"] == status
        assert answer.record["counts"]["failed"] == bad
        # Too few to prove anything early: every shard was worked on.
        assert answer.record["counts"]["unprocessed"] == 0


@settings(deadline=None, derandomize=True, max_examples=500)
@given(data=st.data())
def test_a_job_within_its_tolerance_is_never_stopped_early(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    failed = [data.draw(st.integers(0, size)) for size in sizes]
    tolerated = data.draw(st.one_of(st.integers(0, 100), st.floats(0, 100)))
    listed, shards = sum(sizes), len(sizes)
    proofs = sum(
        proves_mass_failure(
            {"counts": asdict(Counts(succeeded=size - bad, failed=bad))},
            listed=listed,
            shards=shards,
            tolerated=tolerated,
        )
        for size, bad in zip(sizes, failed, strict=True)
    )
    is_stopped = proofs * 100 > tolerated * shards
    is_within = sum(failed) * 100 <= tolerated * listed
    assert not (is_stopped and is_within)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(shards=st.integers(1, 1000), size=st.integers(1, 500), tolerated=st.floats(0, 99))
def test_every_shard_whose_tasks_all_failed_counts(shards: int, size: int, tolerated: float) -> None:
    committed = {"counts": asdict(Counts(failed=size))}
    assert proves_mass_failure(committed, listed=shards * size, shards=shards, tolerated=tolerated)
