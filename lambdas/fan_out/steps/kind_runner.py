"""Ask a kind for its answers to tasks: at the job's pace, through its faults, and again where it is throttled."""

from __future__ import annotations

import random
import time
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fan_out.errors import RetryableError
from fan_out.model.kind import Failure, Job, Kind
from fan_out.model.plan import Plan
from fan_out.model.task import Row, Task

# Tries for a task that is throttled, with full jitter up to PAUSE * 2^try seconds between them; and how many
# further tries one call has in all, so that a downstream in trouble is not kept there by its clients.
TRIES = 8
PAUSE = 0.2
LONGEST_PAUSE = 20.0
RETRY_BUDGET = 100
# What a success gives back of the budget, as in the SDK's retry quota: a further try costs five successes.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
REFUND = 0.2
# Under a ceiling, tasks that are worked on together are at most those of so many seconds: no bursts.
BATCH_SECONDS = 1.0
# What the kind's own code may raise; of whatever else it does, its worker dies.
FAULTS = (Exception, SystemExit, CancelledError)


@dataclass(frozen=True, slots=True)
class Tried:
    """The kind's last answer for a task, a result or a Failure, and after how many tries."""

    answer: Any
    tries: int


@dataclass(frozen=True)
class Clock:
    """Time as the worker sees it; a test brings its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random


@dataclass
class Pace:
    """Lets tasks start at most `per_second`, evenly. A new worker waits before its first task, too."""

    per_second: float | None
    clock: Clock
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._next = self.clock.now() + (0.0 if self.per_second is None else 1 / self.per_second)

    def seconds_until(self, tasks: int) -> float:
        """How long to wait before so many tasks may start together."""
        if self.per_second is None:
            return 0.0
        return max(0.0, self._next + (tasks - 1) / self.per_second - self.clock.now())

    def wait(self, tasks: int) -> None:
        """Wait until so many tasks may start together; the next may start a step later, however slow these are."""
        if self.per_second is None:
            return
        self.clock.sleep(self.seconds_until(tasks))
        self._next = max(self._next + (tasks - 1) / self.per_second, self.clock.now()) + 1 / self.per_second


def task_rate(plan: Plan, workers: int) -> float | None:
    """A worker's share of the job's ceiling. At most `workers` run at a time, so the sum keeps to it."""
    return None if plan.tasks_per_second is None else plan.tasks_per_second / workers


class Asker:
    """Asks a kind on behalf of one call of the worker."""

    def __init__(
        self,
        kind: Kind[Any, Any],
        job: Job[Any],
        rate: float | None,
        clock: Clock,
        is_late: Callable[[float], bool],
    ):
        self._kind = kind
        self._job = job
        self._clock = clock
        self._is_late = is_late
        self.pace = Pace(rate, clock)
        # Under a low ceiling a full batch would mean to sit idle for minutes and then to strike at once.
        self.batch = kind.batch if rate is None else min(kind.batch, max(1, int(rate * BATCH_SECONDS)))
        self._retries_left = float(RETRY_BUDGET)
        # Whether the kind's last refusal was of all its tasks at once.
        self._is_refused_whole = False

    def refund(self, successes: int) -> None:
        """Give back of the retry budget what so many tasks that succeeded are worth."""
        self._retries_left = min(RETRY_BUDGET, self._retries_left + REFUND * successes)

    def answers(self, tasks: Sequence[Task | Row], tries: int) -> list[Tried] | int:
        """The kind's answer for each task, after as many tries as throttling asks for and the budget allows.

        `tries` is how often earlier calls have tried them already. If this call gets late over it, the number of tries
        by now: the next one goes on there.
        """
        answers: dict[int, Tried] = {}
        for number, task in enumerate(tasks):
            if isinstance(task, Row) and task.problem is not None:
                answers[number] = Tried(Failure("InvalidRowError", f"Row {task.number}: {task.problem}."), 1)
        longest = 0.0
        while waiting := [number for number in range(len(tasks)) if number not in answers]:
            tries += 1
            self.pace.wait(len(waiting))
            begun = self._clock.now()
            # Tasks that were refused together have their last try each by itself: it may be one that is refused.
            is_apart = self._is_refused_whole and tries >= TRIES
            again = [tasks[number] for number in waiting]
            asked = (
                [each for task in again for each in self._asked_alone(task)]
                if is_apart
                else self._asked(again)
            )
            longest = max(longest, self._clock.now() - begun)
            for number, answer in zip(waiting, asked, strict=True):
                if isinstance(answer, Failure) and answer.retry and tries < TRIES and self._retries_left > 0:
                    continue
                answers[number] = Tried(answer, tries)
            if len(answers) < len(tasks):
                self._retries_left -= 1
                pause = min(LONGEST_PAUSE, PAUSE * 2**tries) * self._clock.jitter()
                if self._is_late(pause + longest):
                    return tries
                self._clock.sleep(pause)
        return [answers[number] for number in range(len(tasks))]

    def _asked(self, tasks: Sequence[Task | Row]) -> list[Any]:
        """What the kind says to the tasks. A failing task is a value: nothing that it raises gets out of here."""
        try:
            answers = self._kind.process_many(tasks, self._job)
            if not isinstance(answers, list | tuple):
                raise TypeError(
                    f"{self._kind.name} gave a {type(answers).__name__} instead of a list of answers"
                )
            if len(answers) != len(tasks):
                raise ValueError(f"{self._kind.name} gave {len(answers)} answers to {len(tasks)} tasks")
        except RetryableError as error:
            self._is_refused_whole = len(tasks) > 1
            return [Failure(type(error).__name__, str(error), retry=True)] * len(tasks)
        except FAULTS as error:
            if len(tasks) > 1:
                # One of them did it, and the kind does not say which.
                return [answer for task in tasks for answer in self._asked_alone(task)]
            return [Failure(type(error).__name__, str(error))]
        return list(answers)

    def _asked_alone(self, task: Task | Row) -> list[Any]:
        self.pace.wait(1)
        return self._asked([task])
