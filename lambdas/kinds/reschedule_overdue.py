"""reschedule-overdue: moves every overdue open task to a new due time. A task that someone changed since stays."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import Field

from fan_out import JSON, WRITES_PER_CALL, Examples, Failure, Job, Kind, Task, Timestamp, instant, utc
from kinds._day import DayParams


class Params(DayParams):
    due_at: Timestamp | None = Field(
        None,
        alias="dueAt",
        description="an ISO 8601 timestamp with a zone, to which overdue tasks move; the end of the day if left out",
    )


class RescheduleOverdue(Kind[Params, Task]):
    name = "reschedule-overdue"
    params = Params
    batch = WRITES_PER_CALL
    writes = True
    seconds_per_task = 0.002
    examples = Examples(results=[1], params=[{}, {"timeZone": "Asia/Tokyo"}])

    def filter(self, params: Params, started_at: str) -> dict[str, Any]:
        return {"isComplete": False, "dueBefore": params.as_of or started_at}

    def process_many(self, tasks: Sequence[Task], job: Job[Params]) -> list[JSON | Failure]:
        due_at = _new_due(job)
        writes = [
            {
                "op": "update",
                "id": task.id,
                "key": job.effect_key(task),
                "version": task.version,
                "changes": {"dueAt": due_at},
            }
            for task in tasks
        ]
        return [
            1 if outcome["outcome"] in ("updated", "unchanged") else Failure.of_write(outcome)
            for outcome in job.write(writes)
        ]

    def zero(self) -> JSON:
        return 0

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[Params]) -> JSON:
        return partial + 1

    def merge(self, left: JSON, right: JSON, job: Job[Params]) -> JSON:
        return left + right

    def summary(self, partial: JSON, job: Job[Params]) -> dict[str, JSON]:
        return {"rescheduled": partial, "dueAt": _new_due(job)}


def _new_due(job: Job[Params]) -> str:
    """The last second of the job's day, unless the job says otherwise."""
    if job.params.due_at is not None:
        return job.params.due_at
    tomorrow = job.params.day(job.started_at).tomorrow
    return utc((instant(tomorrow) - timedelta(seconds=1)).isoformat())


KIND = RescheduleOverdue()
