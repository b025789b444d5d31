"""Work on one shard: every task gets one outcome, whatever happens to its workers.

A call of the worker goes through the shard in order and commits one object, the shard's *partial*; the first
commit counts. Near its deadline it saves a *checkpoint* and is called again. After a death `quarantine` has it work on
stretches of tasks, until those that kill are found.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fan_out.aws.storage import RECORD, JobStore
from fan_out.errors import AccountingError, JobEndedError, ShardStuckError
from fan_out.model import kind as kinds
from fan_out.model.plan import Plan
from fan_out.model.shard import Partial, Progress, Shard
from fan_out.model.task import Row, Task
from fan_out.steps.folding import Folding, make_partial
from fan_out.steps.kind_runner import Clock, KindRunner, OutOfTime, task_rate
from fan_out.steps.process_guard import ProcessGuard, check_given, fingerprint
from fan_out.steps.quarantine import Marker, Search

# A checkpoint is written at least this often, so that a death late in a long shard does not cost all of it.
CHECKPOINT_SECONDS = 60.0


class ShardRunner:
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
        self._store, self._shard = store, shard
        self._guard = ProcessGuard()
        self._clock, self._is_late = clock or Clock(), is_late
        kind, job = kinds.find(plan.kind), plan.job(write)
        self._job = job
        self._runner = KindRunner(kind, job, task_rate(plan, workers), self._clock, is_late)
        self._folding = Folding(kind, job, shard)
        self._saved_at = self._checked_at = self._clock.now()
        self._tasks: list[Task | Row] = []
        # The longest that a batch took in this call; None before the first.
        self._longest: float | None = None

    def run(self, *, attempt: int, is_resumed: bool) -> Partial | None:
        """Work until the shard is done: its committed partial; or until the call should end and be repeated: None.

        `attempt` counts the calls since the state machine last heard of this shard; `is_resumed` says that an earlier
        call ended on purpose. Raises ShardStuckError; anything else raised is tried again.
        """
        store, shard = self._store, self._shard
        search, found = None, Marker()
        try:
            if attempt or is_resumed:
                # An object that is lost is as good as none: its work is done again.
                committed = store.find(shard.partial, Partial)
                if committed is not None and committed.fits(shard):
                    return committed
                saved = store.find(shard.checkpoint, Progress)
                if saved is not None and saved.fits(shard):
                    self._folding.resume(saved)
                found = store.find(shard.marker, Marker) or found
            search = Search(found, is_repeated=attempt > 0)
            progress = self._folding.progress
            search.run(self, shard, progress.next, progress.counts.quarantined)
            return self.commit() if progress.next == shard.count else None
        except (ShardStuckError, JobEndedError):
            raise
        except Exception:
            # It was no death: the tasks in flight are not to blame.
            self._guard.check()
            if search is not None:
                self.mark(search.failed_cleanly())
            raise

    def read(self) -> None:
        self._tasks = self._store.bucket.tasks(self._shard)

    def work(self, end: int) -> bool:
        """Give the tasks before `end` their outcomes, in calls of the kind's size; False if the call should end."""
        progress = self._folding.progress
        while progress.next < end:
            batch = self._tasks[progress.next : min(progress.next + self._runner.batch, end)]
            begun = self._clock.now()
            if self._longest is not None:
                # protection: the-longest-batch-counts
                needed = self._runner.limiter.seconds_until(len(batch)) + self._longest
                # protection: a-checkpoint-near-the-deadline
                if self._is_late(needed):
                    return False
            # protection: attempts-are-counted-across-calls
            attempts, progress.tries = progress.tries, 0
            given = fingerprint(batch, self._job)
            answers = self._runner.run(batch, attempts)
            if isinstance(answers, OutOfTime):
                # protection: a-late-batch-keeps-what-is-done
                self._folding.add(batch[: len(answers.done)], answers.done)
                progress.tries = answers.attempts
                return False
            self._folding.add(batch, answers)
            check_given(given, batch, self._job)
            now = self._clock.now()
            self._longest = max(self._longest or 0.0, now - begun)
            # protection: a-checkpoint-every-minute
            if now - self._saved_at > CHECKPOINT_SECONDS:
                self.save()
            if now - self._checked_at > CHECKPOINT_SECONDS:
                self._checked_at = now
                if self._store.has(RECORD):
                    raise JobEndedError("The job was stopped, and its record is written.")
        self._guard.check()
        return True

    def save(self) -> None:
        """Write the checkpoint: a later call goes on behind it."""
        self._guard.check()
        self._store.put(self._shard.checkpoint, self._folding.progress.to_json())
        self._saved_at = self._clock.now()

    def mark(self, marker: Marker) -> None:
        self._store.put(self._shard.marker, asdict(marker))

    def quarantine(self, deaths: int) -> None:
        self._folding.quarantine(self._tasks[self._folding.progress.next], deaths)

    def commit(self) -> Partial:
        """The shard's partial; the one of another attempt, if that came first."""
        progress = self._folding.progress
        # protection: a-partial-adds-up
        if not progress.next == progress.counts.total == self._shard.count:
            raise AccountingError(
                f"Shard {self._shard.index} has {self._shard.count} tasks, but counts {progress.counts.total}."
            )
        made = make_partial(self._store, self._shard, progress)
        # protection: the-first-partial-counts
        return self._store.put_once(self._shard.partial, asdict(made), Partial)
