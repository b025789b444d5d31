"""Work on one shard: every task gets one outcome, whatever its worker lives through.

A call of the worker goes through the shard in order and commits one object, the shard's *partial*; the first
commit counts. Near its deadline it saves a *checkpoint* and is called again. A first call pays nothing for
what follows; only a call that comes after a death (a crash, a time-out) looks for traces:

- It goes on from the checkpoint and leaves a *marker* before each stretch of tasks that it starts on.
- A marker still in flight names the stretch in which a worker died; it is worked on again in smaller
  stretches, down to single tasks. A single task that has killed DEADLY workers is quarantined.
- Deaths outside any stretch are counted as stalls; after STALLS of them the shard is given up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fan_out.aws.storage import RECORD, JobStore
from fan_out.errors import AccountingError, JobEndedError, ShardStuckError
from fan_out.model import kind as kinds
from fan_out.model.documents import encode, encode_value
from fan_out.model.kind import Failure, Job, Kind
from fan_out.model.outcomes import failure
from fan_out.model.plan import Plan
from fan_out.model.shard import Progress, Shard, partial
from fan_out.model.task import Row, Task, from_json
from fan_out.steps.kind_runner import FAULTS, Asker, Clock, Tried, task_rate

# How many workers one task may kill alone before it is quarantined. Finding it costs a few deaths more. With two, one
# worker in twenty dying for reasons of its own would quarantine one in four hundred of the tasks under suspicion.
DEADLY = 3
# How many tasks of a shard are quarantined at the most; with one more the shard is given up.
QUARANTINES = 20
# How many deaths without progress make a shard stuck.
STALLS = 5
# Into how many stretches a careful call divides what it works on.
STRETCHES = 16
# A checkpoint is written at least so often, so that a death late in a long shard does not cost all of it.
CHECKPOINT_SECONDS = 60.0
# A line of the kind's file; it is read in one piece when lines are merged.
LONGEST_OWN_LINE = 1 << 20


@dataclass
class Marker:
    """What the calls before this one left behind: the tasks [start, end) under suspicion.

    `in_flight` says that a worker is among them at this moment; if it is the next call that reads it, that
    worker died there. `deaths` counts what a single task under suspicion has killed; `stalls` counts deaths
    elsewhere; `is_clean` says that the call before ended by an error of its own, not by a death.
    """

    start: int = 0
    end: int = 0
    in_flight: bool = False
    deaths: int = 0
    stalls: int = 0
    is_clean: bool = False

    def has(self, position: int) -> bool:
        return self.start <= position < self.end

    def died(self) -> None:
        """Take in that the call which left this marker died."""
        if self.is_clean:
            self.is_clean = False
        elif self.in_flight:
            self.stalls = 0
            if self.end - self.start == 1:
                self.deaths += 1
        else:
            self.stalls += 1
        self.in_flight = False


def _stored(value: Any) -> bytes:
    """The value as it is stored. Raises TypeError or ValueError if it would not come back as it is."""
    body = encode_value(value)
    if json.loads(body) != value:
        raise TypeError("the kind folded to a value that JSON gives back as another one")
    return body


def _own_line(key: Any, document: Any) -> str:
    """A line of the kind's file. Raises TypeError or ValueError if it cannot be one."""
    if not isinstance(key, str) or not key.isprintable():
        raise TypeError("the key of a line must be a printable text")
    line = f"{key}\t{encode(document).decode()}"
    if len(line) > LONGEST_OWN_LINE:
        raise ValueError(f"a line has {len(line):,} characters, but at most {LONGEST_OWN_LINE:,} are taken")
    line.encode()
    return line


