"""Tasks that kill their worker are found and quarantined; every other task of their shard succeeds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fan_out.steps.quarantine import DEADLY, QUARANTINES, STALLS
from kinds import poison
from tests.chaos.faults import DEATHS, Faults
from tests.chaos.scenarios import Answer, check_tally, read, short_lived
from tests.support.machine import Boundary, CallError, KilledError, Machine, make_tasks, names, put_tasks

# Each of them is found by a few deaths, and each search by a few calls more.
CALLS_PER_TASK = 8


def run(machine: Machine, count: int, shard_size: int, **bad: Any) -> tuple[Answer, list[str]]:
    """A job over so many tasks; `bad` has their positions in one shard's order, by what they do."""
    ids = [task["id"] for task in make_tasks(count)]
    put_tasks([task | {"isComplete": False} for task in make_tasks(count)])
    order = [ids[position] for position in range(count)]
    params = {name: [order[position] for position in positions] for name, positions in bad.items()}
    document = {
        "kind": "poison",
        "params": params,
        "shardSize": shard_size,
        "toleratedFailurePercentage": 100,
    }
    answer = read(machine.run(document))
    check_tally(machine, answer)
    return answer, [task_id for each in params.values() for task_id in each]


@pytest.fixture(autouse=True)
def _one_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a test can say where in its shard a task is.
    monkeypatch.setattr("fan_out.model.plan.SEGMENTS", 1)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.soak), 5, 500])
