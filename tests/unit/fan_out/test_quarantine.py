"""The search for the tasks that kill, under every pattern of deaths, errors and re-entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_out.errors import ShardStuckError
from fan_out.model.shard import Shard
from fan_out.steps.quarantine import DEADLY, QUARANTINES, STALLS, STRETCHES, Marker, Search

# How often the state machine repeats a call that dies or fails: `MaxAttempts` of the Worker's last retrier.
RETRIES = 14
# Deaths and failures in a row that no task of the shard causes, and that the retries leave room for.
OTHERS = 5
# A refused start before every call.
EVERY_START: Mapping[int, int] = MappingProxyType(dict.fromkeys(range(1000), 1))


def most_calls(count: int, killers: int, others: int) -> int:
    """The bound of docs/reliability.md. `others` is what else happens: deaths, failures, deadlines."""
    levels, size = 0, count
    while size > 1 or levels == 0:
        size = max(1, size // STRETCHES)
        levels += 1
    return 4 + killers * (levels + DEADLY) + others * (levels + 1)


class DiedError(Exception):
    """The worker is gone."""


class FailedError(Exception):
    """The worker raised an exception of its own."""


@dataclass
class World:
    """A shard, its stored objects, and what happens to its workers."""

    count: int
    killers: frozenset[int] = frozenset()
    # What happens in a call, by the call's number, and after how many steps of it.
    troubles: dict[int, tuple[str, int]] = field(default_factory=dict)
    # How many starts are refused before a call, by the call's number: Lambda's 429.
    refused: Mapping[int, int] = field(default_factory=dict)
    # Tasks after which a call saves in the middle of a stretch; None never.
    save_every: int | None = None
    marker: Marker | None = None
    saved: tuple[str, ...] = ()
    outcomes: list[str] = field(default_factory=list)
    calls: int = 0
    marks: int = 0
    deaths: int = 0
    most_failures: int = 0
    died_alone: Counter[int] = field(default_factory=Counter)
    _steps: int = 0

    def run(self) -> tuple[str, ...]:
        """Call the worker as the state machine does, until the shard is done."""
        attempt, is_resumed, failures = 0, False, 0
        while True:
            attempt += self.refused.get(self.calls, 0)
            try:
                done = self.call(attempt, is_resumed)
            except (DiedError, FailedError) as error:
                done, attempt, failures = False, attempt + 1, failures + 1
                self.deaths += isinstance(error, DiedError)
                self.most_failures = max(self.most_failures, failures)
            else:
                attempt, is_resumed, failures = 0, True, 0
            self.calls += 1
            if done:
                return tuple(self.outcomes)

    def call(self, attempt: int, is_resumed: bool) -> bool:
        self._steps = 0
        self.outcomes = list(self.saved)
        found = self.marker if attempt or is_resumed else None
        search = Search(found or Marker(), is_repeated=attempt > 0)
        try:
            search.run(self, Shard(0, "", self.count, 0), len(self.outcomes), self.outcomes.count("quarantined"))
        except FailedError:
            self.marker = search.failed_cleanly()
            raise
        return len(self.outcomes) == self.count

    def mark(self, marker: Marker) -> None:
        self.step()
        self.marker = marker
        self.marks += 1
        self.step()

    def read(self) -> None:
        self.step()
        self.step()

    def work(self, end: int) -> bool:
        self.step()
        done = self._work(end)
        self.step()
        return done

    def save(self) -> None:
        self.step()
        self._save()
        self.step()

    def quarantine(self, deaths: int) -> None:
        self.step()
        self.outcomes.append("quarantined")
        self.step()

    def _save(self) -> None:
        self.saved = tuple(self.outcomes)

    def _work(self, end: int) -> bool:
        while (position := len(self.outcomes)) < end:
            if self.step():
                return False
            if position in self.killers:
                raise DiedError
            self.outcomes.append("succeeded")
            if self.save_every is not None and len(self.outcomes) % self.save_every == 0:
                self._save()
        return True

    def step(self) -> bool:
        """Whether the call's time is over here. A death of an innocent alone comes less often than is deadly."""
        marker = self.marker
        alone = marker.start if marker and marker.in_flight and marker.end - marker.start == 1 else None
        trouble, steps = self.troubles.get(self.calls, ("", 0))
        self._steps += 1
        if self._steps != steps + 1:
            return False
        is_innocent = alone is not None and alone not in self.killers
        if trouble == "die" and not (is_innocent and self.died_alone[alone or 0] == DEADLY - 1):
            self.died_alone[alone or 0] += is_innocent
            raise DiedError
        if trouble == "fail":
            raise FailedError
        return trouble == "late"


