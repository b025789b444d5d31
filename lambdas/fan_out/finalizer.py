"""Finalizer: writes the closing account of a job whose execution ended without one — stopped, timed out, broken.

An execution that is stopped runs no further state, so EventBridge calls this function on its status change.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fan_out.aws.runtime import Deadline, logger, store
from fan_out.errors import ServiceUnavailableError
from fan_out.model.task import utc
from fan_out.steps.finalizing import close
from fan_out.steps.reduction import Cursor

# What the record of an execution that ended so says, and why.
_ENDINGS = {
    "ABORTED": ("STOPPED", "JobStoppedError", "The job was stopped."),
    "TIMED_OUT": ("FAILED", "JobTimedOutError", "The job ran longer than its state machine allows."),
    "FAILED": ("FAILED", "ExecutionFailedError", "The execution ended before its account was written."),
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An execution's status change → `{jobId, status}` of its record. A job that has its record keeps it."""
    ended = event["detail"]
    job_id = ended["name"]
    logger.append_keys(job_id=job_id)
    status, name, message = _ENDINGS[ended["status"]]
    started_at = utc(datetime.fromtimestamp(ended["startDate"] / 1000, UTC).isoformat())
    record = close(
        store(job_id),
        started_at,
        Cursor(),
        Deadline(context).is_late,
        error={"name": name, "message": message},
        status=status,
    )
    if isinstance(record, Cursor):
        # Lambda calls an asynchronous function again after an error; what is reduced so far is kept.
        raise ServiceUnavailableError(f"The account of job {job_id} takes another call.")
    return {"jobId": job_id, "status": record["status"]}
