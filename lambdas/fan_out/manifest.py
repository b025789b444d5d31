"""Manifest: joins the parts that the listing committed and sets the bounds of the work."""

from __future__ import annotations

import math
from typing import Any

from fan_out.aws.runtime import state, store
from fan_out.model.costs import check_limit, check_time
from fan_out.model.plan import Plan
from fan_out.steps.listing import join_parts


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, listing}` → what the map needs to know; writes `manifest.jsonl` and `manifest.json`."""
    jobs = store(event["jobId"])
    plan = Plan.from_json(jobs.require("job.json"))
    steps = {listed["segment"]: listed["step"] for listed in event["listing"]}
    manifest = join_parts(jobs, plan, steps)
    check_time(plan, manifest)
    check_limit(plan, manifest)
    # With this object the listing stands: whatever happens from here on, its tasks are accounted for.
    jobs.put("manifest.json", manifest.to_json())
    return {
        "jobId": plan.job_id,
        "listed": manifest.listed,
        "shards": manifest.shards,
        "manifestKey": jobs.key("manifest.jsonl"),
        "workers": plan.workers(manifest.shards),
        # The map counts shards, and in whole percents: it must never be stricter than the job.
        "toleratedFailurePercentage": math.ceil(plan.tolerated_failure_percentage),
        "error": None,
    }
