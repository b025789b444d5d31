"""A job's input: what an execution, `POST /jobs` and `fanout run` may say, checked field by field."""

import re
import secrets
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from common.errors import Fault, shown
from common.models import parse
from fan_out.errors import InvalidJobError
from fan_out.model.task import Timestamp

# Where CSV objects are uploaded to, in the job bucket.
UPLOADS = "uploads/"

# A leading hyphen would make an option of the id, on every command line that names it.
_ID_RULE = "1 to 80 letters, digits, - or _, the first no -"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
# Control characters cannot travel in every request that names the key.
_UPLOAD = re.compile(rf"{UPLOADS}[^\x00-\x1f\x7f]+")
UPLOADED = "the key of an uploaded object"

M = TypeVar("M", bound=BaseModel)


def is_upload(key: object) -> bool:
    """Whether it can be the key of an uploaded object; S3's keys have at most 1,024 bytes."""
    return isinstance(key, str) and _UPLOAD.fullmatch(key) is not None and len(key.encode("utf-8", "replace")) <= 1024


class FrozenModel(BaseModel):
    # protection: typed-input
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class TasksSource(FrozenModel):
    """The tasks of the Task Service, narrowed by the job's filter."""

    type: Literal["tasks"] = "tasks"


class CsvSource(FrozenModel):
    """The rows of a CSV object in the job bucket."""

    type: Literal["csv"] = "csv"
    key: str
    # The version that the planner found: a job never mixes two of them.
    etag: str | None = None


class FailedSource(FrozenModel):
    """What failed, was quarantined or stayed unprocessed in an earlier job."""

    type: Literal["failedIn"] = "failedIn"
    job_id: str = Field(alias="jobId")


Source = TasksSource | CsvSource | FailedSource

_SOURCE_RULE = f'"tasks", {{"csv": "{UPLOADS}NAME.csv"}} or {{"failedIn": "JOB-ID"}}'
_WHOLE_RULE = "a whole number from 1 to 10,000"
_TIME_RULE = 'an ISO 8601 timestamp with a zone, such as "2026-11-23T09:00:00+01:00"'


class TaskFilter(FrozenModel):
    """Which tasks of the Task Service: all conditions hold. A task that is due never matches neither date."""

    is_complete: bool | None = Field(None, alias="isComplete", description="true or false")
    due_before: Timestamp | None = Field(None, alias="dueBefore", description=_TIME_RULE)
    due_after: Timestamp | None = Field(None, alias="dueAfter", description=_TIME_RULE)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


class JobSettings(FrozenModel):
    """What a job's input and its plan both say."""

    kind: str = Field("daily-plan", description="the name of a kind")
    params: dict[str, Any] = Field(default_factory=dict, description="an object with the kind's parameters")
    filter: TaskFilter = Field(
        TaskFilter(), description="an object with isComplete, dueBefore and dueAfter, each optional"
    )
    # protection: shard-size-bounds
    shard_size: int = Field(500, alias="shardSize", ge=1, le=10_000, description=_WHOLE_RULE)
    # A distributed map runs at most 10,000 children at a time.
    max_concurrency: int = Field(40, alias="maxConcurrency", ge=1, le=10_000, description=_WHOLE_RULE)
    tolerated_failure_percentage: float = Field(
        5, alias="toleratedFailurePercentage", ge=0, le=100, description="a number from 0 to 100"
    )
    # A slower worker would sleep for longer than a function lasts.
    tasks_per_second: float | None = Field(
        None,
        alias="tasksPerSecond",
        ge=0.1,
        le=1_000_000,
        description="a number from 0.1 to 1,000,000, or null for no ceiling",
    )
    max_cost_usd: float | None = Field(
        None, alias="maxCostUsd", gt=0, le=1_000_000, description="a number above 0, or null for no limit"
    )


class JobInput(JobSettings):
    """The input of an execution, the body of `POST /jobs`, the options of `fanout run`. `{}` is today's plan."""

    source: Source = Field(TasksSource(), description=_SOURCE_RULE)
    # The console starts an execution with such a field.
    comment: Any = Field(None, alias="Comment", description="anything; it is ignored")

    @field_validator("source", mode="before")
    @classmethod
    def _read_source(cls, value: Any) -> Any:
        match value:
            case TasksSource() | CsvSource() | FailedSource():
                return value
            case "tasks":
                return TasksSource()
            case {"csv": key, **rest} if not rest and is_upload(key):
                return CsvSource(key=key)
            case {"failedIn": str(job_id), **rest} if not rest and _ID.fullmatch(job_id):
                return FailedSource(job_id=job_id)
        raise ValueError("not a source")


def check_id(job_id: Any) -> str:
    """Raises InvalidJobError unless it can be the id of a job."""
    if isinstance(job_id, str) and _ID.fullmatch(job_id):
        return job_id
    raise refusal("jobId", job_id, _ID_RULE)


def new_id() -> str:
    """A job id that sorts by the time of its making."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def read_input(document: Any) -> JobInput:
    """Check a job's input. Raises InvalidJobError naming the field, its value and what is allowed."""
    if not isinstance(document, dict):
        raise InvalidJobError(f"The job's input is {shown(document)}, but must be an object such as {{}}.")
    return validate(JobInput, document, "")


def refusal(field: str, value: Any, allowed: str) -> InvalidJobError:
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, exclude_none=True)
    return _invalid([Fault(field, value, allowed)])


def validate(model: type[M], document: Any, prefix: str) -> M:
    return parse(model, document, lambda faults: _invalid(faults[:5]), whole=prefix[:-1], prefix=prefix)


def _invalid(faults: list[Fault]) -> InvalidJobError:
    return InvalidJobError(" ".join(fault.message for fault in faults), *faults)
