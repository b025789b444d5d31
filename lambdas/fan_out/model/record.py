"""The job record: what became of a job, as the execution's output, the API and the terminal show it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from fan_out.aws.storage import JobStore, encode
from fan_out.errors import AccountingError, KindFailedError, ShardStuckError, ToleranceExceededError
from fan_out.model.outcomes import Counts, exceeds
from fan_out.model.plan import Plan
from fan_out.steps.listing import Manifest
from fan_out.steps.reduction import Node

# A record travels through the state machine: what is larger stays in result.json alone.
LARGEST_RESULT = 16 * 1024
LONGEST_MESSAGE = 4_000


def caught(state: Any) -> dict[str, str] | None:
    """The error that the state machine caught on the job's way, with the message that its raiser gave.

    The cause of a failed function is a JSON text with a stack trace: only its message goes on.
    """
    found = state if isinstance(state, dict) and "Error" in state else state.get("error")
    if not found:
        return None
    name, cause = str(found["Error"]), str(found.get("Cause", ""))
    message = cause
    try:
        parsed = json.loads(cause)
    except ValueError:
        pass
    else:
        message = str(parsed.get("errorMessage") or "") if isinstance(parsed, dict) else cause
    # The sentence may repeat an input's lone surrogate, which could not be written as UTF-8.
    message = message[:LONGEST_MESSAGE].encode("utf-8", "replace").decode()
    return {"name": name, "message": message or "No reason was given."}


def opened(job_id: str, started_at: str, plan: Plan | None) -> dict[str, Any]:
    """The record of a job of which nothing is accounted for yet."""
    record: dict[str, Any] = {
        "jobId": job_id,
        "kind": plan.kind if plan is not None else None,
        "status": "RUNNING",
        "counts": {"listed": 0} | asdict(Counts()),
        "shards": {"planned": 0, "done": 0, "failed": 0},
        "startedAt": started_at,
    }
    if plan is not None and plan.origin is not None:
        record["origin"] = plan.origin
    return record


def unlisted(
    job_id: str,
    started_at: str,
    ended_at: str,
    plan: Plan | None,
    *,
    status: str,
    error: dict[str, str] | None,
) -> dict[str, Any]:
    """The record of a job that ended before its manifest stood: no task was worked on."""
    record = opened(job_id, started_at, plan) | {"status": status, "endedAt": ended_at}
    if error is not None:
        record["error"] = error
    return record


def unaccountable(
    plan: Plan, manifest: Manifest, ended_at: str, *, status: str, message: str
) -> dict[str, Any]:
    """The record of a job whose objects do not add up to an account: what became of its tasks, nobody knows.

    It has neither a result nor a list of failures, so that a retry lists the source anew; the keys of the
    effects are kept, and none is applied twice.
    """
    return opened(plan.job_id, plan.started_at, plan) | {
        "status": status,
        "counts": {"listed": manifest.listed} | asdict(Counts(unprocessed=manifest.listed)),
        "shards": {"planned": manifest.shards, "done": 0, "failed": manifest.shards},
        "endedAt": ended_at,
        "error": {"name": AccountingError.__name__, "message": message[:LONGEST_MESSAGE]},
    }


def closed(
    store: JobStore,
    plan: Plan,
    root: Node,
    manifest: Manifest,
    ended_at: str,
    *,
    status: str | None,
    error: dict[str, str] | None,
) -> dict[str, Any]:
    """The record of a job whose every task is accounted for. `status` overrides what the account says."""
    counts = root.counts
    problem = error if status is not None and not root.problems else _problem(plan, root, error)
    if status is None:
        status = "FAILED" if problem is not None else "PARTIAL" if counts.not_succeeded else "SUCCEEDED"
    record = opened(plan.job_id, plan.started_at, plan) | {
        "status": status,
        "counts": {"listed": manifest.listed} | asdict(counts),
        "shards": {"planned": manifest.shards, "done": root.done, "failed": root.failed},
        "endedAt": ended_at,
    }
    if manifest.skipped:
        record["skipped"] = manifest.skipped
    if root.fault is None:
        result = store.require("result.json")
        record["result"] = (
            result if len(encode(result)) <= LARGEST_RESULT else {"resultKey": store.key("result.json")}
        )
    if root.lines is not None or root.fault is None:
        record["resultUrl"] = f"s3://{store.bucket.name}/{store.key(root.lines or 'result.json')}"
    if root.failures is not None:
        record["failuresUrl"] = f"s3://{store.bucket.name}/{store.key(root.failures)}"
    if problem is not None:
        record["error"] = problem
    return record


def _problem(plan: Plan, root: Node, error: dict[str, str] | None) -> dict[str, str] | None:
    """Why the job failed, or None. The account decides; what the map ended with explains it."""
    if root.problems:
        return {"name": AccountingError.__name__, "message": " ".join(root.problems)[:LONGEST_MESSAGE]}
    counts = root.counts
    if root.failed and not root.done:
        message = (
            f"None of the job's {root.failed} shards could be finished; the workers' log has the reason."
        )
        return {"name": ShardStuckError.__name__, "message": message}
    if root.fault is not None:
        message = f"The kind {plan.kind} made no result of what its tasks came to: {root.fault}"
        return {"name": KindFailedError.__name__, "message": message[:LONGEST_MESSAGE]}
    broken = (
        error if error is not None and error["name"] != "States.ExceedToleratedFailureThreshold" else None
    )
    # A job whose work broke off is no partial success, whatever it tolerates of its tasks.
    if not (broken and counts.unprocessed) and not exceeds(
        counts.not_succeeded, plan.tolerated_failure_percentage, counts.total
    ):
        return None
    account = (
        f"{counts.not_succeeded} of {counts.total} tasks did not succeed "
        f"({counts.failed} failed, {counts.quarantined} quarantined, {counts.unprocessed} unprocessed)"
    )
    if broken is not None:
        return {"name": broken["name"], "message": f"{broken['message']} {account}."[:LONGEST_MESSAGE]}
    tolerated = f"more than the tolerated {plan.tolerated_failure_percentage:g}%"
    return {"name": ToleranceExceededError.__name__, "message": f"{account}, {tolerated}."}


def cause(record: dict[str, Any]) -> dict[str, str]:
    """What the Fail state ends with: a refused job's sentence, else the whole account.

    A cause holds at most 32,768 characters, so the result stays out of it.
    """
    error = record["error"]
    if record["shards"]["planned"] == 0:
        return {"name": error["name"], "cause": error["message"]}
    account = {name: value for name, value in record.items() if name != "result"}
    return {"name": error["name"], "cause": json.dumps(account, ensure_ascii=False)}
