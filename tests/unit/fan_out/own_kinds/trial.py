"""trial: a kind of the tests. What becomes of a task is what a test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fan_out import JSON, Failure, Job, Kind, Params, Task


class Trial(Kind[Params, Task]):
    """Counts tasks and sums up the lengths of their titles; writes a line for each."""

    name = "trial"
    params = Params
    lines_file = "trial.jsonl"
    batch = 10
    # What a test wants of a task, by its id: an answer, or a function that gives it or raises.
    on: ClassVar[dict[str, Any]] = {}
    # The ids of every call, in the order of the calls.
    calls: ClassVar[list[list[str]]] = []
    keys: ClassVar[list[str]] = []

    def process_many(self, tasks: Sequence[Task], job: Job[Params]) -> list[JSON | Failure]:
        self.calls.append([task.id for task in tasks])
        self.keys.extend(job.effect_key(task) for task in tasks)
        return [self._answer(task) for task in tasks]

    def _answer(self, task: Task) -> JSON | Failure:
        wanted: Any = self.on.get(task.id, len(task.title))
        if callable(wanted):
            wanted = wanted()
        if isinstance(wanted, BaseException):
            raise wanted
        return wanted

    def zero(self) -> JSON:
        return {"tasks": 0, "length": 0}

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[Params]) -> JSON:
        return {"tasks": partial["tasks"] + 1, "length": partial["length"] + result}

    def merge(self, left: JSON, right: JSON, job: Job[Params]) -> JSON:
        return {name: left[name] + right[name] for name in left}

    def line(self, task: Task, result: JSON, job: Job[Params]) -> tuple[str, JSON]:
        return task.id, {"id": task.id, "length": result}


KIND = Trial()
