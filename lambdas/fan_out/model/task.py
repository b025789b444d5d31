"""Tasks as a job sees them, and the two internal functions of the Task Service: the only way to reach them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator

from fan_out.errors import ServiceUnavailableError, TaskServiceError, ThrottledError


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the Task Service as it was when it was listed. Times are UTC, to the second."""

    id: str
    title: str
    is_complete: bool
    created_at: str
    updated_at: str
    version: int
    detail: str | None = None
    due_at: str | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Task:
        return cls(
            id=document["id"],
            title=document["title"],
            is_complete=document["isComplete"],
            created_at=document["createdAt"],
            updated_at=document["updatedAt"],
            version=document["version"],
            detail=document.get("detail"),
            due_at=document.get("dueAt"),
        )

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"id": self.id, "title": self.title}
        if self.detail is not None:
            document["detail"] = self.detail
        if self.due_at is not None:
            document["dueAt"] = self.due_at
        document |= {
            "isComplete": self.is_complete,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "version": self.version,
        }
        return document


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a CSV object: its number (the header is row 1), its fields, or the problem that spoils it."""

    number: int
    fields: dict[str, str]
    problem: str | None = None

    @property
    def id(self) -> str:
        return f"row-{self.number}"

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Row:
        return cls(number=document["row"], fields=document["fields"], problem=document.get("problem"))

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"row": self.number, "fields": self.fields}
        if self.problem is not None:
            document["problem"] = self.problem
        return document


def from_json(document: dict[str, Any]) -> Task | Row:
    """A line of a shard: a task, or a row of a CSV object."""
    return Row.from_json(document) if "row" in document else Task.from_json(document)


def utc(timestamp: str) -> str:
    """An ISO 8601 timestamp with a zone, in the form in which the Task Service keeps times.

    That is UTC to the second, of fixed width, so that times compare as strings. Raises ValueError.
    """
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        raise ValueError("the timestamp has no zone")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the timestamp is outside the years 1 to 9999") from None
    # strftime does not pad years below 1000 on every platform.
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def instant(timestamp: str) -> datetime:
    """The moment that a timestamp in the form of `utc` names."""
    return datetime.fromisoformat(timestamp)


# A timestamp in a job's input; what the job sees is UTC.
Timestamp = Annotated[str, AfterValidator(utc)]


@dataclass(frozen=True, slots=True)
class Page:
    tasks: list[dict[str, Any]]
    cursor: str | None


def list_page(
    function: str, *, match: dict[str, Any], segment: int, segments: int, cursor: str | None, limit: int
) -> Page:
    """One page of one segment of the listing; a page may be empty and still have a cursor."""
    answer = _invoke(
        function,
        {"filter": match, "segment": segment, "totalSegments": segments, "cursor": cursor, "limit": limit},
    )
    return Page(tasks=answer["tasks"], cursor=answer["cursor"])


# How many tasks one call can look up by their ids: DynamoDB's BatchGetItem takes 100.
IDS_PER_CALL = 100


def list_ids(function: str, ids: Sequence[str], *, match: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of up to 100 tasks that exist now and match the filter, in the order of `ids`."""
    answer = _invoke(function, {"filter": match, "ids": list(ids)})
    return list(answer["tasks"])


# How many writes one call takes: DynamoDB's TransactWriteItems takes 100.
WRITES_PER_CALL = 100


def write(function: str, writes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Apply up to 100 writes; an outcome for each, in their order. Repeating a call applies nothing twice."""
    outcomes = list(_invoke(function, {"writes": list(writes)})["outcomes"])
    if len(outcomes) != len(writes):
        raise TaskServiceError(f"the Task Service answered {len(outcomes)} outcomes to {len(writes)} writes")
    return outcomes


# Error names of the Task Service's functions after which a call may be repeated as it is.
_THROTTLED = frozenset({"ThrottledError"})
# A function that died or ran out of time: Lambda's own names, by runtime generation.
_DIED = ("Runtime.", "Sandbox.", "Lambda.", "Extension.")


def _invoke(function: str, event: dict[str, Any]) -> Any:
    from fan_out.aws import clients as aws

    with aws.translated():
        answer = aws.lambda_client().invoke(FunctionName=function, Payload=json.dumps(event).encode())
        body = answer["Payload"].read()
    payload = json.loads(body)
    if "FunctionError" not in answer:
        return payload
    name = str(payload.get("errorType", "")) if isinstance(payload, dict) else ""
    message = str(payload.get("errorMessage", "")) if isinstance(payload, dict) else ""
    if name in _THROTTLED:
        raise ThrottledError(f"The Task Service is throttled: {message}")
    if name == "" or name.startswith(_DIED) or "timed out" in message:
        raise ServiceUnavailableError(f"The Task Service's function ended early ({name or 'no name'}).")
    raise TaskServiceError(f"The Task Service answered {name}: {message}")
