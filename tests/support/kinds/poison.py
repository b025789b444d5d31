"""poison: counts its tasks; some of them kill the process that works on them, or fail in other ways. Reads only."""

from __future__ import annotations

from typing import Any

from fan_out import JSON, Examples, Job, Kind, Params, Task, TaskError
from tests.support.machine import KilledError, TimedOutError


class Ids(Params):
    """The ids of the tasks that do so, every time."""

    kill: frozenset[str] = frozenset()
    hang: frozenset[str] = frozenset()
    memory: frozenset[str] = frozenset()
    exit: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()
    refuse_all: bool = False


class Poison(Kind[Ids, Task]):
    name = "poison"
    params = Ids
    lines_file = "done.jsonl"
    batch = 1
    examples = Examples(results=[1])

    def process(self, task: Task, job: Job[Ids]) -> JSON:
        """One, unless the task is a bad one."""
        bad = job.params
        if task.id in bad.kill:
            raise KilledError
        if task.id in bad.hang:
            # An endless loop, as it looks from outside: Lambda ends the process when its time is over.
            raise TimedOutError
        if task.id in bad.memory:
            raise MemoryError("the task needs more memory than there is")
        if task.id in bad.exit:
            raise SystemExit(3)
        if bad.refuse_all or task.id in bad.refuse:
            raise TaskError("RefusedError", f"The task {task.id} is refused.")
        return 1

    def zero(self) -> JSON:
        return 0

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[Ids]) -> JSON:
        return partial + result

    def merge(self, left: JSON, right: JSON, job: Job[Ids]) -> JSON:
        return left + right

    def line(self, task: Task, result: JSON, job: Job[Ids]) -> tuple[str, JSON]:
        return task.id, {"id": task.id}

    def summary(self, partial: JSON, job: Job[Ids]) -> dict[str, Any]:
        return {"done": partial}


KIND = Poison()
