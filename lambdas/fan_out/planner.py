"""Planner: turns an execution's input into the job's plan, or refuses it."""

from __future__ import annotations

from typing import Any

from fan_out.aws.runtime import state, store
from fan_out.aws.storage import RECORD, JobStore
from fan_out.errors import InvalidJobError, SourceNotFoundError
from fan_out.model.plan import CsvSource, check_id, make_plan, read_input
from fan_out.model.task import utc
from fan_out.steps import retry_source as origin


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, startedAt, input}` → `{jobId, segments, error}`, and `job.json`."""
    jobs = store(check_id(event["jobId"]))
    asked = read_input(event["input"])
    retried = origin.find(jobs.bucket, asked.source)
    if isinstance(asked.source, CsvSource):
        asked = asked.model_copy(update={"source": _found(jobs, asked.source)})
    plan = make_plan(event["jobId"], utc(event["startedAt"]), asked, retried)
    record = jobs.get(RECORD)
    kept = record if record is not None else jobs.put_once("job.json", plan.to_json())
    if kept["startedAt"] != plan.started_at:
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
