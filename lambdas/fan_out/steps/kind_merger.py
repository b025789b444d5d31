"""The kind's own part of a reduction: what its code makes of the values that shards fold to.

Whatever the kind does there costs the job its result, never its tally: an exception is a fault, and so is a death of
the process. Before it runs the kind's code, a call notes its step in a marker; a marker that is still there tells the
next call that this one died. After a few deaths at one step the reduction goes on without the kind. An exception, a
throttled request or a call that was never begun (429) is no death.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fan_out.aws.storage import JobStore
from fan_out.model import kind as kinds
from fan_out.model.documents import encode_value
from fan_out.model.kind import FAULTS, Job, Kind, reason_of
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
    """Merges values with the kind's code, which may end its process `deadly` times at one step."""

    def __init__(self, store: JobStore, plan: Plan, deadly: int):
        self._store = store
        self._deadly = deadly
        self._plan = plan
        self._kind: Kind[Any, Any] | None = None
        self._job: Job[Any] | None = None
        self._marker = store.find(MARKER, Marker) or Marker()
        self._guard = ProcessGuard()
        self._fault: str | None = None
        # protection: deaths-of-a-reducer
        if self._marker.deaths >= deadly and self._is_own(self._marker):
            self._fault = f"its own code ended the reducer's process {self._marker.deaths} times."

    @property
    def lines_file(self) -> str | None:
        """The name of the kind's file, once the kind is loaded."""
        return self._kind.lines_file if self._kind is not None else None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count a death until the block ends; by then its outcome is committed, or an exception tells of it."""
        if self._fault is not None:
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

    def _is_own(self, marker: Marker) -> bool:
        """Whether the deaths are those of calls with the same bound: a reducer's are not the Finalizer's."""
        return marker.step.startswith(f"{self._deadly} ")

    def _mark(self, marker: Marker) -> None:
        self._marker = marker
        self._store.put(MARKER, asdict(marker))

    def merge(self, nodes: Iterable[Node]) -> tuple[Any, str | None]:
        """The value of all nodes together, or None and the fault."""
        nodes = list(nodes)
        if (fault := next((node.fault for node in nodes if node.fault), self._fault)) is not None:
            return None, fault

        def make(kind: Kind[Any, Any], job: Job[Any]) -> Any:
            merged = kind.zero()
            for node in nodes:
                # Where no task succeeded nothing was folded: the value is zero.
                if node.counts.succeeded:
                    merged = kind.merge(merged, node.value, job)
            # What cannot be stored is no value.
            return json.loads(encode_value(merged))

        return self._make(make)

    def summarize(self, nodes: Iterable[Node]) -> tuple[dict[str, Any] | None, str | None]:
        """The kind's small result of all nodes together, or None and the fault."""
        value, fault = self.merge(nodes)
        if fault is not None:
            return None, fault

        def make(kind: Kind[Any, Any], job: Job[Any]) -> dict[str, Any]:
            summary = kind.summary(value, job)
            if not isinstance(summary, dict):
                raise TypeError(f"summary gave a {type(summary).__name__} instead of an object")
            return dict(json.loads(encode_value(summary)))

        return self._make(make)

    def _make(self, make: Callable[[Kind[Any, Any], Job[Any]], Any]) -> tuple[Any, str | None]:
        """What the kind's code makes, or None and the fault; a process that it has damaged ends."""
        made: tuple[Any, str | None]
        # protection: a-fault-of-the-result
        try:
            made = make(*self._load()), None
        except FAULTS as error:
            made = None, reason_of(error)
        # protection: a-damaged-reducer-ends
        self._guard.check()
        return made

    def _load(self) -> tuple[Kind[Any, Any], Job[Any]]:
        if self._kind is None or self._job is None:
            self._kind = kinds.find(self._plan.kind)
            self._job = self._plan.job()
        return self._kind, self._job

    def forget(self) -> None:
        """Take the marker back after a step whose outcome is committed later."""
        if self._fault is None:
            self._mark(Marker())
