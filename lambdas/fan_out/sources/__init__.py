"""Where a job's tasks come from: a file for each source, with one function `batches`."""

from collections.abc import Iterator

from fan_out.aws.storage import Bucket
from fan_out.model.plan import Plan
from fan_out.sources import csv, failed, tasks
from fan_out.sources.batch import Batch

_SOURCES = {"tasks": tasks.batches, "csv": csv.batches, "failedIn": failed.batches}


def batches(bucket: Bucket, plan: Plan, segment: int, cursor: str | None, function: str) -> Iterator[Batch]:
    """The tasks of one segment of the plan's source, from a cursor on.

    `function` is the ARN of the Task Service's list function.
    """
    return _SOURCES[plan.source.type](bucket, plan, segment, cursor, function)
