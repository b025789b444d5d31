"""A listing's time for a task, in ListTasks and in the Lister; speed and memory of a step over a CSV object."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from boto3.dynamodb.types import TypeSerializer
from botocore.awsrequest import AWSResponse

import task_service.aws
from bench import store
from bench.run import Run, Table, ratio
from common.task import Task
from fan_out.aws import clients
from fan_out.aws import task_service as tasks_of
from fan_out.model.documents import encode
from fan_out.steps.listing import list_step
from task_service import listing as internal
from task_service.store import TaskStore
from task_service.tokens import PageTokens

JOB = "bench-listing"
DETAIL = "Bring the figures of the quarter, and the list of what is open since the last review."
# What has no AWS around it needs to make a client.
ALONE = {
    "PATH": os.defpath,
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
}


def tables(run: Run) -> Iterator[Table]:
    yield _of_a_task(run)
    yield _of_an_object(run)


def _of_a_task(run: Run) -> Table:
    head = ("tasks", "bytes/task", "bare scan", "ListTasks before", "now", "Lister before", "now", "all to before")
    table = Table("listing, CPU in µs a task; a bare scan is the SDK's alone", head)
    with run.bounded(table):
        for count in run.size(smoke=[500], quick=[3_500], full=[500, 3_500]):
            run.say(f"listing: a page of {count:,} tasks")
            found = run.in_fresh_process("listing", {"page": count}, ALONE)
            before, now = found["list before"] + found["lister before"], found["list"] + found["lister"]
            table.add(
                count,
                found["bytes"],
                found["scan"],
                found["list before"],
                found["list"],
                found["lister before"],
                found["lister"],
                ratio(now, before),
            )
    return table


def _of_an_object(run: Run) -> Table:
    counts = run.size(smoke=[1_000], quick=[10_000, 50_000], full=[10_000, 100_000, 1_000_000])
    head = ("rows", "MiB", "shards", "seconds", "rows/s", "MiB/s", "peak MiB", "to first")
    table = Table("listing, a CSV object in shards of 2,000", head)
    first = 0.0
    with store.emulator() as emulator, run.bounded(table):
        for count in counts:
            run.say(f"listing: {count:,} rows")
            body = _csv(count)
            emulator.put("uploads/tasks.csv", body)
            found = run.in_fresh_process("listing", {"rows": count}, emulator.environment())
            emulator.empty()
            first = first or found["peak"]
            table.add(
                count,
                len(body) / (1 << 20),
                found["shards"],
                found["seconds"],
                count / found["seconds"],
                len(body) / found["seconds"] / (1 << 20),
                found["peak"],
                ratio(found["peak"], first),
            )
    return table


def _csv(rows: int) -> bytes:
    lines = ["title,detail,dueAt,isComplete\n"]
    for number in range(rows):
        task = store.task(number)
        detail = '"first, then ""second"""' if number % 3 == 0 else ""
        lines.append(f"{task['title']},{detail},{task.get('dueAt', '')},false\n")
    return "".join(lines).encode()


def prepare(argument: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    if "page" in argument:
        return lambda: _page(argument["page"])
    job = store.job_store(JOB)
    plan = store.plan(JOB, "import-tasks", {"csv": "uploads/tasks.csv"})

    def work() -> dict[str, Any]:
        step = list_step(job, plan, segment=0, step=0, cursor=None, list_function="", is_late=lambda _: False)
        listed = sum(shard.count for shard in step.shards)
        if listed != argument["rows"] or step.cursor is not None:
            raise RuntimeError(f"{listed} of {argument['rows']} rows were listed")
        return {"shards": len(step.shards)}

    return work


def _page(count: int) -> dict[str, Any]:
    """CPU for a task of one page, from the bytes that DynamoDB sends to those that go into a shard. `before` is how it
    was done: botocore's parser, a task object and its JSON in ListTasks, decoded and encoded again in the Lister."""
    stored = [store.task(number) | {"detail": DETAIL} for number in range(count)]
    serialize = TypeSerializer().serialize
    items = [{name: serialize(value) for name, value in task.items()} for task in stored]
    page = json.dumps({"Items": items, "Count": count, "ScannedCount": count}, separators=(",", ":")).encode()
    slow, quick, invoke = boto3.client("dynamodb"), task_service.aws.dynamodb(), clients.lambda_client()
    table, tokens = TaskStore(quick, "tasks"), PageTokens("a secret of the benchmark")
    for client in (slow, quick):
        _answer(client, "dynamodb.Scan", page)

    def list_before() -> bytes:
        found = [_task(item) for item in slow.scan(TableName="tasks")["Items"]]
        assert sum(len(json.dumps(task.to_json())) + 2 for task in found)
        return json.dumps({"tasks": [task.to_json() for task in found]}).encode()

    def list_now() -> bytes:
        event = {"filter": {"isComplete": False}, "limit": 10_000}
        return json.dumps(internal.answer(event, table, tokens, has_time=lambda: True)).encode()

    def lister_now() -> list[bytes]:
        return tasks_of.list_page("f", match={}, segment=0, segments=1, cursor=None, limit=10_000)[0]

    before, now = list_before(), list_now()
    _answer(invoke, "lambda.Invoke", now)
    assert lister_now() == [encode(task) for task in json.loads(before)["tasks"]]
    measured = {
        "scan": lambda: slow.scan(TableName="tasks"),
        "list before": list_before,
        "list": list_now,
        "lister before": lambda: [encode(task) for task in json.loads(before)["tasks"]],
        "lister": lister_now,
    }
    return {name: min(_cpu(work) for _ in range(5)) / count * 1e6 for name, work in measured.items()} | {
        "bytes": len(now) // count
    }


def _task(item: dict[str, Any]) -> Task:
    fields: dict[str, Any] = {}
    for name, attribute in item.items():
        ((kind, value),) = attribute.items()
        fields[name] = int(value) if kind == "N" else value
    return Task.from_json(fields)


def _cpu(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


class _Raw(io.BytesIO):
    """A body as urllib3 gives it."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.getvalue()


def _answer(client: Any, operation: str, body: bytes) -> None:
    """Let the client's next calls have this answer, without a network."""

    def answer(**_: Any) -> Any:
        return AWSResponse("http://there", 200, {}, _Raw(body))  # type: ignore[arg-type]

    client.meta.events.register_first(f"before-send.{operation}", answer)
