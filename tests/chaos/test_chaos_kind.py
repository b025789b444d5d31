"""The kind that brings its own faults, for runs on real processes, is exact about what comes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from kinds import chaos
from tests.chaos.scenarios import check_tally, read
from tests.support import machine as machines
from tests.support.machine import KilledError, Machine, make_tasks, put_tasks


def end(way: str) -> None:
    raise KilledError


@pytest.mark.parametrize("seed", range(4))
def test_a_job_under_its_own_faults_comes_to_what_was_expected(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    monkeypatch.setattr(chaos, "die", end)
    tasks = make_tasks(120, seed)
    put_tasks(tasks)
    params = {
        "seed": seed,
        "scratch": str(tmp_path),
        "crashes": 0.1,
        "throttles": 0.2,
        "losses": 0.1,
        "poison": 0.03,
    }
    answer = read(machine.run({"kind": "chaos", "params": params, "shardSize": 20, "toleratedFailurePercentage": 100}))
    check_tally(machine, answer)
    expected = chaos.expected(chaos.Rates(**params), [task["id"] for task in tasks])
    assert answer.record["result"] == expected["result"]
    outcomes = {line["task"]["id"]: line["outcome"] for line in answer.failures}
    assert outcomes == dict.fromkeys(expected["quarantined"], "quarantined")
    versions = Counter(task["version"] for task in machines.tasks().values())
    assert versions[2] >= expected["result"]["changed"]
    assert set(versions) <= {1, 2}
    changed = {task["id"] for task in machines.tasks().values() if task["version"] == 2}
    assert changed == {task["id"] for task in tasks} - expected["quarantined"]
    assert list(tmp_path.rglob("*")), "no fault has struck"


def test_without_rates_nothing_goes_wrong(machine: Machine, tmp_path: Path) -> None:
    tasks = make_tasks(40)
    put_tasks(tasks)
    answer = read(machine.run({"kind": "chaos", "params": {"scratch": str(tmp_path)}, "shardSize": 10}))
    assert answer.record["status"] == "SUCCEEDED"
    ids = [task["id"] for task in tasks]
    assert answer.record["result"] == chaos.expected(chaos.Rates(), ids)["result"]
    assert not list(tmp_path.iterdir())
