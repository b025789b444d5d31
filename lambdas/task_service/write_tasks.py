"""Writes tasks for the other services: creates and conditional updates, an outcome for each, safe to repeat."""

from collections import Counter
from functools import cache
from typing import Any

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import Metrics, MetricUnit

from common import timestamps
from common.environment import variable
from task_service import aws, writes
from task_service.store import TaskStore

logger = Logger()
metrics = Metrics()


@cache
def writer() -> writes.Writer:
    """The process's one writer, which keeps the rate that it has found. Raises SettingsError."""
    return writes.Writer(TaskStore(aws.dynamodb_without_retries(), variable("TASK_TABLE_NAME")))


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{writes: [...]}` -> `{outcomes: [...]}`, in the writes' order. Raises InvalidRequestError for a wrong event."""
    metrics.add_metric(name="Requests", unit=MetricUnit.Count, value=1)
    asked = writes.parse_event(event)
    seconds_left = aws.seconds_before_last_attempt(context)
    outcomes = writer().write(asked, now=timestamps.now(), seconds_left=seconds_left)
    metrics.add_metric(name="WritesAsked", unit=MetricUnit.Count, value=len(asked))
    for outcome, count in Counter(each.outcome for each in outcomes).items():
        metrics.add_metric(name=f"Writes{outcome.capitalize()}", unit=MetricUnit.Count, value=count)
    return {"outcomes": [each.to_json() for each in outcomes]}