class ShardWork:
    """One call of the worker on one shard."""

    def __init__(
        self,
        store: JobStore,
        plan: Plan,
        shard: Shard,
        *,
        workers: int,
        write: Callable[..., list[dict[str, Any]]] | None,
        is_late: Callable[[float], bool],
        clock: Clock | None = None,
    ):
        self._store = store
        self._shard = shard
        self._clock = clock or Clock()
        self._is_late = is_late
        self._kind: Kind[Any, Any] = kinds.find(plan.kind)
        self._job: Job[Any] = plan.job(write)
        self._asker = Asker(self._kind, self._job, task_rate(plan, workers), self._clock, is_late)
        self._progress = Progress(value=self._kind.zero())
        # The value as it was when it was last known to be good.
        self._value = encode(self._progress.value)
        # None on the healthy path: nothing is marked before the first death.
        self._marker: Marker | None = None
        self._saved_at = self._checked_at = self._clock.now()
        self._has_worked = False
        # The longest that a batch took so far, and whether this call came after a death.
        self._longest = 0.0
        self._is_after_death = False

    def run(self, *, attempt: int, is_resumed: bool) -> dict[str, Any] | None:
        """Work until the shard is done, or the call should end and be repeated (None).

        Answers the committed partial: this call's, or the one that an earlier attempt came first with.
        `attempt` counts the tries since the state machine last heard of this shard; `is_resumed` says that an
        earlier call ended on purpose. Raises ShardStuckError; anything else raised is tried again.
        """
        try:
            if attempt or is_resumed:
                if (committed := self._store.find(self._shard.partial)) is not None:
                    return dict(committed)
                self._look_for_traces(is_death=attempt > 0)
            tasks = self._read()
            return self._commit() if self._work(tasks) else None
        except (ShardStuckError, JobEndedError):
            raise
        except Exception:
            # Whatever this was, it was no death: the tasks in flight are not to blame.
            self._mark(is_clean=True)
            raise

    def _look_for_traces(self, *, is_death: bool) -> None:
        if (saved := self._store.find(self._shard.checkpoint)) is not None:
            self._progress = Progress.from_json(saved)
            self._value = encode(self._progress.value)
        found = self._store.find(self._shard.marker)
        if found is None and not is_death:
            return
        marker = self._marker = Marker(**(found or {}))
        self._is_after_death = is_death and not marker.is_clean
        if is_death:
            marker.died()
            if marker.stalls > STALLS:
                raise ShardStuckError(
                    f"Shard {self._shard.index} lost {marker.stalls} workers in a row outside of any task."
                )
            self._mark()

    def _mark(self, *, is_clean: bool = False) -> None:
        """Save the marker, with nobody in flight."""
        marker = self._marker or Marker()
        marker.in_flight = False
        marker.is_clean = is_clean
        self._store.put(self._shard.marker, asdict(marker))

    def _mark_in_flight(self, start: int, end: int) -> None:
        assert self._marker is not None
        deaths = self._marker.deaths if (start, end) == (self._marker.start, self._marker.end) else 0
        self._store.put(self._shard.marker, asdict(Marker(start, end, in_flight=True, deaths=deaths)))

    def _read(self) -> list[Task | Row]:
        lines = [line.text for line in self._store.bucket.lines(self._shard.key)]
        if len(lines) != self._shard.count:
            raise AccountingError(
                f"Shard {self._shard.index} has {len(lines)} tasks, but the manifest says {self._shard.count}."
            )
        return [from_json(json.loads(line)) for line in lines]

    def _work(self, tasks: list[Task | Row]) -> bool:
        """Give every task its outcome; False if the call should end before."""
        while (start := self._progress.next) < len(tasks):
            marker = self._marker
            if marker is None:
                if not self._work_through(tasks[start:]):
                    self._save()
                    return False
                continue
            if marker.deaths >= DEADLY and marker.has(start):
                self._quarantine(tasks[start], marker.deaths)
                # Ending the call here starts the state machine's count of retries anew for the next one.
                self._save()
                self._marker = Marker()
                self._mark()
                return False
            end = self._end_of_stretch(start, len(tasks))
            if start >= marker.start or not marker.end:
                self._mark_in_flight(start, end)
            if not self._work_through(tasks[start:end]):
                self._save()
                # A call that got somewhere ends a row of stalls, or a long shard would add up its rare deaths.
                marker.stalls = 0
                self._mark()
                return False
            if end == marker.start:
                # So that the suspect's next worker does not work on these before it: it is to be alone.
                self._save()
            if not marker.has(end):
                # Past the suspects, if there were any: they are cleared, and whatever stalled is overcome.
                self._save()
                self._marker = Marker()
                if self._is_after_death and end < len(tasks):
                    # The shard has moved on since its worker died: the machine's count of retries begins anew.
                    self._mark()
                    return False
        return True

    def _end_of_stretch(self, start: int, count: int) -> int:
        """Where the tasks end that are marked and worked on together in careful mode, `start` on."""
        marker = self._marker
        assert marker is not None
        if start < marker.start:
            # These ran well since the suspicion arose; they are not marked again.
            return marker.start
        if marker.has(start):
            return min(start + max(1, (marker.end - marker.start) // STRETCHES), marker.end)
        return min(start + max(1, count // STRETCHES), count)

    def _work_through(self, tasks: Sequence[Task | Row]) -> bool:
        """Work on consecutive tasks, in calls of the kind's size; False when the call should end before them."""
        for start in range(0, len(tasks), self._asker.batch):
            some = tasks[start : start + self._asker.batch]
            wait = self._asker.pace.seconds_until(len(some))
            if self._has_worked and self._is_late(wait + self._longest):
                return False
            begun = self._clock.now()
            tries, self._progress.tries = self._progress.tries, 0
            answers = self._asker.answers(some, tries)
            if isinstance(answers, int):
                self._progress.tries = answers
                return False
            self._take_all(some, answers)
            self._has_worked = True
            self._longest = max(self._longest, self._clock.now() - begun)
            if self._clock.now() - self._saved_at > CHECKPOINT_SECONDS:
                self._save()
            if self._clock.now() - self._checked_at > CHECKPOINT_SECONDS:
                self._checked_at = self._clock.now()
                if self._store.has(RECORD):
                    raise JobEndedError("The job was stopped, and its account is written.")
        return True

    def _take_all(self, tasks: Sequence[Task | Row], answers: list[Tried]) -> None:
        """Put the outcomes of some tasks into the progress.

        What the kind folds is good only if it comes back from JSON as it was. That is seen once for all of them, and
        task by task where it is not, so that whoever spoils it fails alone.
        """
        progress = self._progress
        position, counts = progress.next, replace(progress.counts)
        lines, failures = len(progress.lines), len(progress.failures)
        try:
            for task, tried in zip(tasks, answers, strict=True):
                if isinstance(tried.answer, Failure):
                    self._fail(task, tried.answer, tried.tries)
                else:
                    self._succeed(*self._folded(task, tried.answer))
            self._value = _stored(progress.value)
        except FAULTS:
            progress.next, progress.counts = position, counts
            del progress.lines[lines:], progress.failures[failures:]
            self._take_each(tasks, answers)
        self._asker.refund(progress.counts.succeeded - counts.succeeded)

    def _take_each(self, tasks: Sequence[Task | Row], answers: list[Tried]) -> None:
        progress = self._progress
        for task, tried in zip(tasks, answers, strict=True):
            # A fold may have changed the value before it failed.
            progress.value = json.loads(self._value)
            answer = tried.answer
            if not isinstance(answer, Failure):
                try:
                    line, value = self._folded(task, answer)
                    stored = _stored(value)
                except FAULTS as error:
                    answer = Failure(type(error).__name__, str(error))
                else:
                    self._succeed(line, value)
                    self._value = stored
                    continue
            self._fail(task, answer, tried.tries)
        progress.value = json.loads(self._value)

    def _folded(self, task: Task | Row, answer: Any) -> tuple[str | None, Any]:
        """The task's line for the kind's file, and the value with its result in it."""
        line = self._kind.line(task, answer, self._job)
        text = None if line is None else _own_line(*line)
        return text, self._kind.fold(self._progress.value, task, answer, self._job)

    def _succeed(self, line: str | None, value: Any) -> None:
        if line is not None:
            self._progress.lines.append(line)
        self._progress.value = value
        self._progress.counts.succeeded += 1
        self._progress.next += 1

    def _fail(self, task: Task | Row, answer: Failure, tries: int) -> None:
        self._note_failure(task, "failed", answer.name, answer.message, tries)
        self._progress.counts.failed += 1
        self._progress.next += 1

    def _quarantine(self, task: Task | Row, deaths: int) -> None:
        message = f"The task ended its worker {deaths} times when it was worked on alone."
        self._note_failure(task, "quarantined", "QuarantinedError", message, deaths)
        self._progress.counts.quarantined += 1
        self._progress.next += 1
        if self._progress.counts.quarantined > QUARANTINES:
            # It is the kind that kills, not its tasks; each further one would cost as many workers.
            self._save()
            raise ShardStuckError(
                f"More than {QUARANTINES} tasks of shard {self._shard.index} ended their workers; "
                "the rest of it is not tried."
            )

    def _note_failure(self, task: Task | Row, outcome: str, name: str, message: str, attempts: int) -> None:
        self._progress.failures.append(
            failure(task.to_json(), outcome, name, message, shard=self._shard.index, attempts=attempts)
        )

    def _save(self) -> None:
        self._store.put(self._shard.checkpoint, self._progress.to_json())
        self._saved_at = self._clock.now()

    def _commit(self) -> dict[str, Any]:
        return dict(
            self._store.put_once(self._shard.partial, partial(self._store, self._shard, self._progress))
        )
