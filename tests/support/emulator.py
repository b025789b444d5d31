"""A started, empty embedded AWS for tests, and the few words with which they put functions and machines on it."""

from __future__ import annotations

import io
import itertools
import json
import textwrap
import time
import zipfile
from pathlib import Path
from typing import Any

from fanout import local
from fanout.local.deploy import client
from fanout.local.server import Server

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ],
}


class Emulator:
    """Names are made unique, so that tests share one server without meeting each other."""

    def __init__(self, home: Path, server: Server) -> None:
        self.home = home
        self.server = server
        self.endpoint_url = server.endpoint_url
        self._numbers = itertools.count()
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = client(service, self.endpoint_url)
        return self._clients[service]

    def name(self, what: str) -> str:
        return f"{what}-{next(self._numbers)}"

    def role(self, *statements: dict[str, Any]) -> str:
        """A role that may do what the statements say; its ARN."""
        iam, name = self.client("iam"), self.name("role")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        if statements:
            policy = {"Version": "2012-10-17", "Statement": list(statements)}
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        return str(arn)

    def function(self, code: str, *, role: str | None = None, timeout: int = 10, **options: Any) -> str:
        """A function whose module `main` is `code`, with `handler(event, context)`; its ARN."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("main.py", textwrap.dedent(code))
        created = self.client("lambda").create_function(
            FunctionName=self.name("function"),
            Runtime="python3.13",
            Handler="main.handler",
            Role=role or self.role(),
            Code={"ZipFile": buffer.getvalue()},
            Timeout=timeout,
            **options,
        )
        configuration = created
        while configuration["State"] == "Pending":
            time.sleep(0.02)
            configuration = self.client("lambda").get_function_configuration(FunctionName=created["FunctionName"])
        return str(created["FunctionArn"])

    def invoke(self, function: str, event: object = None) -> tuple[str | None, Any]:
        """The FunctionError, if any, and the payload."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
        return answer.get("FunctionError"), json.loads(answer["Payload"].read())

    def bucket(self) -> str:
        name = self.name("bucket")
        self.client("s3").create_bucket(Bucket=name)
        return name

    def machine(self, states: dict[str, Any], **fields: Any) -> str:
        """A state machine that starts at its first state; its ARN."""
        definition = {"StartAt": next(iter(states)), "States": states, **fields}
        created = self.client("stepfunctions").create_state_machine(
            name=self.name("machine"), definition=json.dumps(definition), roleArn=self.role()
        )
        return str(created["stateMachineArn"])

    def start(self, machine: str, data: object = None, **options: str) -> str:
        answer = self.client("stepfunctions").start_execution(
            stateMachineArn=machine, input=json.dumps({} if data is None else data), **options
        )
        return str(answer["executionArn"])

    def describe(self, execution: str) -> dict[str, Any]:
        return dict(self.client("stepfunctions").describe_execution(executionArn=execution))

    def wait(self, execution: str, seconds: float = 20) -> dict[str, Any]:
        """The ended execution's description."""
        deadline = time.monotonic() + seconds
        while (described := self.describe(execution))["status"] == "RUNNING":
            assert time.monotonic() < deadline, f"still running after {seconds} s"
            time.sleep(0.02)
        return described

    def run(self, states: dict[str, Any], data: object = None, **fields: Any) -> dict[str, Any]:
        return self.wait(self.start(self.machine(states, **fields), data))

    def history(self, execution: str) -> list[dict[str, Any]]:
        pages = self.client("stepfunctions").get_paginator("get_execution_history")
        found = pages.paginate(executionArn=execution, maxResults=1000)
        return [event for page in found for event in page["events"]]

    def map_run(self, execution: str) -> dict[str, Any]:
        """The description of the execution's only map run."""
        stepfunctions = self.client("stepfunctions")
        (run,) = stepfunctions.list_map_runs(executionArn=execution)["mapRuns"]
        return dict(stepfunctions.describe_map_run(mapRunArn=run["mapRunArn"]))

    def children(self, execution: str) -> list[dict[str, Any]]:
        """The child executions of the execution's only map run."""
        pages = self.client("stepfunctions").get_paginator("list_executions")
        found = pages.paginate(mapRunArn=self.map_run(execution)["mapRunArn"])
        return [child for page in found for child in page["executions"]]

    def peak(self, execution: str) -> object:
        """The most children of the execution's map run that ran at the same moment."""
        (run,) = [run for run in local.map_runs(self.home) if run["executionArn"] == execution]
        return run["peakRunning"]

    def objects(self, bucket: str) -> dict[str, Any]:
        """Every object of the bucket by key, parsed as JSON."""
        s3 = self.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys}


def task(function: str, **fields: Any) -> dict[str, Any]:
    """A Task state that invokes the function with its input and answers with the function's result."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload.$": "$"},
        "OutputPath": "$.Payload",
        **({} if "Next" in fields else {"End": True}),
        **fields,
    }


def distributed(states: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A Distributed Map state over the items at `$.items`."""
    return {
        "Type": "Map",
        "ItemsPath": "$.items",
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": next(iter(states)),
            "States": states,
        },
        **({} if "Next" in fields else {"End": True}),
        **fields,
    }
