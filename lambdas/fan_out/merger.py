"""Merger: makes some nodes of a large reduction, while others make the rest of their level."""

from dataclasses import asdict
from typing import Any

from fan_out.aws.runtime import deadline, job_store, state
from fan_out.model.documents import to_shape
from fan_out.model.plan import Plan
from fan_out.model.shard import Manifest
from fan_out.steps.reduction import Reduction, Span


@state
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{jobId, span}` → the same with what is left of the span, and `done`; commits nodes.

    Whatever it does not come to, the Reducer does.
    """
    store = job_store(event["jobId"])
    plan, manifest = store.require("job.json", Plan), store.require("manifest.json", Manifest)
    span = to_shape(event["span"], Span)
    left = Reduction(store, plan, manifest, is_alone=False).make(span, deadline(context))
    return event | {"span": left and asdict(left), "done": left is None}
