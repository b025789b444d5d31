"""Lists tasks for the other services: one call answers some tasks of one segment and says where to go on."""

from typing import Any

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import Metrics, MetricUnit

from task_service import aws, listing
from task_service.resources import page_tokens, store

logger = Logger()
metrics = Metrics()


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{filter, segment, totalSegments, cursor, limit}` -> `{lines, cursor}`, each line a task in JSON; cursor null:
    the segment has ended. `{filter, ids}` -> `{tasks}`: those of the ids that exist and match. `{size}` ->
    `{count, bytes}`: about what the table holds.

    Raises InvalidRequestError and, when the same call can succeed later, ThrottledError.
    """
    metrics.add_metric(name="Requests", unit=MetricUnit.Count, value=1)
    answer = listing.answer(event, store(), page_tokens(), has_time=aws.time_for_one_more_call(context))
    metrics.add_metric(
        name="TasksListed", unit=MetricUnit.Count, value=len(answer.get("lines", answer.get("tasks", ())))
    )
    return answer
