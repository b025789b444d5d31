"""What users write is in no log, metric or history: a text that stands in every field is looked for everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.deployment import Deployment, deployed

CANARY = "kanarienvogel"
CSV = {"Content-Type": "text/csv"}
RAISES = """
from fan_out import Kind, Params

class Spoken(Kind):
    name = "spoken"
    params = Params

    def process(self, task, job):
        raise RuntimeError(task.title)

KIND = Spoken()
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment after tasks, imports, jobs and refusals with the canary in each of their fields."""

    def add_kind(staged: Any) -> None:
        (staged / "kinds" / "spoken.py").write_text(RAISES)

    with deployed(tmp_path_factory.mktemp("canary"), add_kind) as aws:
        task = {"title": f"{CANARY} title", "dueAt": "2026-11-24T09:00:00Z"}
        _, made = aws.http("POST", "/tasks", json.dumps(task).encode())
        change = {"title": f"{CANARY} changed", "version": 1}
        assert aws.http("PUT", f"/tasks/{made['id']}", json.dumps(change).encode())[0] == 200
        rows = f"title,dueAt,isComplete\n{CANARY} row,,\n{CANARY} bad,{CANARY},\n,,{CANARY}\n"
        imported = aws.http("POST", "/tasks/upload", rows.encode(), headers=CSV)[1]["jobId"]
        _wait(aws, imported)
        for document in (
            {"kind": "daily-plan"},
            {"kind": "spoken", "toleratedFailurePercentage": 100},
            {"kind": "spoken"},
            {"Comment": CANARY, "kind": "daily-plan"},
        ):
            _, started = aws.http("POST", "/jobs", json.dumps(document).encode())
            _wait(aws, started["jobId"])
            aws.http("GET", f"/jobs/{started['jobId']}/failures")
            aws.http("POST", f"/jobs/{started['jobId']}/retry", b"{}")
        for method, path, body in (
            ("POST", "/jobs", {"kind": CANARY}),
            ("POST", "/jobs", {CANARY: 1}),
            ("POST", "/jobs", {"params": {"timeZone": CANARY}}),
            ("POST", "/jobs", {"source": {"csv": f"uploads/{CANARY}"}}),
            ("POST", "/tasks", {"title": CANARY * 200}),
            ("GET", f"/tasks/{CANARY}", None),
            ("GET", f"/tasks?{CANARY}=1", None),
            ("GET", f"/tasks?pageToken={CANARY}", None),
            ("GET", f"/jobs/{CANARY}", None),
            ("GET", f"/{CANARY}", None),
        ):
            status, _ = aws.http(method, path, b"" if body is None else json.dumps(body).encode())
            assert 400 <= status < 500
        yield aws


def _wait(aws: Deployment, job_id: str) -> None:
    machine = aws.at.state_machine_arn.replace(":stateMachine:", ":execution:")
    aws.wait(f"{machine}:{job_id}")


def test_no_log_has_the_canary(used: Deployment) -> None:
    client = used.client("logs")
    lines = 0
    for page in client.get_paginator("describe_log_groups").paginate():
        for group in page["logGroups"]:
            for events in client.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                for event in events["events"]:
                    lines += 1
                    assert CANARY not in event["message"], (group["logGroupName"], event["message"])
    assert lines > 50


def test_a_history_has_its_own_input_and_result_only(used: Deployment) -> None:
    client = used.client("stepfunctions")
    machine = used.at.state_machine_arn
    executions = client.list_executions(stateMachineArn=machine)["executions"]
    assert len(executions) >= 5
    for execution in executions:
        runs = client.list_map_runs(executionArn=execution["executionArn"])["mapRuns"]
        children = [
            child["executionArn"]
            for run in runs
            for child in client.list_executions(mapRunArn=run["mapRunArn"])["executions"]
        ]
        for arn in (execution["executionArn"], *children):
            for event in client.get_execution_history(executionArn=arn)["events"]:
                text = json.dumps(event, default=str)
                # A job's own input is its execution's, and so is the small result of its record.
                is_own = arn not in children and ("Comment" in text or "mostUrgent" in text)
                assert is_own or CANARY not in text, text


def test_no_answer_to_another_caller_has_it(used: Deployment) -> None:
    for path in ("/jobs", "/jobs/nobody", "/tasks/none", "/nowhere"):
        assert CANARY not in json.dumps(used.http("GET", path)[1])
