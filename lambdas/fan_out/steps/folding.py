"""Fold the results of a shard's tasks: a task whose result, line or fold is faulty fails alone, and is rolled back."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fan_out.aws.storage import JobStore
from fan_out.model.documents import digest, encode
from fan_out.model.kind import FAULTS, Failure, Job, Kind, failure_of, plain_json
from fan_out.model.outcomes import Counts, Digest, failure
from fan_out.model.shard import Partial, Progress, Shard
from fan_out.model.task import Row, Task
from fan_out.steps.kind_runner import Attempt, copied

# Characters of a line of the kind's file; it is read in one piece when lines are merged.
LONGEST_LINE = 1 << 20


class Folding:
    """Puts the outcomes of tasks into the shard's progress, in the order of the tasks."""

    def __init__(self, kind: Kind[Any, Any], job: Job[Any], shard: Shard):
        self._kind, self._job, self._shard = kind, job, shard
        self.resume(Progress(value=kind.zero()))

    def resume(self, progress: Progress) -> None:
        """Go on from here."""
        self.progress = progress
        # The value as it was when it was last known to be good. A copy is worked on: a zero may be shared.
        # protection: a-zero-is-copied
        self._good, progress.value = plain_json(progress.value)

    def add(self, tasks: Sequence[Task | Row], attempts: Sequence[Attempt]) -> None:
        """Give the next tasks their outcomes.

        A value is good if it comes back from JSON as it was. That is checked once for all of them, and task by task
        if it fails or anything is raised.
        """
        progress = self.progress
        position, counts = progress.next, replace(progress.counts)
        lines, failures = len(progress.lines), len(progress.failures)
        try:
            for task, attempt, own in zip(tasks, attempts, copied(tasks), strict=True):
                if type(attempt.answer) is Failure:
                    self._fail(task, "failed", attempt.answer, attempt.number)
                else:
                    self._succeed(own, attempt.answer)
            self._good, progress.value = plain_json(progress.value)
        except FAULTS as error:
            progress.next, progress.counts = position, counts
            del progress.lines[lines:], progress.failures[failures:]
            # A fold may have changed the value before it failed.
            # protection: a-failed-fold-is-rolled-back
            progress.value = json.loads(self._good)
            if len(tasks) == 1:
                self._fail(tasks[0], "failed", failure_of(error), attempts[0].number)
                return
            for task, attempt in zip(tasks, attempts, strict=True):
                self.add([task], [attempt])

    def quarantine(self, task: Task | Row, deaths: int) -> None:
        """Give the next task this outcome: it has killed so many workers alone."""
        message = f"The task ended its worker {deaths} times when it was worked on alone."
        self._fail(task, "quarantined", Failure("QuarantinedError", message), deaths)

    def _succeed(self, task: Task | Row, result: Any) -> None:
        progress, kind = self.progress, self._kind
        line = None if kind.lines_file is None else kind.line(task, result, self._job)
        text = None if line is None else _line_text(*line)
        progress.value = kind.fold(progress.value, task, result, self._job)
        if text is not None:
            progress.lines.append(text)
        progress.counts.succeeded += 1
        progress.next += 1

    def _fail(self, task: Task | Row, outcome: str, why: Failure, attempts: int) -> None:
        entry = failure(task.to_json(), outcome, why.name, why.message, shard=self._shard.index, attempts=attempts)
        self.progress.failures.append(entry)
        self.progress.counts += Counts(**{outcome: 1})
        self.progress.next += 1


def _line_text(key: Any, document: Any) -> str:
    """A line of the kind's file, `key TAB json`. Raises TypeError or ValueError if it cannot be one."""
    # protection: keys-are-printable
    if not isinstance(key, str) or not key.isprintable():
        raise TypeError("the key of a line must be a printable text")
    line = f"{key}\t{encode(document).decode()}"
    if len(line) > LONGEST_LINE:
        raise ValueError(f"a line has {len(line):,} characters, but at most {LONGEST_LINE:,} are taken")
    line.encode()
    return line


def make_partial(store: JobStore, shard: Shard, progress: Progress) -> Partial:
    """The shard's partial; its lines and failures are written first, under names made of their content."""

    def written(suffix: str, lines: list[bytes]) -> str | None:
        if not lines:
            return None
        body = b"\n".join(lines) + b"\n"
        name = f"partials/{shard.index:08d}-{digest(body)}.{suffix}"
        store.bucket.put(store.key(name), body)
        return name

    groups = Digest()
    for entry in progress.failures:
        groups.add(entry)
    return Partial(
        counts=progress.counts,
        value=progress.value,
        digest=groups.to_json(),
        lines=written("lines", sorted(line.encode() for line in progress.lines)),
        failures=written("failures", [encode(entry) for entry in progress.failures]),
    )
