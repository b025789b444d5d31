"""fragile: completes tasks through the Task Service; those in BROKEN are reported as failed, after or without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fan_out import JSON, WRITES_PER_CALL, Examples, Failure, Job, Kind, Params, Task

# The world outside, for a test to break and to mend between a job and its retry.
UNREACHABLE: set[str] = set()
BROKEN: set[str] = set()
# Every task that the kind was asked to work on.
SEEN: list[str] = []


class Fragile(Kind[Params, Task]):
    name = "fragile"
    params = Params
    batch = WRITES_PER_CALL
    writes = True
    examples = Examples(results=[1])

    def process_many(self, tasks: Sequence[Task], job: Job[Params]) -> list[JSON | Failure]:
        SEEN.extend(task.id for task in tasks)
        reached = [task for task in tasks if task.id not in UNREACHABLE]
        outcomes = job.write(
            [
                {
                    "op": "update",
                    "id": task.id,
                    "key": job.effect_key(task),
                    "version": task.version,
                    "changes": {"detail": "completed by the job"},
                }
                for task in reached
            ]
        )
        found: dict[str, dict[str, Any]] = {outcome["id"]: outcome for outcome in outcomes}
        return [self._answer(task, found.get(task.id)) for task in tasks]

    def _answer(self, task: Task, outcome: dict[str, Any] | None) -> JSON | Failure:
        if outcome is None:
            return Failure("UnreachableError", f"Nobody answers for task {task.id}.")
        if task.id in BROKEN:
            return Failure("BrokenError", f"Task {task.id} was written, but what comes after it failed.")
        if outcome["outcome"] in ("updated", "unchanged"):
            return 1
        return Failure.of_write(outcome)

    def zero(self) -> JSON:
        return 0

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[Params]) -> JSON:
        return partial + result

    def merge(self, left: JSON, right: JSON, job: Job[Params]) -> JSON:
        return left + right

    def summary(self, partial: JSON, job: Job[Params]) -> dict[str, JSON]:
        return {"completed": partial}


KIND = Fragile()
