"""Mass failure stops a job early; failures within its tolerance never do."""

from __future__ import annotations

import random

from tests.chaos.scenarios import check_tally, read
from tests.support.machine import Machine, make_tasks, put_tasks


def test_a_job_whose_tasks_all_fail_works_on_few_shards(machine: Machine) -> None:
    put_tasks(make_tasks(80))
    answer = read(machine.run({"kind": "poison", "params": {"refuse_all": True}, "shardSize": 2, "maxConcurrency": 1}))
    check_tally(machine, answer)
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
    check_tally(machine, answer)
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


def test_a_job_whose_every_other_task_fails_is_stopped_early(machine: Machine) -> None:
    tasks = make_tasks(200)
    put_tasks(tasks)
    refused = [task["id"] for task in random.Random(2).sample(tasks, 100)]
    answer = read(machine.run({"kind": "poison", "params": {"refuse": refused}, "shardSize": 5}))
    check_tally(machine, answer)
    counts = answer.record["counts"]
    assert answer.record["error"]["name"] == "ToleranceExceededError"
    assert 10 < counts["failed"] < 35
    assert counts["unprocessed"] > 140
