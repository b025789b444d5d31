"""The state machine in this process: the real definition and the real handlers, on moto's data services.

The definition is interpreted by the embedded AWS's own interpreter. What is exchanged is only what would make
a run slow or different from the last one: threads (children run one after another, in an order the caller
may choose), pauses (there are none), the worker's clock, and the transport to the functions (a call, through
JSON). Every call of AWS by a handler passes one place, `around`, where a test may stand in its way.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast
from unittest.mock import patch
from urllib.parse import unquote

# Powertools reads these when a handler's module is imported.
os.environ.setdefault("POWERTOOLS_SERVICE_NAME", "test")
os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "FanOut")
os.environ.setdefault("POWERTOOLS_TRACE_DISABLED", "1")

import boto3
import botocore.endpoint
import botocore.retries.quota
import moto.backends
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError
from botocore.useragent import UserAgentString
from ministack.services import stepfunctions as interpreter
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse
from moto.core.request import normalize_request
from werkzeug.exceptions import HTTPException

import kinds
import task_service.aws
from fan_out.aws import clients as aws
from fan_out.aws.storage import Bucket, JobStore
from fanout.local.gaps import paths, task_calls
from tests.support import statements as statements
from tests.support.context import Context
from tests.support.stand_ins import OneAfterAnother, PassingTime

ROOT = Path(__file__).parent.parent.parent
DEFINITION = ROOT / "statemachines/fan_out.asl.json"
# Kinds that only tests need are found like any other.
KINDS = ROOT / "tests/support/kinds"
if str(KINDS) not in kinds.__path__:
    kinds.__path__.append(str(KINDS))

_SERIALIZER, _DESERIALIZER = TypeSerializer(), TypeDeserializer()
ACCOUNT = "123456789012"
REGION: Literal["eu-central-1"] = "eu-central-1"
BUCKET = "jobs-bucket"
TABLE = "tasks"
STATES = ("Planner", "Lister", "Manifest", "Worker", "Merger", "Reducer")
STARTED_AT = "2026-11-23T09:00:00Z"
# The time that a call of WriteTasks has: enough for some twenty attempts of a throttled write.
WRITING_SECONDS = 20.0


class KilledError(BaseException):
    """The process of a function is gone: nothing of it, not even a handler for errors, runs on."""

    name = "Runtime.ExitError"
    message = "RequestId: r Error: Runtime exited with error: exit status 1"


class TimedOutError(KilledError):
    """The process of a function was ended because its time was over."""

    name = "Sandbox.Timedout"
    message = "RequestId: r Error: Task timed out after 900.00 seconds"


class StoppedError(BaseException):
    """The execution is stopped: no further state or call of it starts."""


class CallError(Exception):
    """What the state machine sees when a call of a function fails on the way, not in the function."""

    def __init__(self, name: str, message: str = "the call failed on its way"):
        super().__init__(message)
        self.name = name


@dataclass
class Call:
    """One call of a function, as a test may look at it or stand in its way."""

    function: str
    event: dict[str, Any]
    number: int


@dataclass
class Boundary:
    """One crossing of the line between this system and AWS, as a test may look at it or stand in its way.

    Either the state machine calls a function (`service` is "states") or a function calls a service.
    `function` is who is called there, or who calls here; `event` is what that function works on. `attempt`
    counts the SDK's own tries of one operation, `number` the operations of a run.
    """

    number: int
    service: str
    operation: str
    function: str
    event: dict[str, Any]
    attempt: int = 1
    request: AWSPreparedRequest | None = None


@dataclass
class Clock:
    """The worker's time: it passes when the worker sleeps, and by `tick` seconds whenever it looks."""

    time: float = 0.0
    tick: float = 0.0

    def now(self) -> float:
        self.time += self.tick
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class _Process:
    """A function at work; once it is dead, nothing that it still tries comes through."""

    function: str
    event: dict[str, Any]
    is_dead: bool = False


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
    `after` gets the answer and may raise, as if it were lost. `around` gets every boundary and a function
    that crosses it; what it answers or raises is what the caller sees."""

    contexts: dict[str, Callable[[], Context]] = field(default_factory=dict)
    before: Callable[[Call], None] = lambda call: None
    after: Callable[[Call, Any], Any] = lambda call, answer: answer
    around: Callable[[Boundary, Callable[[], Any]], Any] = lambda boundary, cross: cross()
    order: Callable[[list[Any]], list[Any]] = lambda items: items
    clock: Clock = field(default_factory=Clock)
    writing_time: PassingTime = field(default_factory=PassingTime)
    concurrency: int = 1000
    calls: list[Call] = field(default_factory=list)
    payloads: list[tuple[str, int]] = field(default_factory=list)
    children: int = 0
    boundaries: int = 0
    _running: list[_Process] = field(default_factory=list)
    _quotas: list[Any] = field(default_factory=list)

    def call(self, function: str, event: Any) -> Any:
        """Call a function as Lambda does: JSON in, JSON out, a fresh context."""
        name = function.rpartition(":")[2]
        call = Call(name, json.loads(json.dumps(event)), len(self.calls))
        self.calls.append(call)
        self.before(call)
        package = "task_service" if name in {"ListTasks", "WriteTasks", "TaskApi"} else "fan_out"
        module = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
        handler = importlib.import_module(f"{package}.{module}").handler
        # WriteTasks retries for as long as it has time: here that time ends.
        default = (lambda: Context(self.writing_time.remaining(WRITING_SECONDS))) if name == "WriteTasks" else Context
        self._running.append(_Process(name, call.event))
        try:
            answer = handler(json.loads(json.dumps(event)), self.contexts.get(name, default)())
        except KilledError:
            forget_processes()
            raise
        finally:
            self._running.pop()
        text = json.dumps(answer)
        self.payloads.append((name, len(text)))
        return self.after(call, json.loads(text))

    def run(
        self,
        document: Any = None,
        job_id: str = "job-1",
        started_at: str = STARTED_AT,
        definition: str | None = None,
    ) -> Ended:
        """Run one execution to its end, of the project's definition or of this one."""
        machine = _substituted(definition or DEFINITION.read_text())
        execution = {
            "executionArn": "arn:aws:states:x:1:execution:m:" + job_id,
            "events": [],
            "status": "RUNNING",
        }
        context = {
            "QueryLanguage": "JSONPath",
            "Execution": {"Id": execution["executionArn"], "Name": job_id, "StartTime": started_at},
            "variables": {},
        }
        try:
            output = interpreter._run_sub_machine(
                machine["States"],
                machine["StartAt"],
                {} if document is None else document,
                execution,
                context,
            )
        except interpreter._ExecutionError as error:
            return Ended("FAILED", None, error.error, error.cause)
        except StoppedError:
            return Ended("ABORTED", None)
        return Ended("SUCCEEDED", output)

    def _call_lambda(self, function: str, event: Any) -> Any:
        name = function.rpartition(":")[2]
        self.payloads.append((name, len(json.dumps(event))))
        boundary = Boundary(self._next(), "states", "Invoke", name, event)
        try:
            return self.around(boundary, lambda: self.call(function, event))
        except (KilledError, CallError) as error:
            failure, said = error.name, str(error) or getattr(error, "message", "")
        except Exception as error:
            failure, said = type(error).__name__, str(error)
        raise interpreter._ExecutionError(
            failure, json.dumps({"errorMessage": said, "errorType": failure, "stackTrace": ["secret place"]})
        )

    def _next(self) -> int:
        self.boundaries += 1
        return self.boundaries - 1

    def _send(self, stubber: BotocoreStubber, event_name: str, request: AWSPreparedRequest, **_: Any) -> Any:
        """Answers a client's request in the place of the network."""
        service, operation = event_name.split(".")[1:]
        if not self._running:
            return self._invoked(request) if service == "lambda" else _answer(service, request)
        process = self._running[-1]
        if process.is_dead:
            raise KilledError
        # Such as "attempt=2; max=5", which standard mode tells every service.
        headers: Any = request.headers
        told = headers.get("amz-sdk-request", b"attempt=1")
        tried = re.search(r"attempt=(\d+)", told.decode() if isinstance(told, bytes) else told)
        attempt = int(tried.group(1)) if tried else 1
        number = self._next() if attempt == 1 else self.boundaries - 1
        boundary = Boundary(number, service, operation, process.function, process.event, attempt, request)

        def cross() -> AWSResponse:
            if service == "lambda":
                return self._invoked(request)
            return _answer(service, request)

        try:
            return self.around(boundary, cross)
        except KilledError:
            process.is_dead = True
            raise

    def _invoked(self, request: AWSPreparedRequest) -> AWSResponse:
        """Lambda's answer to a synchronous call, or to the question of the account's limit."""
        if request.url.endswith("/account-settings"):
            limit = {"AccountLimit": {"UnreservedConcurrentExecutions": self.concurrency}}
            return response(request, 200, json.dumps(limit))
        function = re.search(r"/functions/([^/]+)/invocations", request.url).group(1)  # type: ignore[union-attr]
        try:
            answer = self.call(function.replace("%3A", ":"), json.loads(cast("bytes", request.body)))
        except KilledError as error:
            return function_error(request, error.name, error.message)
        except Exception as error:
            return function_error(request, type(error).__name__, str(error))
        return response(request, 200, json.dumps(answer))

    def wipe(self) -> None:
        """Empty the bucket and the table and forget what was counted, so that another run finds a new deployment."""
        moto.backends.get_backend("s3")[ACCOUNT]["aws"].buckets[BUCKET].keys.clear()
        table = moto.backends.get_backend("dynamodb")[ACCOUNT][REGION].tables[TABLE]
        table.items.clear()
        for quota in self._quotas:
            quota._available_capacity = quota._max_capacity
        self.calls.clear()
        self.payloads.clear()
        self.clock.time = 0.0
        self.children = self.boundaries = 0
        forget_processes()

    def _distributed_map(
        self, state: Any, raw: Any, effective: Any, iterator: Any, execution: Any, context: Any
    ) -> Any:
        source = interpreter._resolve_params_obj(state["ItemReader"]["Parameters"], effective, context)
        try:
            text = aws.s3().get_object(**source)["Body"].read()
        except ClientError as error:
            raise interpreter._ExecutionError("States.ItemReaderFailed", str(error)) from None
        try:
            items = list(enumerate(json.loads(line) for line in text.splitlines()))
        except ValueError as error:
            raise interpreter._ExecutionError("States.ItemReaderFailed", str(error)) from None
        _number(state, "MaxConcurrencyPath", effective)
        tolerated = _number(state, "ToleratedFailureCountPath", effective)
        interpreter._resolve_params_obj(state["ResultWriter"]["Parameters"], effective, context)
        failed = 0
        for index, item in self.order(items):
            of_item = context | {"Map": {"Item": {"Index": index, "Value": item}}}
            child = interpreter._resolve_params_obj(state["ItemSelector"], effective, of_item)
            # A child is an execution: it has a name of its own and no item.
            name = f"{context['Execution']['Name']}-child-{index}"
            of_child = context | {"Execution": context["Execution"] | {"Id": name, "Name": name}}
            self.children += 1
            try:
                interpreter._run_sub_machine(iterator["States"], iterator["StartAt"], child, execution, of_child)
            except interpreter._ExecutionError:
                failed += 1
                if failed > tolerated:
                    raise interpreter._ExecutionError(
                        "States.ExceedToleratedFailureThreshold",
                        "The specified tolerated failure threshold was exceeded",
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
                "ThreadPoolExecutor": OneAfterAnother,
                "futures_wait": lambda futures: None,
            }.items():
                stack.enter_context(patch.object(interpreter, name, stand_in))
            for name, check in _PATH_CHECKS.items():
                original = getattr(interpreter, name)
                stack.enter_context(patch.object(interpreter, name, functools.partial(check, original)))
            from fan_out.steps import kind_runner, listing, reduction, shard_runner
            from task_service import rate_limiter, writes

            def sent(stubber: BotocoreStubber, event_name: str, request: Any, **more: Any) -> Any:
                return self._send(stubber, event_name, request, **more)

            made = botocore.retries.quota.RetryQuota.__init__

            def remembered(quota: Any, *arguments: Any, **named: Any) -> None:
                made(quota, *arguments, **named)
                self._quotas.append(quota)

            clock = functools.partial(
                kind_runner.Clock,
                now=lambda: self.clock.now(),
                sleep=lambda seconds: self.clock.sleep(seconds),
                jitter=lambda: 1.0,
            )
            stack.enter_context(patch.object(BotocoreStubber, "__call__", sent))
            stack.enter_context(patch.object(botocore.retries.quota.RetryQuota, "__init__", remembered))
            stack.enter_context(patch.object(shard_runner, "Clock", clock))
            for module in (listing, reduction):
                stack.enter_context(patch.object(module, "ThreadPoolExecutor", OneAfterAnother))
            stack.enter_context(patch.object(writes, "ThreadPoolExecutor", OneAfterAnother))
            stack.enter_context(patch.object(rate_limiter, "time", self.writing_time))
            # The number of a throttled write's attempts, and so of a run's boundaries, is the same at every run.
            stack.enter_context(patch.object(rate_limiter, "random", SimpleNamespace(random=lambda: 0.5)))
            # Making the user agent's text takes a tenth of a run's time.
            stack.enter_context(patch.object(UserAgentString, "to_string", lambda agent: "tests"))
            # The SDK pauses between its tries.
            hurried = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
            stack.enter_context(patch.object(botocore.endpoint, "time", hurried))
            forget_processes()
            yield


