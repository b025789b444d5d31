"""Many faults at once, drawn from seeds. FANOUT_CHAOS_SEED=N runs the schedule N alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.chaos.faults import Trouble
from tests.chaos.scenarios import ViolationError, run_seed
from tests.support.machine import Machine

SCHEDULES = 20
SOAK_SCHEDULES = 10_000
# So many schedules are one test, so that the tests share out well among processes.
CHUNK = 250


def seeds(first: int, count: int) -> Iterable[int]:
    chosen = os.environ.get("FANOUT_CHAOS_SEED")
    return range(first, first + count) if chosen is None else [int(chosen)]


def test_schedules_of_faults_keep_every_promise(machine: Machine) -> None:
    happened: Counter[str] = Counter()
    for seed in seeds(0, SCHEDULES):
        happened += run_seed(machine, seed)
    if "FANOUT_CHAOS_SEED" not in os.environ:
        assert set(happened) == {trouble.name for trouble in Trouble}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(SCHEDULES, SCHEDULES + SOAK_SCHEDULES, CHUNK))
def test_ten_thousand_schedules_of_faults_keep_every_promise(machine: Machine, first: int) -> None:
    violations = []
    for seed in range(first, first + CHUNK):
        try:
            run_seed(machine, seed)
        except ViolationError as violation:
            violations.append(str(violation))
    assert not violations, "\n".join(violations)
