"""The closing of a job: the reduction run to its end, and the record committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.timestamps import now
from fan_out.aws.storage import RECORD, JobStore
from fan_out.errors import AccountingError
from fan_out.model import record as records
from fan_out.model.plan import Plan
from fan_out.steps.listing import Manifest
from fan_out.steps.reduction import Cursor, Node, Reduction


def close(
    store: JobStore,
    started_at: str,
    cursor: Cursor,
    is_late: Callable[[float], bool],
    *,
    error: dict[str, str] | None,
    status: str | None = None,
) -> Cursor | dict[str, Any]:
    """Account for a job: its committed record, or a cursor to go on from when it is late.

    `error` is what ended the job's way; `status` says that the job was stopped or timed out. A record that
    is there already is answered as it is: a job has one account.
    """
    if (committed := store.get(RECORD)) is not None:
        if committed["startedAt"] == started_at:
            return dict(committed)
        # An earlier job's, for whose sake this one was refused: that account stays.
        return records.unlisted(store.job_id, started_at, now(), None, status=status or "FAILED", error=error)
    stored = store.get("job.json")
    plan = Plan.from_json(stored) if stored is not None else None
    summed = store.get("manifest.json") if plan is not None else None
    if plan is None or summed is None:
        if status is None and error is None:
            error = {"name": "AccountingError", "message": "The job has no manifest, and nothing says why."}
        record = records.unlisted(
            store.job_id, started_at, now(), plan, status=status or "FAILED", error=error
        )
        return dict(store.put_once(RECORD, record))
    manifest = Manifest(**summed)
    try:
        reached = Reduction(store, plan, manifest).run(cursor, is_late)
    except AccountingError as fault:
        # An object that the account is made of is lost, and no further attempt will find it: say so, once.
        record = records.unaccountable(plan, manifest, now(), status=status or "FAILED", message=str(fault))
        return dict(store.put_once(RECORD, record))
    if not isinstance(reached, Node):
        return reached
    record = records.closed(store, plan, reached, manifest, now(), status=status, error=error)
    return dict(store.put_once(RECORD, record))
