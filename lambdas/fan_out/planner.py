"""Planner: turns an execution's input into the job's plan, or refuses it."""

from typing import Any

from fan_out.aws.runtime import job_store, state
from fan_out.aws.storage import RECORD
from fan_out.model.job_input import check_id, refusal
from fan_out.model.plan import Plan
from fan_out.model.record import JobRecord
from fan_out.model.task import utc
from fan_out.steps.planning import plan_job


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, startedAt, input}` → `{jobId, segments, error}`, and `job.json`."""
    store = job_store(check_id(event["jobId"]))
    plan = plan_job(store.bucket, store.job_id, utc(event["startedAt"]), event["input"])
    record = store.find(RECORD, JobRecord)
    started_at = record["startedAt"] if record is not None else None
    if started_at is None:
        # protection: a-plan-is-committed-once
        started_at = store.put_once("job.json", plan.to_json(), Plan).started_at
    if started_at != plan.started_at:
        # Step Functions forgets names after 90 days; what is left of the job would pass for this one's work.
        raise refusal("jobId", plan.job_id, "a name that no job has whose objects are still kept")
    return {"jobId": plan.job_id, "segments": list(range(plan.segments)), "error": None}
