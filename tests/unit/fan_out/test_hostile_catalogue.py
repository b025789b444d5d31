"""The catalogue of hostile kinds, each in a job of its own on one warm deployment in this process."""

from __future__ import annotations

import builtins
import gc
import hashlib
import json
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest

from fan_out.steps import process_guard
from tests.support import hostile
from tests.support import machine as machines
from tests.support.factories import task
from tests.support.hostile import CASES, COUNT, Case, document
from tests.support.kinds import hostile as kind
from tests.support.machine import Boundary, Ended, KilledError, Machine, StoppedError


class Process:
    """What a hostile kind may damage in this process, as it was at first."""

    _OWNERS = (builtins, hashlib, json, json.JSONEncoder, random, boto3, sys)
    _NAMES = ("sorted", "open", "sha256", "dumps", "loads", "default", "random", "client", "stdout")

    def __init__(self) -> None:
        self._values = [
            (owner, name, getattr(owner, name))
            for owner in self._OWNERS
            for name in self._NAMES
            if hasattr(owner, name)
        ]
        self._environment = dict(os.environ)
        self._limit, self._folder = sys.getrecursionlimit(), Path.cwd()
        self._signal = signal.getsignal(signal.SIGUSR1)

    def restore(self) -> None:
        for owner, name, value in self._values:
            if getattr(owner, name) is not value:
                setattr(owner, name, value)
        if os.environ != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.setrecursionlimit(self._limit)
        signal.signal(signal.SIGUSR1, self._signal)
        os.chdir(self._folder)
        gc.enable()
        kind.KIND.kept.clear()

    def end(self, *_: Any) -> NoReturn:
        """What the end of the process is here."""
        self.restore()
        machines.forget_processes()
        raise KilledError

    def around(self, boundary: Boundary, cross: Callable[[], Any]) -> Any:
        """Lambda's runtime ends at what is no Exception."""
        if boundary.service != "states":
            return cross()
        try:
            return cross()
        except (Exception, KilledError, StoppedError):
            raise
        except BaseException as error:
            if not isinstance(error, kind.ODD):
                raise
            self.end()


@pytest.fixture(scope="module")
def world() -> Iterator[Machine]:
    """A deployment of few tasks, whose processes stay warm from case to case."""
    patch = pytest.MonkeyPatch()
    logging.disable(logging.CRITICAL)
    with machines.deployed() as deployed:
        process = Process()
        patch.setattr("fan_out.model.plan.SEGMENTS", 1)
        patch.setattr(process_guard, "_exit", process.end)
        patch.setattr(kind, "die", process.end)
        deployed.around = process.around
        machines.put_tasks([task(number) for number in range(COUNT)])
        yield deployed
        process.restore()
    patch.undo()
    logging.disable(logging.NOTSET)


@pytest.fixture
def deployment(world: Machine) -> Iterator[Machine]:
    process = Process()
    yield world
    process.restore()


def run(machine: Machine, job_id: str, document: Any) -> tuple[Ended, Any, list[Any]]:
    """A job's end, its record and its failures."""
    ended = machine.run(document, job_id)
    there = machines.names(job_id)
    assert "record.json" in there, ended
    record = json.loads(machines.stored("record.json", job_id))
    failures = machines.stored("failures.jsonl", job_id) if "failures.jsonl" in there else b""
    return ended, record, hostile.parse_lines(failures)


def check_next(machine: Machine, job_id: str, record: Any) -> None:
    """On the same warm processes a retry does all that is left, or says why not; then another job succeeds."""
    again = f"{job_id}-again"
    ended, retried, failures = run(machine, again, {"source": {"failedIn": job_id}})
    left = record["counts"]["listed"] - record["counts"]["succeeded"]
    if left and not record["counts"]["unprocessed"]:
        hostile.check_tally(retried, failures, left)
        assert (ended.status, retried["counts"]["succeeded"]) == ("SUCCEEDED", left), retried
        return
    if not left:
        assert ended.error == "InvalidJobError"
        assert "must be a job" in str(ended.cause)
    ended, following, failures = run(machine, f"{job_id}-next", document())
    hostile.check_tally(following, failures)
    assert following["counts"]["succeeded"] == COUNT
    assert following["result"]["partial"]["tasks"] == COUNT


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_hostile_kind_ends_as_the_catalogue_says(deployment: Machine, case: Case) -> None:
    job_id = f"job-{CASES.index(case)}"
    ended, record, failures = run(deployment, job_id, document(case.act))
    hostile.check_outcome(case, record, failures)
    check_next(deployment, job_id, record)
