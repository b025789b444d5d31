"""A whole deployment with the kinds of the tests beside the shipped ones: on the embedded AWS, or the one of
`make aws-test`, which `FANOUT_TEST_DEPLOYMENT` names."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

from fan_out.aws.storage import Bucket, JobStore
from fanout import local
from fanout.local.deploy import client

ROOT = Path(__file__).parent.parent.parent
ENDED = {"SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"}
# Some calls of Step Functions have a limit of one a second.
PATIENT = Config(retries={"mode": "standard", "total_max_attempts": 10})
# A file with the fields of `local.Local` and the stack's name, of a deployment that somebody else takes down.
NAMED = "FANOUT_TEST_DEPLOYMENT"


@dataclass
class Deployment:
    home: Path
    at: local.Local
    stack: str = "FanOut"
    # Of the account that it is on; none for the embedded AWS of `home`.
    session: boto3.Session | None = None
    # What the tests themselves have asked for, because it costs.
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("requests", "writes"), 0))
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)

    def client(self, service: str) -> Any:
        # Making one is slow, and threads may share it.
        if service not in self._clients:
            self._clients[service] = (
                self.session.client(service, config=PATIENT) if self.session else client(service, self.at.endpoint_url)
            )
        return self._clients[service]

    def credentials(self) -> Any:
        if self.session:
            return self.session.get_credentials().get_frozen_credentials()
        return Credentials(self.at.access_key_id, self.at.secret_access_key)

    def resource(self, kind: str, name: str = "") -> str:
        """The physical name of the stack's one resource of this type whose logical id contains `name`."""
        found = self.client("cloudformation").describe_stack_resources(StackName=self.stack)["StackResources"]
        (one,) = [each for each in found if each["ResourceType"] == kind and name in each["LogicalResourceId"]]
        return str(one["PhysicalResourceId"])

    def function(self, name: str) -> str:
        return self.resource("AWS::Lambda::Function", name)

    def set_timeout(self, function: str, seconds: int) -> None:
        """Give the function of this state so many seconds a call, instead of its own fifteen minutes."""
        self.client("lambda").update_function_configuration(FunctionName=self.function(function), Timeout=seconds)

    def start(self, document: Any, job_id: str) -> str:
        answer = self.client("stepfunctions").start_execution(
            stateMachineArn=self.at.state_machine_arn, name=job_id, input=json.dumps(document)
        )
        return str(answer["executionArn"])

    def wait(self, execution: str, seconds: float = 200) -> Any:
        """The execution's description once it has ended."""
        client, deadline, pause = self.client("stepfunctions"), time.monotonic() + seconds, 0.1
        while time.monotonic() < deadline:
            described = client.describe_execution(executionArn=execution)
            if described["status"] in ENDED:
                return described
            # Many jobs at once would be kept from their work by those who ask for them.
            time.sleep(pause)
            pause = min(0.5, pause * 1.3)
        raise AssertionError(f"{execution} has not ended in {seconds} s")

    def run(self, document: Any, job_id: str, seconds: float = 200) -> Any:
        """The job record of a job that ended well."""
        ended = self.wait(self.start(document, job_id), seconds)
        assert ended["status"] == "SUCCEEDED", (ended.get("error"), ended.get("cause"))
        return json.loads(ended["output"])

    def stored(self, job_id: str, name: str) -> bytes:
        key = JobStore(Bucket(self.at.bucket_name), job_id).key(name)
        return bytes(self.client("s3").get_object(Bucket=self.at.bucket_name, Key=key)["Body"].read())

    def lines(self, job_id: str, name: str) -> list[Any]:
        return [json.loads(line) for line in self.stored(job_id, name).splitlines()]

    def payloads(self, execution: str) -> list[tuple[str, str, int]]:
        """Every state of an execution that was entered or left, with the size of its input or output."""
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=execution)
        found = []
        for page in pages:
            for event in page["events"]:
                for details, name in (
                    ("stateEnteredEventDetails", "input"),
                    ("stateExitedEventDetails", "output"),
                ):
                    if details in event:
                        said = event[details]
                        found.append((event["type"], said["name"], len(said.get(name, ""))))
        return found

    def put_tasks(self, tasks: list[dict[str, Any]]) -> None:
        serializer, client = TypeSerializer(), self.client("dynamodb")
        requests = [
            {"PutRequest": {"Item": {name: serializer.serialize(value) for name, value in task.items()}}}
            for task in tasks
        ]

        def put(first: int) -> None:
            some = {self.at.task_table_name: requests[first : first + 25]}
            self.spent["writes"] += len(requests[first : first + 25])
            while some:
                some = client.batch_write_item(RequestItems=some)["UnprocessedItems"]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(0, len(requests), 25)))

    def tasks(self) -> list[dict[str, Any]]:
        deserializer = TypeDeserializer()
        pages = self.client("dynamodb").get_paginator("scan")
        return [
            {name: deserializer.deserialize(value) for name, value in item.items()}
            for page in pages.paginate(TableName=self.at.task_table_name, ConsistentRead=True)
            for item in page["Items"]
        ]

    def empty(self) -> None:
        client = self.client("dynamodb")
        keys = [{"id": {"S": task["id"]}} for task in self.tasks()]
        for first in range(0, len(keys), 25):
            requests = [{"DeleteRequest": {"Key": key}} for key in keys[first : first + 25]]
            self.spent["writes"] += len(requests)
            some = {self.at.task_table_name: requests}
            while some:
                some = client.batch_write_item(RequestItems=some)["UnprocessedItems"]

    def http(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        signed: bool = True,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """A request of the REST API, signed as a user of AWS signs it: the status and the JSON body."""
        request = AWSRequest(
            method,
            self.at.api_url + path.lstrip("/"),
            data=body,
            headers=headers or {"Content-Type": "application/json"},
        )
        if signed:
            SigV4Auth(self.credentials(), "execute-api", self.at.region).add_auth(request)
        self.spent["requests"] += 1
        answer = URLLib3Session().send(request.prepare())
        return answer.status_code, json.loads(answer.content) if answer.content else None


@cache
def named_deployment(file: str) -> Deployment:
    told = json.loads(Path(file).read_text())
    return Deployment(Path(file).parent, local.Local(**told["at"]), told["stack"], boto3.Session())


def stage(folder: Path) -> None:
    """A copy of the functions with the kinds of the tests and of the benchmark."""
    shutil.copytree(ROOT / "lambdas", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for kinds in ("tests/support/kinds", "bench/kinds"):
        for kind in (ROOT / kinds).glob("*.py"):
            shutil.copy(kind, folder / "kinds")


@contextmanager
def deployed(
    folder: Path, change: Callable[[Path], None] = lambda staged: None, *, wait_scale: float = 0.05
) -> Iterator[Deployment]:
    """A deployment in this folder, taken down at the end whatever happens; `change` gets the functions' code.

    `wait_scale` multiplies every pause of the state machine. The one that `FANOUT_TEST_DEPLOYMENT` names, if it names
    one: as it is, and left as it is.
    """
    if named := os.environ.get(NAMED):
        yield named_deployment(named)
        return
    staged, home = folder / "lambdas", folder / "home"
    stage(staged)
    change(staged)
    try:
        yield Deployment(home, local.up(home, lambdas=staged, tied=True, wait_scale=wait_scale))
    finally:
        local.down(home)
