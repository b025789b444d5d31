"""The daily plan computed plainly, in memory and at once: what the workflow's answer is held against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

GROUPS = ("overdue", "today", "thisWeek", "later", "undated")


@dataclass
class Plan:
    lines: list[dict[str, Any]]
    counts: dict[str, int]
    most_urgent: dict[str, list[dict[str, Any]]]


def plan(tasks: list[dict[str, Any]], as_of: str, zone: str, *, top: int) -> Plan:
    now = datetime.fromisoformat(as_of)
    today = now.astimezone(ZoneInfo(zone)).date()
    sunday = today + timedelta(days=6 - today.weekday())

    def group(task: dict[str, Any]) -> str:
        if "dueAt" not in task:
            return "undated"
        due = datetime.fromisoformat(task["dueAt"])
        if due < now:
            return "overdue"
        day = due.astimezone(ZoneInfo(zone)).date()
        return "today" if day == today else "thisWeek" if day <= sunday else "later"

    grouped: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for task in tasks:
        if not task["isComplete"]:
            grouped[group(task)].append(task)
    for members in grouped.values():
        members.sort(key=lambda task: (task.get("dueAt") or task["createdAt"], task["id"]))

    def shown(task: dict[str, Any], *fields: str) -> dict[str, Any]:
        return {name: task[name] for name in fields if name in task}

    return Plan(
        [{"group": name} | shown(task, "id", "title", "detail", "dueAt") for name in GROUPS for task in grouped[name]],
        {name: len(grouped[name]) for name in GROUPS} | {"total": sum(map(len, grouped.values()))},
        {name: [shown(task, "id", "title", "dueAt") for task in grouped[name][:top]] for name in GROUPS},
    )
