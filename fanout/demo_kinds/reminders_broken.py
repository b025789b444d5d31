"""reminders: writes a reminder for each open task. It has two faults, which the demo meets and then fixes."""

import os
from typing import Any

from fan_out import JSON, Job, Kind, Params, Task


class Reminders(Kind[Params, Task]):
    name = "reminders"
    params = Params

    def filter(self, params: Params, started_at: str) -> dict[str, Any]:
        return {"isComplete": False}

    def process(self, task: Task, job: Job[Params]) -> JSON:
        if "\u2764\ufe0f\u200d\U0001f525" in task.title:
            # As a native library does that cannot draw this emoji: it ends the whole process.
            os.abort()
        if task.title.startswith("="):
            raise ValueError("a title that begins with = is taken for a formula")
        return f"{task.due_at}  {task.title}"

    def line(self, task: Task, result: JSON, job: Job[Params]) -> tuple[str, JSON]:
        return f"{task.due_at} {task.id}", result


KIND = Reminders()