@pytest.mark.parametrize(
    "positions",
    [
        [0],
        [39],
        [0, 39],
        [3, 4, 5],
        [0, 1, 17, 38, 39],
        pytest.param([7], marks=pytest.mark.soak),
        pytest.param(list(range(0, 40, 4)), marks=pytest.mark.soak),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["kill", pytest.param("hang", marks=pytest.mark.soak)])
def test_only_the_tasks_that_end_workers_are_quarantined(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, way: str, positions: list[int], batch: int
) -> None:
    monkeypatch.setattr(poison.Poison, "batch", batch)
    answer, bad = run(machine, 40, 40, **{way: positions})
    assert answer.record["status"] == "PARTIAL"
    assert {line["task"]["id"]: line["outcome"] for line in answer.failures} == dict.fromkeys(bad, "quarantined")
    assert answer.record["result"] == {"done": 40 - len(bad)}
    assert {line["attempts"] for line in answer.failures} == {DEADLY}
    calls = [call for call in machine.calls if call.function == "Worker"]
    assert len(calls) <= 1 + CALLS_PER_TASK * len(bad)


def test_tasks_that_hang_until_the_timeout_are_quarantined(machine: Machine) -> None:
    answer, bad = run(machine, 20, 20, hang=[0, 9, 10])
    assert {line["task"]["id"]: line["outcome"] for line in answer.failures} == dict.fromkeys(bad, "quarantined")
    assert answer.record["counts"]["succeeded"] == 17


def test_a_shard_of_nothing_but_poison_is_quarantined_whole(machine: Machine) -> None:
    answer, _ = run(machine, 9, 9, kill=list(range(9)))
    assert answer.record["counts"] == {
        "listed": 9,
        "succeeded": 0,
        "failed": 0,
        "quarantined": 9,
        "unprocessed": 0,
    }


def test_memory_errors_and_exits_cost_no_worker(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison.Poison, "batch", 10)
    answer, _ = run(machine, 30, 10, memory=[0, 13], exit=[9, 29], kill=[20])
    assert {line["error"]["name"] for line in answer.failures} == {
        "MemoryError",
        "SystemExit",
        "QuarantinedError",
    }
    assert answer.record["counts"]["failed"] == 4
    assert answer.record["counts"]["succeeded"] == 25


def test_a_job_without_deaths_pays_nothing_for_what_finds_them(machine: Machine) -> None:
    answer, _ = run(machine, 30, 5, refuse=[3, 11])
    assert answer.record["counts"]["failed"] == 2
    assert not [name for name in names() if name.startswith("checkpoints/")]
    read_objects = [call for call in machine.calls if call.function == "Worker"]
    assert len(read_objects) == 6


def test_workers_that_die_for_reasons_of_their_own_cost_no_task(machine: Machine) -> None:
    deaths = 0
    for seed in range(6):
        machine.wipe()
        put_tasks(make_tasks(60))
        chance = random.Random(seed)

        # One call in twenty dies: a worker's call has some five boundaries.
        def choose(boundary: Boundary, chance: random.Random = chance) -> Any:
            if boundary.function != "Worker" or boundary.service == "states" or chance.random() >= 0.01:
                return None
            return chance.choice(sorted(DEATHS, key=lambda death: death.name)), False

        faults = Faults(machine, chance, choose)
        machine.around = faults.around
        answer = read(machine.run({"kind": "poison", "shardSize": 5}))
        deaths += len(faults.happened)
        check_tally(machine, answer)
        assert answer.record["status"] == "SUCCEEDED", seed
    assert deaths > 6 * 10 * 0.05 / 2


def test_neighbours_of_a_dead_worker_are_cleared(machine: Machine) -> None:
    """An error that is not a death blames nobody, however often it comes while a task is in flight."""
    ids = [task["id"] for task in make_tasks(10)]
    put_tasks(make_tasks(10))
    fails = {"left": 6}

    def around(boundary: Boundary, cross: Any) -> Any:
        answer = cross()
        if boundary.function == "Worker" and boundary.operation == "PutObject" and fails["left"]:
            fails["left"] -= 1
            if fails["left"] == 5:
                raise KilledError
            raise PermissionError("an error of the worker's own")
        return answer

    machine.around = around
    answer = read(machine.run({"kind": "poison", "shardSize": 10}))
    check_tally(machine, answer)
    assert answer.record["status"] == "SUCCEEDED"
    assert answer.record["counts"]["succeeded"] == len(ids)


def test_a_shard_whose_workers_die_at_once_is_given_up(machine: Machine) -> None:
    put_tasks(make_tasks(8))
    begun = []

    def around(boundary: Boundary, cross: Any) -> Any:
        if boundary.request is not None and "/shards/" in boundary.request.url and boundary.function == "Worker":
            begun.append(boundary)
            raise KilledError
        return cross()

    machine.around = around
    answer = read(machine.run({"kind": "poison", "shardSize": 8}))
    check_tally(machine, answer)
    assert answer.record["status"] == "FAILED"
    assert answer.record["counts"]["unprocessed"] == 8
    assert answer.record["shards"] == {"planned": 1, "done": 0, "failed": 1}
    # The first leaves no trace.
    assert len(begun) == STALLS + 2


@pytest.mark.parametrize("looks", [0, 2])
def test_rare_deaths_never_make_a_long_shard_stuck(machine: Machine, looks: int) -> None:
    """A shard of many calls may lose one worker after the other, as long as each of them got somewhere."""
    put_tasks(make_tasks(40))
    machine.contexts["Worker"] = lambda: short_lived(looks)
    lost = []

    def around(boundary: Boundary, cross: Any) -> Any:
        answer = cross()
        # The first answer after each good one gets lost.
        if boundary.service == "states" and boundary.function == "Worker" and not boundary.event["attempt"]:
            lost.append(boundary)
            raise CallError("States.Timeout")
        return answer

    machine.around = around
    answer = read(machine.run({"kind": "poison", "shardSize": 40}))
    check_tally(machine, answer)
    assert answer.record["status"] == "SUCCEEDED"
    assert len(lost) > STALLS


def test_a_kind_that_kills_on_every_task_is_accounted_for(machine: Machine) -> None:
    answer, _ = run(machine, 30, 30, kill=list(range(30)))
    counts = answer.record["counts"]
    assert counts["succeeded"] == 0
    assert QUARANTINES < counts["quarantined"] < 30
    assert counts["quarantined"] + counts["unprocessed"] == 30
    assert answer.record["shards"]["failed"] == 1
