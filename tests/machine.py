"""The state machine in this process: the real definition and the real handlers, on moto's data services.

The definition is interpreted by the embedded AWS's own interpreter. What is exchanged is only what would make
a run slow or different from the last one: threads (children run one after another, in an order the caller
may choose), pauses (there are none) and the transport to the functions (a call, through JSON).
"""

from __future__ import annotations

import importlib
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from ministack.services import stepfunctions as interpreter
from moto import mock_aws

ROOT = Path(__file__).parent.parent
REGION = "eu-central-1"
BUCKET = "jobs-bucket"
TABLE = "tasks"
STATES = ("Planner", "Lister", "Manifest", "Worker", "Reducer")
STARTED_AT = "2026-11-23T09:00:00Z"


class KilledError(BaseException):
    """The process of a function is gone: nothing of it, not even a handler for errors, runs on."""


class Context:
    """Lambda's context. Its time only passes when a test lets it."""

    aws_request_id = "request"
    function_name = memory_limit_in_mb = invoked_function_arn = "test"

    def __init__(self, milliseconds: Callable[[], int] = lambda: 900_000):
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds()


@dataclass
class Call:
    """One call of a function, as a test may look at it or stand in its way."""

    function: str
    event: dict[str, Any]
    number: int


@dataclass
class Ended:
    """How an execution ended."""

    status: str
    output: Any
    error: str | None = None
    cause: str | None = None


@dataclass
class Machine:
    """A deployment in this process. `before` runs before each call of a function and may raise in its place;
    `after` gets the answer and may raise, as if it were lost."""

    contexts: dict[str, Callable[[], Context]] = field(default_factory=dict)
    before: Callable[[Call], None] = lambda call: None
    after: Callable[[Call, Any], Any] = lambda call, answer: answer
    order: Callable[[list[Any]], list[Any]] = lambda items: items
    calls: list[Call] = field(default_factory=list)
    payloads: list[tuple[str, int]] = field(default_factory=list)
    children: int = 0

    def call(self, function: str, event: Any) -> Any:
        """Call a function as Lambda does: JSON in, JSON out, a fresh context."""
        name = function.rpartition(":")[2]
        call = Call(name, json.loads(json.dumps(event)), len(self.calls))
        self.calls.append(call)
        self.before(call)
        package = "task_service" if name in {"ListTasks", "WriteTasks", "TaskApi"} else "fan_out"
        module = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
        handler = importlib.import_module(f"{package}.{module}").handler
        answer = handler(call.event, self.contexts.get(name, Context)())
        text = json.dumps(answer)
        self.payloads.append((name, len(text)))
        return self.after(call, json.loads(text))

    def run(self, document: Any = None, job_id: str = "job-1", started_at: str = STARTED_AT) -> Ended:
        """Run one execution to its end."""
        definition = (ROOT / "statemachines/fan_out.asl.json").read_text()
        for name in STATES:
            definition = definition.replace(f"${{{name}Arn}}", f"arn:aws:lambda:{REGION}:123456789012:function:{name}")
        machine = json.loads(definition.replace("${BucketName}", BUCKET))
        execution = {"executionArn": "arn:aws:states:x:1:execution:m:" + job_id, "events": [], "status": "RUNNING"}
        context = {
            "QueryLanguage": "JSONPath",
            "Execution": {"Id": execution["executionArn"], "Name": job_id, "StartTime": started_at},
            "variables": {},
        }
        try:
            output = interpreter._run_sub_machine(
                machine["States"], machine["StartAt"], {} if document is None else document, execution, context
            )
        except interpreter._ExecutionError as error:
            return Ended("FAILED", None, error.error, error.cause)
        return Ended("SUCCEEDED", output)

    def _call_lambda(self, function: str, event: Any) -> Any:
        try:
            return self.call(function, event)
        except KilledError:
            name, said = "Runtime.ExitError", "RequestId: r Error: Runtime exited with error: exit status 1"
        except Exception as error:
            name, said = type(error).__name__, str(error)
        raise interpreter._ExecutionError(
            name, json.dumps({"errorMessage": said, "errorType": name, "stackTrace": ["secret place"]})
        )

    def _distributed_map(
        self, state: Any, raw: Any, effective: Any, iterator: Any, execution: Any, context: Any
    ) -> Any:
        text = boto3.client("s3").get_object(
            Bucket=BUCKET, Key=interpreter._resolve_path(state["ItemReader"]["Parameters"]["Key.$"], effective)
        )["Body"].read()
        items = list(enumerate(json.loads(line) for line in text.splitlines()))
        tolerated = interpreter._resolve_path(state["ToleratedFailurePercentagePath"], effective)
        failed = 0
        for index, item in self.order(items):
            of_item = context | {"Map": {"Item": {"Index": index, "Value": item}}}
            child = interpreter._resolve_params_obj(state["ItemSelector"], effective, of_item)
            self.children += 1
            try:
                interpreter._run_sub_machine(iterator["States"], iterator["StartAt"], child, execution, of_item)
            except interpreter._ExecutionError:
                failed += 1
                if failed * 100 > tolerated * len(items):
                    raise interpreter._ExecutionError(
                        "States.ExceedToleratedFailureThreshold", "The specified tolerated failure threshold was exceeded"
                    ) from None
        output = interpreter._apply_result_path(state, raw, {})
        return output, state["Next"]

    @contextmanager
    def _patched(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, stand_in in {
                "_call_lambda": self._call_lambda,
                "_resolve_lambda_function_ref": lambda reference, **_: reference,
                "_run_distributed_map": self._distributed_map,
                "_scaled_sleep": lambda seconds: None,
                "_add_event": lambda *arguments: None,
                "ThreadPoolExecutor": _OneAfterAnother,
                "futures_wait": lambda futures: None,
            }.items():
                stack.enter_context(patch.object(interpreter, name, stand_in))
            from fan_out import aws, worker

            worker._plan.cache_clear()
            stack.enter_context(patch.object(aws, "lambda_client", lambda: _Functions(self)))
            yield


class _OneAfterAnother:
    def __init__(self, **_: Any):
        pass

    def __enter__(self) -> _OneAfterAnother:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shutdown(self, wait: bool) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


class _Functions:
    """Lambda's Invoke, as far as it is used: a synchronous call."""

    def __init__(self, machine: Machine):
        self._machine = machine

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        try:
            answer = self._machine.call(FunctionName, json.loads(Payload))
        except Exception as error:
            payload = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(payload).encode())}
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}


