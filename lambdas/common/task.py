"""A task, as the Task Service stores and answers it, and as a job lists it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
ID_ALLOWED: Final = "1 to 64 characters out of A-Z, a-z, 0-9, _ and -"


def is_id(value: object) -> bool:
    """Whether the value can be a task's id at all."""
    return isinstance(value, str) and ID_PATTERN.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Task:
    """Times are UTC in whole seconds (`YYYY-MM-DDTHH:MM:SSZ`); `version` starts at 1 and grows by 1 a change."""

    id: str
    title: str
    is_complete: bool
    created_at: str
    updated_at: str
    version: int
    detail: str | None = None
    due_at: str | None = None

    @staticmethod
    def new(task_id: str, content: Mapping[str, Any], created_at: str) -> "Task":
        """A task at its first version, with the content of a validated request."""
        return Task.from_json(
            {**content, "id": task_id, "createdAt": created_at, "updatedAt": created_at, "version": 1}
        )

    def to_json(self) -> dict[str, Any]:
        """The task as REST and the internal functions answer it; fields without a value are left out."""
        answer: dict[str, Any] = {"id": self.id, "title": self.title}
        if self.detail is not None:
            answer["detail"] = self.detail
        if self.due_at is not None:
            answer["dueAt"] = self.due_at
        answer["isComplete"] = self.is_complete
        answer["createdAt"] = self.created_at
        answer["updatedAt"] = self.updated_at
        answer["version"] = self.version
        return answer

    def has(self, fields: Mapping[str, Any]) -> bool:
        """Whether each of the fields, by its name in JSON, has this value; None stands for no value."""
        own = self.to_json()
        return all(own.get(name) == value for name, value in fields.items())

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Task":
        """The task with these fields, by their names in JSON; other fields are passed over."""
        return Task(
            id=fields["id"],
            title=fields["title"],
            is_complete=fields["isComplete"],
            created_at=fields["createdAt"],
            updated_at=fields["updatedAt"],
            version=fields["version"],
            detail=fields.get("detail"),
            due_at=fields.get("dueAt"),
        )
