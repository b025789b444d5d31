"""Manifest: joins the parts that the listing committed and sets the bounds of the work."""

import math
import os
from dataclasses import asdict, replace
from typing import Any

from fan_out.aws.account import read_concurrency
from fan_out.aws.runtime import job_store, state
from fan_out.aws.storage import RECORD
from fan_out.errors import JobEndedError
from fan_out.model.costs import check_limit, check_time
from fan_out.model.plan import Plan
from fan_out.steps.listing import join_parts


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, listing}` → what the map needs to know; writes `manifest.jsonl` and `manifest.json`."""
    store = job_store(event["jobId"])
    # An execution that is redriven after its end works on nothing.
    # protection: an-ended-job-is-not-worked-on
    if store.has(RECORD):
        raise JobEndedError("The job has ended, and its record is written.")
    plan = store.require("job.json", Plan)
    steps = {listed["segment"]: listed["step"] for listed in event["listing"]}
    joined = join_parts(store, plan, steps)
    reserved = os.environ.get("WORKER_CONCURRENCY")
    concurrency = plan.concurrency(joined.shards, read_concurrency(), int(reserved) if reserved else None)
    manifest = replace(joined, concurrency=concurrency)
    check_time(plan, manifest)
    check_limit(plan, manifest)
    # Once this object is there, every listed task has an outcome in the job's record.
    store.put("manifest.json", asdict(manifest))
    return {
        "jobId": plan.job_id,
        "listed": manifest.listed,
        "shards": manifest.shards,
        "manifestKey": store.key("manifest.jsonl"),
        "workers": concurrency["workers"],
        # The map counts shards, and in whole percents: it must never be stricter than the job.
        "toleratedFailurePercentage": math.ceil(plan.tolerated_failure_percentage),
        "error": None,
    }