def expected(world: World) -> tuple[str, ...]:
    return tuple("quarantined" if position in world.killers else "succeeded" for position in range(world.count))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.one_of(st.integers(1, 40), st.sampled_from([100, 511, 512, 600])))
    killers = draw(st.frozensets(st.integers(0, count - 1), max_size=6))
    trouble = st.sampled_from(["die", "fail", "late"])
    steps = st.one_of(st.integers(0, 10), st.integers(0, count + 40))
    troubles = draw(st.dictionaries(st.integers(0, 40), st.tuples(trouble, steps), max_size=OTHERS))
    refused = draw(st.one_of(st.just(EVERY_START), st.dictionaries(st.integers(0, 40), st.integers(1, 20))))
    return World(count, killers, troubles, refused, draw(st.sampled_from([None, 1, 3, 7])))


@settings(max_examples=500)
@given(world=worlds())
def test_the_killers_are_quarantined_and_no_other(world: World) -> None:
    assert world.run() == expected(world)
    assert world.calls <= most_calls(world.count, len(world.killers), len(world.troubles))
    assert world.most_failures <= RETRIES


@settings(max_examples=200)
@given(count=st.integers(1, 20), data=st.data())
def test_any_set_of_killers_is_found_whole(count: int, data: st.DataObject) -> None:
    world = World(count, data.draw(st.frozensets(st.integers(0, count - 1))))
    assert world.run() == expected(world)
    assert world.calls <= most_calls(count, len(world.killers), 0)


@pytest.mark.parametrize(("count", "deaths"), [(1, 5), (31, 5), (500, 6), (10_000, 8)])
def test_a_killer_costs_as_many_workers_as_the_guide_says(count: int, deaths: int) -> None:
    worlds = [World(count, frozenset({killer})) for killer in range(0, count, max(1, count // 20))]
    for world in worlds:
        world.run()
    assert max(world.deaths for world in worlds) == deaths


def test_a_shard_of_killers_is_given_up() -> None:
    world = World(100, frozenset(range(0, 100, 2)))
    with pytest.raises(ShardStuckError):
        world.run()
    assert world.saved.count("quarantined") == QUARANTINES + 1
    assert world.calls <= most_calls(100, QUARANTINES + 1, 0)


def test_a_shard_that_only_stalls_is_given_up() -> None:
    world = World(100, troubles=dict.fromkeys(range(100), ("die", 1)))
    with pytest.raises(ShardStuckError):
        world.run()
    assert world.calls == STALLS + 2


def test_deaths_that_no_task_causes_quarantine_none() -> None:
    # In every other call, at every place in turn: the shard moves on in between.
    world = World(200, troubles={call: ("die", call % 23) for call in range(0, 400, 2)})
    assert world.run() == expected(world)
    assert world.most_failures <= RETRIES


@pytest.mark.parametrize("refused", [{0: 1}, {0: 11}, EVERY_START], ids=["once", "often", "always"])
def test_a_refused_start_costs_one_mark_and_no_call(refused: Mapping[int, int]) -> None:
    world = World(500, refused=refused)
    assert world.run() == expected(world)
    assert (world.calls, world.marks) == (1, 1)


def test_refused_starts_between_calls_are_no_deaths() -> None:
    # Each call ends at its deadline after some fifty tasks, and leaves word of that.
    world = World(500, troubles=dict.fromkeys(range(9), ("late", 55)), refused=EVERY_START)
    assert world.run() == expected(world)
    assert world.calls == 10
    assert world.marks <= 2 * world.calls
    assert world.marker is not None
    assert not world.marker.has_died


@given(world=worlds())
def test_refused_starts_cost_no_call(world: World) -> None:
    undisturbed = World(world.count, world.killers, save_every=world.save_every)
    refused = World(world.count, world.killers, refused=world.refused, save_every=world.save_every)
    assert refused.run() == undisturbed.run()
    assert refused.calls <= undisturbed.calls
