"""Lister: lists one segment of the source into shards, step by step."""

from typing import Any

from common.environment import variable
from fan_out.aws.runtime import deadline, job_store, state
from fan_out.model.plan import Plan
from fan_out.steps.listing import list_step


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, segment, step, cursor}` → the same for the next step, and `done`; writes shards and a part."""
    store = job_store(event["jobId"])
    part = list_step(
        store,
        store.require("job.json", Plan),
        segment=event["segment"],
        step=event["step"],
        cursor=event["cursor"],
        list_function=variable("LIST_TASKS_ARN"),
        is_late=deadline(context),
    )
    # protection: states-carry-no-tasks
    return event | {"step": event["step"] + 1, "cursor": part.cursor, "done": part.cursor is None}