def _substituted(definition: str) -> dict[str, Any]:
    """The definition with what a stack puts in the place of its placeholders."""
    for name in STATES:
        definition = definition.replace(f"${{{name}Arn}}", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")
    return dict(json.loads(definition.replace("${BucketName}", BUCKET)))


def _number(state: Any, field: str, effective: Any) -> Any:
    """What a path of a Distributed Map selects, which must be a number."""
    value = interpreter._resolve_path(state[field], effective)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise interpreter._ExecutionError("States.Runtime", f"{field} selects {json.dumps(value)}")
    return value


def _map_items(original: Callable[..., Any], state: Any, data: Any, execution: Any, context: Any) -> Any:
    """The items of an inline Map, refusing a path that selects nothing, where ministack takes null for an item."""
    paths.require_path(state.get("ItemsPath"), data, context, "ItemsPath")
    if "MaxConcurrencyPath" in state:
        _number(state, "MaxConcurrencyPath", data)
    return original(state, data, execution, context)


def _intrinsic_argument(original: Callable[..., Any], argument: Any, data: Any, context: Any) -> Any:
    """An argument of an intrinsic function, refusing a path that selects nothing, where ministack takes null."""
    if argument[0] == "path":
        paths.require_path(argument[1], data, context, "intrinsic function")
    return original(argument, data, context)


# What ministack does with a path that selects nothing, corrected as the embedded AWS corrects it, and more.
_PATH_CHECKS: dict[str, Callable[..., Any]] = {
    "_resolve_params_obj": paths.resolve_template,
    "_evaluate_rule": paths.evaluate_rule,
    "_apply_input_path": paths.apply_input_path,
    "_apply_output_path": paths.apply_output_path,
    "_error_matches": task_calls.matches,
    "_run_map_items": _map_items,
    "_eval_intrinsic_arg": _intrinsic_argument,
}


def response(
    request: AWSPreparedRequest, status: int, body: str | bytes, headers: dict[str, str] | None = None
) -> AWSResponse:
    """An answer of AWS."""
    return AWSResponse(request.url, status, headers or {}, MockRawResponse(body))  # type: ignore[arg-type]


def function_error(request: AWSPreparedRequest, name: str, message: str) -> AWSResponse:
    """Lambda's answer when the called function failed."""
    body = json.dumps({"errorMessage": message, "errorType": name, "stackTrace": []})
    return response(request, 200, body, {"X-Amz-Function-Error": "Unhandled"})


@functools.cache
def _routes(service: str) -> list[tuple[re.Pattern[str], Any]]:
    name = {"secrets-manager": "secretsmanager", "sfn": "stepfunctions"}.get(service, service)
    backends = moto.backends.get_backend(cast("Any", name))[ACCOUNT]
    backend = backends["us-east-1" if "us-east-1" in backends else "aws"]
    return [(re.compile(url), method) for url, method in backend.urls.items()]


_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def _object(request: AWSPreparedRequest) -> AWSResponse | None:
    """S3's answer for one whole or partial object, on moto's store without moto's HTTP: twice as fast; else None."""
    if "?" in request.url or request.method not in ("GET", "PUT", "HEAD"):
        return None
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value
        for name, value in dict(request.headers).items()
    }
    backend = moto.backends.get_backend("s3")[ACCOUNT]["aws"]
    host, _, path = request.url.partition("://")[2].partition("/")
    name, key = (BUCKET, unquote(path)) if host.startswith(f"{BUCKET}.") else unquote(path).split("/", 1)
    found = backend.buckets[name].keys.get(key)

    def refused(status: int, code: str) -> AWSResponse:
        said = "" if request.method == "HEAD" else f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        return response(request, status, said)

    wanted = headers.get("if-match")
    if found is None and (request.method != "PUT" or wanted):
        return refused(404, "NoSuchKey")
    if (wanted and wanted.strip('"') != found.etag.strip('"')) or (headers.get("if-none-match") == "*" and found):
        return refused(412, "PreconditionFailed")
    if request.method == "PUT":
        body: Any = request.body or b""
        # The SDK sends a body in chunks, each with its checksum.
        written = backend.put_object(name, key, body if isinstance(body, bytes) else body._raw.getvalue())
        return response(request, 200, b"", {"ETag": written.etag})
    value = found.value
    told = {"ETag": found.etag, "Content-Length": str(len(value))}
    if request.method == "HEAD" or (part := _RANGE.fullmatch(headers.get("range", ""))) is None:
        return response(request, 200, b"" if request.method == "HEAD" else value, told)
    first, last = int(part[1]), min(int(part[2]), len(value) - 1)
    if first >= len(value):
        return refused(416, "InvalidRange")
    told |= {"Content-Range": f"bytes {first}-{last}/{len(value)}", "Content-Length": str(last - first + 1)}
    return response(request, 206, value[first : last + 1], told)


