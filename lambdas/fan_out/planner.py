"""Planner: turns an execution's input into the job's plan, or refuses it."""

from typing import Any

from common.environment import variable
from fan_out.aws.runtime import job_store, state
from fan_out.aws.storage import RECORD
from fan_out.model.job_input import check_id, refusal
from fan_out.model.plan import Plan
from fan_out.model.record import JobRecord
from fan_out.model.task import utc
from fan_out.steps.planning import divide, listers, plan_job


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, startedAt, input}` → `{jobId, segments, listers, error}`, and `job.json`."""
    store = job_store(check_id(event["jobId"]))
    own = plan_job(store.bucket, store.job_id, utc(event["startedAt"]), event["input"])
    own = plan = divide(own, variable("LIST_TASKS_ARN"))
    record = store.find(RECORD, JobRecord)
    started_at = record["startedAt"] if record is not None else None
    if started_at is None:
        # protection: a-plan-is-committed-once
        plan = store.put_once("job.json", own.to_json(), Plan)
        started_at = plan.started_at
    if started_at != own.started_at:
        # Step Functions forgets names after 90 days; what is left of the job would pass for this one's work.
        raise refusal("jobId", plan.job_id, "a name that no job has whose objects are still kept")
    # Those of the plan that is committed: an attempt before this one may have found a smaller table.
    # protection: segments-of-the-committed-plan
    segments = plan.segments
    return {"jobId": plan.job_id, "segments": list(range(segments)), "listers": listers(plan), "error": None}
