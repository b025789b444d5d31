"""The tasks of the Task Service that match the job's filter."""

from collections.abc import Iterator

from fan_out import sources
from fan_out.aws import task_service
from fan_out.aws.storage import Bucket
from fan_out.model.plan import Plan
from fan_out.sources import Batch


def batches(_: Bucket, plan: Plan, segment: int, cursor: str | None, function: str) -> Iterator[Batch]:
    while True:
        lines, cursor = task_service.list_page(
            function,
            match=plan.filter.to_json(),
            segment=segment,
            segments=plan.segments,
            cursor=cursor,
            limit=sources.PAGE,
        )
        yield Batch(lines, cursor)
        if cursor is None:
            return
