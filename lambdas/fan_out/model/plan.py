"""A job: the input that asks for it, checked and completed, and the plan that every later step works from."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from common import models
from common.errors import Fault, shown
from fan_out.errors import InvalidJobError
from fan_out.model import kind as kinds
from fan_out.model.kind import Job, Params
from fan_out.model.task import Timestamp

# How many slices a listing of the Task Service has. DynamoDB answers one segment of a scan with some
# 10 MB/s; four of them list ten million tasks in minutes, and few enough stay cheap for a small job.
SEGMENTS = 4

# Where CSV objects are uploaded to, in the job bucket.
UPLOADS = "uploads/"

# A leading hyphen would make an option of the id, on every command line that names it.
_ID_RULE = "1 to 80 letters, digits, - or _, the first no -"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
# Control characters cannot travel in every request that names the key.
_UPLOAD = re.compile(rf"{UPLOADS}[^\x00-\x1f\x7f]+")

M = TypeVar("M", bound=BaseModel)


def is_upload(key: object) -> bool:
    """Whether it can be the key of an uploaded object; S3's keys have at most 1,024 bytes."""
    return (
        isinstance(key, str)
        and _UPLOAD.fullmatch(key) is not None
        and len(key.encode("utf-8", "replace")) <= 1024
    )


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class TasksSource(_Model):
    """The tasks of the Task Service, narrowed by the job's filter."""

    type: Literal["tasks"] = "tasks"


class CsvSource(_Model):
    """The rows of a CSV object in the job bucket."""

    type: Literal["csv"] = "csv"
    key: str
    # The version that the planner found: a job never mixes two of them.
    etag: str | None = None


class FailedSource(_Model):
    """What failed, was quarantined or stayed unprocessed in an earlier job."""

    type: Literal["failedIn"] = "failedIn"
    job_id: str = Field(alias="jobId")


Source = TasksSource | CsvSource | FailedSource

_SOURCE_RULE = f'"tasks", {{"csv": "{UPLOADS}NAME.csv"}} or {{"failedIn": "JOB-ID"}}'
_TIME_RULE = 'an ISO 8601 timestamp with a zone, such as "2026-11-23T09:00:00+01:00"'


class TaskFilter(_Model):
    """Which tasks of the Task Service: all conditions hold. A task that is due never matches neither date."""

    is_complete: bool | None = Field(None, alias="isComplete", description="true or false")
    due_before: Timestamp | None = Field(None, alias="dueBefore", description=_TIME_RULE)
    due_after: Timestamp | None = Field(None, alias="dueAfter", description=_TIME_RULE)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


class JobInput(_Model):
    """The input of an execution, the body of `POST /jobs`, the options of `fanout run`. `{}` is today's plan."""

    kind: str = Field("daily-plan", description="the name of a kind")
    params: dict[str, Any] = Field(default_factory=dict, description="an object with the kind's parameters")
    source: Source = Field(TasksSource(), description=_SOURCE_RULE)
    filter: TaskFilter = Field(
        TaskFilter(), description="an object with isComplete, dueBefore and dueAfter, each optional"
    )
    shard_size: int = Field(
        500, alias="shardSize", ge=1, le=10_000, description="a whole number from 1 to 10,000"
    )
    # A distributed map runs at most 10,000 children at a time.
    max_concurrency: int = Field(
        40, alias="maxConcurrency", ge=1, le=10_000, description="a whole number from 1 to 10,000"
    )
    tolerated_failure_percentage: float = Field(
        5, alias="toleratedFailurePercentage", ge=0, le=100, description="a number from 0 to 100"
    )
    tasks_per_second: float | None = Field(
        None,
        alias="tasksPerSecond",
        # A slower worker would sleep for longer than a function lasts.
        ge=0.1,
        le=1_000_000,
        description="a number from 0.1 to 1,000,000, or null for no ceiling",
    )
    max_cost_usd: float | None = Field(
        None, alias="maxCostUsd", gt=0, le=1_000_000, description="a number above 0, or null for no limit"
    )
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


