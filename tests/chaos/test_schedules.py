"""Many faults at once, drawn from seeds. FANOUT_CHAOS_SEED=N runs the schedule N alone."""

from __future__ import annotations

import io
import logging
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context

import pytest

from tests.chaos.faults import Trouble
from tests.chaos.scenarios import ViolationError, deployed, run_seed
from tests.machine import Machine

SCHEDULES = 20
SOAK_SCHEDULES = 10_000
# A process is given so many schedules at a time.
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


def run_chunk(first: int) -> tuple[Counter[str], list[str]]:
    logging.disable(logging.CRITICAL)
    happened: Counter[str] = Counter()
    violations = []
    with deployed() as machine, redirect_stdout(io.StringIO()):
        for seed in range(first, first + CHUNK):
            try:
                happened += run_seed(machine, seed)
            except ViolationError as violation:
                violations.append(str(violation))
    return happened, violations


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_schedules_of_faults_keep_every_promise() -> None:
    chunks = range(SCHEDULES, SCHEDULES + SOAK_SCHEDULES, CHUNK)
    happened: Counter[str] = Counter()
    violations: list[str] = []
    # A fresh interpreter for each process: a fork would share what the parent's AWS holds.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for counted, found in pool.map(run_chunk, chunks):
            happened += counted
            violations += found
    print(f"{SOAK_SCHEDULES} schedules, {happened.total()} faults: {dict(happened)}")  # noqa: T201
    assert not violations, "\n".join(violations[:20])
