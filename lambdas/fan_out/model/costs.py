"""The least that a job costs, from the published prices, before any of its tasks is worked on."""

import math

from common.errors import Fault
from fan_out.errors import CostLimitError, InvalidJobError
from fan_out.model import kind as kinds
from fan_out.model.plan import Plan
from fan_out.model.shard import Manifest

# Prices of us-east-1 in US dollars, per unit: https://aws.amazon.com/step-functions/pricing/,
# https://aws.amazon.com/lambda/pricing/ (arm64), https://aws.amazon.com/s3/pricing/
TRANSITION = 25e-6
INVOCATION = 0.20e-6
GB_SECOND = 13.3334e-6
PUT = 5e-6
GET = 0.40e-6
# One shard on the healthy path: the child's start and its three states, one call of the worker,
# four objects written (shard, partial, its lines, the map's share) and four read.
TRANSITIONS_PER_SHARD = 4
PUTS_PER_SHARD = 4
GETS_PER_SHARD = 4
SECONDS_PER_SHARD = 0.25
WORKER_GB = 1.0
# Transitions and calls of listing, manifest and reduction, which a job of any size has.
TRANSITIONS_PER_JOB = 20
CALLS_PER_JOB = 8
# Seconds: TimeoutSeconds of the state machine.
LONGEST_JOB = 604_800


def estimate_usd(kind: str, listed: int, shards: int, waited: float = 0.0) -> float:
    """The cost of a job that needs no retry, in US dollars; the Task Service's own reads and writes come on top.

    `waited` are the seconds that all its workers together run for, if a ceiling of tasks a second decides it.
    """
    seconds = shards * SECONDS_PER_SHARD + listed * kinds.find(kind).seconds_per_task
    seconds = max(seconds, waited)
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
    rate = plan.tasks_per_second
    workers = manifest.concurrency["workers"] if manifest.concurrency else plan.workers(manifest.shards)
    waited = 0.0 if rate is None else manifest.listed / rate * workers
    cost = estimate_usd(plan.kind, manifest.listed, manifest.shards, waited)
    if cost > plan.max_cost_usd:
        raise CostLimitError(
            f"maxCostUsd is {plan.max_cost_usd:g}, but the job's {manifest.listed} tasks in {manifest.shards} "
            f"shards cost about ${cost:.4f}. Allow more, or make shardSize larger"
            f"{' or maxConcurrency smaller' if waited else ''}."
        )


def check_time(plan: Plan, manifest: Manifest) -> None:
    """Raises InvalidJobError if its ceiling of tasks a second alone makes the job longer than a job may last."""
    rate = plan.tasks_per_second
    if rate is None or manifest.listed <= rate * LONGEST_JOB:
        return
    least = math.ceil(manifest.listed / LONGEST_JOB * 10) / 10
    allowed = f"at least {least:g} for {manifest.listed} tasks, as a job ends after {LONGEST_JOB // 86400} days"
    sentence = f"tasksPerSecond is {rate:g}, but must be {allowed}."
    raise InvalidJobError(sentence, Fault("tasksPerSecond", rate, allowed))
