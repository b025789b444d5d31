"""Which tasks a listing is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from common import timestamps
from common.errors import Faults
from common.task import Task

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


def read(value: object, faults: Faults, *, prefix: str = "filter.") -> TaskFilter:
    """The filter of a JSON object; null stands for no filter. What is wrong is added to `faults`."""
    if value is None:
        return EVERYTHING
    if not isinstance(value, Mapping):
        faults.check(False, prefix.rstrip("."), value, f"an object with the fields {', '.join(FIELDS)}")
        return EVERYTHING
    faults.check_names(value, FIELDS, prefix)
    given: dict[str, Any] = {name: value.get(name) for name in FIELDS}
    is_complete = given["isComplete"]
    is_right = is_complete is None or isinstance(is_complete, bool)
    faults.check(is_right, f"{prefix}isComplete", is_complete, "true or false")
    for name in ("dueBefore", "dueAfter"):
        try:
            given[name] = None if given[name] is None else timestamps.utc(given[name])
        except ValueError:
            faults.check(False, f"{prefix}{name}", given[name], timestamps.RULE)
    return TaskFilter(given["isComplete"], given["dueBefore"], given["dueAfter"])
