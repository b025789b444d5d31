"""reminders: writes a reminder for each open task. The demo deploys it in place of the broken one."""

from typing import Any

from fan_out import JSON, Job, Kind, Params, Task


class Reminders(Kind[Params, Task]):
    name = "reminders"
    params = Params

    def filter(self, params: Params, started_at: str) -> dict[str, Any]:
        return {"isComplete": False}

    def process(self, task: Task, job: Job[Params]) -> JSON:
        title = task.title.replace("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f").removeprefix("=")
        return f"{task.due_at}  {title}"

    def line(self, task: Task, result: JSON, job: Job[Params]) -> tuple[str, JSON]:
        return f"{task.due_at} {task.id}", result


KIND = Reminders()