def _answer(service: str, request: AWSPreparedRequest) -> AWSResponse:
    """The data services' answer, found without moto's search through every service that it knows."""
    if service == "s3" and (quick := _object(request)) is not None:
        return quick
    clean = request.url.partition("?")[0]
    method = next(method for url, method in _routes(service) if url.match(clean))
    normalized = normalize_request(request)
    try:
        status, headers, body = method(normalized, normalized.raw_url, normalized.headers)
    except HTTPException as error:
        status, headers, body = error.code, error.get_headers(), error.get_body()
    return response(request, status, body, headers)


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
        "FINALIZER_ARN": f"arn:aws:lambda:{REGION}:123456789012:function:Finalizer",
        "STACK_NAME": "FanOut",
        "POWERTOOLS_SERVICE_NAME": "test",
        "POWERTOOLS_METRICS_NAMESPACE": "FanOut",
        "POWERTOOLS_TRACE_DISABLED": "1",
        "POWERTOOLS_DEV": "0",
    }
    with mock_aws(), patch.dict("os.environ", environment):
        forget_warm_state()
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
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


def forget_processes() -> None:
    """Drop what a function's next process would read anew. Clients are kept: making them is slow and calls nobody."""
    from fan_out import worker
    from task_service import resources, write_tasks

    worker._plan.cache_clear()
    aws._read_concurrency.cache_clear()
    write_tasks.writer.cache_clear()
    resources.store.cache_clear()
    resources.page_tokens.cache_clear()


