"""A whole deployment on the embedded AWS, with the kinds of the tests beside the shipped ones."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boto3.dynamodb.types import TypeSerializer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

from fan_out.aws.storage import Bucket, JobStore
from fanout import local
from fanout.local.deploy import client, session

ROOT = Path(__file__).parent.parent.parent
ENDED = {"SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"}


@dataclass
class Deployment:
    home: Path
    at: local.Local
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)

    def client(self, service: str) -> Any:
        # Making one is slow, and threads may share it.
        if service not in self._clients:
            self._clients[service] = client(service, self.at.endpoint_url)
        return self._clients[service]

    def set_timeout(self, function: str, seconds: int) -> None:
        """Give the function of this state so many seconds a call, instead of its own fifteen minutes."""
        client = self.client("lambda")
        names = [
            each["FunctionName"]
            for page in client.get_paginator("list_functions").paginate()
            for each in page["Functions"]
        ]
        (name,) = [name for name in names if function in name]
        client.update_function_configuration(FunctionName=name, Timeout=seconds)

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
            while some:
                some = client.batch_write_item(RequestItems=some)["UnprocessedItems"]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(0, len(requests), 25)))

    def tasks(self) -> list[dict[str, Any]]:
        table = session().resource("dynamodb", endpoint_url=self.at.endpoint_url).Table(self.at.task_table_name)
        found: list[dict[str, Any]] = []
        arguments: dict[str, Any] = {}
        while True:
            page = table.scan(**arguments)
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                return found
            arguments = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def empty(self) -> None:
        client = self.client("dynamodb")
        keys = [{"id": {"S": task["id"]}} for task in self.tasks()]
        for first in range(0, len(keys), 25):
            requests = [{"DeleteRequest": {"Key": key}} for key in keys[first : first + 25]]
            client.batch_write_item(RequestItems={self.at.task_table_name: requests})

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
            SigV4Auth(
                Credentials(self.at.access_key_id, self.at.secret_access_key), "execute-api", self.at.region
            ).add_auth(request)
        answer = URLLib3Session().send(request.prepare())
        return answer.status_code, json.loads(answer.content) if answer.content else None


@contextmanager
def deployed(
    folder: Path, change: Callable[[Path], None] = lambda staged: None, *, wait_scale: float = 0.05
) -> Iterator[Deployment]:
    """A deployment in this folder, taken down at the end whatever happens; `change` gets the functions' code.

    `wait_scale` multiplies every pause of the state machine.
    """
    staged, home = folder / "lambdas", folder / "home"
    shutil.copytree(ROOT / "lambdas", staged, ignore=shutil.ignore_patterns("__pycache__"))
    for folder_of_kinds in ("tests/support/kinds", "bench/kinds"):
        for kind in (ROOT / folder_of_kinds).glob("*.py"):
            shutil.copy(kind, staged / "kinds")
    change(staged)
    try:
        yield Deployment(home, local.up(home, lambdas=staged, tied=True, wait_scale=wait_scale))
    finally:
        local.down(home)
