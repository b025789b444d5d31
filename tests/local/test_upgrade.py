"""A second deployment: what runs is not changed, what is stored stays."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fanout import local
from tests.support.deployment import Deployment, deployed
from tests.support.machine import make_tasks

TASKS = 20
VERSIONED = """
import time
from pathlib import Path

from fan_out import Kind, Params

class Gate(Params):
    path: str

class Versioned(Kind):
    name = "versioned"
    params = Gate

    def process(self, task, job):
        while not Path(job.params.path).exists():
            time.sleep(0.05)
        return {version}

    def fold(self, partial, task, result, job):
        return {{**partial, str(result): partial.get(str(result), 0) + 1}}

    def merge(self, left, right, job):
        return {{name: left.get(name, 0) + right.get(name, 0) for name in left | right}}

KIND = Versioned()
"""


@pytest.mark.soak
def test_a_deployment_changes_no_job_that_runs(tmp_path: Path) -> None:
    def write(staged: Path, version: int = 1) -> None:
        (staged / "kinds" / "versioned.py").write_text(VERSIONED.format(version=version))

    with deployed(tmp_path, write) as before:
        tasks = make_tasks(TASKS, complete=0)
        before.put_tasks(tasks)
        gate = tmp_path / "gate"
        document = {"kind": "versioned", "params": {"path": str(gate)}, "shardSize": 1, "maxConcurrency": 2}
        execution = before.start(document, "old")
        while not before.client("stepfunctions").list_map_runs(executionArn=execution)["mapRuns"]:
            time.sleep(0.1)
        write(tmp_path / "lambdas", version=2)
        after = Deployment(before.home, local.up(before.home, lambdas=tmp_path / "lambdas", tied=True, wait_scale=0.05))
        assert after.client("stepfunctions").describe_execution(executionArn=execution)["status"] == "RUNNING"
        gate.touch()
        record: dict[str, Any] = json.loads(after.wait(execution)["output"])
        assert (record["status"], record["result"]) == ("SUCCEEDED", {"1": TASKS})
        assert after.run({**document, "shardSize": 10}, "new")["result"] == {"2": TASKS}
        assert after.http("GET", "/jobs/old")[1]["result"] == {"1": TASKS}
        assert {task["id"] for task in after.tasks()} == {task["id"] for task in tasks}