@contextmanager
def deployed(**settings: Any) -> Iterator[Machine]:
    """A machine on an empty bucket and table."""
    environment = {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "BUCKET_NAME": BUCKET,
        "TASK_TABLE_NAME": TABLE,
        "LIST_TASKS_ARN": f"arn:aws:lambda:{REGION}:123456789012:function:ListTasks",
        "WRITE_TASKS_ARN": f"arn:aws:lambda:{REGION}:123456789012:function:WriteTasks",
        "STATE_MACHINE_ARN": f"arn:aws:states:{REGION}:123456789012:stateMachine:FanOut",
        "POWERTOOLS_SERVICE_NAME": "test",
        "POWERTOOLS_METRICS_NAMESPACE": "FanOut",
        "POWERTOOLS_TRACE_DISABLED": "1",
        "POWERTOOLS_DEV": "0",
    }
    with mock_aws(), patch.dict("os.environ", environment):
        forget_warm_state()
        boto3.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        boto3.client("dynamodb").create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
        secret = boto3.client("secretsmanager").create_secret(Name="page-tokens", SecretString="a secret of the tests")
        machine = Machine(**settings)
        with patch.dict("os.environ", {"PAGE_TOKEN_SECRET_ARN": secret["ARN"]}), machine._patched():
            yield machine
        forget_warm_state()


def forget_warm_state() -> None:
    """Drop what warm functions keep between calls."""
    for package in ("fan_out", "task_service"):
        for path in (ROOT / "lambdas" / package).glob("*.py"):
            module = importlib.import_module(f"{package}.{path.stem}")
            for value in vars(module).values():
                if hasattr(value, "cache_clear") and getattr(value, "__module__", "").startswith(package):
                    value.cache_clear()


def put_tasks(tasks: list[dict[str, Any]]) -> None:
    """Store tasks as the Task Service does, past its checks and its clock."""
    table = boto3.resource("dynamodb").Table(TABLE)
    with table.batch_writer() as batch:
        for task in tasks:
            batch.put_item(Item=task)


def make_tasks(count: int, seed: int = 1, *, complete: float = 0.2) -> list[dict[str, Any]]:
    """Tasks with due times around STARTED_AT, some undated, some complete."""
    chance = random.Random(seed)
    tasks = []
    for number in range(count):
        task: dict[str, Any] = {
            "id": f"task-{chance.randrange(16**8):08x}-{number}",
            "title": chance.choice(["Call", "Write", "Prüfen", "検討", "Fix 🐛", 'Say "hi",']) + f" {number}",
            "isComplete": chance.random() < complete,
            "createdAt": f"2026-11-{chance.randrange(1, 20):02d}T08:00:00Z",
            "updatedAt": "2026-11-20T08:00:00Z",
            "version": 1,
        }
        if chance.random() < 0.8:
            due = chance.randrange(-10 * 86400, 20 * 86400)
            task["dueAt"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1795424400 + due))
        if chance.random() < 0.3:
            task["detail"] = "more\nof it"
        tasks.append(task)
    return tasks


def stored(name: str, job_id: str = "job-1") -> bytes:
    """An object of a job."""
    return boto3.client("s3").get_object(Bucket=BUCKET, Key=f"jobs/{job_id}/{name}")["Body"].read()


def names(job_id: str = "job-1") -> list[str]:
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"jobs/{job_id}/")
    return [item["Key"].removeprefix(f"jobs/{job_id}/") for page in pages for item in page.get("Contents", [])]
