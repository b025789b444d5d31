"""Run a kind over tasks: at the job's rate, through its faults, and again where it is throttled."""

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from fan_out.errors import RetryableError
from fan_out.model.kind import FAULTS, Failure, Job, Kind, failure_of, text_of
from fan_out.model.plan import Plan
from fan_out.model.task import Row, Task
from fan_out.steps import process_guard

# Attempts for a task that is throttled, with full jitter up to PAUSE * 2^attempt seconds between them; and how many
# retries one call has in all, so that a downstream in trouble is not kept there by its clients. A throttled write needs
# neither bound: WriteTasks itself slows down to what the table takes.
ATTEMPTS = 8
PAUSE = 0.2
LONGEST_PAUSE = 20.0
RETRY_BUDGET = 100
# What a success gives back of the budget, as in the SDK's retry quota: a retry costs five successes.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
REFUND = 0.2
# Under a rate limit, tasks that are worked on together are at most those of this many seconds: no bursts.
BATCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """The kind's last answer for a task, a result or a Failure, and the number of the attempt that gave it."""

    answer: Any
    number: int


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """The call should end before all tasks have answers, after this many attempts; the first of them are `done`."""

    attempts: int
    done: list[Attempt]


@dataclass(frozen=True)
class Clock:
    """Time as the worker sees it; a test brings its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random


class RateLimiter:
    """Lets tasks start at most `per_second`, evenly. A new worker waits before its first task, too."""

    def __init__(self, per_second: float | None, clock: Clock):
        self._clock = clock
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._next = clock.now() + self._interval

    def seconds_until(self, tasks: int) -> float:
        """How long to wait before this many tasks may start together."""
        return max(0.0, self._next + (tasks - 1) * self._interval - self._clock.now())

    def wait(self, tasks: int) -> None:
        """Wait until this many tasks may start together; the next may start a step later, however slow these are."""
        if not self._interval:
            return
        # protection: a-rate-limit
        self._clock.sleep(self.seconds_until(tasks))
        self._next = max(self._next + (tasks - 1) * self._interval, self._clock.now()) + self._interval


def task_rate(plan: Plan, workers: int) -> float | None:
    """A worker's share of the job's rate limit. At most `workers` run at a time, so the sum keeps to it."""
    return None if plan.tasks_per_second is None else plan.tasks_per_second / workers


class KindRunner:
    """Runs a kind in one call of the worker."""

    def __init__(
        self, kind: Kind[Any, Any], job: Job[Any], rate: float | None, clock: Clock, is_late: Callable[[float], bool]
    ):
        self._kind = kind
        self._job = job
        self._clock = clock
        self._is_late = is_late
        self._pid = os.getpid()
        self.limiter = RateLimiter(rate, clock)
        # Under a low rate a full batch would mean to sit idle for minutes and then to strike at once.
        self.batch = kind.batch if rate is None else min(kind.batch, max(1, int(rate * BATCH_SECONDS)))
        self._retries_left = float(RETRY_BUDGET)
        # Whether the kind's last refusal was of all its tasks at once.
        self._is_refused_whole = False

    def run(self, tasks: Sequence[Task | Row], number: int) -> list[Attempt] | OutOfTime:
        """The kind's answer for each task, after as many attempts as throttling asks for and the budget allows.

        `number` counts the attempts of earlier calls; the next call goes on at those of OutOfTime. An attempt after
        which only throttled writes are left is not counted.
        """
        attempts = [_invalid_row(task) for task in tasks]
        waiting = [position for position, attempt in enumerate(attempts) if attempt is None]
        longest, pause = 0.0, PAUSE * 2**number
        while waiting:
            number += 1
            self.limiter.wait(len(waiting))
            begun = self._clock.now()
            # Tasks that were refused together have their last attempt alone: it may be one of them that is refused.
            # protection: the-last-attempt-is-alone
            is_alone = self._is_refused_whole and number >= ATTEMPTS
            run = self._run_one_by_one if is_alone else self._run_together
            answers = run([tasks[position] for position in waiting])
            # protection: a-retry-budget
            may_retry = number < ATTEMPTS and self._retries_left > 0
            again, counted, successes = [], False, 0
            for position, answer in zip(waiting, answers, strict=True):
                if type(answer) is not Failure:
                    successes += 1
                # protection: a-throttled-write-never-fails
                elif answer.is_throttled_write or (answer.retry and may_retry):
                    again.append(position)
                    counted = counted or not answer.is_throttled_write
                    continue
                attempts[position] = Attempt(answer, number)
            self._retries_left = min(RETRY_BUDGET, self._retries_left + REFUND * successes)
            if waiting := again:
                number, self._retries_left = number - (not counted), self._retries_left - counted
                longest = max(longest, self._clock.now() - begun)
                # protection: pauses-grow-to-their-longest
                pause = min(LONGEST_PAUSE, pause * 2)
                jittered = pause * self._clock.jitter()
                if self._is_late(jittered + longest):
                    return OutOfTime(number, cast(list[Attempt], attempts[: waiting[0]]))
                self._clock.sleep(jittered)
        return cast(list[Attempt], attempts)

    def _run_together(self, tasks: list[Task | Row]) -> list[Any]:
        """One attempt. A failing task is a value: what fails a task is never raised from here."""
        # protection: a-failing-task-is-a-value
        try:
            return self._process(tasks)
        except RetryableError as error:
            self._is_refused_whole = len(tasks) > 1
            return [failure_of(error)] * len(tasks)
        except FAULTS as error:
            # It was one of them, and the kind does not say which.
            # protection: a-failing-batch-is-divided
            if len(tasks) > 1:
                return self._run_one_by_one(tasks)
            return [failure_of(error)]

    def _run_one_by_one(self, tasks: list[Task | Row]) -> list[Any]:
        answers = []
        for task in tasks:
            self.limiter.wait(1)
            answers += self._run_together([task])
        return answers

    def _process(self, tasks: list[Task | Row]) -> list[Any]:
        try:
            answers = self._kind.process_many(copied(tasks), self._job)
        finally:
            process_guard.end_fork(self._pid)
        if not isinstance(answers, list | tuple):
            raise TypeError(f"{self._kind.name} gave a {type(answers).__name__} instead of a list of answers")
        if len(answers) != len(tasks):
            raise ValueError(f"{self._kind.name} gave {len(answers)} answers to {len(tasks)} tasks")
        return [
            Failure(text_of(each.name), text_of(each.message), bool(each.retry), bool(each.is_throttled_write))
            if isinstance(each, Failure)
            else each
            for each in answers
        ]


def copied(tasks: Sequence[Task | Row]) -> list[Any]:
    """The tasks as a kind's code gets them: what it changes in there changes nothing here."""
    return [replace(task, fields=dict(task.fields)) if type(task) is Row else task for task in tasks]


def _invalid_row(task: Task | Row) -> Attempt | None:
    if type(task) is Row and task.problem is not None:
        return Attempt(Failure("InvalidRowError", f"Row {task.number}: {task.problem}."), 1)
    return None
