"""Functions whose time is over save what they have and are called again; the job's answer is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fan_out.steps import reduction
from fan_out.steps.kind_merger import MARKER
from kinds import daily_plan, import_tasks, reschedule_overdue
from tests.chaos.scenarios import (
    SCENARIOS,
    Scenario,
    Sizes,
    baseline,
    check_same,
    check_tally,
    disturb,
    short_lived,
)
from tests.chaos.scenarios import read as read_answer
from tests.support.machine import Boundary, KilledError, Machine


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (daily_plan.DailyPlan, import_tasks.ImportTasks, reschedule_overdue.RescheduleOverdue):
        monkeypatch.setattr(module, "batch", 1)


@pytest.mark.parametrize("looks", [0, 1, 3])
@pytest.mark.parametrize("kind", SCENARIOS)
def test_short_lived_functions_come_to_the_same_answer(machine: Machine, kind: str, looks: int) -> None:
    scenario = Scenario(kind, 18, shard_size=6)
    expected = baseline(machine, scenario)
    patient: Counter[str] = Counter()
    with Sizes(page=2, fan_in=2).set():
        run = disturb(machine, scenario)
        check_same(run.answer, expected)
        patient.update(call.function for call in machine.calls)
        for name in ("Lister", "Worker", "Reducer"):
            machine.contexts[name] = lambda: short_lived(looks)
        hurried = disturb(machine, scenario)
    check_tally(machine, hurried.answer)
    check_same(hurried.answer, expected)
    called = Counter(call.function for call in machine.calls)
    assert called["Lister"] > patient["Lister"] or looks
    if looks == 0:
        assert called["Worker"] > hurried.answer.record["shards"]["planned"]
        assert called["Reducer"] > patient["Reducer"]


def test_the_clock_makes_a_worker_save_long_before_its_deadline(machine: Machine) -> None:
    scenario = Scenario("reschedule-overdue", 30, shard_size=30)
    expected = baseline(machine, scenario)
    machine.clock.tick = 45.0
    run = disturb(machine, scenario)
    check_same(run.answer, expected)
    saved = [
        boundary
        for boundary in run.boundaries
        if boundary.operation == "PutObject" and "/checkpoints/" in boundary.request.url
    ]
    assert saved
    assert not [each for each in saved if "marker" in each.request.url]


def test_a_reduction_of_many_levels_goes_on_from_where_it_was(machine: Machine) -> None:
    scenario = Scenario("daily-plan", 40, shard_size=1)
    expected = baseline(machine, scenario)
    machine.contexts["Reducer"] = lambda: short_lived(0)
    with Sizes(fan_in=2, wide=1000).set():
        run = disturb(machine, scenario)
        nodes = run.answer.record["shards"]["planned"]
        inner = 0
        while nodes > reduction.FAN_IN:
            nodes = -(-nodes // 2)
            inner += nodes
    check_same(run.answer, expected)
    # One node a call, and no call does what another did.
    calls = [call for call in machine.calls if call.function == "Reducer"]
    assert len(calls) >= inner
    written = Counter(
        boundary.request.url
        for boundary in run.boundaries
        if boundary.function == "Reducer"
        and boundary.operation == "PutObject"
        and not boundary.request.url.endswith(MARKER)
    )
    assert max(written.values()) == 1


def test_a_dead_reducers_committed_work_is_not_repeated(machine: Machine) -> None:
    scenario = Scenario("daily-plan", 24, shard_size=1)
    expected = baseline(machine, scenario)
    commits: list[str] = []
    read: Counter[str] = Counter()

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        answer = cross()
        if boundary.function == "Reducer" and boundary.request is not None:
            name = boundary.request.url.partition("/job-1/")[2]
            read[name] += boundary.operation == "GetObject"
            is_node = name.startswith("reduce/") and name.endswith(".json") and name != MARKER
            if boundary.operation == "PutObject" and is_node:
                commits.append(name)
                # It dies behind some leaves and some nodes above them.
                if len(commits) in (3, 8, 12, 14):
                    raise KilledError
        return answer

    machine.wipe()
    scenario.lay_out()
    machine.around = around
    with Sizes(fan_in=2).set():
        answer = read_answer(machine.run(scenario.document()))
    check_same(answer, expected)
    assert len(commits) == len(set(commits)) > 14
    assert commits[12].startswith("reduce/1")
    assert {count for name, count in read.items() if name.startswith("partials/")} == {1}
