"""What a job costs at the least, from the published prices, before any of its work is begun."""

from __future__ import annotations

from fan_out import kind as kinds
from fan_out.errors import CostLimitError
from fan_out.job import Plan
from fan_out.listing import Manifest

# Prices of us-east-1 in US dollars, per unit: https://aws.amazon.com/step-functions/pricing/,
# https://aws.amazon.com/lambda/pricing/ (arm64), https://aws.amazon.com/s3/pricing/
TRANSITION = 25e-6
INVOCATION = 0.20e-6
GB_SECOND = 13.3334e-6
PUT = 5e-6
GET = 0.40e-6
# What one shard takes on the healthy path: the child's start and its three states, one call of the worker,
# four objects written (shard, partial, its lines, the map's share) and four read.
TRANSITIONS_PER_SHARD = 4
PUTS_PER_SHARD = 4
GETS_PER_SHARD = 4
SECONDS_PER_SHARD = 0.25
WORKER_GB = 1.0
# Listing, manifest and reduction of a job of whatever size begin with so many transitions and calls.
TRANSITIONS_PER_JOB = 20
CALLS_PER_JOB = 8


def estimate_usd(kind: str, listed: int, shards: int) -> float:
    """The cost of a job that needs no retry, in US dollars; the Task Service's own reads and writes come on top."""
    seconds = shards * SECONDS_PER_SHARD + listed * kinds.find(kind).seconds_per_task
    return (
        (TRANSITIONS_PER_JOB + shards * TRANSITIONS_PER_SHARD) * TRANSITION
        + (CALLS_PER_JOB + shards) * INVOCATION
        + seconds * WORKER_GB * GB_SECOND
        + shards * (PUTS_PER_SHARD * PUT + GETS_PER_SHARD * GET)
    )


def check_limit(plan: Plan, manifest: Manifest) -> None:
    """Raises CostLimitError if the job would cost more than its `maxCostUsd`."""
    if plan.max_cost_usd is None:
        return
    cost = estimate_usd(plan.kind, manifest.listed, manifest.shards)
    if cost > plan.max_cost_usd:
        raise CostLimitError(
            f"maxCostUsd is {plan.max_cost_usd:g}, but the job's {manifest.listed} tasks in {manifest.shards} "
            f"shards cost about ${cost:.4f}. Allow more, or make shardSize larger."
        )
