"""Work on one shard: every task gets one outcome, whatever happens to its workers.

A call of the worker goes through the shard in order and commits one object, the shard's *partial*; the first
commit counts. Near its deadline it saves a *checkpoint* and is called again: this is `ShardRunner`, all that a call
without trouble needs. `run_shard` is a call whatever earlier ones left: after a death it works on the stretches that
`quarantine` picks, until the tasks that kill are found.
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
from fan_out.steps.quarantine import GiveUp, Mark, Marker, Quarantine, Read, Save, Search, Work

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
        self.store, self.shard = store, shard
        self.guard = ProcessGuard()
        self._clock, self._is_late = clock or Clock(), is_late
        kind, job = kinds.find(plan.kind), plan.job(write)
        self._job = job
        self._runner = KindRunner(kind, job, task_rate(plan, workers), self._clock, is_late)
        self.folding = Folding(kind, job, shard)
        self._saved_at = self._checked_at = self._clock.now()
        # The longest that a batch took in this call; None before the first.
        self._longest: float | None = None

    def run(self) -> dict[str, Any] | None:
        """Work until the shard is done: its committed partial; or until the call should end and be repeated: None."""
        if self.work(self.store.bucket.tasks(self.shard), self.shard.count):
            return self.commit()
        self.save()
        return None

    def work(self, tasks: list[Task | Row], end: int) -> bool:
        """Give the tasks before `end` their outcomes, in calls of the kind's size; False if the call should end."""
        progress = self.folding.progress
        while progress.next < end:
            batch = tasks[progress.next : min(progress.next + self._runner.batch, end)]
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
                progress.tries = answers.attempts
                return False
            self.folding.add(batch, answers)
            check_given(given, batch, self._job)
            now = self._clock.now()
            self._longest = max(self._longest or 0.0, now - begun)
            # protection: a-checkpoint-every-minute
            if now - self._saved_at > CHECKPOINT_SECONDS:
                self.save()
            if now - self._checked_at > CHECKPOINT_SECONDS:
                self._checked_at = now
                if self.store.has(RECORD):
                    raise JobEndedError("The job was stopped, and its record is written.")
        self.guard.check()
        return True

    def save(self) -> None:
        """Write the checkpoint: a later call goes on behind it."""
        self.guard.check()
        self.store.put(self.shard.checkpoint, self.folding.progress.to_json())
        self._saved_at = self._clock.now()

    def commit(self) -> dict[str, Any]:
        """The shard's partial; the one of another attempt, if that came first."""
        progress = self.folding.progress
        # protection: a-partial-adds-up
        if not progress.next == progress.counts.total == self.shard.count:
            raise AccountingError(
                f"Shard {self.shard.index} has {self.shard.count} tasks, but counts {progress.counts.total}."
            )
        made = make_partial(self.store, self.shard, progress)
        # protection: the-first-partial-counts
        made = self.store.put_once(self.shard.partial, made)
        return dict(made)


def run_shard(runner: ShardRunner, *, attempt: int, is_resumed: bool) -> dict[str, Any] | None:
    """One call of the worker on a shard, the first one or a repeated one: the committed partial, or None to go on.

    `attempt` counts the calls since the state machine last heard of this shard; `is_resumed` says that an earlier
    call ended on purpose. Raises ShardStuckError; anything else raised is tried again.
    """
    store, shard = runner.store, runner.shard
    search: Search | None = None
    try:
        if not attempt and not is_resumed:
            return runner.run()
        # An object that is lost is as good as none: its work is done anew.
        committed = store.find(shard.partial, Partial)
        if committed is not None and committed.fits(shard):
            return asdict(committed)
        saved = store.find(shard.checkpoint, Progress)
        if saved is not None and saved.fits(shard):
            runner.folding.resume(saved)
        found = store.find(shard.marker, Marker)
        if found is None and not attempt:
            return runner.run()
        search = Search(found or Marker(), is_failure=attempt > 0)
        return _run_carefully(runner, search)
    except (ShardStuckError, JobEndedError):
        raise
    except Exception:
        # It was no death: the tasks in flight are not to blame.
        runner.guard.check()
        marker = Marker(is_clean=True) if search is None else search.failed_cleanly()
        store.put(shard.marker, asdict(marker))
        raise


def _run_carefully(runner: ShardRunner, search: Search) -> dict[str, Any] | None:
    """Do what the search for the tasks that kill says."""
    store, shard, progress = runner.store, runner.shard, runner.folding.progress
    tasks: list[Task | Row] = []
    for action in search.actions(progress.next, shard.count, progress.counts.quarantined):
        match action:
            case Read():
                tasks = store.bucket.tasks(shard)
            case Mark(marker):
                store.put(shard.marker, asdict(marker))
            case Work(end):
                if not runner.work(tasks, end):
                    runner.save()
                    store.put(shard.marker, asdict(search.interrupted()))
                    return None
            case Save():
                runner.save()
            case Quarantine(deaths):
                runner.folding.quarantine(tasks[progress.next], deaths)
            case GiveUp(reason):
                raise ShardStuckError(f"Shard {shard.index} {reason}")
    return runner.commit() if progress.next == shard.count else None
