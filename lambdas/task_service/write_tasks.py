"""Writes tasks for the other services: creates and conditional updates, an outcome for each, safe to repeat."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import Metrics, MetricUnit

from common import timestamps
from task_service import aws, writes
from task_service.resources import store

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()
metrics = Metrics()


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """`{writes: [...]}` -> `{outcomes: [...]}`, in the writes' order. Raises InvalidRequestError for a wrong event."""
    metrics.add_metric(name="Requests", unit=MetricUnit.Count, value=1)
    asked = writes.parse_event(event)
    budget = writes.Budget(has_time=aws.time_for_one_more_call(context), sleep=time.sleep)
    outcomes = writes.write(asked, store(), now=timestamps.now(), budget=budget)
    metrics.add_metric(name="WritesAsked", unit=MetricUnit.Count, value=len(asked))
    for outcome, count in Counter(each.outcome for each in outcomes).items():
        metrics.add_metric(name=f"Writes{outcome.capitalize()}", unit=MetricUnit.Count, value=count)
    return {"outcomes": [each.to_json() for each in outcomes]}
