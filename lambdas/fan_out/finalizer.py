"""Finalizer: writes the record of a job whose execution ended without one — stopped, timed out, broken.

An execution that is stopped runs no further state, so EventBridge calls this function on its status change. Such an
event may be lost: whoever asks for the job has this function called too, and an hourly sweep finds what is left.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from typing_extensions import TypedDict

from common.environment import variable
from fan_out.aws import clients as aws
from fan_out.aws.runtime import deadline, job_store, logger
from fan_out.aws.storage import RECORD, JobStore
from fan_out.errors import ServiceUnavailableError
from fan_out.model.record import JobRecord
from fan_out.model.task import utc
from fan_out.steps.finalizing import SWEPT, finalize, status_change
from fan_out.steps.reduction import Cursor

# Status, error name and message of the record, by the status of the execution.
_ENDINGS: dict[Any, tuple[str, str, str]] = {
    "ABORTED": ("STOPPED", "JobStoppedError", "The job was stopped."),
    "TIMED_OUT": ("FAILED", "JobTimedOutError", "The job ran longer than its state machine allows."),
    "FAILED": ("FAILED", "ExecutionFailedError", "The execution ended before its record was written."),
}
# Lambda calls an asynchronous function three times: the last call must not be ended by the kind's own code.
# protection: deadly-for-the-finalizer
_DEADLY = 2
LEASE = "reduce/finalizer.json"
# The answer of a call that leaves a job to another one.
FINALIZING = "FINALIZING"
# Seconds: the longest that a call lasts.
LEASED = 900


class Lease(TypedDict):
    """Which call finalizes a job, and when it began. Lambda's attempts at one call have one id."""

    call: str
    begun: float


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An execution's status change → `{jobId, status}` of its record; a schedule's event → `{finalized}` jobs."""
    if event.get("detail-type") == "Scheduled Event":
        return {"finalized": _sweep(context)}
    return {"jobId": event["detail"]["name"], "status": _finalize(event["detail"], context)}


def _sweep(context: Any) -> int:
    """Finalize each job that ended early and has no record; how many. One that fails is told of behind the others."""
    done, failure = 0, None
    is_late = deadline(context)
    for execution in _endings():
        if is_late(0):
            raise ServiceUnavailableError("The sweep takes another call.")
        if job_store(execution["name"]).find(RECORD, JobRecord) is not None:
            continue
        # protection: a-sweep-goes-on
        try:
            done += _finalize(execution, context) != FINALIZING
        except Exception as error:
            logger.exception("the job cannot be finalized")
            failure = error
    if failure is not None:
        raise failure
    return done


def _endings() -> Iterator[dict[str, Any]]:
    """The executions that ended early, of each status the newest first."""
    oldest = (time.time() - SWEPT.total_seconds()) * 1000
    listing = aws.step_functions().get_paginator("list_executions")
    for status in _ENDINGS:
        with aws.translated():
            pages = listing.paginate(stateMachineArn=variable("STATE_MACHINE_ARN"), statusFilter=status)
            endings = (status_change(execution)["detail"] for page in pages for execution in page["executions"])
            yield from takewhile(lambda ending: ending["startDate"] >= oldest, endings)


def _finalize(execution: dict[str, Any], context: Any) -> str:
    """The status of the job's record, which is written unless it is there."""
    job_id = execution["name"]
    logger.append_keys(job_id=job_id)
    # protection: every-ending-has-a-record
    status, name, message = _ENDINGS[execution["status"]]
    store = job_store(job_id)
    if not _is_ours(store, context.aws_request_id):
        return FINALIZING
    reached = finalize(
        store,
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
    return str(reached["status"])


def _is_ours(store: JobStore, call: str) -> bool:
    """Whether no other call finalizes the job now: it would take this one's steps for those of a dead call."""
    if store.find(RECORD, JobRecord) is not None:
        return True
    lease = Lease(call=call, begun=time.time())
    held = store.put_once(LEASE, lease, Lease)
    # protection: one-finalizer-at-a-time
    if held["call"] != call and lease["begun"] - held["begun"] < LEASED:
        return False
    store.put(LEASE, lease)
    return True
