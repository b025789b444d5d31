"""Tasks are created, changed and deleted while a job lists: who is there throughout is listed exactly once."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import task_service.aws
from tests.chaos.faults import Drawn, Faults, Trouble
from tests.chaos.scenarios import Sizes, check_tally, read, short_lived
from tests.support import machine as machines
from tests.support.machine import Boundary, Machine, make_tasks, names, put_tasks

TROUBLES = {
    Trouble.LOST: 1.0,
    Trouble.KILL_AFTER: 1.0,
    Trouble.PARTIAL: 1.0,
    Trouble.TWICE: 1.0,
    Trouble.LATE: 1.0,
    Trouble.RACE: 1.0,
    Trouble.THROTTLE: 1.0,
}


def listed() -> Counter[str]:
    """How often each task is in a shard of the manifest."""
    found: Counter[str] = Counter()
    for line in machines.stored("manifest.jsonl").splitlines():
        name = json.loads(line)["key"].removeprefix("work/job-1/")
        found.update(json.loads(task)["id"] for task in machines.stored(name).splitlines())
    return found


@pytest.mark.parametrize("rate", [0.0, 0.1], ids=["no faults", "faults"])
@pytest.mark.parametrize("seed", range(6))
def test_tasks_that_exist_throughout_are_listed_exactly_once(machine: Machine, seed: int, rate: float) -> None:
    chance = random.Random(seed)
    there = {task["id"]: task for task in make_tasks(40, seed, complete=0.0)}
    put_tasks(list(there.values()))
    throughout = set(there)
    ever = set(there)
    faults = Faults(machine, chance, Drawn(chance, rate, TROUBLES, is_bounded=True))
    changes: Counter[str] = Counter()

    def change() -> None:
        what = chance.choice(["create", "change", "delete"])
        changes[what] += 1
        if what == "create":
            task = make_tasks(1, chance.randrange(10**6), complete=0.0)[0]
            task["id"] = f"new-{chance.randrange(16**6):06x}"
            there[task["id"]] = task
            ever.add(task["id"])
            put_tasks([task])
            return
        task_id = chance.choice(sorted(there))
        if what == "delete":
            task_service.aws.dynamodb().delete_item(TableName=machines.TABLE, Key={"id": {"S": task_id}})
            del there[task_id]
            throughout.discard(task_id)
            return
        there[task_id] = there[task_id] | {"title": "Changed", "version": there[task_id]["version"] + 1}
        put_tasks([there[task_id]])

    is_changing = False

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        nonlocal is_changing
        if boundary.operation == "Scan" and not is_changing and chance.random() < 0.5:
            # Whoever changes tasks is not in the way of the faults.
            is_changing = True
            change()
            is_changing = False
        return cross() if is_changing else faults.around(boundary, cross)

    machine.around = around
    machine.contexts["Lister"] = lambda: short_lived(chance.randrange(3))
    with Sizes(page=2).set():
        answer = read(machine.run({"shardSize": 3}))
    check_tally(machine, answer)
    assert answer.record["status"] == "SUCCEEDED"
    found = listed()
    assert {task_id: found[task_id] for task_id in throughout} == dict.fromkeys(throughout, 1)
    assert set(found) <= ever
    assert max(found.values()) == 1
    assert answer.record["counts"]["listed"] == found.total()
    assert changes.total() > 3


@pytest.mark.parametrize(
    ("is_a_change_before", "is_first_heard"),
    [
        pytest.param(True, True, id="change first, first heard"),
        pytest.param(True, False, id="change first, second heard", marks=pytest.mark.soak),
        pytest.param(False, True, id="change last, first heard", marks=pytest.mark.soak),
        pytest.param(False, False, id="change last, second heard", marks=pytest.mark.soak),
    ],
)
def test_of_two_listers_that_see_different_tasks_one_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, is_first_heard: bool, is_a_change_before: bool
) -> None:
    """One of them is taken for dead and goes on, at every boundary of its work, before and after the other."""
    monkeypatch.setattr("fan_out.model.plan.SEGMENTS", 1)
    tasks = make_tasks(9, complete=0.0)
    deleted = tasks[4]["id"]
    throughout = {task["id"] for task in tasks} - {deleted}
    number = 0
    while True:
        number += 1
        machine.wipe()
        put_tasks(tasks)
        machine.contexts["Lister"] = lambda: short_lived(1)
        answers: list[Any] = []
        crossed = [0]

        def change() -> None:
            task_service.aws.dynamodb().delete_item(TableName=machines.TABLE, Key={"id": {"S": deleted}})
            put_tasks([tasks[0] | {"id": "a-new-one"}])

        def around(
            boundary: Boundary,
            cross: Callable[[], Any],
            number: int = number,
            answers: list[Any] = answers,
            crossed: list[int] = crossed,
            change: Callable[[], None] = change,
        ) -> Any:
            if boundary.service == "states":
                answer = cross()
                heard = answers[0] if answers and not is_first_heard and boundary.function == "Lister" else None
                answers[:] = [False] if answers else []
                return heard or answer
            if boundary.function == "Lister":
                crossed[0] += 1
                if crossed[0] == number and not answers:
                    answers.append(False)
                    if is_a_change_before:
                        change()
                    answers[0] = machine.call("Lister", boundary.event)
                    if not is_a_change_before:
                        change()
            return cross()

        machine.around = around
        with Sizes(page=2).set():
            answer = read(machine.run({"shardSize": 3}))
        if crossed[0] < number:
            assert number > 10
            return
        check_tally(machine, answer)
        assert answer.record["status"] == "SUCCEEDED"
        found = listed()
        assert {task_id: found[task_id] for task_id in throughout} == dict.fromkeys(throughout, 1)
        assert max(found.values()) == 1


@pytest.mark.parametrize("scans", [1, 30])
def test_empty_pages_do_not_end_a_listing(machine: Machine, monkeypatch: pytest.MonkeyPatch, scans: int) -> None:
    """A page that holds nothing but what the filter drops is empty and has a key."""
    monkeypatch.setattr("task_service.store.MOST_SCANS", scans)
    tasks = make_tasks(60, 5, complete=0.9)
    put_tasks(tasks)
    chance = random.Random(0)
    short = Drawn(chance, 1.0, {Trouble.PARTIAL: 1.0}, is_bounded=False)
    machine.around = Faults(machine, chance, short).around
    answer = read(machine.run({"shardSize": 3}))
    expected = {task["id"] for task in tasks if not task["isComplete"]}
    assert listed() == Counter(expected)
    assert answer.record["counts"]["listed"] == len(expected)
    assert len([name for name in names() if name.startswith("parts/")]) >= 4


def test_a_users_edit_during_the_jobs_write_is_kept(machine: Machine) -> None:
    """Between the look at a task and the write to it there is time for somebody else."""
    tasks = [task | {"isComplete": False, "dueAt": "2026-11-01T00:00:00Z"} for task in make_tasks(6)]
    put_tasks(tasks)
    edited = tasks[2] | {"title": "Edited by a user", "version": 2}
    edits: list[Boundary] = []

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        is_write = boundary.request is not None and edited["id"] in str(boundary.request.body)
        if boundary.operation == "UpdateItem" and is_write and not edits:
            edits.append(boundary)
            machine.around = lambda boundary, cross: cross()
            put_tasks([edited])
            machine.around = around
        return cross()

    machine.around = around
    document = {"kind": "reschedule-overdue", "shardSize": 10, "toleratedFailurePercentage": 100}
    answer = read(machine.run(document))
    check_tally(machine, answer)
    assert machines.tasks()[edited["id"]] == edited
    assert [line["error"]["name"] for line in answer.failures] == ["VersionConflictError"]
    assert answer.record["counts"]["succeeded"] == 5
