"""The search for the tasks that kill their worker. Pure: positions in a shard, and a marker that the caller stores.

A healthy first call stores nothing. A repeated call stores a *trace*: a marker which says that a call has begun. Every
call that ends on purpose leaves none, or one which says that no call has begun since. So only a call that finds a trace
knows of a crash or a time-out (a *death*): a start that Lambda refused raises the number of the attempt, too.

After the first known death a shard is worked on in stretches. Before each of them a call stores a marker; one that is
still in flight when the next call reads it names the stretch in which the worker died: the *suspects*.

- Without suspects a stretch is a sixteenth of the shard. Suspects are divided by sixteen again, down to single tasks.
- What comes before a suspect is saved, so that the suspect's next worker starts with it: a process that leaks, or
  that another task has damaged, counts against nobody.
- A single task that has killed DEADLY workers in a row is quarantined.
- A known death with no stretch in flight is a *stall*; after more than STALLS in a row the shard is given up.

So a task is quarantined only if it kills DEADLY workers alone. With L sizes of stretches down to a single task
(2 for a shard of 500, 4 for one of 10,000), K tasks that kill and D calls that end early for another reason, the
shard ends within 4 + K * (L + DEADLY) + D * (L + 1) calls, however many starts are refused.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

from fan_out.errors import ShardStuckError
from fan_out.model.shard import Shard

# How many workers one task may kill alone before it is quarantined. With two, one worker in twenty that dies for
# another reason would quarantine one in four hundred of the suspects.
# protection: three-deaths
DEADLY = 3
# Quarantined tasks of a shard; with one more it is the kind that kills, and the shard is given up.
QUARANTINES = 20
# Deaths in a row outside of any stretch.
STALLS = 5
# Stretches that a shard, or the suspects, are divided into.
STRETCHES = 16


@dataclass(frozen=True, slots=True)
class Marker:
    """What a call leaves for the next: the suspects [start, end), and whether a worker is among them right now.

    `deaths` counts those of a single suspect, `stalls` those in a row outside of any stretch. `has_begun` says that a
    call has begun since the last one that ended on purpose, `has_died` that the shard has lost a worker before.
    """

    start: int = 0
    end: int = 0
    in_flight: bool = False
    deaths: int = 0
    stalls: int = 0
    has_begun: bool = False
    has_died: bool = False

    def has(self, position: int) -> bool:
        return self.start <= position < self.end

    def after_death(self) -> Self:
        """The marker once the call that left it is known to have died."""
        known = replace(self, in_flight=False, has_begun=False, has_died=True)
        if not self.in_flight:
            return replace(known, stalls=self.stalls + 1)
        # protection: a-suspect-must-kill-alone
        is_alone = self.end - self.start == 1
        return replace(known, stalls=0, deaths=self.deaths + is_alone)

    def before_stretch(self, start: int, end: int) -> "Marker":
        """The marker to store before a worker starts on [start, end)."""
        # protection: deaths-are-of-one-stretch
        deaths = self.deaths if (start, end) == (self.start, self.end) else 0
        return Marker(start, end, in_flight=True, deaths=deaths, has_begun=True, has_died=True)


class Call(Protocol):
    """What a call of the worker does for the search."""

    def mark(self, marker: Marker) -> None:
        """Store the marker."""

    def read(self) -> None:
        """Read the shard's tasks."""

    def work(self, end: int) -> bool:
        """Work on all tasks before `end`; False if time runs out."""

    def save(self) -> None:
        """Write the checkpoint."""

    def quarantine(self, deaths: int) -> None:
        """Quarantine the next task: it has killed this many workers alone."""


class Search:
    """The search in one call of the worker. `found` is the stored marker; `is_repeated` says that it is a retry."""

    def __init__(self, found: Marker, *, is_repeated: bool):
        self._is_repeated = is_repeated
        # protection: a-call-that-never-began-did-not-die
        self._is_after_death = is_repeated and found.has_begun
        left = replace(found, in_flight=False, has_begun=False)
        self._marker = found.after_death() if self._is_after_death else left

    def run(self, call: Call, shard: Shard, position: int, quarantined: int) -> None:
        """Work on the shard's tasks from `position` on, until they are done or the call should end.

        `quarantined` is how many tasks of the shard are quarantined already. Raises ShardStuckError.
        """
        count = shard.count
        if self._marker.stalls > STALLS:
            raise ShardStuckError(
                f"Shard {shard.index} lost {self._marker.stalls} workers in a row outside of any task."
            )
        if self._is_repeated:
            # protection: a-repeated-call-leaves-a-trace
            call.mark(replace(self._marker, has_begun=True))
        call.read()
        # protection: only-a-death-makes-careful
        if not self._marker.has_died:
            if not call.work(count):
                call.save()
                if self._is_repeated:
                    # protection: an-end-on-purpose-is-no-death
                    call.mark(self._marker)
            return
        while position < count:
            suspects = self._marker
            if suspects.deaths >= DEADLY and suspects.has(position):
                call.quarantine(suspects.deaths)
                call.save()
                # protection: few-tasks-of-a-shard-are-quarantined
                if quarantined >= QUARANTINES:
                    raise ShardStuckError(
                        f"Shard {shard.index} has more than {QUARANTINES} tasks that ended their workers."
                    )
                # Ending the call here restarts the state machine's count of retries.
                self._clear(call)
                return
            end = self._end_of_stretch(position, count)
            if position >= suspects.start:
                # protection: markers-after-a-death
                call.mark(suspects.before_stretch(position, end))
            if not call.work(end):
                call.save()
                # It got somewhere, so the stalls in a row end.
                call.mark(replace(suspects, stalls=0))
                return
            position = end
            # protection: a-suspect-is-worked-on-first
            if end == suspects.start:
                call.save()
            if not suspects.has(end):
                # The suspects are cleared, and what stalled is overcome.
                call.save()
                # protection: retries-start-anew
                if self._is_after_death and end < count:
                    self._clear(call)
                    return
                self._marker = Marker(has_died=True)

    def failed_cleanly(self) -> Marker:
        """The marker of a call that ends by an exception of the worker's own."""
        return self._marker

    def _clear(self, call: Call) -> None:
        self._marker = Marker(has_died=True)
        call.mark(self._marker)

    def _end_of_stretch(self, position: int, count: int) -> int:
        suspects = self._marker
        if position < suspects.start:
            # These ran well since the suspicion arose; they are not marked again.
            return suspects.start
        if suspects.has(position):
            return min(position + max(1, (suspects.end - suspects.start) // STRETCHES), suspects.end)
        return min(position + max(1, count // STRETCHES), count)
