"""Two stacks in one account: jobs, tasks and removals of one are nothing to the other."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fanout import local
from fanout.local import server
from fanout.local.deploy import Assembly, client, deploy
from fanout.project import synthesize
from tests.support.deployment import Deployment
from tests.support.machine import make_tasks

NAMES = ("FanOut", "FanOutDev")


def deployment(home: Path, running: server.Server, folder: Path) -> Deployment:
    assembly = Assembly.read(folder)
    told = deploy(assembly, running.endpoint_url)
    found = re.fullmatch(r"https://([^./]+)\.execute-api\.[^/]+/([^/]+)/?", told["ApiUrl"])
    assert found
    at = local.Local(
        endpoint_url=running.endpoint_url,
        region=server.REGION,
        api_url=f"{running.endpoint_url}/_aws/execute-api/{found[1]}/{found[2]}/",
        state_machine_arn=told["StateMachineArn"],
        bucket_name=told["BucketName"],
        task_table_name=told["TaskTableName"],
        pid=running.pid,
        port=running.port,
        access_key_id=server.ACCESS_KEY_ID,
        secret_access_key=server.SECRET_ACCESS_KEY,
        fingerprint="",
    )
    return Deployment(home, at, assembly.stack)


@pytest.mark.soak
def test_two_stacks_of_an_account_share_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"FanOut": synthesize(tmp_path / "prod")}
    monkeypatch.setenv("CDK_CONTEXT_JSON", json.dumps({"stage": "dev"}))
    folders["FanOutDev"] = synthesize(tmp_path / "dev")
    home = tmp_path / "home"
    running = server.start(home, tied=True, wait_scale=0.05)
    try:
        prod, dev = (deployment(home, running, folders[name]) for name in NAMES)
        assert (prod.stack, dev.stack) == NAMES
        # The same ids with other titles, half of them there in one alone.
        tasks = make_tasks(40, complete=0)
        prod.put_tasks(tasks)
        dev.put_tasks([task | {"title": "of dev"} for task in tasks[:20]])
        document = {"shardSize": 2, "maxConcurrency": 4}
        executions = [each.start(document, "job") for each in (prod, dev)]
        records = [json.loads(each.wait(run)["output"]) for each, run in zip((prod, dev), executions, strict=True)]
        assert [record["counts"]["succeeded"] for record in records] == [40, 20]
        assert {line["title"] for line in dev.lines("job", "plan.jsonl")} == {"of dev"}
        for each, count in ((prod, 40), (dev, 20)):
            assert each.http("GET", "/jobs/job")[1]["counts"]["listed"] == count
            assert len(each.http("GET", "/jobs")[1]["jobs"]) == 1
            assert len(each.tasks()) == count
        # A stop in one: its own rule writes its record, and the other's Finalizer knows nothing of it.
        slow = {"kind": "daily-plan", "shardSize": 1, "maxConcurrency": 1, "jobId": "stopped"}
        assert dev.http("POST", "/jobs", json.dumps(slow).encode())[0] == 202
        assert dev.http("DELETE", "/jobs/stopped")[0] == 202
        assert prod.http("GET", "/jobs/stopped")[0] == 404
        before = whole(prod)
        cloudformation = client("cloudformation", running.endpoint_url)
        bucket = dev.client("s3")
        for page in bucket.get_paginator("list_objects_v2").paginate(Bucket=dev.at.bucket_name):
            for entry in page.get("Contents", []):
                bucket.delete_object(Bucket=dev.at.bucket_name, Key=entry["Key"])
        cloudformation.delete_stack(StackName=dev.stack)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=dev.stack, WaiterConfig={"Delay": 1})
        with pytest.raises(ClientError):
            dev.tasks()
        assert whole(replace(prod, _clients={})) == before
        assert prod.run(document, "after")["counts"]["succeeded"] == 40
    finally:
        server.stop(home)


def whole(aws: Deployment) -> Any:
    """Everything of the stack: its resources, its tasks, its job and the job's result."""
    resources = aws.client("cloudformation").describe_stack_resources(StackName=aws.stack)["StackResources"]
    names = sorted((each["LogicalResourceId"], each["PhysicalResourceId"]) for each in resources)
    record = aws.http("GET", "/jobs/job")[1]
    kept = {name: record[name] for name in ("jobId", "status", "counts", "shards", "result")}
    return names, sorted(map(str, aws.tasks())), kept, aws.stored("job", "plan.jsonl")
