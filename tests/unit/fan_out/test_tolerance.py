from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_out.aws.storage import JobStore
from fan_out.model.shard import Shard
from fan_out.steps import early_stop as tolerance
from fan_out.steps.early_stop import counts_as_failed


class Names:
    """The names of a job's objects, as far as this module uses them."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.listings = 0

    def has(self, name: str) -> bool:
        return name in self.there

    def put(self, name: str, document: Any) -> None:
        self.there.add(name)

    def names(self, prefix: str) -> list[str]:
        self.listings += 1
        return [name for name in self.there if name.startswith(prefix)]


class Map:
    """A map over shards that end one after another; like the real one it stops once too many count as failed."""

    def __init__(self, sizes: list[int], tolerated: float) -> None:
        self.names = Names()
        self.sizes = sizes
        self.tolerated = tolerated
        self.ended = self.failed = 0

    def run(self, order: list[int], failures: list[int]) -> bool:
        """Whether it was stopped before its end."""
        for index in order:
            self.ended += 1
            self.failed += counts_as_failed(
                self.names,  # type: ignore[arg-type]
                Shard(index, "", self.sizes[index], 0),
                failures[index],
                listed=sum(self.sizes),
                shards=len(self.sizes),
                tolerated=self.tolerated,
            )
            if self.failed * 100 > math.ceil(self.tolerated) * len(self.sizes):
                return True
        return False


@settings(deadline=None, derandomize=True, max_examples=500)
@given(data=st.data())
def test_a_job_within_its_tolerance_is_never_stopped_early(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    failed = [data.draw(st.integers(0, size)) for size in sizes]
    tolerated = data.draw(st.one_of(st.integers(0, 100), st.floats(0, 100)))
    order = data.draw(st.permutations(range(len(sizes))))
    if Map(sizes, tolerated).run(order, failed):
        assert sum(failed) * 100 > tolerated * sum(sizes)


@pytest.mark.parametrize(
    ("share", "latest"),
    # The proof takes tolerated/share of the shards, the map's own count the tolerated part of them again.
    [(1.0, 0.06), (0.6, 0.16), (0.3, 0.24), (0.1, 0.6)],
)
@pytest.mark.parametrize("shards", [400, 5_000])
def test_the_more_of_its_tasks_fail_the_earlier_a_job_is_stopped(shards: int, share: float, latest: float) -> None:
    chance = random.Random(1)
    sizes = [100] * shards
    failed = [sum(chance.random() < share for _ in range(100)) for _ in sizes]
    job = Map(sizes, 5)
    assert job.run(chance.sample(range(shards), shards), failed)
    assert job.ended <= shards * latest + 2


def test_a_job_that_tolerates_no_failure_is_stopped_by_its_first() -> None:
    job = Map([10] * 100, 0)
    assert job.run(list(range(100)), [0] * 30 + [1] + [0] * 69)
    assert job.ended == 31


def test_shards_within_the_tolerance_write_and_read_nothing() -> None:
    job = Map([100] * 50, 5)
    assert not job.run(list(range(50)), [5] * 50)
    assert (job.names.there, job.names.listings) == (set(), 0)


def test_failures_are_added_up_by_a_bounded_number_of_shards() -> None:
    # Just above the tolerance everywhere: the proof takes most of the job.
    shards = 5_000
    job = Map([100] * shards, 5)
    job.run(list(range(shards)), [6] * shards)
    assert job.ended > shards * 0.8
    assert job.names.listings <= tolerance.SUMS * 1.2


def test_a_shard_that_is_checked_again_notes_failures_once(store: JobStore) -> None:
    shard = Shard(3, "", 10, 0)
    for _ in range(3):
        assert not counts_as_failed(store, shard, 4, listed=1000, shards=100, tolerated=5)
    assert list(store.names(tolerance.EXCESS)) == ["excess/00000003-4"]
    # The same failures are too many for a smaller job.
    assert counts_as_failed(store, shard, 4, listed=79, shards=7, tolerated=5)
    assert store.has(tolerance.PROOF)
