"""Planner: turns an execution's input into the job's plan, or refuses it."""

from typing import Any

from fan_out.aws.runtime import job_store, state
from fan_out.aws.storage import RECORD, Bucket
from fan_out.errors import SourceNotFoundError
from fan_out.model.job_input import CsvSource, check_id, read_input, refusal
from fan_out.model.plan import Plan, make_plan
from fan_out.model.record import JobRecord
from fan_out.model.task import utc
from fan_out.steps.planning import find_retry_source
from fan_out.steps.process_guard import ProcessGuard


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, startedAt, input}` → `{jobId, segments, error}`, and `job.json`."""
    store = job_store(check_id(event["jobId"]))
    asked = read_input(event["input"])
    retried = find_retry_source(store.bucket, asked.source)
    if isinstance(asked.source, CsvSource):
        asked = asked.model_copy(update={"source": _with_etag(store.bucket, asked.source)})
    # The kind is loaded, and its filter asked.
    # protection: a-damaged-planner-ends
    with ProcessGuard():
        plan = make_plan(event["jobId"], utc(event["startedAt"]), asked, retried)
    record = store.find(RECORD, JobRecord)
    started_at = record["startedAt"] if record is not None else None
    if started_at is None:
        # protection: a-plan-is-committed-once
        started_at = store.put_once("job.json", plan.to_json(), Plan).started_at
    if started_at != plan.started_at:
        # Step Functions forgets names after 90 days; what is left of the job would pass for this one's work.
        raise refusal("jobId", plan.job_id, "a name that no job has whose objects are still kept")
    return {"jobId": plan.job_id, "segments": list(range(plan.segments)), "error": None}


def _with_etag(bucket: Bucket, source: CsvSource) -> CsvSource:
    found = bucket.head(source.key)
    if found is None:
        raise SourceNotFoundError(f'source.csv is "{source.key}", but the job bucket has no such object.')
    return source.model_copy(update={"etag": found.etag})
