"""daily-plan: every open task, ordered into the day's plan. Reads only."""

from typing import Any

from pydantic import Field

from fan_out import JSON, Examples, Job, Kind, Task
from kinds._day import DayParams

# The plan's groups, the most urgent first.
GROUPS = ("overdue", "today", "thisWeek", "later", "undated")


class Params(DayParams):
    # The record travels through the state machine, whose states are kept small.
    top: int = Field(5, ge=0, le=10, strict=True, description="a whole number from 0 to 10")


class DailyPlan(Kind[Params, Task]):
    name = "daily-plan"
    params = Params
    lines_file = "plan.jsonl"
    batch = 500
    # Little work a task: with shards of 500 a plan costs three times as much.
    shard_size = 2_000
    seconds_per_task = 0.00005
    examples = Examples(results=GROUPS, params=[{}, {"top": 1}, {"top": 10}])

    def filter(self, params: Params, started_at: str) -> dict[str, Any]:
        return {"isComplete": False}

    def process(self, task: Task, job: Job[Params]) -> JSON:
        """The group that the task belongs to."""
        if task.due_at is None:
            return "undated"
        day = job.params.day(job.started_at)
        if task.due_at < day.now:
            return "overdue"
        if task.due_at < day.tomorrow:
            return "today"
        return "thisWeek" if task.due_at < day.next_week else "later"

    def zero(self) -> JSON:
        return {"counts": dict.fromkeys(GROUPS, 0), "mostUrgent": {group: [] for group in GROUPS}}

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[Params]) -> JSON:
        entry = {"id": task.id, "title": task.title, "dueAt": task.due_at, "createdAt": task.created_at}
        partial["counts"][result] += 1
        partial["mostUrgent"][result] = _most_urgent([*partial["mostUrgent"][result], entry], job)
        return partial

    def merge(self, left: JSON, right: JSON, job: Job[Params]) -> JSON:
        return {
            "counts": {group: left["counts"][group] + right["counts"][group] for group in GROUPS},
            "mostUrgent": {
                group: _most_urgent(left["mostUrgent"][group] + right["mostUrgent"][group], job) for group in GROUPS
            },
        }

    def line(self, task: Task, result: JSON, job: Job[Params]) -> tuple[str, JSON]:
        document = {"group": result, "id": task.id, "title": task.title}
        if task.detail is not None:
            document["detail"] = task.detail
        if task.due_at is not None:
            document["dueAt"] = task.due_at
        return f"{GROUPS.index(result)} {task.due_at or task.created_at} {task.id}", document

    def summary(self, partial: JSON, job: Job[Params]) -> dict[str, JSON]:
        day = job.params.day(job.started_at)
        most_urgent = {
            group: [
                {name: value for name, value in entry.items() if name != "createdAt" and value is not None}
                for entry in entries
            ]
            for group, entries in partial["mostUrgent"].items()
        }
        return {
            "asOf": day.now,
            "timeZone": job.params.time_zone,
            "today": day.today.isoformat(),
            "counts": partial["counts"] | {"total": sum(partial["counts"].values())},
            "mostUrgent": most_urgent,
            "planKey": f"jobs/{job.id}/{self.lines_file}",
        }


def _most_urgent(entries: list[JSON], job: Job[Params]) -> list[JSON]:
    """The first few by when they are due, undated ones by how long they have been waiting."""
    entries.sort(key=lambda entry: (entry["dueAt"] or entry["createdAt"], entry["id"]))
    return entries[: job.params.top]


KIND = DailyPlan()
