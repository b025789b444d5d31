"""The job record: how a job ended, as the execution's output, the API and the terminal show it."""

import json
from dataclasses import asdict
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator
from typing_extensions import TypedDict

from fan_out.errors import AccountingError, KindFailedError, ShardStuckError, ToleranceExceededError
from fan_out.model.documents import encode
from fan_out.model.outcomes import Count, Counts, exceeds
from fan_out.model.plan import Plan
from fan_out.model.shard import Concurrency, Manifest, Node

# A record travels through the state machine: a larger result stays in result.json alone.
LARGEST_RESULT = 16 * 1024
LONGEST_MESSAGE = 4_000


def _check_sum(counts: dict[str, int]) -> dict[str, int]:
    if counts["listed"] != sum(counts.values()) - counts["listed"]:
        raise ValueError("the outcomes do not add up to the tasks that were listed")
    return counts


class RecordCounts(TypedDict):
    listed: Count
    succeeded: Count
    failed: Count
    quarantined: Count
    unprocessed: Count


class JobRecord(TypedDict):
    """The record of a job that has ended. `origin` is the earlier job that it retries."""

    jobId: str
    kind: str | None
    status: str
    counts: Annotated[RecordCounts, AfterValidator(_check_sum)]
    shards: dict[str, Count]
    concurrency: NotRequired[Concurrency]
    startedAt: str
    endedAt: str
    origin: NotRequired[str]
    skipped: NotRequired[Count]
    result: NotRequired[dict[str, Any]]
    resultUrl: NotRequired[str]
    failuresUrl: NotRequired[str]
    error: NotRequired[dict[str, str]]


def parse_error(state: Any) -> dict[str, str] | None:
    """The error that the state machine caught, with the message of the function that raised it.

    The cause of a failed function is a JSON text with a stack trace: only its message goes on.
    """
    found = state if isinstance(state, dict) and "Error" in state else state.get("error")
    if not found:
        return None
    name, cause = str(found["Error"]), str(found.get("Cause", ""))
    try:
        parsed = json.loads(cause)
        message = str(parsed.get("errorMessage") or "") if isinstance(parsed, dict) else cause
    except ValueError:
        message = cause
    # The sentence may repeat an input's lone surrogate, which could not be written as UTF-8.
    message = message[:LONGEST_MESSAGE].encode("utf-8", "replace").decode()
    return {"name": name, "message": message or "No reason was given."}


def running_record(job_id: str, started_at: str, plan: Plan | None, manifest: Manifest | None = None) -> dict[str, Any]:
    """The record of a job that is not listed yet; with the manifest, its bound too."""
    record: dict[str, Any] = {
        "jobId": job_id,
        "kind": plan.kind if plan is not None else None,
        "status": "RUNNING",
        "counts": {"listed": 0} | asdict(Counts()),
        "shards": {"planned": 0, "done": 0, "failed": 0},
        "startedAt": started_at,
    }
    if plan is not None and plan.retry_of is not None:
        record["origin"] = plan.retry_of
    if manifest is not None and manifest.concurrency is not None:
        record["concurrency"] = manifest.concurrency
    return record


def untallied_record(
    job_id: str,
    started_at: str,
    ended_at: str,
    plan: Plan | None,
    manifest: Manifest | None = None,
    *,
    status: str | None,
    error: dict[str, str] | None,
) -> dict[str, Any]:
    """The record of a job without a tally: it ended before its manifest was written, or lost objects.

    Whatever was listed is unprocessed. There is neither a result nor a list of failures, so that a retry lists the
    source again; the keys of the effects are kept, and none is applied twice.
    """
    listed, shards = (manifest.listed, manifest.shards) if manifest is not None else (0, 0)
    record = running_record(job_id, started_at, plan, manifest) | {
        "status": status or "FAILED",
        "counts": {"listed": listed} | asdict(Counts(unprocessed=listed)),
        "shards": {"planned": shards, "done": 0, "failed": shards},
        "endedAt": ended_at,
    }
    return record if error is None else record | {"error": error}


def final_record(
    plan: Plan,
    root: Node,
    manifest: Manifest,
    ended_at: str,
    *,
    bucket: str,
    status: str | None,
    error: dict[str, str] | None,
) -> dict[str, Any]:
    """The record of a job of which every task has an outcome. `status` overrides what the tally says."""
    counts = root.counts
    problem = error if status is not None and not root.problems else _find_problem(plan, root, error)
    if status is None:
        # protection: partial-is-a-status
        status = "FAILED" if problem is not None else "PARTIAL" if counts.not_succeeded else "SUCCEEDED"
    record = running_record(plan.job_id, plan.started_at, plan, manifest) | {
        "status": status,
        "counts": {"listed": manifest.listed} | asdict(counts),
        "shards": {"planned": manifest.shards, "done": root.done, "failed": root.failed},
        "endedAt": ended_at,
    }
    if manifest.skipped:
        record["skipped"] = manifest.skipped
    prefix = f"jobs/{plan.job_id}"
    if root.summary is not None:
        record["result"] = root.summary
        # protection: a-large-result-stays-out
        if len(encode(root.summary)) > LARGEST_RESULT:
            record["result"] = {"resultKey": f"{prefix}/result.json"}
    if root.lines is not None or root.summary is not None:
        record["resultUrl"] = f"s3://{bucket}/{prefix}/{root.lines or 'result.json'}"
    if root.failures is not None:
        record["failuresUrl"] = f"s3://{bucket}/{prefix}/{root.failures}"
    if problem is not None:
        record["error"] = problem
    return record


def _find_problem(plan: Plan, root: Node, error: dict[str, str] | None) -> dict[str, str] | None:
    """Why the job failed, or None. The tally decides; the error that ended the map explains it."""
    if root.problems:
        return {"name": AccountingError.__name__, "message": " ".join(root.problems)[:LONGEST_MESSAGE]}
    counts = root.counts
    # protection: no-shard-finished
    if root.failed and not root.done:
        message = f"None of the job's {root.failed} shards could be finished; the workers' log has the reason."
        return {"name": ShardStuckError.__name__, "message": message}
    if root.fault is not None:
        message = f"The kind {plan.kind} made no result: {root.fault}"
        return {"name": KindFailedError.__name__, "message": message[:LONGEST_MESSAGE]}
    broken = error if error is not None and error["name"] != "States.ExceedToleratedFailureThreshold" else None
    # A job whose work broke off is no partial success, whatever it tolerates of its tasks.
    if not (broken and counts.unprocessed) and not exceeds(
        counts.not_succeeded, plan.tolerated_failure_percentage, counts.total
    ):
        return None
    tally = (
        f"{counts.not_succeeded} of {counts.total} tasks did not succeed "
        f"({counts.failed} failed, {counts.quarantined} quarantined, {counts.unprocessed} unprocessed)"
    )
    if broken is not None:
        return {"name": broken["name"], "message": f"{broken['message']} {tally}."[:LONGEST_MESSAGE]}
    tolerated = f"more than the tolerated {plan.tolerated_failure_percentage:g}%"
    return {"name": ToleranceExceededError.__name__, "message": f"{tally}, {tolerated}."}


def fail_cause(record: dict[str, Any]) -> dict[str, str]:
    """What the Fail state ends with: a refused job's sentence, else the record.

    A cause holds at most 32,768 characters, so the result stays out of it.
    """
    error = record["error"]
    if record["shards"]["planned"] == 0:
        return {"name": error["name"], "cause": error["message"]}
    shown = {name: value for name, value in record.items() if name != "result"}
    return {"name": error["name"], "cause": json.dumps(shown, ensure_ascii=False)}
