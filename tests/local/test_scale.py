"""The flow on the embedded AWS at the size that the promises are made for; minutes, so not in every check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import Deployment, deployed
from tests.support.kinds.chaos import DETAIL, WAYS, Rates, expected, poison
from tests.support.machine import make_tasks
from tests.support.plan import plan

# One deployment for all: they stay together when the soak is shared out among processes.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600), pytest.mark.xdist_group("scale")]

AS_OF = "2026-11-23T09:00:00Z"
TASKS = 100_000


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("scale")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def tasks(aws: Deployment) -> list[dict[str, Any]]:
    tasks = make_tasks(TASKS)
    aws.put_tasks(tasks)
    return tasks


def test_a_hundred_thousand_tasks_are_planned_exactly(aws: Deployment, tasks: list[dict[str, Any]]) -> None:
    execution = aws.start({"params": {"asOf": AS_OF}}, "plan")
    record = json.loads(aws.wait(execution, 600)["output"])
    expected = plan(tasks, AS_OF, "UTC", top=5)
    assert record["counts"] == {
        "listed": len(expected.lines),
        "succeeded": len(expected.lines),
        "failed": 0,
        "quarantined": 0,
        "unprocessed": 0,
    }
    assert aws.lines("plan", "plan.jsonl") == expected.lines
    assert max(size for _, _, size in aws.payloads(execution)) < 32 * 1024


def test_the_parent_execution_grows_by_its_mergers_alone(aws: Deployment, tasks: list[dict[str, Any]]) -> None:
    open_tasks = sum(not task["isComplete"] for task in tasks)
    histories = []
    for size, job_id in ((10_000, "few"), (8, "many")):
        execution = aws.start({"params": {"asOf": AS_OF, "top": 0}, "shardSize": size}, job_id)
        record = json.loads(aws.wait(execution, 1200)["output"])
        assert record["counts"]["succeeded"] == open_tasks
        assert (record["shards"]["planned"] <= 12) if size == 10_000 else (record["shards"]["planned"] >= 10_000)
        histories.append(aws.payloads(execution))
    few, many = histories
    merging = {"Nodes", "Merger", "MoreToMerge", "Merged"}
    assert {(kind, state) for kind, state, _ in few} == {
        (kind, state) for kind, state, _ in many if state not in merging
    }
    # Mergers share 157 leaves in 23 spans, and three nodes above them, however many tasks or shards there are.
    assert len(many) - len(few) == 2 * (3 * 26 + 2 * 3)
    assert sum(size for _, _, size in many) - sum(size for _, _, size in few) < 50_000
    assert aws.stored("few", "plan.jsonl") == aws.stored("many", "plan.jsonl")


def test_chaos_at_scale_applies_every_effect_once(aws: Deployment, tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    # A quarter of the poisoned tasks hang until their workers' time is over: let that be soon.
    aws.set_timeout("Worker", 40)
    ids = {task["id"] for task in tasks}
    rates = {"seed": 7, "scratch": str(tmp_path), "poison": 0.001}
    faults = {"crashes": 0.05, "throttles": 0.1, "losses": 0.02}
    records = {}
    for job_id, params in (("with-faults", rates | faults), ("without", rates)):
        records[job_id] = aws.run({"kind": "chaos", "params": params, "shardSize": 100}, job_id, 1800)
    record = records["with-faults"]
    known = expected(Rates.model_validate(rates), ids)
    assert {poison(Rates.model_validate(rates), task_id) for task_id in ids} == {None, *WAYS}
    assert record["status"] == "PARTIAL"
    assert 1000 <= record["shards"]["planned"] == record["shards"]["done"]
    assert record["counts"] == {
        "listed": TASKS,
        "succeeded": TASKS - len(known["quarantined"]),
        "failed": 0,
        "quarantined": len(known["quarantined"]),
        "unprocessed": 0,
    }
    assert len(known["quarantined"]) > 50
    assert aws.stored("with-faults", "result.json") == aws.stored("without", "result.json")
    assert record["result"] == known["result"]
    lines = aws.lines("with-faults", "failures.jsonl")
    assert {line["task"]["id"]: line["outcome"] for line in lines} == dict.fromkeys(known["quarantined"], "quarantined")
    assert len(lines) == len(known["quarantined"])
    for kind, rate in faults.items():
        # Each fault is noted where it strikes, once; that it is noted shows that it did.
        assert len(list(tmp_path.glob(f"with-faults@*/*{kind}-*"))) > 1000 * rate / 2
    for task in aws.tasks():
        is_changed = task["id"] not in known["quarantined"]
        assert (task["version"], task.get("detail") == DETAIL) == ((2, True) if is_changed else (1, False))
