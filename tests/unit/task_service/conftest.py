"""The Task Service's handlers over moto: real requests in, real DynamoDB semantics below, nothing stubbed between."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

# Powertools reads these when a handler's module is imported.
os.environ.setdefault("POWERTOOLS_SERVICE_NAME", "task-service")
os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "FanOut")
os.environ.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws
from moto.core.models import botocore_stubber

from task_service import aws, list_tasks, resources, task_api, write_tasks
from tests.support.context import Context
from tests.support.events import api_event
from tests.support.stand_ins import OneAfterAnother

TABLE = "tasks"
SECRET = "a secret of the tests"


@pytest.fixture(scope="module")
def service() -> Iterator[None]:
    """An account with the secret for page tokens, and the environment that the stack gives the functions."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("TASK_TABLE_NAME", TABLE)
        # The faults below, and moto, are for one request at a time.
        patch.setattr("task_service.writes.ThreadPoolExecutor", OneAfterAnother)
        secret = boto3.client("secretsmanager").create_secret(Name="page-tokens", SecretString=SECRET)
        patch.setenv("PAGE_TOKEN_SECRET_ARN", secret["ARN"])
        yield
    forget()


@pytest.fixture
def dynamodb(service: None) -> Iterator[Any]:
    """An empty table, and the very client that the handlers use: new, because a client remembers its retries."""
    forget()
    client = aws.dynamodb()
    make_table(client)
    yield client
    client.delete_table(TableName=TABLE)


def make_table(client: Any) -> None:
    client.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


def forget() -> None:
    """Make the process cold again: no clients, no settings."""
    clients = (aws.dynamodb, aws.dynamodb_without_retries, aws.secrets_manager)
    for kept in (*clients, resources.store, resources.page_tokens, write_tasks.writer):
        kept.cache_clear()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been taken, in seconds; nothing sleeps."""
    taken: list[float] = []
    monkeypatch.setattr("time.sleep", taken.append)
    return taken


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]
    raw: str

    @property
    def problem(self) -> dict[str, Any]:
        """The body of a refused request: problem details that agree with the answer."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.body["status"] == self.status
        return cast("dict[str, Any]", self.body)

    @property
    def field(self) -> str:
        """The only field that is to blame."""
        (error,) = self.problem["errors"]
        return str(error["field"])


@dataclass
class Api:
    """The REST API as API Gateway calls it."""

    context: Context = field(default_factory=Context)

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str | list[str]] | None = None,
        raw: str | None = None,
        encoded: bool = False,
        content_type: str | None = "application/json",
    ) -> Answer:
        text = raw if raw is not None else None if body is None else json.dumps(body)
        sent = text.encode() if encoded and text is not None else text
        return self.send(api_event(method, path, sent, query=query, content_type=content_type))

    def send(self, event: Any) -> Answer:
        answer = task_api.handler(event, cast("Any", self.context))
        # What API Gateway and Lambda carry is JSON in UTF-8.
        json.dumps(answer, ensure_ascii=False).encode()
        text = answer["body"]
        return Answer(answer["statusCode"], strict_json(text) if text else None, answer["headers"], text)

    def make(self, **fields: object) -> dict[str, Any]:
        answer = self("POST", "/tasks", {"title": "Water the plants", **fields})
        assert answer.status == 201, answer.body
        return cast("dict[str, Any]", answer.body)


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def api(dynamodb: Any) -> Api:
    return Api()


def list_page(event: Any, context: Context | None = None) -> dict[str, Any]:
    """One call of the internal listing, as its invoker sees it: through JSON."""
    answer = list_tasks.handler(event, cast("Any", context or Context()))
    return cast("dict[str, Any]", json.loads(json.dumps(answer)))


def write_all(writes: list[Any], context: Context | None = None) -> list[dict[str, Any]]:
    """The outcomes of one call of the internal writing, as its invoker sees them."""
    answer = write_tasks.handler({"writes": writes}, cast("Any", context or Context()))
    return cast("list[dict[str, Any]]", json.loads(json.dumps(answer))["outcomes"])


def create(task_id: str, *, key: str = "", **task: object) -> dict[str, Any]:
    return {
        "op": "create",
        "id": task_id,
        "key": key or f"create-{task_id}",
        "createdAt": "2026-05-17T09:00:00Z",
        "task": {"title": f"Task {task_id}", **task},
    }


def update(task_id: str, *, version: int = 1, key: str = "", **changes: object) -> dict[str, Any]:
    return {
        "op": "update",
        "id": task_id,
        "key": key or f"update-{task_id}",
        "version": version,
        "changes": changes,
    }


def fill(client: Any, count: int, **fields: object) -> list[str]:
    """Tasks put straight into the table, for tests about listing; returns their ids."""
    ids = [f"task-{number:05}" for number in range(count)]
    for start in range(0, count, 25):
        client.batch_write_item(
            RequestItems={TABLE: [{"PutRequest": {"Item": item(task_id, **fields)}} for task_id in ids[start:][:25]]}
        )
    return ids


def item(task_id: str, **fields: object) -> dict[str, Any]:
    values: dict[str, object] = {
        "id": task_id,
        "title": f"Task {task_id}",
        "isComplete": False,
        "createdAt": "2026-05-17T09:00:00Z",
        "updatedAt": "2026-05-17T09:00:00Z",
        **fields,
    }
    attributes: dict[str, Any] = {
        name: {"BOOL": value} if isinstance(value, bool) else {"S": value} for name, value in values.items()
    }
    return attributes | {"version": {"N": "1"}}


def stored(client: Any, task_id: str) -> dict[str, Any] | None:
    found = client.get_item(TableName=TABLE, Key={"id": {"S": task_id}}).get("Item")
    return cast("dict[str, Any] | None", found)


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self._body


def response(status: int, body: Mapping[str, Any]) -> AWSResponse:
    """What DynamoDB would have sent."""
    headers = {"x-amzn-requestid": "r-1", "content-type": "application/x-amz-json-1.0"}
    return AWSResponse("https://dynamodb", status, cast("Any", headers), cast("Any", _Raw(json.dumps(body).encode())))


def refusal(code: str, status: int = 400, **more: object) -> AWSResponse:
    return response(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": code, **more})


Fault = Callable[[Any], AWSResponse | None]


@contextmanager
def faults(client: Any, operation: str, *planned: AWSResponse | Exception | Fault | None) -> Iterator[list[Any]]:
    """Answer the operation's next requests as planned, one each; None lets a request through, as do later ones.

    Yields the requests made so far. A lost acknowledgement is a function that sends and then raises.
    """
    made: list[Any] = []
    plan = list(planned)

    def intervene(request: Any, **_: object) -> AWSResponse | None:
        made.append(json.loads(request.body))
        step = plan.pop(0) if plan else None
        if isinstance(step, Exception):
            raise step
        answer = step(request) if callable(step) else step
        # botocore asks every handler and takes the first answer: moto, too, would carry out what is refused here.
        botocore_stubber.enabled = answer is None
        return answer

    def restore(**_: object) -> None:
        botocore_stubber.enabled = True

    event = f"before-send.dynamodb.{operation}"
    client.meta.events.register_first(event, intervene)
    client.meta.events.register_last("before-send", restore)
    try:
        yield made
    finally:
        client.meta.events.unregister(event, intervene)
        client.meta.events.unregister("before-send", restore)
