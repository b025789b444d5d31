"""Finalizing a job: the reduction run to its end, and the record committed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from common.environment import variable
from common.timestamps import now
from fan_out.aws.storage import RECORD, JobStore
from fan_out.errors import AccountingError, InvalidJobError, SourceNotFoundError
from fan_out.model.plan import Plan
from fan_out.model.record import LONGEST_MESSAGE, JobRecord, final_record, untallied_record
from fan_out.model.shard import Manifest, Node
from fan_out.steps.reduction import DEADLY, Cursor, Reduction

ENDED_EARLY = ("ABORTED", "TIMED_OUT", "FAILED")
# Who ended early gets its record in this time. A job lasts up to seven days, and a sweep comes every hour.
SWEPT = timedelta(days=8)


def status_change(execution: Any) -> dict[str, Any]:
    """EventBridge's event of an execution that ended early, made of what Step Functions says of it."""
    return {
        "source": "aws.states",
        "detail-type": "Step Functions Execution Status Change",
        "detail": {name: execution[name] for name in ("executionArn", "stateMachineArn", "name", "status")}
        | {name: int(execution[name].timestamp() * 1000) for name in ("startDate", "stopDate") if name in execution},
    }


def finalize(
    store: JobStore,
    started_at: str,
    cursor: Cursor,
    is_late: Callable[[float], bool],
    *,
    error: dict[str, str] | None,
    status: str | None = None,
    deadly: int = DEADLY,
    is_shared: bool = False,
) -> Cursor | dict[str, Any]:
    """A job's committed record, or a cursor to go on from when it is late.

    `error` is what the state machine caught; `status` says that the job was stopped or timed out. `deadly` is how many
    calls the kind's own code may end; `is_shared` says that Mergers can make the spans of a cursor. A record that is
    there already is answered as it is: a job has one.
    """
    # protection: a-record-is-written-once
    if (committed := store.find(RECORD, JobRecord)) is not None:
        if committed["startedAt"] == started_at:
            return {**committed}
        # An earlier job's, for whose sake this one was refused: that record stays.
        return untallied_record(store.job_id, started_at, now(), None, status=status, error=error)
    plan: Plan | None = None
    manifest: Manifest | None = None
    try:
        plan = store.get("job.json", Plan)
        manifest = store.get("manifest.json", Manifest)
        if manifest is None and (status is not None or error is not None):
            record = untallied_record(store.job_id, started_at, now(), plan, status=status, error=error)
        elif manifest is None or plan is None:
            raise AccountingError(f"The object {store.key('job.json' if manifest else 'manifest.json')} is missing.")
        else:
            reached = Reduction(store, plan, manifest, deadly=deadly).run(cursor, is_late, is_shared=is_shared)
            if not isinstance(reached, Node):
                return reached
            record = final_record(plan, reached, manifest, now(), bucket=store.bucket.name, status=status, error=error)
    except AccountingError as lost:
        # No further attempt will find an object that is lost: the record says so, once.
        error = {"name": AccountingError.__name__, "message": str(lost)[:LONGEST_MESSAGE]}
        manifest = manifest or store.find("manifest.json", Manifest)
        record = untallied_record(store.job_id, started_at, now(), plan, manifest, status=status, error=error)
    # protection: first-record-counts
    stored: dict[str, Any] = dict(store.put_once(RECORD, record, JobRecord))
    # Of several attempts, the one whose record it is tells of it.
    if stored == record:
        _count(stored)
    return stored


def _count(record: dict[str, Any]) -> None:
    """Count a failed job for the alarm JobFailed."""
    refused = (InvalidJobError.__name__, SourceNotFoundError.__name__)
    # protection: a-refusal-is-no-alarm
    if record["status"] == "FAILED" and record["error"]["name"] not in refused:
        stack = {"StackName": variable("STACK_NAME")}
        with single_metric(name="JobsFailed", unit=MetricUnit.Count, value=1, default_dimensions=stack):
            pass
