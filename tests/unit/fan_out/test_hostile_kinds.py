"""What the code of a kind changes or damages, in a worker and in real processes; the rest is in the catalogue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fan_out.aws.storage import JobStore
from fan_out.model.shard import Shard
from fan_out.steps.process_guard import ProcessGuard
from tests.support.factories import put_plan, put_shard, task
from tests.support.machine import ROOT, Machine
from tests.unit.fan_out.test_worker import committed, event, failures, run_to_the_end


@pytest.fixture
def shard(trial: Any, store: JobStore) -> Shard:
    """A shard of 20 tasks of a job of the kind `trial`."""
    put_plan(store, kind="trial")
    return put_shard(store, 0, [task(number) for number in range(20)])


def test_a_shared_zero_is_copied(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"tasks": 0}

    def fold(self: Any, partial: Any, *_: Any) -> Any:
        partial["tasks"] += 1
        return partial

    monkeypatch.setattr(type(trial), "zero", lambda self: shared)
    monkeypatch.setattr(type(trial), "fold", fold)
    for index in range(2):
        other = put_shard(store, index, [task(number) for number in range(20)])
        run_to_the_end(machine, other)
        assert committed(store, other)["value"] == {"tasks": 20}
    assert shared == {"tasks": 0}


def test_a_kind_may_empty_the_list_it_was_given(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process_many(self: Any, tasks: Any, job: Any) -> list[int]:
        answers = []
        while tasks:
            answers.append(len(tasks.pop().title))
        return answers

    monkeypatch.setattr(type(trial), "process_many", process_many)
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"]["succeeded"] == 20


def test_a_row_that_a_kind_changes_is_reported_as_it_was(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process_many(self: Any, rows: Any, job: Any) -> list[int]:
        for row in rows:
            row.fields.clear()
        raise ValueError("no")

    monkeypatch.setattr(type(trial), "process_many", process_many)
    put_plan(store, kind="trial")
    shard = put_shard(store, 0, [{"row": 2, "fields": {"title": "A"}}])
    machine.call("Worker", event(shard, listed=1_000_000))
    assert failures(store, shard)[0]["task"] == {"row": 2, "fields": {"title": "A"}}


# --- damage


def test_a_process_in_order_is_not_damaged() -> None:
    guard = ProcessGuard()
    os.environ["ADDED_BY_A_KIND"] = "1"
    try:
        assert guard.damage() is None
    finally:
        del os.environ["ADDED_BY_A_KIND"]


# Damages, each with the exit code of its process and what that still says.
REAL = {
    "pass": (0, "still here\n"),
    "os.close(1)": (1, ""),
    "os.closerange(0, 3)": (1, ""),
    "os.write = len": (1, ""),
    "json.loads = eval": (1, ""),
    "time.monotonic = time.time": (1, ""),
    "threading.Thread = None": (1, ""),
    "random.random = int": (1, ""),
    "boto3.client = len": (1, ""),
    "sys.modules['json'] = os": (1, ""),
    "del sys.modules['hashlib']": (1, ""),
    "botocore.client.BaseClient._make_api_call = len": (1, ""),
    "botocore.httpsession.URLLib3Session.send = len": (1, ""),
    "os.environ.clear()": (1, ""),
    # The child returns like its parent: only one of them is still there.
    "os.fork() or end_fork(pid)": (0, "still here\n"),
    "os.fork()": (0, "still here\n"),
}
SOURCE = """
import json, os, random, sys, threading, time
import boto3, botocore.client, botocore.httpsession
sys.path.insert(0, {lambdas!r})
from fan_out.steps.process_guard import ProcessGuard, end_fork

def damaged(damage):
    guard, pid = ProcessGuard(), os.getpid()
    exec(damage)
    try:
        guard.check()
    except BaseException:
        os._exit(7)
    os.write(1, b"still here\\n")
    os._exit(0)

done = {{}}
for damage in {damages!r}:
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(into, 1)
        os.closerange(3, 64)
        damaged(damage)
    os.close(into)
    said = open(out).read()
    done[damage] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
print(json.dumps(done))
"""


def test_a_damaged_process_ends_itself() -> None:
    source = SOURCE.format(lambdas=str(ROOT / "lambdas"), damages=list(REAL))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    assert {damage: tuple(found) for damage, found in json.loads(done.stdout).items()} == REAL, done.stderr


def test_a_partial_that_does_not_add_up_is_not_committed(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, tmp_path: Path
) -> None:
    def forget() -> int:
        # What code that reaches into this service might do.
        import gc

        from fan_out.steps.folding import Folding

        for each in gc.get_objects():
            if isinstance(each, Folding):
                each.progress.counts.succeeded = 1000
        return 1

    trial.on["task-00007"] = forget
    with pytest.raises(Exception, match="Shard 0 has 20 tasks, but counts"):
        machine.call("Worker", event(shard))
    assert not store.has(shard.partial)
