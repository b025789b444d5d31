"""Tasks and rows as a job sees them, and the one form of their times."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator

from common.task import Task as Task
from common.timestamps import utc as utc


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
    def from_json(cls, document: dict[str, Any]) -> Self:
        return cls(number=document["row"], fields=document["fields"], problem=document.get("problem"))

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"row": self.number, "fields": self.fields}
        if self.problem is not None:
            document["problem"] = self.problem
        return document


def from_json(document: dict[str, Any]) -> Task | Row:
    """A line of a shard: a task, or a row of a CSV object."""
    return Row.from_json(document) if "row" in document else Task.from_json(document)


def instant(timestamp: str) -> datetime:
    """The moment that a timestamp in the form of `utc` names."""
    return datetime.fromisoformat(timestamp)


# A timestamp in a job's input; what the job sees is UTC.
Timestamp = Annotated[str, AfterValidator(utc)]

# How many writes one call of `job.write` takes: the Task Service takes 100.
WRITES_PER_CALL = 100
