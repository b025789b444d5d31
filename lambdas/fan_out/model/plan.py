"""A job's plan: its input with every default filled in, decided once, from which every later step works."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from common.errors import shown
from fan_out.model import kind as kinds
from fan_out.model.documents import to_shape
from fan_out.model.job_input import CsvSource, JobInput, JobSettings, Source, TaskFilter, TasksSource, refusal, validate
from fan_out.model.kind import Job, Kind, Params
from fan_out.model.shard import Concurrency

# How many slices a listing of the Task Service has: few for a small table, as each costs calls, transitions and a last
# shard that is not full; for a large one as many as keep a lister busy for some seconds. Each is retried by itself, and
# all their retries must fit into one execution's history, which bounds them.
SEGMENTS = 4
MOST_SEGMENTS = 64
TASKS_PER_SEGMENT = 16_000
BYTES_PER_SEGMENT = 8 << 20
# Iterations of an inline Map that run at a time:
# https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html
MOST_LISTERS = 40


class Plan(JobSettings):
    """What a job will do, decided once by the planner and kept as `job.json`."""

    job_id: str = Field(alias="jobId")
    source: Annotated[Source, Field(discriminator="type")]
    started_at: str = Field(alias="startedAt")
    # The earlier job that this one retries.
    retry_of: str | None = Field(None, alias="retryOf")
    # How many tasks the earlier job's record says to retry: the listing must have exactly as many.
    expected_count: int | None = Field(None, alias="expectedCount")
    # The keys of effects begin with it. Like the start below, it is that of the first job of a chain of retries.
    effect_scope: str = Field(alias="effectScope")
    chain_started_at: str = Field(alias="chainStartedAt")
    # Whether the tasks are rows of a CSV object; a retry takes it over from the earlier job.
    is_csv: bool = Field(alias="isCsv")
    segments: int = 1

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True)

    def in_segments(self, count: int = 0, size: int = 0) -> "Plan":
        """The plan with its segments, for a table of about so many tasks and bytes: the count may be hours old."""
        segments = max(count / TASKS_PER_SEGMENT, size / BYTES_PER_SEGMENT, SEGMENTS)
        # protection: few-segments
        segments = min(math.ceil(segments), MOST_SEGMENTS)
        return self.model_copy(update={"segments": segments if isinstance(self.source, TasksSource) else 1})

    def listers(self, account: int | str) -> int:
        """The most listers at a time; each waits for ListTasks, which takes another one of the account's pool."""
        # protection: the-accounts-limit-of-listers
        fit = SEGMENTS if isinstance(account, str) else _fit(account, taken=2)
        return min(self.segments, MOST_LISTERS, fit)

    def workers(self, shards: int) -> int:
        """The most workers at a time: the job's bound, never more than there are shards.

        Under a ceiling of tasks a second, no more than can each start one every ten seconds: others would
        be paid for sleeping.
        """
        workers = min(self.max_concurrency, shards)
        if self.tasks_per_second is not None:
            workers = min(workers, int(self.tasks_per_second * 10))
        return max(1, workers)

    def concurrency(self, shards: int, account: int | str, reserved: int | None) -> Concurrency:
        """The workers that the job gets: its own bound, and no more than the AWS account can run at a time.

        `account` is the pool of concurrent executions that functions share, or why it is not known; `reserved` are the
        Worker's own. A worker of a kind that writes waits for WriteTasks, which takes another one of the pool.
        """
        workers, reason = self.workers(shards), f"maxConcurrency is {self.max_concurrency:,}"
        if workers < min(self.max_concurrency, shards):
            reason = f"tasksPerSecond is {self.tasks_per_second:g}"
        elif workers < self.max_concurrency:
            reason = f"the job has {shards:,} shard{'s' if shards != 1 else ''}"
        if reserved is not None and reserved < workers:
            workers, reason = reserved, f"the stack reserves {reserved:,} concurrent executions for workers"
        if isinstance(account, str):
            reason += f"; the AWS account's limit could not be read ({account})"
        else:
            # protection: a-writer-takes-two
            taken = (reserved is None) + kinds.find(self.kind).writes
            fit = _fit(account, taken) if taken else workers
            # protection: the-accounts-limit
            if fit < workers:
                workers = fit
                reason = (
                    f"the AWS account has {account:,} concurrent executions, {_kept(account):,} of them are kept for "
                    f"other functions, and a worker takes {taken}"
                )
        some = f"{workers:,} worker{'s' if workers > 1 else ''}"
        return {"workers": workers, "reason": f"At most {some} at a time, because {reason}."}

    def job(self, write: Any = None) -> Job[Any]:
        """The view of this job that its kind gets."""
        kind = kinds.find(self.kind)
        # protection: who-writes-says-so
        if write is not None and not kind.writes:
            write = partial(kinds.refuse_write, kind.name)
        return Job(
            id=self.job_id,
            params=kind.params.model_validate(self.params),
            started_at=self.chain_started_at,
            effect_scope=self.effect_scope,
            write=write,
        )