def forget_warm_state() -> None:
    """Drop what warm functions keep between calls, their clients among it."""
    for package in ("fan_out", "task_service", "common"):
        for path in (ROOT / "lambdas" / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT / "lambdas").with_suffix("").parts)
            for value in vars(importlib.import_module(name.removesuffix(".__init__"))).values():
                if hasattr(value, "cache_clear") and getattr(value, "__module__", "").startswith(package):
                    value.cache_clear()


def put_tasks(tasks: list[dict[str, Any]]) -> None:
    """Store tasks as the Task Service does, past its checks and its clock."""
    for task in tasks:
        item = {name: _SERIALIZER.serialize(value) for name, value in task.items()}
        task_service.aws.dynamodb().put_item(TableName=TABLE, Item=item)


def tasks() -> dict[str, dict[str, Any]]:
    """Every stored task with its internal attributes, by id."""
    pages = task_service.aws.dynamodb().get_paginator("scan").paginate(TableName=TABLE)
    items = [
        {name: _DESERIALIZER.deserialize(value) for name, value in item.items()}
        for page in pages
        for item in page["Items"]
    ]
    return {item["id"]: item for item in items}


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
    return aws.s3().get_object(Bucket=BUCKET, Key=key(name, job_id))["Body"].read()


def names(job_id: str = "job-1") -> list[str]:
    """The names of a job's objects."""
    pages = aws.s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [item["Key"].split("/", 2) for page in pages for item in page.get("Contents", [])]
    return [name for folder, owner, *rest in keys for name in rest if owner == job_id]


def key(name: str, job_id: str = "job-1") -> str:
    """The key of a job's object."""
    return JobStore(Bucket(BUCKET), job_id).key(name)
