"""Reducer: folds the partials, checks the tally and writes the record; it runs however the job's way ended."""

from dataclasses import asdict
from typing import Any

from fan_out.aws.runtime import deadline, job_store, state
from fan_out.model.documents import to_shape
from fan_out.model.record import fail_cause, parse_error
from fan_out.model.task import utc
from fan_out.steps.finalizing import finalize
from fan_out.steps.reduction import Cursor


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, startedAt, state}` → `{done: true, record, error}`, or `{done: false, cursor, error}` when late.

    `state` is the execution's state so far: what was caught on its way, or this handler's own last answer. Mergers
    first make the nodes of a cursor's `spans`.
    """
    so_far = event["state"]
    is_resumed = isinstance(so_far, dict) and "cursor" in so_far
    error = so_far["error"] if is_resumed else parse_error(so_far)
    reached = finalize(
        job_store(event["jobId"]),
        utc(event["startedAt"]),
        to_shape(so_far["cursor"], Cursor) if is_resumed else Cursor(),
        deadline(context),
        error=error,
        is_shared=True,
    )
    if isinstance(reached, Cursor):
        return {"done": False, "cursor": asdict(reached), "error": error}
    # STOPPED, too: an execution that is redriven after its stop finds the record of a stopped job.
    cause = fail_cause(reached) if reached["status"] in ("FAILED", "STOPPED") else None
    return {"done": True, "record": reached, "error": cause}
