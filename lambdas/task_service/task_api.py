"""The REST API of tasks: `/tasks` and `/tasks/{id}`."""

from __future__ import annotations

import json
import uuid
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit

from task_service import aws, rest, settings, timestamps, validation
from task_service.errors import RouteNotFoundError, TaskServiceError, ThrottledError
from task_service.store import TaskStore
from task_service.task import Task
from task_service.tokens import Listing, PageTokens

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

JSON = "application/json"
RETRY_AFTER_SECONDS = "1"

app = APIGatewayRestResolver()
logger = Logger()
metrics = Metrics()
tracer = Tracer()


@cache
def _store() -> TaskStore:
    return TaskStore(aws.dynamodb(), settings.load(page_tokens=True).task_table_name)


@cache
def _tokens() -> PageTokens:
    return PageTokens(aws.secret(settings.load(page_tokens=True).page_token_secret_arn))


@app.post("/tasks")
def create() -> Response[str]:
    content = validation.new_task(_body())
    now = timestamps.now()
    task = Task(
        id=str(uuid.uuid4()),
        title=content.title,
        detail=content.detail,
        due_at=content.due_at,
        is_complete=content.is_complete,
        created_at=now,
        updated_at=now,
        version=1,
    )
    _store().create(task)
    return _answer(201, task.to_json(), {"Location": f"/tasks/{task.id}"})


@app.get("/tasks")
def list_tasks() -> Response[str]:
    query = rest.list_query(app.current_event.get("multiValueQueryStringParameters"))
    listing = Listing(query.filter)
    after = None if query.page_token is None else _tokens().read(query.page_token, listing)
    page = _store().page(
        listing,
        after=after,
        limit=query.limit,
        has_time=aws.time_for_one_more_call(app.lambda_context),
        consistent=False,
    )
    answer: dict[str, Any] = {"tasks": [task.to_json() for task in page.tasks]}
    if page.last_id is not None:
        answer["nextPageToken"] = _tokens().issue(page.last_id, listing)
    return _answer(200, answer)


@app.get("/tasks/<task_id>")
def read(task_id: str) -> Response[str]:
    return _answer(200, _store().get(rest.task_id(task_id)).to_json())


@app.put("/tasks/<task_id>")
def replace(task_id: str) -> Response[str]:
    own_id = rest.task_id(task_id)
    content = validation.replacement(_body())
    fields = content.model_dump(by_alias=True, exclude={"version"})
    task = _store().replace(own_id, version=content.version, fields=fields, now=timestamps.now())
    return _answer(200, task.to_json())


@app.delete("/tasks/<task_id>")
def delete(task_id: str) -> Response[str]:
    _store().delete(rest.task_id(task_id))
    return Response(status_code=204)


@app.not_found
def unknown_route(_: Exception) -> Response[str]:
    return _refusal(RouteNotFoundError())


@app.exception_handler(TaskServiceError)  # type: ignore[untyped-decorator]
def refused(error: TaskServiceError) -> Response[str]:
    return _refusal(error)


@metrics.log_metrics(capture_cold_start_metric=True)
@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request of API Gateway (REST, proxy integration). Never raises."""
    metrics.add_metric(name="Requests", unit=MetricUnit.Count, value=1)
    try:
        return app.resolve(event, context)
    except Exception as error:
        answer = _failure(error)
        return {"statusCode": answer.status_code, "headers": {"Content-Type": JSON}, "body": answer.body}


def _body() -> dict[str, Any]:
    event = app.current_event
    return rest.body(
        event.body, is_base64=bool(event.is_base64_encoded), content_type=event.headers.get("content-type")
    )


def _refusal(error: TaskServiceError) -> Response[str]:
    metrics.add_metric(name="RequestsRefused", unit=MetricUnit.Count, value=1)
    headers = {"Retry-After": RETRY_AFTER_SECONDS} if isinstance(error, ThrottledError) else {}
    return _answer(error.status, error.to_json(), headers)


def _failure(error: Exception) -> Response[str]:
    # The log has everything; the answer has nothing that could be somebody else's.
    logger.exception("A request failed unexpectedly.", exc_info=error)
    metrics.add_metric(name="RequestsFailed", unit=MetricUnit.Count, value=1)
    message = "The Task Service failed at this request, which may or may not have taken effect."
    return _answer(500, {"error": {"name": "InternalError", "message": message}})


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response[str]:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(status_code=status, content_type=JSON, body=text, headers=dict(headers or {}))
