from __future__ import annotations

import json
import math
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_out.aws.storage import Bucket, JobStore
from fan_out.errors import AccountingError, JobEndedError, ShardFailedError, ShardStuckError, ThrottledError
from fan_out.model.kind import Failure, TaskError
from fan_out.model.shard import Shard
from fan_out.steps import kind_runner, shard_runner
from fan_out.steps.kind_runner import ATTEMPTS, RETRY_BUDGET, Clock, RateLimiter, task_rate
from fan_out.steps.quarantine import DEADLY, QUARANTINES, STALLS, Marker
from fan_out.steps.shard_runner import ShardRunner
from tests.support.context import Context
from tests.support.factories import plan, put_manifest, put_plan, put_shard, task
from tests.support.machine import (
    STARTED_AT,
    Boundary,
    Call,
    CallError,
    KilledError,
    Machine,
    names,
    put_tasks,
    response,
)

THROTTLED = Failure("ThrottledError", "slow down", retry=True)


class FakeClock:
    """Time that passes only in sleeps."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []
        self.clock = Clock(now=lambda: self.time, sleep=self._sleep, jitter=lambda: jitter)

    def spend(self, seconds: float) -> int:
        """What a task that takes this long answers."""
        self._sleep(seconds)
        return 1

    def ends(self, seconds: float) -> Callable[[float], bool]:
        """`is_late` of a call that starts now and lasts this long, with a reserve of 30 seconds."""
        end = self.time + seconds
        return lambda needed: end - self.time - needed <= 30

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds


def event(shard: Shard, **fields: Any) -> dict[str, Any]:
    """What the state machine sends to a worker whose shard is a hundredth of the job."""
    return {
        "jobId": "job-1",
        "shard": {"index": shard.index, "key": shard.key, "count": shard.count, "bytes": shard.bytes},
        "listed": shard.count * 100,
        "shards": 100,
        "workers": 1,
        "resume": False,
        "attempt": 0,
    } | fields


@pytest.fixture
def shard(trial: Any, store: JobStore) -> Shard:
    """A shard of 40 tasks of a job of the kind `trial`."""
    put_plan(store, kind="trial")
    return put_shard(store, 0, [task(number) for number in range(40)])


def committed(store: JobStore, shard: Shard) -> dict[str, Any]:
    return dict(store.require(shard.partial))


def failures(store: JobStore, shard: Shard) -> list[dict[str, Any]]:
    name = committed(store, shard)["failures"]
    return [] if name is None else [json.loads(line.text) for line in store.lines(name)]


def run_to_the_end(machine: Machine, shard: Shard, *, attempt: int = 0) -> tuple[int, int]:
    """Call the worker as the state machine does, until its shard is done: how many calls, how many deaths."""
    resume, calls, deaths = False, 0, 0
    while True:
        calls += 1
        try:
            answer = machine.call("Worker", event(shard, resume=resume, attempt=attempt))
        except KilledError:
            attempt += 1
            deaths += 1
            continue
        if answer["done"]:
            return calls, deaths
        resume, attempt = True, 0


def work_on(store: JobStore, shard: Shard, clock: FakeClock, **asked: Any) -> ShardRunner:
    return ShardRunner(
        store,
        plan(kind="trial", **asked),
        shard,
        workers=1,
        write=None,
        is_late=lambda seconds: False,
        clock=clock.clock,
    )


def kill() -> Any:
    raise KilledError


# --- the healthy path


def test_a_shard_folds_to_a_partial_with_every_task_counted(machine: Machine, store: JobStore, shard: Shard) -> None:
    answer = machine.call("Worker", event(shard))
    assert answer["done"] is True
    assert set(answer) == {"jobId", "shard", "listed", "shards", "workers", "resume", "done"}
    assert committed(store, shard)["counts"] == {
        "succeeded": 40, "failed": 0, "quarantined": 0, "unprocessed": 0,
    }  # fmt: skip
    assert committed(store, shard)["value"]["tasks"] == 40
    assert len(list(store.lines(committed(store, shard)["lines"]))) == 40


def test_a_healthy_shard_leaves_neither_marker_nor_checkpoint(machine: Machine, shard: Shard) -> None:
    machine.call("Worker", event(shard))
    assert not [name for name in names() if name.startswith("checkpoints/")]


def test_tasks_are_handed_over_in_calls_of_the_kinds_size(machine: Machine, shard: Shard, trial: Any) -> None:
    machine.call("Worker", event(shard))
    assert [len(call) for call in trial.calls] == [10, 10, 10, 10]


def test_of_two_workers_on_one_shard_the_first_commit_counts(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    machine.call("Worker", event(shard))
    first = committed(store, shard)
    trial.on["task-00003"] = Failure("LateError", "the second run fares worse")
    assert machine.call("Worker", event(shard))["done"] is True
    assert committed(store, shard) == first


def test_a_repeated_call_returns_its_partial_without_work(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    machine.call("Worker", event(shard))
    trial.calls.clear()
    assert machine.call("Worker", event(shard, attempt=1))["done"] is True
    assert machine.call("Worker", event(shard, resume=True))["done"] is True
    assert trial.calls == []


def test_every_task_has_the_same_effect_key_in_every_run(machine: Machine, shard: Shard, trial: Any) -> None:
    machine.call("Worker", event(shard))
    first = sorted(trial.keys)
    trial.keys.clear()
    machine.call("Worker", event(shard))
    assert sorted(trial.keys) == first == sorted(f"job-1@{STARTED_AT}/task-{number:05d}" for number in range(40))


def test_a_shard_that_is_not_what_the_manifest_says_is_an_error(
    machine: Machine, store: JobStore, shard: Shard
) -> None:
    store.bucket.put(shard.key, b"")
    with pytest.raises(AccountingError, match="is not what was committed"):
        machine.call("Worker", event(shard))
    assert not store.has(shard.partial)


# --- failures


def test_a_failing_task_fails_alone_and_is_reported(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    trial.on["task-00007"] = Failure("BadTaskError", 'the title "x" is bad')
    machine.call("Worker", event(shard))
    assert committed(store, shard)["counts"]["failed"] == 1
    assert failures(store, shard) == [
        {
            "task": task(7),
            "outcome": "failed",
            "error": {"name": "BadTaskError", "message": 'the title "x" is bad'},
            "shard": 0,
            "attempts": 1,
        }
    ]
    assert committed(store, shard)["digest"][0]["count"] == 1


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("no"),
        RecursionError("deep"),
        MemoryError(),
        SystemExit(3),
        TaskError("OwnError", "no"),
        KeyError("x"),
    ],
)
def test_an_exception_in_one_task_fails_that_task_alone(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, raised: BaseException
) -> None:
    trial.on["task-00015"] = raised
    machine.call("Worker", event(shard))
    assert committed(store, shard)["counts"] == {
        "succeeded": 39, "failed": 1, "quarantined": 0, "unprocessed": 0,
    }  # fmt: skip
    assert [failure["task"]["id"] for failure in failures(store, shard)] == ["task-00015"]


@pytest.mark.parametrize("answers", [None, [], [1] * 11, 5])
def test_other_than_one_answer_a_task_fails_the_tasks(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch, answers: Any
) -> None:
    monkeypatch.setattr(trial, "process_many", lambda tasks, job: answers)
    with pytest.raises(ShardFailedError):
        machine.call("Worker", event(shard))
    assert committed(store, shard)["counts"]["failed"] == 40


def test_a_failing_fold_or_line_fails_its_task_alone(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(each: Any, result: Any, job: Any) -> Any:
        # Neither a set nor a lone surrogate can be written down.
        return each.id, {"task-00001": {1}, "task-00002": "\ud800"}.get(each.id, 0)

    monkeypatch.setattr(trial, "line", line)
    trial.on["task-00003"] = "not a number to add"
    machine.call("Worker", event(shard))
    assert [failure["task"]["id"] for failure in failures(store, shard)] == [
        "task-00001", "task-00002", "task-00003",
    ]  # fmt: skip
    assert committed(store, shard)["counts"]["succeeded"] == 37
    assert len(list(store.lines(committed(store, shard)["lines"]))) == 37


def test_a_failures_message_is_written_short(machine: Machine, store: JobStore, shard: Shard, trial: Any) -> None:
    trial.on["task-00000"] = Failure("N" * 1000, "x" * 100_000)
    trial.on["task-00001"] = Failure("LoneError", "a \ud800 b")
    machine.call("Worker", event(shard))
    long, lone = failures(store, shard)
    assert len(long["error"]["message"]) == 500
    assert len(long["error"]["name"]) == 100
    assert lone["error"]["message"] == "a ? b"


def test_a_shard_above_its_share_of_failures_counts_as_failed(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    trial.on.update({f"task-{number:05d}": Failure("BadError", "no") for number in range(40)})
    for attempt in (0, 1):
        with pytest.raises(ShardFailedError, match="40 tasks of shard 0 failed; its partial is written"):
            machine.call("Worker", event(shard, attempt=attempt))
    assert committed(store, shard)["counts"]["failed"] == 40


def test_a_shard_with_a_few_failures_does_not(machine: Machine, shard: Shard, trial: Any) -> None:
    trial.on.update({f"task-{number:05d}": Failure("BadError", "no") for number in range(39)})
    assert machine.call("Worker", event(shard))["done"] is True


def test_a_job_that_fails_throughout_is_stopped_before_its_end(machine: Machine, trial: Any) -> None:
    put_tasks([task(number) for number in range(80)])
    trial.on.update({f"task-{number:05d}": Failure("BadError", "no") for number in range(80)})
    ended = machine.run({"kind": "trial", "shardSize": 2, "toleratedFailurePercentage": 10})
    account = json.loads(str(ended.cause))
    assert ended.error == "ToleranceExceededError"
    assert machine.children < account["shards"]["planned"]
    assert account["counts"]["unprocessed"] > 40
    assert sum(account["counts"].values()) == 2 * account["counts"]["listed"] == 160


# --- throttling


def test_a_throttled_task_is_tried_again_with_growing_pauses(store: JobStore, shard: Shard, trial: Any) -> None:
    answers = iter([THROTTLED, THROTTLED, THROTTLED, 1])
    trial.on["task-00000"] = lambda: next(answers)
    clock = FakeClock()
    work_on(store, shard, clock).run(attempt=0, is_resumed=False)
    assert clock.sleeps == [0.4, 0.8, 1.6]
    assert committed(store, shard)["counts"]["succeeded"] == 40


def test_only_the_throttled_tasks_of_a_call_are_tried_again(store: JobStore, shard: Shard, trial: Any) -> None:
    answers = iter([THROTTLED, 1])
    trial.on["task-00004"] = lambda: next(answers)
    work_on(store, shard, FakeClock()).run(attempt=0, is_resumed=False)
    assert trial.calls[1] == ["task-00004"]


def test_pauses_are_jittered_and_bounded(store: JobStore, shard: Shard, trial: Any) -> None:
    trial.on["task-00000"] = THROTTLED
    full, half, none = FakeClock(1.0), FakeClock(0.5), FakeClock(0.0)
    for number, clock in enumerate((full, half, none)):
        shard_of_own = put_shard(store, number + 1, [task(0)])
        work_on(store, shard_of_own, clock).run(attempt=0, is_resumed=False)
    assert len(full.sleeps) == ATTEMPTS - 1
    assert max(full.sleeps) <= kind_runner.LONGEST_PAUSE
    assert half.sleeps == [pause / 2 for pause in full.sleeps]
    assert none.sleeps == [0.0] * (ATTEMPTS - 1)


def test_a_task_that_stays_throttled_fails_after_its_attempts(store: JobStore, shard: Shard, trial: Any) -> None:
    trial.on["task-00000"] = THROTTLED
    work_on(store, shard, FakeClock()).run(attempt=0, is_resumed=False)
    (failure,) = failures(store, shard)
    assert (failure["error"]["name"], failure["attempts"]) == ("ThrottledError", ATTEMPTS)


def test_the_retries_of_one_call_are_bounded(store: JobStore, trial: Any) -> None:
    put_plan(store, kind="trial")
    many = put_shard(store, 0, [task(number) for number in range(400)])
    trial.on.update({f"task-{number:05d}": THROTTLED for number in range(400)})
    work_on(store, many, FakeClock()).run(attempt=0, is_resumed=False)
    assert len(trial.calls) <= 40 + RETRY_BUDGET
    assert committed(store, many)["counts"]["failed"] == 400


def test_a_throttled_call_is_tried_again_as_a_whole(store: JobStore, shard: Shard, trial: Any) -> None:
    answers = iter([ThrottledError("slow down"), 1])

    def answer() -> Any:
        answer = next(answers, 1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    trial.on["task-00000"] = answer
    work_on(store, shard, FakeClock()).run(attempt=0, is_resumed=False)
    assert committed(store, shard)["counts"]["succeeded"] == 40
    assert trial.calls[0] == trial.calls[1]


def test_a_late_call_leaves_a_throttled_task_to_the_next(store: JobStore, shard: Shard, trial: Any) -> None:
    clock = FakeClock()
    last = "task-00039"
    trial.on[last] = lambda: Failure("ThrottledError", "slow down", retry=True)
    late = ShardRunner(
        store,
        plan(kind="trial"),
        shard,
        workers=1,
        write=None,
        is_late=lambda seconds: seconds > 0,
        clock=clock.clock,
    )
    assert late.run(attempt=0, is_resumed=False) is None
    assert clock.sleeps == []
    del trial.on[last]
    assert work_on(store, shard, clock).run(attempt=0, is_resumed=True) is not None
    assert committed(store, shard)["counts"]["succeeded"] == 40


def test_a_task_is_not_started_without_time_for_the_longest(
    store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(trial), "batch", 1)
    clock = FakeClock()
    for number in range(40):
        trial.on[f"task-{number:05d}"] = lambda: clock.spend(200)
    calls = 0
    while True:
        calls += 1
        began = clock.time
        work = ShardRunner(
            store,
            plan(kind="trial"),
            shard,
            workers=1,
            write=None,
            is_late=clock.ends(900),
            clock=clock.clock,
        )
        done = work.run(attempt=0, is_resumed=calls > 1)
        assert clock.time - began < 900
        if done is not None:
            break
    assert calls == 10
    assert committed(store, shard)["counts"]["succeeded"] == 40


# --- limiter


@given(
    rate=st.floats(0.1, 1000),
    steps=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 30)), min_size=1, max_size=40),
)
def test_no_window_has_more_starts_than_the_rate_limit(rate: float, steps: list[tuple[int, float]]) -> None:
    clock = FakeClock()
    limiter = RateLimiter(rate, clock.clock)
    starts: list[tuple[float, int]] = []
    for tasks, working in steps:
        limiter.wait(tasks)
        starts.append((clock.time, tasks))
        clock.time += working
    for first in range(len(starts)):
        since = starts[first - 1][0] if first else 0.0
        started = 0
        for at, tasks in starts[first:]:
            started += tasks
            assert started <= rate * (at - since) * (1 + 1e-9) + 1e-6


@given(rate=st.floats(0.1, 1000), tasks=st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_a_fast_worker_uses_its_ceiling_up(rate: float, tasks: list[int]) -> None:
    clock = FakeClock()
    limiter = RateLimiter(rate, clock.clock)
    for some in tasks:
        limiter.wait(some)
    assert math.isclose(clock.time, sum(tasks) / rate, rel_tol=1e-6)


def test_without_a_ceiling_nobody_waits() -> None:
    clock = FakeClock()
    limiter = RateLimiter(None, clock.clock)
    limiter.wait(1000)
    assert limiter.seconds_until(1000) == 0
    assert clock.sleeps == []


@given(
    rate=st.floats(0.1, 10_000),
    bound=st.integers(1, 200),
    shards=st.integers(1, 300),
)
def test_the_workers_shares_add_up_to_the_ceiling(rate: float, bound: int, shards: int) -> None:
    planned = plan(tasksPerSecond=rate, maxConcurrency=bound)
    workers = planned.workers(shards)
    share = task_rate(planned, workers)
    assert share is not None
    assert share * workers <= rate * (1 + 1e-9)


def test_a_shard_takes_as_long_as_its_rate_limit_says(store: JobStore, shard: Shard, trial: Any) -> None:
    clock = FakeClock()
    work_on(store, shard, clock, tasksPerSecond=2).run(attempt=0, is_resumed=False)
    assert clock.time == pytest.approx(20.0)


def test_retries_of_throttled_tasks_count_towards_the_ceiling(store: JobStore, shard: Shard, trial: Any) -> None:
    answers = iter([THROTTLED] * 5)
    trial.on["task-00000"] = lambda: next(answers, 1)
    clock = FakeClock(jitter=0.0)
    work_on(store, shard, clock, tasksPerSecond=2).run(attempt=0, is_resumed=False)
    assert clock.time == pytest.approx(45 / 2)


def test_under_a_low_rate_limit_tasks_start_one_by_one(store: JobStore, shard: Shard, trial: Any) -> None:
    work_on(store, shard, FakeClock(), tasksPerSecond=0.2).run(attempt=0, is_resumed=False)
    assert {len(call) for call in trial.calls} == {1}


# --- continuation


class Budget(Context):
    """A context whose time is over after so many looks at it."""

    def __init__(self, looks: int) -> None:
        self._looks = looks
        super().__init__(self._left)

    def _left(self) -> int:
        self._looks -= 1
        return 900_000 if self._looks >= 0 else 1_000


def test_a_late_worker_saves_and_the_next_call_goes_on_there(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    machine.contexts["Worker"] = lambda: Budget(2)
    answer = machine.call("Worker", event(shard))
    assert (answer["done"], answer["resume"]) == (False, True)
    assert store.require(shard.checkpoint)["next"] == 20
    assert not store.has(shard.partial)
    assert run_to_the_end(machine, shard)[1] == 0
    assert committed(store, shard)["value"]["tasks"] == 40


def test_a_shard_of_any_length_finishes_without_repeats(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    machine.contexts["Worker"] = lambda: Budget(1)
    calls, deaths = run_to_the_end(machine, shard)
    assert (calls, deaths) == (4, 0)
    assert sorted(each for call in trial.calls for each in call) == [f"task-{n:05d}" for n in range(40)]
    assert committed(store, shard)["value"]["tasks"] == 40


def test_an_interrupted_shard_gives_the_same_bytes(machine: Machine, store: JobStore, shard: Shard, trial: Any) -> None:
    trial.on["task-00011"] = Failure("BadError", "no")
    machine.call("Worker", event(shard))
    whole = store.bucket.get(store.key(shard.partial))
    machine.wipe()
    put_plan(store, kind="trial")
    put_shard(store, 0, [task(number) for number in range(40)])
    machine.contexts["Worker"] = lambda: Budget(1)
    run_to_the_end(machine, shard)
    assert store.bucket.get(store.key(shard.partial)) == whole


def test_a_long_call_saves_a_checkpoint_now_and_then(store: JobStore, shard: Shard, trial: Any) -> None:
    clock = FakeClock()

    def slow() -> int:
        clock.time += shard_runner.CHECKPOINT_SECONDS * 0.7
        return 1

    trial.on.update({f"task-{number:05d}": slow for number in (0, 10, 20)})
    trial.on["task-00030"] = kill
    with pytest.raises(KilledError):
        work_on(store, shard, clock).run(attempt=0, is_resumed=False)
    assert store.require(shard.checkpoint)["next"] == 20


# --- deaths


def test_a_shard_that_moves_on_never_runs_out_of_retries(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    deaths = {number: iter([kill]) for number in range(0, 40, 3)}
    for number, once in deaths.items():
        trial.on[f"task-{number:05d}"] = lambda once=once: next(once, lambda: 1)()
    resume, attempt = False, 0
    while True:
        try:
            answer = machine.call("Worker", event(shard, resume=resume, attempt=attempt))
        except KilledError:
            attempt += 1
            assert attempt <= 2
            continue
        if answer["done"]:
            break
        resume, attempt = True, 0
    assert committed(store, shard)["counts"] == {
        "succeeded": 40, "failed": 0, "quarantined": 0, "unprocessed": 0,
    }  # fmt: skip


def test_a_kind_that_kills_throughout_is_given_up(machine: Machine, store: JobStore, shard: Shard, trial: Any) -> None:
    for number in range(40):
        trial.on[f"task-{number:05d}"] = kill
    with pytest.raises(ShardStuckError, match=f"more than {QUARANTINES} tasks"):
        run_to_the_end(machine, shard)
    saved = store.require(shard.checkpoint)
    assert saved["counts"]["quarantined"] == QUARANTINES + 1


def test_a_worker_of_a_stopped_job_ends_at_its_checkpoint(
    store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(trial), "batch", 1)
    clock = FakeClock()
    for number in range(40):
        trial.on[f"task-{number:05d}"] = lambda: clock.spend(40)
    store.put("record.json", {"status": "STOPPED"})
    with pytest.raises(JobEndedError):
        work_on(store, shard, clock).run(attempt=0, is_resumed=False)
    assert len(trial.calls) == 2


def test_a_failure_of_any_type_fails_its_task_alone(store: JobStore, shard: Shard, trial: Any) -> None:
    trial.on["task-00000"] = lambda: Failure("Bad\ud800", 404)  # type: ignore[arg-type]
    work_on(store, shard, FakeClock()).run(attempt=0, is_resumed=False)
    assert committed(store, shard)["counts"]["succeeded"] == 39
    assert failures(store, shard)[0]["error"] == {"name": "Bad?", "message": "404"}


@pytest.mark.parametrize("deadly", [[0], [17], [39], [0, 39], [5, 6], [12, 13, 14, 15], [3, 20, 21, 33, 38]], ids=str)
def test_tasks_that_kill_are_quarantined_and_others_succeed(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, deadly: list[int]
) -> None:
    trial.on.update({f"task-{number:05d}": kill for number in deadly})
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"] == {
        "succeeded": 40 - len(deadly),
        "failed": 0,
        "quarantined": len(deadly),
        "unprocessed": 0,
    }
    assert [failure["task"]["id"] for failure in failures(store, shard)] == [f"task-{n:05d}" for n in deadly]
    assert {failure["error"]["name"] for failure in failures(store, shard)} == {"QuarantinedError"}
    assert {failure["attempts"] for failure in failures(store, shard)} == {DEADLY}


def test_a_whole_shard_of_deadly_tasks_comes_to_its_end(machine: Machine, store: JobStore, trial: Any) -> None:
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(number) for number in range(4)])
    trial.on.update({f"task-{number:05d}": kill for number in range(4)})
    with pytest.raises(ShardFailedError):
        run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"]["quarantined"] == 4


def test_a_task_that_kills_two_workers_alone_succeeds(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    # After one without a trace, one unmarked, and one in a stretch.
    deaths = iter([kill] * (3 + 2))
    trial.on["task-00009"] = lambda: next(deaths, lambda: 1)()
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"]["succeeded"] == 40


def test_deaths_among_neighbours_do_not_count_against_a_task(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    # Two before anything is marked, one in a stretch of several tasks, and one too few alone.
    deaths = iter([kill] * (3 + DEADLY - 1))
    trial.on["task-00009"] = lambda: next(deaths, lambda: 1)()
    assert run_to_the_end(machine, shard)[1] == 3 + DEADLY - 1
    assert committed(store, shard)["counts"]["succeeded"] == 40


def test_random_deaths_of_a_worker_quarantine_no_task(
    machine: Machine, store: JobStore, shard: Shard, trial: Any
) -> None:
    count = iter(range(1000))

    def sometimes() -> int:
        if next(count) in {3, 20, 50, 60}:
            kill()
        return 1

    trial.on.update({f"task-{number:05d}": sometimes for number in range(40)})
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"]["succeeded"] == 40


def test_an_error_that_the_worker_raised_itself_is_nobodys_death(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = JobStore.put_once
    monkeypatch.setattr(JobStore, "put_once", lambda *_: (_ for _ in ()).throw(RuntimeError("S3 is away")))
    for attempt in range(STALLS + 3):
        with pytest.raises(RuntimeError):
            machine.call("Worker", event(shard, attempt=attempt))
    monkeypatch.setattr(JobStore, "put_once", real)
    assert run_to_the_end(machine, shard, attempt=STALLS + 3)[1] == 0
    assert committed(store, shard)["counts"]["succeeded"] == 40


def test_a_shard_is_given_up_after_deaths_outside_of_tasks(
    machine: Machine, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bucket, "tasks", lambda self, shard: kill())
    # The first leaves no trace.
    for attempt in range(STALLS + 2):
        with pytest.raises(KilledError):
            machine.call("Worker", event(shard, attempt=attempt))
    with pytest.raises(ShardStuckError, match=f"lost {STALLS + 1} workers in a row outside of any task"):
        machine.call("Worker", event(shard, attempt=STALLS + 2))


@pytest.mark.parametrize(("attempt", "puts"), [(0, 2), (1, 3), (11, 3)])
def test_a_throttled_start_costs_one_object_and_no_call(
    machine: Machine, store: JobStore, shard: Shard, attempt: int, puts: int
) -> None:
    written = count_puts(machine)
    assert run_to_the_end(machine, shard, attempt=attempt) == (1, 0)
    assert committed(store, shard)["counts"]["succeeded"] == 40
    assert len(written) == puts


def count_puts(machine: Machine) -> list[str]:
    """The objects that workers write, as they do."""
    written: list[str] = []

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.operation == "PutObject" and boundary.function == "Worker":
            written.append(cast("Any", boundary.request).url)
        return cross()

    machine.around = around
    return written


def test_throttled_starts_cost_one_object_a_shard(machine: Machine, trial: Any) -> None:
    put_tasks([task(number) for number in range(40)])
    written = count_puts(machine)
    count = machine.around

    def run(job_id: str, throttles: int) -> tuple[int, int]:
        """The calls of workers, and the objects that they write."""
        machine.calls.clear()
        written.clear()

        def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
            is_start = (boundary.service, boundary.function) == ("states", "Worker")
            if is_start and boundary.event["attempt"] < throttles:
                raise CallError("Lambda.TooManyRequestsException")
            return count(boundary, cross)

        machine.around = around
        ended = machine.run({"kind": "trial", "shardSize": 4}, job_id)
        assert ended.output["counts"]["succeeded"] == 40
        return sum(call.function == "Worker" for call in machine.calls), len(written)

    calls, puts = run("job-1", throttles=0)
    assert run("job-2", throttles=1) == run("job-3", throttles=7) == (calls, puts + calls)


def test_a_stuck_shard_is_unprocessed_and_the_others_succeed(machine: Machine, trial: Any) -> None:
    put_tasks([task(number) for number in range(40)])

    def die(call: Call) -> None:
        if call.function == "Worker" and call.event["shard"]["index"] == 1:
            raise KilledError

    machine.before = die
    ended = machine.run({"kind": "trial", "shardSize": 4, "toleratedFailurePercentage": 20})
    assert ended.status == "SUCCEEDED"
    counts = ended.output["counts"]
    assert ended.output["status"] == "PARTIAL"
    assert counts["unprocessed"] > 0
    assert counts["succeeded"] + counts["unprocessed"] == counts["listed"] == 40


def test_a_manifest_line_describes_its_shard_in_full(store: JobStore, shard: Shard) -> None:
    put_manifest(store, [shard])
    (line,) = store.lines("manifest.jsonl")
    assert Shard(**json.loads(line.text)) == shard


# --- what a kind's own code may do wrong


@pytest.mark.parametrize(
    "spoilt",
    [float("nan"), "\ud800", {1, 2}, b"bytes", {1: "a number for a key"}, (1, 2), object],
    ids=repr,
)
def test_a_value_that_is_not_json_fails_its_task_alone(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch, spoilt: Any
) -> None:
    def fold(kind: Any, partial: Any, task: Any, result: Any, job: Any) -> Any:
        # In place, so that it is there whatever becomes of this task.
        partial["tasks"] += 1
        if task.id == "task-00013":
            partial["spoilt"] = spoilt
        return partial

    monkeypatch.setattr(type(trial), "fold", fold)
    calls, deaths = run_to_the_end(machine, shard)
    assert (calls, deaths) == (1, 0)
    assert committed(store, shard)["value"] == {"tasks": 39, "length": 0}
    assert [line["task"]["id"] for line in failures(store, shard)] == ["task-00013"]
    # The kind is asked for no task again: an effect would be repeated.
    assert sum(map(len, trial.calls)) == 40


@pytest.mark.parametrize(
    "line",
    [
        ("tab\there", {}),
        ("two\nlines", {}),
        ("\ud800", {}),
        (7, {}),
        ("key", {"a": float("inf")}),
        ("key", "x" * (2 << 20)),
    ],
    ids=lambda line: repr(line)[:20],
)
def test_a_line_that_is_none_fails_its_task_alone(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch, line: Any
) -> None:
    good = type(trial).line
    monkeypatch.setattr(
        type(trial),
        "line",
        lambda kind, task, *more: line if task.id == "task-00003" else good(kind, task, *more),
    )
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"] == {
        "succeeded": 39, "failed": 1, "quarantined": 0, "unprocessed": 0,
    }  # fmt: skip
    assert committed(store, shard)["value"]["tasks"] == len(list(store.lines(committed(store, shard)["lines"])))


def test_a_kind_that_answers_no_list_fails_its_tasks(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(trial), "process_many", lambda kind, tasks, job: {task.id: THROTTLED for task in tasks})
    machine.call("Worker", event(shard, listed=1_000_000))
    assert {line["error"]["name"] for line in failures(store, shard)} == {"TypeError"}
    assert committed(store, shard)["counts"]["failed"] == 40


@pytest.mark.parametrize("error", [CancelledError(), SystemExit(1), RecursionError(), MemoryError()], ids=repr)
def test_what_a_task_raises_is_no_death(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, error: Any
) -> None:
    trial.on["task-00020"] = error
    assert run_to_the_end(machine, shard) == (1, 0)
    assert [line["error"]["name"] for line in failures(store, shard)] == [type(error).__name__]


# --- throttling of one among many, and for long


def test_a_task_that_is_refused_among_others_fails_alone(store: JobStore, shard: Shard, trial: Any) -> None:
    """A kind that cannot say whose fault it was is asked for them one by one in the end."""
    trial.on["task-00004"] = ThrottledError("slow down")
    work_on(store, shard, FakeClock()).run(attempt=0, is_resumed=False)
    assert [(line["task"]["id"], line["attempts"]) for line in failures(store, shard)] == [("task-00004", ATTEMPTS)]
    assert sum("task-00004" in call for call in trial.calls) == ATTEMPTS


def test_what_succeeds_in_between_gives_back_of_the_retry_budget(
    store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(trial), "batch", 1)
    put_plan(store, kind="trial")
    count = 3000
    shard = put_shard(store, 0, [task(number) for number in range(count)])
    # One task in twelve is throttled once: more of them than the budget has to begin with.
    for number in range(0, count, 12):
        answers = iter([THROTTLED])
        trial.on[f"task-{number:05d}"] = lambda answers=answers: next(answers, 1)
    work_on(store, shard, FakeClock()).run(attempt=0, is_resumed=False)
    assert count / 12 > RETRY_BUDGET
    assert committed(store, shard)["counts"]["succeeded"] == count


def test_throttling_across_calls_fails_the_task_only(store: JobStore, trial: Any) -> None:
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(0)])
    clock = FakeClock()

    def slow() -> Failure:
        clock.clock.sleep(200)
        return THROTTLED

    trial.on["task-00000"] = slow
    calls, done = 0, None
    while done is None:
        calls += 1
        assert calls < 10
        began = clock.time
        runner = ShardRunner(
            store,
            plan(kind="trial"),
            shard,
            workers=1,
            write=None,
            is_late=clock.ends(900),
            clock=clock.clock,
        )
        done = runner.run(attempt=0, is_resumed=calls > 1)
        assert clock.time - began < 900
    assert [(line["outcome"], line["attempts"]) for line in failures(store, shard)] == [("failed", ATTEMPTS)]
    assert (calls, len(trial.calls)) == (2, ATTEMPTS)


THROTTLED_WRITE = Failure.of_write({"outcome": "throttled"})


def work_until(clock: FakeClock, store: JobStore, shard: Shard, seconds: float = 900) -> int:
    """Call the worker, which has so many seconds a call, until its shard is done: how many calls."""
    calls, done = 0, None
    while done is None:
        began = clock.time
        runner = ShardRunner(
            store, plan(kind="trial"), shard, workers=1, write=None, is_late=clock.ends(seconds), clock=clock.clock
        )
        done = runner.run(attempt=0, is_resumed=calls > 0)
        calls += 1
        assert clock.time - began < seconds
    return calls


def test_a_throttled_write_is_tried_again_without_a_limit(store: JobStore, trial: Any) -> None:
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(number) for number in range(10)])
    clock = FakeClock()
    # For six hours: more attempts than a task has, and more than the retries of a call.
    trial.on["task-00003"] = lambda: THROTTLED_WRITE if clock.time < 6 * 3600 else 1
    calls = work_until(clock, store, shard)
    assert committed(store, shard)["counts"]["succeeded"] == 10
    assert len(trial.calls) > 10 * RETRY_BUDGET
    assert 24 <= calls <= 26


def test_throttled_writes_are_paced(store: JobStore, shard: Shard, trial: Any) -> None:
    answers = iter([THROTTLED_WRITE] * 100)
    trial.on["task-00003"] = lambda: next(answers, 1)
    full, half = FakeClock(1.0), FakeClock(0.5)
    for number, clock in enumerate((full, half)):
        answers = iter([THROTTLED_WRITE] * 100)
        work_on(store, put_shard(store, number, [task(3)]), clock).run(attempt=0, is_resumed=False)
    assert full.sleeps[:3] == [0.4, 0.8, 1.6]
    assert full.sleeps == sorted(full.sleeps)
    assert full.sleeps[10:] == [kind_runner.LONGEST_PAUSE] * 90
    assert half.sleeps == [pause / 2 for pause in full.sleeps]


def test_a_late_batch_keeps_the_writes_that_are_done(store: JobStore, trial: Any) -> None:
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(number) for number in range(10)])
    clock = FakeClock()
    # Each call is over before the fourth write of its batch is done.
    for number in (3, 6, 9):
        trial.on[f"task-{number:05d}"] = lambda number=number: THROTTLED_WRITE if clock.time < 290 * number else 1
    work_until(clock, store, shard)
    assert committed(store, shard)["counts"]["succeeded"] == 10
    for number in range(3):
        assert sum(f"task-{number:05d}" in call for call in trial.calls) == 1


def test_throttled_writes_take_nothing_from_other_tasks(store: JobStore, trial: Any) -> None:
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(number) for number in range(3)])
    writes, others = iter([THROTTLED_WRITE] * 30), iter([THROTTLED_WRITE] * 20 + [THROTTLED] * (ATTEMPTS - 1))
    trial.on["task-00000"] = lambda: next(writes, 1)
    # Alone with its throttled writes behind it, it has all of its attempts.
    alone = put_shard(store, 1, [task(1)])
    trial.on["task-00001"] = lambda: next(others, 1)
    trial.on["task-00002"] = THROTTLED
    work_on(store, alone, FakeClock()).run(attempt=0, is_resumed=False)
    assert failures(store, alone) == []
    work_on(store, shard, FakeClock()).run(attempt=0, is_resumed=False)
    # What the kind itself asks for keeps its attempts.
    assert [(line["task"]["id"], line["attempts"]) for line in failures(store, shard)] == [("task-00002", ATTEMPTS)]


def test_a_throttled_call_of_write_tasks_fails_no_task(machine: Machine) -> None:
    put_tasks([task(number) | {"dueAt": "2026-11-01T00:00:00Z"} for number in range(20)])
    refused = [0]

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.service == "lambda" and boundary.function == "Worker" and refused[0] < 200:
            refused[0] += 1
            body = json.dumps({"Type": "User", "message": "Rate Exceeded."})
            return response(cast("Any", boundary.request), 429, body, {"x-amzn-ErrorType": "TooManyRequestsException"})
        return cross()

    machine.around = around
    ended = machine.run({"kind": "reschedule-overdue", "shardSize": 20})
    assert refused[0] == 200
    assert ended.output["counts"]["succeeded"] == 20


def test_tasks_that_are_asked_one_by_one_keep_to_the_ceiling_too(store: JobStore, shard: Shard, trial: Any) -> None:
    trial.on["task-00007"] = ValueError("no")
    clock = FakeClock()
    work_on(store, shard, clock, tasksPerSecond=10).run(attempt=0, is_resumed=False)
    # The ten tasks that were asked together are asked again.
    assert clock.time == pytest.approx(50 / 10)


# --- suspicion


@pytest.mark.parametrize(("count", "deaths"), [(500, 6), (10_000, 8)])
def test_a_deadly_task_costs_the_deaths_that_the_guide_says(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch, count: int, deaths: int
) -> None:
    monkeypatch.setattr(type(trial), "batch", 500)
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(number) for number in range(count)])
    trial.on[f"task-{count * 2 // 3:05d}"] = kill
    assert run_to_the_end(machine, shard)[1] == deaths
    assert committed(store, shard)["counts"] == {
        "succeeded": count - 1, "failed": 0, "quarantined": 1, "unprocessed": 0,
    }  # fmt: skip
    assert failures(store, shard)[0]["attempts"] == 3


@pytest.mark.parametrize("most", [7, 25])
def test_a_process_that_can_do_only_so_many_tasks_costs_no_task(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A leak, say: whatever task it is at when the process ends, that task is not to blame."""
    monkeypatch.setattr(type(trial), "batch", 1)
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(number) for number in range(200)])
    done = {"here": 0}

    def some() -> int:
        done["here"] += 1
        if done["here"] > most:
            done["here"] = 0
            kill()
        return 1

    trial.on.update({f"task-{number:05d}": some for number in range(200)})
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"]["succeeded"] == 200


def test_a_task_that_kills_only_after_another_is_cleared(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(trial), "batch", 1)
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [task(number) for number in range(500)])
    seen: set[str] = set()

    def new_process(call: Call) -> None:
        seen.clear()

    machine.before = new_process

    def spoil() -> int:
        seen.add("5")
        return 1

    trial.on["task-00005"] = spoil
    trial.on["task-00030"] = lambda: kill() if "5" in seen else 1
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"]["succeeded"] == 500


def test_a_stop_is_noticed_during_a_search_too(
    store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(trial), "batch", 1)
    clock = FakeClock()
    for number in range(40):
        trial.on[f"task-{number:05d}"] = lambda: clock.spend(10)
    store.put("record.json", {"status": "STOPPED"})
    store.put(shard.marker, asdict(Marker(has_begun=True)))
    # After a death, it saves behind each stretch of two tasks.
    assert work_on(store, shard, clock).run(attempt=1, is_resumed=False) is None
    with pytest.raises(JobEndedError):
        work_on(store, shard, clock).run(attempt=0, is_resumed=True)
    assert clock.time <= 100
