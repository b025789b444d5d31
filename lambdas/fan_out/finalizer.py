"""Finalizer: writes the record of a job whose execution ended without one — stopped, timed out, broken.

An execution that is stopped runs no further state, so EventBridge calls this function on its status change.
"""

from datetime import UTC, datetime
from typing import Any

from fan_out.aws.runtime import deadline, job_store, logger
from fan_out.errors import ServiceUnavailableError
from fan_out.model.task import utc
from fan_out.steps.finalizing import finalize
from fan_out.steps.reduction import Cursor

# Status, error name and message of the record, by the status of the execution.
_ENDINGS = {
    "ABORTED": ("STOPPED", "JobStoppedError", "The job was stopped."),
    "TIMED_OUT": ("FAILED", "JobTimedOutError", "The job ran longer than its state machine allows."),
    "FAILED": ("FAILED", "ExecutionFailedError", "The execution ended before its record was written."),
}
# Lambda calls an asynchronous function three times: the last call must not be ended by the kind's own code.
# protection: deadly-for-the-finalizer
_DEADLY = 2


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An execution's status change → `{jobId, status}` of its record. A job that has its record keeps it."""
    execution = event["detail"]
    job_id = execution["name"]
    logger.append_keys(job_id=job_id)
    # protection: every-ending-has-a-record
    status, name, message = _ENDINGS[execution["status"]]
    reached = finalize(
        job_store(job_id),
        utc(datetime.fromtimestamp(execution["startDate"] / 1000, UTC).isoformat()),
        Cursor(),
        deadline(context),
        error={"name": name, "message": message},
        status=status,
        deadly=_DEADLY,
    )
    if isinstance(reached, Cursor):
        # Lambda calls an asynchronous function again after an error; what is reduced so far is kept.
        raise ServiceUnavailableError(f"The record of job {job_id} takes another call.")
    return {"jobId": job_id, "status": reached["status"]}
