from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fanout import cli
from fanout.client import Deployment, FanOut
from tests.support.emulator import Emulator

# A machine that ends as its input's params say, in place of the real one, which has its own tests.
STATES: dict[str, Any] = {
    "Choose": {
        "Type": "Choice",
        "Choices": [
            {"Variable": "$.params.end", "StringEquals": "succeed", "Next": "Succeeded"},
            {"Variable": "$.params.end", "StringEquals": "fail", "Next": "Failed"},
            {"Variable": "$.params.end", "StringEquals": "shards", "Next": "Shards"},
        ],
        "Default": "Long",
    },
    "Long": {"Type": "Wait", "Seconds": 36_000, "End": True},
    "Shards": {
        "Type": "Map",
        "ItemsPath": "$.params.shards",
        "MaxConcurrency": 1,
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Work",
            "States": {"Work": {"Type": "Wait", "Seconds": 20, "End": True}},
        },
        "ResultPath": None,
        "Next": "Succeeded",
    },
    "Succeeded": {"Type": "Succeed", "OutputPath": "$.params.record"},
    "Failed": {"Type": "Fail", "ErrorPath": "$.params.error", "CausePath": "$.params.cause"},
}

Put = Callable[[str, Any], None]
Run = Callable[..., int]


def record_of(job_id: str, status: str = "SUCCEEDED", *, failed: int = 0, **fields: Any) -> dict[str, Any]:
    """A job record of 1,000 tasks in 4 shards."""
    counts = {
        "listed": 1000,
        "succeeded": 1000 - failed,
        "failed": failed,
        "quarantined": 0,
        "unprocessed": 0,
    }
    return {
        "jobId": job_id,
        "kind": "import-tasks",
        "status": status,
        "counts": counts,
        "shards": {"planned": 4, "done": 4, "failed": 0},
        "startedAt": "2026-11-23T10:15:02Z",
        "endedAt": "2026-11-23T10:15:14Z",
        "result": {"imported": 1000 - failed},
        **fields,
    }


@pytest.fixture(scope="session")
def deployment(emulator: Emulator) -> Deployment:
    return Deployment(
        region="us-east-1",
        api_url="http://127.0.0.1:1/v1/",
        state_machine_arn=emulator.machine(STATES),
        bucket_name=emulator.bucket(),
        task_table_name="unused",
        endpoint_url=emulator.endpoint_url,
    )


@pytest.fixture
def client(deployment: Deployment) -> FanOut:
    return FanOut(deployment, poll=0.02, patience=0.5)


@pytest.fixture
def put(emulator: Emulator, deployment: Deployment) -> Put:
    """Store an object of the job bucket: JSON, or bytes as they are."""

    def put(key: str, content: Any) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        emulator.client("s3").put_object(Bucket=deployment.bucket_name, Key=key, Body=body)

    return put


@pytest.fixture
def fanout(client: FanOut) -> Run:
    """Run a command line against the deployment; its exit code."""
    return lambda *argv: cli.main(list(argv), connect=lambda _: client)
