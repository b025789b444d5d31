"""Manifest: joins the parts that the listing committed and sets the bounds of the work."""

import json
import os
from dataclasses import asdict, replace
from itertools import accumulate, takewhile
from typing import Any

from fan_out.aws.clients import read_concurrency
from fan_out.aws.runtime import job_store, state
from fan_out.aws.storage import RECORD
from fan_out.errors import JobEndedError
from fan_out.model.costs import check_limit, check_time
from fan_out.model.outcomes import exceeds
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
    counts = [json.loads(line.text)["count"] for line in store.lines("manifest.jsonl")]
    return {
        "jobId": plan.job_id,
        "listed": manifest.listed,
        "shards": manifest.shards,
        "manifestKey": store.key("manifest.jsonl"),
        "workers": concurrency["workers"],
        "toleratedFailureCount": tolerated_shards(counts, plan.tolerated_failure_percentage),
        "error": None,
    }


def tolerated_shards(counts: list[int], percentage: float) -> int:
    """How many failed shards the map tolerates: more of them hold more tasks than the job tolerates."""
    counts, listed = sorted(counts), sum(counts)
    # protection: the-map-is-never-stricter
    return sum(1 for _ in takewhile(lambda tasks: not exceeds(tasks, percentage, listed), accumulate(counts)))
