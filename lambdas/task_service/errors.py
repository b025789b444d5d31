"""What can go wrong in the Task Service, as classes.

The class alone decides the HTTP status and whether trying again makes sense; its name is a public contract,
because the REST API shows it and Lambda reports it to whoever invoked a function. Every message is a sentence
for a user: which field, which value, what is allowed. Messages never hold stack traces, AWS messages or other
tasks' data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

SHOWN_CHARACTERS: Final = 100
_SAFE_INTEGER: Final = 2**53


class _Missing:
    """The value of a field that was not given at all, which differs from null."""


MISSING: Final = _Missing()


def shown(value: object) -> str:
    """A value as a sentence shows it: JSON for plain values, cut to 100 characters, always valid UTF-8."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        # Cut first: nobody needs a quoted copy of a megabyte.
        text = json.dumps(_cut(value), ensure_ascii=False)
    elif isinstance(value, bool | int | float) or value is None:
        text = _cut(json.dumps(value))
    else:
        text = "a value that JSON does not have"
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with what was sent: which field, its value, and what is allowed."""

    field: str
    value: object
    allowed: str

    @property
    def message(self) -> str:
        if self.value is MISSING:
            return f"{printable(self.field)} is missing, but must be {self.allowed}."
        return f"{printable(self.field)} is {shown(self.value)}, but must be {self.allowed}."

    def to_json(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = {"name": name, "message": self.message, "field": printable(self.field)}
        if self.value is not MISSING:
            answer["value"] = _echo(self.value)
        answer["allowed"] = self.allowed
        return answer


class UnknownField(Fault):
    """A field that nobody asked for; `allowed` lists the fields there are."""

    @property
    def message(self) -> str:
        return f"{printable(self.field)} is not a field here; the fields are {self.allowed}."


def printable(field: str) -> str:
    """A text from outside as an answer may repeat it: cut to 100 characters, always valid UTF-8."""
    return _cut(field).encode("utf-8", "replace").decode("utf-8")


def _echo(value: object) -> object:
    """The value itself where JSON carries it exactly in few bytes, else the text that the sentence shows."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < _SAFE_INTEGER:
        return value
    if isinstance(value, str):
        return printable(value)
    return shown(value)


class TaskServiceError(Exception):
    """The root of all errors that a caller may see. `status` is the HTTP status that REST answers."""

    status = 500

    @property
    def name(self) -> str:
        return type(self).__name__

    def to_json(self) -> dict[str, Any]:
        """The body of a REST answer: `{"error": {"name", "message", ...}}`."""
        return {"error": {"name": self.name, "message": str(self)}}


class _FaultyError(TaskServiceError):
    """Something sent was wrong in one or more fields. The message has a sentence for each fault."""

    status = 400

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(" ".join(fault.message for fault in faults))
        self.faults = tuple(faults)

    def to_json(self) -> dict[str, Any]:
        errors = [fault.to_json(self.name) for fault in self.faults]
        return {"error": errors[0]} if len(errors) == 1 else {"error": errors[0], "errors": errors}


class InvalidTaskError(_FaultyError):
    """A task's fields break the rules of a task."""


class InvalidRequestError(_FaultyError):
    """The request around the task is wrong: query, path, event, or a body that is no JSON object."""


class InvalidPageTokenError(_FaultyError):
    """A page token that this service did not issue for this filter and segment."""


class UnsupportedMediaTypeError(_FaultyError):
    """The body is declared to be something else than JSON."""

    status = 415


class PayloadTooLargeError(_FaultyError):
    """The body is larger than the service reads."""

    status = 413


class RouteNotFoundError(TaskServiceError):
    """No operation has this method and path."""

    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such operation; the operations are on /tasks and /tasks/{id}.")


class TaskNotFoundError(TaskServiceError):
    """No task has this id."""

    status = 404

    def __init__(self, task_id: str) -> None:
        super().__init__(f"No task has the id {shown(task_id)}.")


class VersionConflictError(TaskServiceError):
    """The task has changed since the caller read it."""

    status = 409

    def __init__(self, task_id: str, *, given: int, current: int) -> None:
        super().__init__(
            f"version is {given}, but the task {shown(task_id)} is at version {current}: "
            "read it again, apply the change to that, and send its version."
        )


class TaskExistsError(TaskServiceError):
    """Another write has made a task with this id already."""

    status = 409

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"A task with the id {shown(task_id)} exists already, and this write did not make it."
        )


class ThrottledError(TaskServiceError):
    """The service's stores ask for a pause or cannot be reached just now. The same call can succeed later."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The Task Service is asked for more than it can serve at the moment: try again shortly."
        )
