"""Which tasks a listing is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from task_service import timestamps
from task_service.errors import Fault, InvalidRequestError, UnknownField
from task_service.task import Task

FIELDS: Final = ("isComplete", "dueBefore", "dueAfter")


@dataclass(frozen=True)
class TaskFilter:
    """Tasks with `due_after <= dueAt < due_before`, complete or open. None does not filter.

    Times are in the stored form. A task without dueAt is in no listing that asks for a time.
    """

    is_complete: bool | None = None
    due_before: str | None = None
    due_after: str | None = None

    def matches(self, task: Task) -> bool:
        """Whether the listing would have the task."""
        return (
            (self.is_complete is None or task.is_complete == self.is_complete)
            and (self.due_before is None or (task.due_at is not None and task.due_at < self.due_before))
            and (self.due_after is None or (task.due_at is not None and task.due_at >= self.due_after))
        )

    def to_json(self) -> dict[str, Any]:
        values = (self.is_complete, self.due_before, self.due_after)
        return {field: value for field, value in zip(FIELDS, values, strict=True) if value is not None}


EVERYTHING: Final = TaskFilter()


def parse(value: object, *, prefix: str = "filter.") -> TaskFilter:
    """The filter of a JSON object; null stands for no filter. Raises InvalidRequestError with every fault."""
    if value is None:
        return EVERYTHING
    if not isinstance(value, Mapping):
        raise InvalidRequestError([Fault(prefix.rstrip("."), value, f"an object with the fields {_names()}")])
    faults: list[Fault] = [
        UnknownField(f"{prefix}{key}", value[key], _names()) for key in value if key not in FIELDS
    ]
    is_complete = value.get("isComplete")
    if is_complete is not None and not isinstance(is_complete, bool):
        faults.append(Fault(f"{prefix}isComplete", is_complete, "true or false"))
    bounds: dict[str, str | None] = {}
    for field in ("dueBefore", "dueAfter"):
        given = value.get(field)
        try:
            bounds[field] = None if given is None else timestamps.parse(given)
        except ValueError:
            faults.append(Fault(f"{prefix}{field}", given, timestamps.ALLOWED))
    if faults:
        raise InvalidRequestError(faults)
    return TaskFilter(is_complete=is_complete, due_before=bounds["dueBefore"], due_after=bounds["dueAfter"])


def _names() -> str:
    return ", ".join(FIELDS)
