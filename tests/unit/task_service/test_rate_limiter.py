"""The rate of writes: found by additive increase and multiplicative decrease, and spread over time."""

from __future__ import annotations

import itertools

import pytest

from task_service import rate_limiter
from task_service.rate_limiter import FASTEST, INCREASE, SLOWEST, RateLimiter
from tests.support.stand_ins import PassingTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> PassingTime:
    passing = PassingTime()
    monkeypatch.setattr(rate_limiter, "time", passing)
    return passing


def turn(limiter: RateLimiter, longest: float = 60.0) -> float:
    given = limiter.wait(longest)
    assert given is not None
    return given


def test_a_throttle_halves_the_rate_down_to_a_bound(clock: PassingTime) -> None:
    limiter = RateLimiter()
    limiter.throttled(turn(limiter))
    assert limiter.rate == FASTEST / 2

    for _ in range(20):
        limiter.throttled(turn(limiter))
    assert limiter.rate == SLOWEST


def test_throttles_of_writes_under_way_together_count_once(clock: PassingTime) -> None:
    limiter = RateLimiter()
    turns = [turn(limiter) for _ in range(8)]
    for each in turns:
        limiter.throttled(each)

    assert limiter.rate == FASTEST / 2


def test_a_second_of_successes_adds_the_same_at_any_rate(clock: PassingTime) -> None:
    for rate in (5, 50, 400):
        limiter = RateLimiter()
        limiter.rate = rate
        for _ in range(rate):
            limiter.succeeded()
        assert rate + 0.5 * INCREASE < limiter.rate <= rate + INCREASE
    limiter.rate = FASTEST
    limiter.succeeded()
    assert limiter.rate == FASTEST


def test_turns_come_at_the_rate_in_steps_drawn_at_random(clock: PassingTime) -> None:
    limiter = RateLimiter()
    limiter.rate = 10.0
    turns = [turn(limiter) for _ in range(200)]

    steps = {round(later - earlier, 6) for earlier, later in itertools.pairwise(turns)}
    assert len(steps) > 100
    assert min(steps) >= 0.05
    assert max(steps) <= 0.15
    assert 19 < clock.passed < 21


def test_a_turn_beyond_the_deadline_is_not_waited_for(clock: PassingTime) -> None:
    limiter = RateLimiter()
    limiter.rate = SLOWEST
    turn(limiter)

    assert limiter.wait(0.4) is None
    assert limiter.wait(-1.0) is None
    assert clock.passed == 0
    # A turn that nobody took is still there.
    assert turn(limiter) <= 1.5


@pytest.mark.parametrize("capacity", [25.0, 60.0, 300.0])
def test_the_rate_of_a_table_is_found_and_used(clock: PassingTime, capacity: float) -> None:
    """A table that holds a second's units: most of them are used, and few requests are refused."""
    limiter, units, refused, taken = RateLimiter(), capacity, 0, 0
    before = 0.0
    while clock.passed < 60:
        given = turn(limiter)
        units = min(capacity, units + (clock.passed - before) * capacity)
        before = clock.passed
        if units >= 1:
            units -= 1
            taken += 1
            limiter.succeeded()
        else:
            refused += 1
            limiter.throttled(given)

    assert taken > 0.6 * capacity * 60
    assert refused < 0.25 * taken