class Plan(_Model):
    """What a job will do, decided once by the planner and kept as `job.json`."""

    job_id: str = Field(alias="jobId")
    kind: str
    params: dict[str, Any]
    source: Annotated[Source, Field(discriminator="type")]
    filter: TaskFilter
    shard_size: int = Field(alias="shardSize")
    max_concurrency: int = Field(alias="maxConcurrency")
    tolerated_failure_percentage: float = Field(alias="toleratedFailurePercentage")
    tasks_per_second: float | None = Field(alias="tasksPerSecond")
    max_cost_usd: float | None = Field(alias="maxCostUsd")
    started_at: str = Field(alias="startedAt")
    # The job whose failures this one works on, and the first job of that chain.
    origin: str | None = None
    # How many tasks the account of that job names, if these are the source: not one of them may get lost.
    named: int | None = None
    effect_scope: str = Field(alias="effectScope")
    # When that first job started: a kind's day is that of the whole chain.
    chain_started_at: str = Field(alias="chainStartedAt")
    # Whether the tasks are rows of a CSV object; a retry takes it over from its origin.
    rows: bool

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Plan:
        return cls.model_validate(document, strict=False)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True)

    @property
    def segments(self) -> int:
        return SEGMENTS if isinstance(self.source, TasksSource) else 1

    def workers(self, shards: int) -> int:
        """How many workers run at a time at the most: the bound, never more than there are shards.

        Under a ceiling of tasks a second, no more than can each start one every ten seconds: others would
        be paid for sleeping.
        """
        workers = min(self.max_concurrency, shards)
        if self.tasks_per_second is not None:
            workers = min(workers, int(self.tasks_per_second * 10))
        return max(1, workers)

    def job(self, write: Any = None) -> Job[Any]:
        """The view of this job that its kind gets."""
        kind = kinds.find(self.kind)
        return Job(
            id=self.job_id,
            params=kind.params.model_validate(self.params),
            started_at=self.chain_started_at,
            effect_scope=self.effect_scope,
            write=write,
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """The earlier job of a retry.

    `named` is how many of its `listed` tasks its account names as not succeeded: those are worked on. None if it does
    not name them all, because the job ended before its listing stood or objects of it are lost: then its own source is
    listed anew.
    """

    plan: Plan
    listed: int
    named: int | None

    @property
    def tolerated_failure_percentage(self) -> float:
        """As many tasks as the job itself tolerated, as a percentage of those that are tried again; rounded up."""
        share = 1.0 if self.named is None else self.listed / self.named
        return min(100.0, math.ceil(self.plan.tolerated_failure_percentage * share * 10_000) / 10_000)


def check_id(job_id: Any) -> str:
    """Raises InvalidJobError unless it can be the id of a job."""
    if isinstance(job_id, str) and _ID.fullmatch(job_id):
        return job_id
    raise _refusal("jobId", job_id, _ID_RULE)


def new_id() -> str:
    """A job id that sorts by the time of its making."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def read_input(document: Any) -> JobInput:
    """Check a job's input. Raises InvalidJobError naming the field, its value and what is allowed."""
    if not isinstance(document, dict):
        raise InvalidJobError(
            f"The job's input is {shown(document)}, but must be an object such as {{}}.",
            value=document,
            allowed="an object",
        )
    return _validated(JobInput, document, "")


def make_plan(job_id: str, started_at: str, asked: JobInput, retried: Origin | None = None) -> Plan:
    """Complete a checked input into a plan. Raises InvalidJobError.

    `retried` is the job named by `failedIn`: what the input does not say is as it was there, and the effects
    are keyed as they were there, so that none is applied twice.
    """
    given = asked.model_fields_set
    origin = retried.plan if retried is not None else None
    source, named = asked.source, None
    if retried is not None:
        named = retried.plan.named if retried.named is None else retried.named
        source = retried.plan.source if retried.named is None else asked.source
    if origin is not None:
        for name in ("kind", "params", "filter"):
            if name in given and getattr(asked, name) != getattr(origin, name):
                raise _refusal(name, getattr(asked, name), f"as in job {origin.job_id}, or left out")
    name = origin.kind if origin is not None else asked.kind
    kind = kinds.find(name)
    params = origin.params if origin is not None else asked.params
    # Validated here only to refuse it; every step validates the stored form again.
    checked: Params = _validated(kind.params, params, "params.")
    if origin is None and asked.source.type not in kind.sources:
        allowed = " or ".join(sorted(kind.sources)) + f" for the kind {name}"
        raise _refusal("source", asked.source.type, allowed)
    if isinstance(asked.source, CsvSource) and asked.filter.to_json():
        raise _refusal("filter", asked.filter, "left out for the rows of a CSV object")

    def setting(field: str) -> Any:
        return getattr(origin, field) if origin is not None and field not in given else getattr(asked, field)

    return Plan(
        job_id=job_id,
        kind=name,
        params=params,
        source=source,
        filter=origin.filter
        if origin is not None
        else _narrowed(kind.filter(checked, started_at), asked.filter, name),
        shard_size=setting("shard_size"),
        max_concurrency=setting("max_concurrency"),
        tolerated_failure_percentage=retried.tolerated_failure_percentage
        if retried is not None and "tolerated_failure_percentage" not in given
        else asked.tolerated_failure_percentage,
        tasks_per_second=setting("tasks_per_second"),
        max_cost_usd=setting("max_cost_usd"),
        started_at=started_at,
        origin=origin.job_id if origin is not None else None,
        named=named,
        # The start, too: a name may be used again once the first job's objects have expired, and its effects are not.
        effect_scope=origin.effect_scope if origin is not None else f"{job_id}@{started_at}",
        chain_started_at=origin.chain_started_at if origin is not None else started_at,
        rows=origin.rows if origin is not None else isinstance(asked.source, CsvSource),
    )


def _narrowed(needed: dict[str, Any], asked: TaskFilter, kind: str) -> TaskFilter:
    """The tasks that match both the kind's filter and the job's own."""
    own = asked.to_json()
    if "isComplete" in needed and own.get("isComplete", needed["isComplete"]) != needed["isComplete"]:
        allowed = f"{shown(needed['isComplete'])} for the kind {kind}, or left out"
        raise _refusal("filter.isComplete", own["isComplete"], allowed)
    both = needed | own
    for name, narrower in (("dueBefore", min), ("dueAfter", max)):
        if name in needed and name in own:
            both[name] = narrower(needed[name], own[name])
    return TaskFilter.model_validate(both)


def _refusal(field: str, value: Any, allowed: str) -> InvalidJobError:
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, exclude_none=True)
    return InvalidJobError.of([Fault(field, value, allowed)])


def _validated(model: type[M], document: Any, prefix: str) -> M:
    parsed = models.parse(model, document, whole=prefix.rstrip("."), prefix=prefix)
    if isinstance(parsed, list):
        raise InvalidJobError.of(parsed[:5])
    return parsed
