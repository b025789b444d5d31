"""The kind's own part of a reduction: what its code makes of the values that shards fold to.

Whatever the kind does there costs the job its result, never its tally: an exception is a fault, and so is a death of
the process. Before it runs the kind's code, a call notes its step in a marker; a marker that is still there tells the
next call that this one died. After a few deaths at one step the reduction goes on without the kind. An exception, a
throttled request or a call that was never begun (429) is no death.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fan_out.aws.storage import JobStore
from fan_out.model import kind as kinds
from fan_out.model.documents import encode_value
from fan_out.model.kind import FAULTS, reason_of
from fan_out.model.outcomes import Count
from fan_out.model.plan import Plan
from fan_out.model.shard import Node
from fan_out.steps.process_guard import ProcessGuard

MARKER = "reduce/marker.json"


@dataclass(frozen=True, slots=True)
class Marker:
    """The step that a call is at, and how many calls have begun it without coming to its end."""

    step: str = ""
    deaths: Count = 0


class KindMerger:
    """Merges values with the kind's code, which may end its process `deadly` times at one step.

    One of several that merge at the same time is not alone: it leaves the marker, and the counting, to the reducer
    that comes after them.
    """

    def __init__(self, store: JobStore, plan: Plan, deadly: int, *, is_alone: bool = True):
        self._store, self._plan, self._deadly, self._is_alone = store, plan, deadly, is_alone
        self._guard = ProcessGuard()
        # The name of the kind's file, once the kind is loaded.
        self.lines_file: str | None = None
        self._marker = store.find(MARKER, Marker) or Marker()
        self._fault: str | None = None
        # Deaths are counted by calls with the same bound: a reducer's are not the Finalizer's.
        is_own = self._marker.step.startswith(f"{deadly} ")
        # protection: deaths-of-a-reducer
        if is_own and self._marker.deaths >= deadly:
            self._fault = f"its own code ended the reducer's process {self._marker.deaths} times."

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count a death until the block ends; by then its outcome is committed, or an exception tells of it."""
        # protection: mergers-leave-the-marker
        if self._fault is not None or not self._is_alone:
            yield
            return
        name = f"{self._deadly} {name}"
        before = Marker(name, self._marker.deaths if self._marker.step == name else 0)
        try:
            # A marker whose acknowledgement is lost is taken back like any other.
            self._mark(Marker(name, before.deaths + 1))
            yield
        except Exception:
            # protection: an-exception-is-no-death
            self._mark(before)
            raise

    def _mark(self, marker: Marker) -> None:
        self._marker = marker
        self._store.put(MARKER, asdict(marker))

    def merge(self, nodes: Sequence[Node], *, is_root: bool = False) -> tuple[Any, str | None]:
        """The value of all nodes together, of the root the kind's small result; or None and the fault."""
        if (fault := next((node.fault for node in nodes if node.fault), self._fault)) is not None:
            return None, fault
        made = None
        # protection: a-fault-of-the-result
        try:
            made = self._make(nodes, is_root)
        except FAULTS as error:
            fault = reason_of(error)
        # A process that the kind's code has damaged ends.
        # protection: a-damaged-reducer-ends
        self._guard.check()
        return made, fault

    def _make(self, nodes: Sequence[Node], is_root: bool) -> Any:
        kind, job = kinds.find(self._plan.kind), self._plan.job()
        self.lines_file = kind.lines_file
        made = kind.zero()
        for node in nodes:
            # Where no task succeeded nothing was folded: the value is zero.
            if node.counts.succeeded:
                made = kind.merge(made, node.value, job)
        # What cannot be stored is no value.
        made = json.loads(encode_value(made))
        if not is_root:
            return made
        summary = kind.summary(made, job)
        if not isinstance(summary, dict):
            raise TypeError(f"summary gave a {type(summary).__name__} instead of an object")
        return json.loads(encode_value(summary))

    def forget(self) -> None:
        """Take the marker back after a step whose outcome is committed later."""
        if self._fault is None:
            self._mark(Marker())
