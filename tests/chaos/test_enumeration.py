"""One fault at a time, at every boundary that a job crosses: its answer is the one without faults, to the byte."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

import pytest

from tests.chaos.faults import Trouble, applies, at
from tests.chaos.scenarios import (
    SCENARIOS,
    Scenario,
    Sizes,
    ViolationError,
    baseline,
    check_same,
    check_tally,
    disturb,
)
from tests.support.machine import Boundary, Call, Machine

WRITES = {"PutObject", "BatchExecuteStatement", "PutItem", "UpdateItem", "Invoke"}
WRITES |= {"CreateMultipartUpload", "CompleteMultipartUpload"}
# Trees of several levels, objects of several blocks, uploads of several parts.
SMALL = Sizes(fan_in=2, block=700, part=500)


def boundaries(machine: Machine, scenario: Scenario, sizes: Sizes) -> list[Boundary]:
    """What a run without faults crosses."""
    with sizes.set():
        run = disturb(machine, scenario)
    check_same(run.answer, baseline(machine, scenario))
    return run.boundaries


def check_each(
    machine: Machine,
    scenario: Scenario,
    sizes: Sizes,
    faults: Iterable[dict[int, tuple[Trouble, bool]]],
) -> int:
    """Run the job once for each set of faults; how many runs there were."""
    expected = baseline(machine, scenario)
    runs = 0
    for chosen in faults:
        with sizes.set():
            run = disturb(machine, scenario, at(chosen), seed=runs)
        try:
            check_tally(machine, run.answer)
            check_same(run.answer, expected)
        except AssertionError as error:
            raise ViolationError(f"{scenario} under {chosen}: {run.faults.happened}\n{error}") from error
        runs += 1
    return runs


def each(crossed: list[Boundary], trouble: Trouble, *, stubborn: bool = False) -> list[dict[int, tuple[Trouble, bool]]]:
    return [{boundary.number: (trouble, stubborn)} for boundary in crossed if applies(trouble, boundary)]


def test_a_process_may_die_at_any_boundary(machine: Machine) -> None:
    # Without an effect in between, to die before a boundary is to die after the one before it.
    scenario = Scenario("import-tasks", 12, shard_size=3)
    crossed = boundaries(machine, scenario, Sizes())
    assert {boundary.function for boundary in crossed} == {
        "Planner",
        "Lister",
        "Manifest",
        "Worker",
        "WriteTasks",
        "Reducer",
    }
    runs = check_each(machine, scenario, Sizes(), each(crossed, Trouble.KILL_AFTER))
    assert runs == len(crossed) >= 60


def test_the_answer_to_any_write_may_get_lost(machine: Machine) -> None:
    scenario = Scenario("reschedule-overdue", 12, shard_size=3)
    crossed = boundaries(machine, scenario, Sizes())
    writes = [boundary for boundary in crossed if boundary.operation in WRITES]
    check_each(machine, scenario, Sizes(), each(writes, Trouble.LOST))


def test_any_service_may_throttle_for_longer_than_the_sdk_tries(machine: Machine) -> None:
    scenario = Scenario("daily-plan", 8, shard_size=3)
    crossed = boundaries(machine, scenario, Sizes())
    some = random.Random(3).sample(crossed, 25)
    check_each(machine, scenario, Sizes(), each(some, Trouble.THROTTLE, stubborn=True))


@pytest.mark.parametrize("trouble", [Trouble.THROTTLE, Trouble.LOST], ids=lambda trouble: trouble.name)
def test_a_write_may_fail_for_as_long_as_a_call_has_time(machine: Machine, trouble: Trouble) -> None:
    # A shard of one row, as creations of several are tried together first.
    scenario = Scenario("import-tasks", 6, shard_size=1)
    puts = [crossed for crossed in boundaries(machine, scenario, Sizes()) if crossed.operation == "PutItem"]
    outcomes: Counter[str] = Counter()

    def count(call: Call, answer: Any) -> Any:
        if call.function == "WriteTasks":
            outcomes.update(each["outcome"] for each in answer["outcomes"])
        return answer

    with patch.object(machine, "after", count):
        runs = check_each(machine, scenario, Sizes(), each(puts, trouble, stubborn=True))
    assert outcomes["throttled"] >= runs >= 5


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", SCENARIOS)
@pytest.mark.parametrize("trouble", list(Trouble), ids=lambda trouble: trouble.name)
def test_any_single_fault_at_every_boundary(machine: Machine, kind: str, trouble: Trouble) -> None:
    scenario = Scenario(kind, 12, shard_size=3)
    check_each(machine, scenario, SMALL, each(boundaries(machine, scenario, SMALL), trouble))
    if trouble in {Trouble.ERROR, Trouble.UNREACHED, Trouble.LOST, Trouble.THROTTLE}:
        crossed = boundaries(machine, scenario, Sizes())
        check_each(machine, scenario, Sizes(), each(crossed, trouble, stubborn=True))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", SCENARIOS)
def test_pairs_of_faults(machine: Machine, kind: str) -> None:
    scenario = Scenario(kind, 12, shard_size=3)
    crossed = boundaries(machine, scenario, SMALL)
    chance = random.Random(4)
    pairs = []
    for _ in range(300):
        # A fault changes what comes after it, so the second one may have to do with the repetition.
        first, second = sorted(chance.sample(range(len(crossed) + 20), 2))
        troubles = chance.choices([Trouble.KILL_AFTER, Trouble.LOST, Trouble.RACE, Trouble.LATE], k=2)
        pairs.append({first: (troubles[0], True), second: (troubles[1], True)})
    assert check_each(machine, scenario, SMALL, pairs) == len(pairs)


def test_a_long_row_of_429s_is_outwaited_at_every_step(machine: Machine) -> None:
    """Lambda's concurrency may be taken by others for minutes."""
    scenario = Scenario("daily-plan", 8, shard_size=4)
    expected = baseline(machine, scenario)
    refused: Counter[str] = Counter()
    # A lister waits longer between fewer tries: in all more than an hour.
    rows = {"Lister": 24}

    def throttled(boundary: Boundary) -> tuple[Trouble, bool] | None:
        step = f"{boundary.function} {boundary.event.get('shard')} {boundary.event.get('segment')}"
        if boundary.service != "states" or refused[step] >= rows.get(boundary.function, 40):
            return None
        refused[step] += 1
        return Trouble.THROTTLE, False

    run = disturb(machine, scenario, throttled)
    check_tally(machine, run.answer)
    check_same(run.answer, expected)
    assert {step.split()[0]: count for step, count in refused.items()} == {
        **dict.fromkeys(("Planner", "Manifest", "Worker", "Reducer"), 40),
        **rows,
    }
