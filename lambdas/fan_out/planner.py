"""Planner: turns an execution's input into the job's plan, or refuses it."""

from __future__ import annotations

from typing import Any

from fan_out.errors import InvalidJobError, SourceNotFoundError
from fan_out.job import CsvSource, FailedSource, JobInput, Plan, check_id, make_plan, read_input
from fan_out.runtime import state, store
from fan_out.storage import RECORD, JobStore
from fan_out.tasks import utc


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, startedAt, input}` → `{jobId, segments, error}`, and `job.json`."""
    jobs = store(check_id(event["jobId"]))
    asked = read_input(event["input"])
    origin, is_fresh = _origin(jobs, asked)
    if isinstance(asked.source, CsvSource):
        asked = asked.model_copy(update={"source": _found(jobs, asked.source)})
    plan = make_plan(event["jobId"], utc(event["startedAt"]), asked, origin, is_fresh=is_fresh)
    if jobs.put_once("job.json", plan.to_json())["startedAt"] != plan.started_at:
        # Step Functions forgets names after 90 days; what is left of the job would pass for this one's work.
        allowed = "a name that no job has whose objects are still kept"
        raise InvalidJobError(
            f'jobId is "{plan.job_id}", but must be {allowed}.',
            field="jobId",
            value=plan.job_id,
            allowed=allowed,
        )
    return {"jobId": plan.job_id, "segments": list(range(plan.segments)), "error": None}


def _found(jobs: JobStore, source: CsvSource) -> CsvSource:
    etag = jobs.bucket.etag(source.key)
    if etag is None:
        raise SourceNotFoundError(f'source.csv is "{source.key}", but the job bucket has no such object.')
    return source.model_copy(update={"etag": etag})


def _origin(jobs: JobStore, asked: JobInput) -> tuple[Plan | None, bool]:
    """The plan of the job whose failures are the source, and whether that job's account knows of no task's outcome.

    Raises SourceNotFoundError if the source does not exist, InvalidJobError if it has nothing to retry.
    """
    match asked.source:
        case FailedSource(job_id=origin):
            earlier = JobStore(jobs.bucket, origin)
            stored, record = earlier.get("job.json"), earlier.get(RECORD)
            if stored is None and record is None:
                raise SourceNotFoundError(f'source.failedIn is "{origin}", but there is no such job.')
            if stored is None:
                raise _not_retried(origin, "a job whose own input was accepted")
            if record is None:
                raise _not_retried(origin, "a job that has ended and is accounted for")
            # The record decides: a function that outlived the stop of its job may have written a manifest since.
            is_fresh = "resultUrl" not in record
            if not is_fresh and "failuresUrl" not in record:
                raise _not_retried(origin, "a job with failed, quarantined or unprocessed tasks")
            return Plan.from_json(stored), is_fresh
    return None, False


def _not_retried(origin: str, allowed: str) -> InvalidJobError:
    return InvalidJobError(
        f'source.failedIn is "{origin}", but must be {allowed}.',
        field="source.failedIn",
        value=origin,
        allowed=allowed,
    )
