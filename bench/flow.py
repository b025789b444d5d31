"""Whole jobs on the embedded AWS: by tasks, by maxConcurrency, and what the parent execution carries."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from bench import store
from bench.run import ROOT, OutOfTimeError, Run, Table, ratio
from fanout import local

# How many items one BatchWriteItem takes.
BATCH = 25


@dataclass
class Deployment:
    """The stack on an embedded AWS, with the kind of the benchmark beside the shipped ones."""

    home: Path
    at: local.Local
    run: Run
    stored: int = 0
    jobs: int = 0

    def __post_init__(self) -> None:
        self.states = boto3.client(
            "stepfunctions",
            endpoint_url=self.at.endpoint_url,
            region_name=self.at.region,
            aws_access_key_id=self.at.access_key_id,
            aws_secret_access_key=self.at.secret_access_key,
            config=Config(read_timeout=120),
        )

    def job(self, document: dict[str, Any]) -> Job:
        """Run a job to its end. Raises OutOfTimeError, or RuntimeError if it did not succeed."""
        self.jobs += 1
        left = self.run.left()
        begun = time.monotonic()
        execution = self.states.start_execution(
            stateMachineArn=self.at.state_machine_arn,
            name=f"bench-{self.jobs}",
            input=json.dumps(document),
        )["executionArn"]
        while (ended := self.states.describe_execution(executionArn=execution))["status"] == "RUNNING":
            if time.monotonic() - begun > left:
                raise OutOfTimeError(f"as a job over {self.stored:,} tasks took the rest of the time")
            time.sleep(0.1)
        seconds = time.monotonic() - begun
        record = json.loads(ended.get("output") or "{}")
        if record.get("status") != "SUCCEEDED" or record["counts"]["succeeded"] != self.stored:
            raise RuntimeError(f"a job did not succeed: {ended}")
        return Job(execution, seconds, record["shards"]["planned"])

    def peak_running(self, job: Job) -> int:
        """The most workers of the job that ran at the same moment."""
        peaks = [run["peakRunning"] for run in local.map_runs(self.home) if run["executionArn"] == job.execution]
        return int(str(peaks[0]))

    def history(self, job: Job) -> tuple[int, int]:
        """How many events the job's own execution has, and the characters of its largest payload."""
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=job.execution)
        events = [event for page in pages for event in page["events"]]
        largest = max(
            len(details.get(name) or "")
            for event in events
            for details in event.values()
            if isinstance(details, dict)
            for name in ("input", "output")
        )
        return len(events), largest

    def store_tasks(self, count: int) -> None:
        """Have so many tasks in the table, written past the Task Service, as it is not what is measured."""
        emulator = store.Emulator(self.at.endpoint_url)

        def put(first: int) -> None:
            items = [
                {"PutRequest": {"Item": {name: _attribute(value) for name, value in store.task(number).items()}}}
                for number in range(first, min(first + BATCH, count))
            ]
            emulator.send(
                "POST",
                "",
                json.dumps({"RequestItems": {self.at.task_table_name: items}}).encode(),
                "dynamodb",
                X_Amz_Target="DynamoDB_20120810.BatchWriteItem",
                Content_Type="application/x-amz-json-1.0",
            )
            self.run.left()

        with ThreadPoolExecutor(store.WRITERS) as pool:
            list(pool.map(put, range(self.stored, count, BATCH)))
        self.stored = count


@dataclass(frozen=True)
class Job:
    execution: str
    seconds: float
    shards: int


def _attribute(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
    return {"S": value}


@contextmanager
def _deployed(run: Run) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        staged, home = Path(folder) / "lambdas", Path(folder) / "home"
        shutil.copytree(ROOT / "lambdas", staged, ignore=shutil.ignore_patterns("__pycache__"))
        for kind in (ROOT / "bench/kinds").glob("*.py"):
            shutil.copy(kind, staged / "kinds")
        try:
            yield Deployment(home, local.up(home, lambdas=staged, tied=True), run)
        finally:
            local.down(home)


def tables(run: Run) -> Iterator[Table]:
    run.say("flow: bringing up the embedded AWS")
    with _deployed(run) as deployment:
        yield from measured(deployment)


def measured(deployment: Deployment) -> Iterator[Table]:
    """The tables of a deployment whose table of tasks is empty."""
    deployment.store_tasks(deployment.run.size(smoke=60, quick=1_000, full=1_000))
    # Functions are cold once, which is no part of how a job scales.
    deployment.job({"shardSize": 100})
    yield _bound(deployment)
    yield _state(deployment)
    yield _tasks(deployment)


def _bound(deployment: Deployment) -> Table:
    run = deployment.run
    seconds = run.size(smoke=0.0, quick=0.25, full=1.0)
    head = ("maxConcurrency", "shards", "peak running", "seconds", "speed to first")
    table = Table(f"flow, by bound ({deployment.stored:,} tasks, a worker sleeps {seconds:g} s)", head)
    first = 0.0
    with run.bounded(table):
        for bound in run.size(smoke=[2], quick=[1, 4], full=[1, 4, 16]):
            run.say(f"flow: maxConcurrency {bound}")
            params = {"seconds": seconds}
            asked = {"kind": "nap", "params": params, "shardSize": 63, "maxConcurrency": bound}
            job = deployment.job(asked)
            first = first or job.seconds
            table.add(bound, job.shards, deployment.peak_running(job), job.seconds, ratio(first, job.seconds))
    return table


def _state(deployment: Deployment) -> Table:
    run = deployment.run
    head = ("shards", "events of the parent", "largest payload", "seconds", "ms/shard")
    table = Table(f"flow, the parent's state by shards ({deployment.stored:,} tasks)", head)
    with run.bounded(table):
        for shard_size in run.size(smoke=[30], quick=[100, 20], full=[100, 1]):
            run.say(f"flow: shards of {shard_size}")
            job = deployment.job({"shardSize": shard_size})
            events, largest = deployment.history(job)
            table.add(job.shards, events, largest, job.seconds, job.seconds / job.shards * 1000)
    return table


def _tasks(deployment: Deployment) -> Table:
    run = deployment.run
    table = Table("flow, the daily plan by tasks", ("tasks", "shards", "seconds", "tasks/s", "time to first"))
    first = 0.0
    with run.bounded(table):
        for count in run.size(smoke=[90], quick=[1_000, 3_000], full=[1_000, 10_000, 50_000]):
            run.say(f"flow: the daily plan of {count:,} tasks")
            deployment.store_tasks(count)
            job = deployment.job({})
            first = first or job.seconds
            table.add(count, job.shards, job.seconds, count / job.seconds, ratio(job.seconds, first))
    return table
