"""Jobs under AWS's limits end with the right tally, fail no task, and take little longer than a limit asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from fan_out.aws import clients as aws
from tests.chaos.limits import NO_LIMITS, SPLIT_SECONDS, Limits, Simulation, TokenBucket
from tests.chaos.scenarios import check_tally, read
from tests.support import machine as machines
from tests.support.machine import BUCKET, Machine, make_tasks, put_tasks

SMALL, LARGE = 2_000, 100_000
# In the small form the limits are lower, so that each of them is reached.
SMALL_LIMITS = {
    "writes": replace(NO_LIMITS, writes=200),
    "concurrency": replace(NO_LIMITS, concurrency=12),
    "child starts": replace(NO_LIMITS, starts=5),
    "puts": replace(NO_LIMITS, puts=5),
    "all": Limits(writes=200, reads=600, concurrency=24, starts=5, puts=10, dropped=0.5),
}
LIMITS = Limits()
LARGE_LIMITS = {
    "writes": (replace(NO_LIMITS, writes=LIMITS.writes), 500, 40),
    "concurrency": (replace(NO_LIMITS, concurrency=50), 500, 40),
    "child starts": (replace(NO_LIMITS, starts=LIMITS.starts), 50, 200),
    "puts": (replace(NO_LIMITS, puts=LIMITS.puts), 20, 1000),
    "all": (replace(LIMITS, concurrency=100), 100, 40),
}
# How much longer than the limit alone asks for the tasks are worked on. A refused start, and a write that WriteTasks
# has no time for, wait for a second and more: that weighs where all is done in seconds.
SMALL_FACTOR = {"writes": 1.5, "concurrency": 4, "child starts": 1.5, "puts": 2.5, "all": 2}
LARGE_FACTOR = {"writes": 1.5, "concurrency": 4, "child starts": 1.5, "puts": 2.5, "all": 2}


def import_rows(machine: Machine, limits: Limits, count: int, shard_size: int, workers: int) -> Simulation:
    """Import so many rows under limits, and check what it comes to."""
    machine.wipe()
    rows = "title,dueAt\n" + "".join(f"Row {number},2026-12-01T12:00:00Z\n" for number in range(count))
    aws.s3().put_object(Bucket=BUCKET, Key="uploads/rows.csv", Body=rows.encode())
    simulation = Simulation(machine, limits)
    document = {"kind": "import-tasks", "source": {"csv": "uploads/rows.csv"}}
    ended = simulation.run(document | {"shardSize": shard_size, "maxConcurrency": workers})
    assert ended.status == "SUCCEEDED", (ended.error, ended.cause)
    answer = read(ended)
    check_tally(machine, answer)
    assert answer.record["counts"]["succeeded"] == answer.record["counts"]["listed"] == len(answer.tasks) == count
    assert simulation.peak <= limits.concurrency
    return simulation


def least_seconds(simulation: Simulation, shards: int, busy: float) -> float:
    """The longest time that a limit alone asks for; `busy` are the seconds of all functions without limits."""
    limits = simulation.limits
    return max(
        simulation.writes.least_seconds,
        simulation.map_puts / limits.puts - 1,
        (shards - 1) / limits.starts,
        busy / limits.concurrency,
    )


@pytest.mark.parametrize("name", SMALL_LIMITS)
def test_a_job_under_a_limit_ends_soon_and_whole(machine: Machine, name: str) -> None:
    busy = import_rows(machine, NO_LIMITS, SMALL, 50, 10).busy if name == "concurrency" else 0
    simulation = import_rows(machine, SMALL_LIMITS[name], SMALL, 50, 10)
    least = least_seconds(simulation, SMALL // 50, busy)
    assert least <= simulation.map_seconds <= SMALL_FACTOR[name] * least
    # No throttle costs a second call of a worker.
    assert simulation.calls["Worker"] == SMALL // 50


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", LARGE_LIMITS)
def test_a_large_job_under_a_limit_ends_soon_and_whole(machine: Machine, name: str) -> None:
    limits, shard_size, workers = LARGE_LIMITS[name]
    busy = import_rows(machine, NO_LIMITS, LARGE, shard_size, workers).busy if name == "concurrency" else 0
    simulation = import_rows(machine, limits, LARGE, shard_size, workers)
    least = least_seconds(simulation, LARGE // shard_size, busy)
    assert least <= simulation.map_seconds <= LARGE_FACTOR[name] * least


def test_a_listing_goes_on_at_the_rate_of_the_table(machine: Machine) -> None:
    put_tasks(make_tasks(SMALL, complete=0))
    simulation = Simulation(machine, replace(NO_LIMITS, reads=10))
    ended = simulation.run({"shardSize": 500})
    check_tally(machine, read(ended))
    assert ended.output["counts"]["succeeded"] == SMALL
    assert simulation.reads.throttled
    assert simulation.clock.now <= 4 * simulation.reads.least_seconds


def test_workers_that_hold_all_concurrency_fail_no_task(machine: Machine) -> None:
    """No call of WriteTasks can start beside them, until one of them comes to its deadline."""
    simulation = import_rows(machine, replace(NO_LIMITS, concurrency=10), 500, 25, 20)
    assert simulation.refused["WriteTasks"] > 500
    assert 850 < simulation.map_seconds < 2 * 900


def test_a_table_that_takes_a_write_a_second_fails_no_task(machine: Machine) -> None:
    """Twenty workers share it: a call of WriteTasks is over before it has written what it was asked to."""
    simulation = import_rows(machine, replace(NO_LIMITS, writes=1), 600, 30, 20)
    assert simulation.calls["WriteTasks"] > 8 * 20
    assert simulation.map_seconds <= 1.5 * simulation.writes.least_seconds


def test_a_lost_event_costs_a_failed_job_nothing(machine: Machine) -> None:
    aws.s3().put_object(Bucket=BUCKET, Key="uploads/rows.csv", Body=b"title,dueAt\n" + b"Row,yesterday\n" * 20)
    simulation = Simulation(machine, replace(NO_LIMITS, dropped=1))
    ended = simulation.run({"kind": "import-tasks", "source": {"csv": "uploads/rows.csv"}})
    assert (ended.status, simulation.is_event_lost) == ("FAILED", True)
    assert b'"FAILED"' in machines.stored("record.json")


@pytest.mark.parametrize("limit", ["writes", "reads"])
def test_a_table_splits_under_lasting_throttling(limit: str) -> None:
    bucket: Any = TokenBucket(getattr(LIMITS, limit), splits=True)
    taken = [sum(bucket.take(1.0, 1.0 + second) for _ in range(30_000)) for second in (0, 1, 2)]
    assert taken == [getattr(LIMITS, limit)] * 3
    assert not all(bucket.take(1.0, 4 + SPLIT_SECONDS) for _ in range(30_000))
    assert bucket.rate == 2 * getattr(LIMITS, limit)
    assert math.isfinite(bucket.rate)