def _kept(account: int) -> int:
    """How many executions are left to other functions: those of the API, the Reducer of another job."""
    return max(2, math.ceil(account / 10))


def _fit(account: int, taken: int) -> int:
    """How many may run at a time, each with `taken` executions."""
    return max(1, (account - _kept(account)) // taken)


@dataclass(frozen=True, slots=True)
class RetrySource:
    """The earlier job of a retry: its plan, and how many tasks it `listed`.

    `expected_count` of these did not succeed and are in its list of failures; a retry works on them. None if that list
    is not whole, because the job ended before its manifest was written or lost objects: a retry lists its source again.
    """

    plan: Plan
    listed: int
    expected_count: int | None

    @property
    def tolerated_failure_percentage(self) -> float:
        """As many tasks as the earlier job tolerated, as a percentage of those that are retried; rounded up."""
        share = 1.0 if self.expected_count is None else self.listed / self.expected_count
        return min(100.0, math.ceil(self.plan.tolerated_failure_percentage * share * 10_000) / 10_000)


def make_plan(job_id: str, started_at: str, asked: JobInput, retried: RetrySource | None = None) -> Plan:
    """Complete a checked input into a plan. Raises InvalidJobError.

    `retried` is the job named by `failedIn`. What the input does not say is as it was there, and so are the keys of
    the effects: none is applied twice.
    """
    if retried is not None:
        return _retry_plan(job_id, started_at, asked, retried)
    kind = kinds.find(asked.kind)
    # Validated here only to refuse it; every step validates the stored form again.
    params: Params = validate(kind.params, asked.params, "params.")
    if asked.source.type not in kind.sources:
        allowed = " or ".join(sorted(kind.sources)) + f" for the kind {asked.kind}"
        raise refusal("source", asked.source.type, allowed)
    is_csv = isinstance(asked.source, CsvSource)
    if is_csv and asked.filter.to_json():
        raise refusal("filter", asked.filter, "left out for the rows of a CSV object")
    # A name may be used again once the first job's objects have expired; its effects remain.
    # protection: scope-has-the-start
    effect_scope = f"{job_id}@{started_at}"
    settings = {name: getattr(asked, name) for name in JobSettings.model_fields}
    if "shard_size" not in asked.model_fields_set:
        settings["shard_size"] = kind.shard_size
    return Plan(
        **settings | {"filter": _narrow(_filter_of(kind, params, started_at), asked.filter, asked.kind)},
        job_id=job_id,
        source=asked.source,
        started_at=started_at,
        effect_scope=effect_scope,
        chain_started_at=started_at,
        is_csv=is_csv,
    ).in_segments()


def _retry_plan(job_id: str, started_at: str, asked: JobInput, retried: RetrySource) -> Plan:
    earlier = retried.plan
    given = {name: getattr(asked, name) for name in asked.model_fields_set & set(JobSettings.model_fields)}
    for name in sorted({"kind", "params", "filter"} & set(given)):
        if given[name] != getattr(earlier, name):
            raise refusal(name, given[name], f"as in job {earlier.job_id}, or left out")
    validate(kinds.find(earlier.kind).params, earlier.params, "params.")
    changes = {
        "tolerated_failure_percentage": retried.tolerated_failure_percentage,
        **given,
        "job_id": job_id,
        "started_at": started_at,
        "retry_of": earlier.job_id,
    }
    # protection: unlisted-source-again
    if retried.expected_count is not None:
        changes |= {"source": asked.source, "expected_count": retried.expected_count}
    # protection: scope-of-the-chain
    return earlier.model_copy(update=changes).in_segments()


def _filter_of(kind: Kind[Any, Any], params: Params, started_at: str) -> dict[str, Any]:
    """The kind's filter. Raises InvalidJobError that names the kind if its code fails or gives no filter."""
    # protection: a-fault-of-filter
    try:
        needed: TaskFilter = to_shape(kind.filter(params, started_at), TaskFilter)
    except kinds.FAULTS as error:
        raise kinds.unusable(kind.name, "its filter", error) from None
    return needed.to_json()


def _narrow(needed: dict[str, Any], asked: TaskFilter, kind: str) -> TaskFilter:
    """The filter of the tasks that match both the kind's filter and the job's own."""
    own = asked.to_json()
    if "isComplete" in needed and own.get("isComplete", needed["isComplete"]) != needed["isComplete"]:
        allowed = f"{shown(needed['isComplete'])} for the kind {kind}, or left out"
        raise refusal("filter.isComplete", own["isComplete"], allowed)
    both = needed | own
    for name, narrower in (("dueBefore", min), ("dueAfter", max)):
        if name in needed and name in own:
            both[name] = narrower(needed[name], own[name])
    return TaskFilter.model_validate(both)
