"""What failed, was quarantined or stayed unprocessed in an earlier job, from its list of failures."""

from collections.abc import Iterator
from typing import Any

from fan_out.aws import task_service
from fan_out.aws.storage import FAILURES, Bucket, JobStore
from fan_out.errors import AccountingError
from fan_out.model.documents import decode, encode
from fan_out.model.job_input import FailedSource
from fan_out.model.plan import Plan
from fan_out.sources import Batch


def batches(bucket: Bucket, plan: Plan, _: int, cursor: str | None, function: str) -> Iterator[Batch]:
    """Tasks are looked up again: a conflict with a later change is one reason to fail, and it would come back in every
    retry with the version of that time."""
    assert isinstance(plan.source, FailedSource)
    store = JobStore(bucket, plan.source.job_id)
    end = int(cursor) if cursor is not None else 0
    named: list[dict[str, Any]] = []

    def batch(cursor: str | None) -> Batch:
        if plan.is_csv:
            return Batch([encode(row) for row in named], cursor)
        ids = [task["id"] for task in named]
        found = task_service.list_ids(function, ids, match=plan.filter.to_json())
        return Batch([encode(task) for task in found], cursor, skipped=len(named) - len(found))

    for line in store.lines(FAILURES, end):
        try:
            named.append(decode(line.text, dict[str, Any])["task"])
        except (ValueError, KeyError) as error:
            raise AccountingError(f"A line of {store.key(FAILURES)} cannot be read: {error}.") from error
        end = line.end
        if len(named) == task_service.IDS_PER_CALL:
            yield batch(str(end))
            named = []
    yield batch(None) if named else Batch([], None)
