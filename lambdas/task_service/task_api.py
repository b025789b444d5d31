"""The REST API of tasks: `/tasks` and `/tasks/{id}`."""

import json
import uuid
from typing import Any, Final

from aws_lambda_powertools.logging import Logger, correlation_paths
from aws_lambda_powertools.metrics import Metrics
from aws_lambda_powertools.tracing import Tracer

from common import timestamps
from common.errors import Fault, Faults, InvalidRequestError
from common.rest import Answer, Api, Request
from common.task import ID_ALLOWED, Task, is_id
from task_service import aws, filters, validation
from task_service.resources import page_tokens, store
from task_service.tokens import Listing

LARGEST_BODY: Final = 256 * 1024
"""Bytes. A task has at most some 13 KB, however it is escaped."""

LARGEST_LIMIT: Final = 10_000
DEFAULT_LIMIT: Final = 100

logger = Logger()
metrics = Metrics()
tracer = Tracer()
api = Api(logger, metrics)


@api.route("POST /tasks")
def create(request: Request) -> Answer:
    content = validation.new_task(request.json(LARGEST_BODY))
    task = Task.new(str(uuid.uuid4()), content.model_dump(by_alias=True), timestamps.now())
    store().create(task)
    return Answer(201, task.to_json(), {"Location": request.location(f"/tasks/{task.id}")})


@api.route("GET /tasks", (*filters.FIELDS, "limit", "pageToken"))
def list_tasks(request: Request) -> Answer:
    query, faults = request.query, Faults()
    wanted: dict[str, Any] = {name: query[name] for name in filters.FIELDS if name in query}
    if "isComplete" in wanted:
        wanted["isComplete"] = {"true": True, "false": False}.get(wanted["isComplete"], wanted["isComplete"])
    listing = Listing(filters.read(wanted, faults, prefix=""))
    limit = faults.read_whole("limit", query.get("limit", str(DEFAULT_LIMIT)), 1, LARGEST_LIMIT)
    faults.raise_any()
    after = page_tokens().read(query["pageToken"], listing) if "pageToken" in query else None
    page = store().page(
        listing, after=after, limit=limit, has_time=aws.time_for_one_more_call(request.context), consistent=False
    )
    answer: dict[str, Any] = {"tasks": [json.loads(line) for line in page.lines]}
    if page.last_id is not None:
        answer["nextPageToken"] = page_tokens().issue(page.last_id, listing)
    return Answer(200, answer)


@api.route("GET /tasks/{id}")
def read(request: Request) -> Answer:
    task_id = _id(request)
    return Answer(200, store().get(task_id).to_json())


@api.route("PUT /tasks/{id}")
def replace(request: Request) -> Answer:
    task_id = _id(request)
    content = validation.replacement(request.json(LARGEST_BODY))
    fields = content.model_dump(by_alias=True, exclude={"version"})
    task = store().replace(task_id, version=content.version, fields=fields, now=timestamps.now())
    return Answer(200, task.to_json())


@api.route("DELETE /tasks/{id}")
def delete(request: Request) -> Answer:
    store().delete(_id(request))
    return Answer(204)


def _id(request: Request) -> str:
    """The id in the path. Raises InvalidRequestError."""
    task_id = request.parameters["id"]
    if not is_id(task_id):
        raise InvalidRequestError([Fault("id", task_id, ID_ALLOWED)])
    return task_id


@metrics.log_metrics(capture_cold_start_metric=True)
@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """A request of API Gateway (REST, proxy integration) → its answer. Never raises."""
    return api.handle(event, context)
