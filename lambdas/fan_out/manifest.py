"""Manifest: joins the parts that the listing committed and sets the bounds of the work."""

import json
from dataclasses import asdict
from itertools import accumulate, takewhile
from typing import Any

from fan_out.aws.runtime import job_store, state
from fan_out.model.costs import check_limit, check_time
from fan_out.model.outcomes import exceeds
from fan_out.model.plan import Plan
from fan_out.steps.listing import join_parts


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, listing}` → what the map needs to know; writes `manifest.jsonl` and `manifest.json`."""
    store = job_store(event["jobId"])
    plan = store.require("job.json", Plan)
    steps = {listed["segment"]: listed["step"] for listed in event["listing"]}
    manifest = join_parts(store, plan, steps)
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
        "workers": plan.workers(manifest.shards),
        "toleratedFailureCount": tolerated_shards(counts, plan.tolerated_failure_percentage),
        "error": None,
    }


def tolerated_shards(counts: list[int], percentage: float) -> int:
    """How many failed shards the map tolerates: more of them hold more tasks than the job tolerates."""
    counts, listed = sorted(counts), sum(counts)
    # protection: the-map-is-never-stricter
    return sum(1 for _ in takewhile(lambda tasks: not exceeds(tasks, percentage, listed), accumulate(counts)))
