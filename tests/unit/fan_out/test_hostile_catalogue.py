"""The catalogue of hostile kinds, each in a job of its own on one warm deployment in this process."""

from __future__ import annotations

import builtins
import gc
import hashlib
import itertools
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from fan_out.aws.storage import Bucket
from fan_out.jobs import Jobs
from fan_out.model.task import Task
from fan_out.steps import process_guard
from tests.support import hostile
from tests.support import machine as machines
from tests.support.factories import task
from tests.support.hostile import CASES, COUNT, FAIL, HARMS, QUARANTINED, Case, document
from tests.support.kinds import hostile as kind
from tests.support.machine import BUCKET, Boundary, KilledError, Machine, StoppedError

numbers = itertools.count()
# Two parts at a time take no longer than 25 minutes, on a slow machine, too; on two idle cores they take 13.
SECONDS_OF_A_PART = 300
PARTS = 10


class Process:
    """What a hostile kind may damage in this process, as it was at first."""

    _OWNERS = (builtins, hashlib, json, json.JSONEncoder, random, boto3, sys, threading, time)
    _NAMES = (
        *("sorted", "open", "sha256", "dumps", "loads", "default", "random", "client", "stdout", "Thread"),
        *("time", "monotonic", "sleep"),
    )
    _MODULES = ("json", "hashlib", "kinds", "boto3")

    def __init__(self) -> None:
        self._values = [
            (owner, name, getattr(owner, name))
            for owner in self._OWNERS
            for name in self._NAMES
            if hasattr(owner, name)
        ]
        self._modules = {name: each for name, each in sys.modules.items() if name.partition(".")[0] in self._MODULES}
        self._environment = dict(os.environ)
        self._limit, self._folder = sys.getrecursionlimit(), Path.cwd()
        self._signal = signal.getsignal(signal.SIGUSR1)

    def restore(self) -> None:
        sys.modules.update(self._modules)
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
        """Lambda's runtime ends at what is no Exception, or has no text."""
        if boundary.service != "states":
            return cross()
        try:
            return cross()
        except (KilledError, StoppedError):
            raise
        except BaseException as error:
            if isinstance(error, (*kind.ODD, *kind.WITHOUT_TEXT)):
                self.end()
            raise


@pytest.fixture(scope="module")
def world() -> Iterator[Machine]:
    """A deployment whose processes stay warm from case to case."""
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


def run(machine: Machine, job_id: str, document: Any) -> tuple[Any, list[Any]]:
    """A job's record and its failures."""
    ended = machine.run(document, job_id)
    there = machines.names(job_id)
    assert "record.json" in there, ended
    record = json.loads(machines.stored("record.json", job_id))
    failures = machines.stored("failures.jsonl", job_id) if "failures.jsonl" in there else b""
    return record, hostile.parse_lines(failures)


def check_retry(machine: Machine, job_id: str, record: Any) -> None:
    """A retry does all that is left, or says why not."""
    again = f"{job_id}-again"
    retried, failures = run(machine, again, {"source": {"failedIn": job_id}})
    left = record["counts"]["listed"] - record["counts"]["succeeded"]
    if left and not record["counts"]["unprocessed"]:
        hostile.check_tally(retried, failures, left)
        assert (retried["status"], retried["counts"]["succeeded"]) == ("SUCCEEDED", left), retried
    elif not left:
        assert retried["error"]["name"] == "InvalidJobError"
        assert "must be a job" in retried["error"]["message"]


def check_next(machine: Machine, job_id: str) -> None:
    """Another job on the same warm processes succeeds."""
    following, failures = run(machine, f"{job_id}-next", document())
    hostile.check_tally(following, failures)
    assert following["counts"]["succeeded"] == COUNT
    assert following["result"]["partial"]["tasks"] == COUNT


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_hostile_kind_ends_as_the_catalogue_says(deployment: Machine, case: Case) -> None:
    job_id = f"job-{CASES.index(case)}"
    record, failures = run(deployment, job_id, document(case.act))
    hostile.check_outcome(case, record, failures)
    check_retry(deployment, job_id, record)
    check_next(deployment, job_id)


def test_the_catalogue_has_every_method_and_deed() -> None:
    assert len({str(case) for case in CASES}) == len(CASES) >= 150
    assert {case.method for case in CASES} == set(kind.METHODS)
    assert {case.deed for case in (*CASES, *HARMS)} == set(kind.DEEDS)


@pytest.mark.parametrize("is_deadly", [False, True], ids=["faults", "deaths"])
@pytest.mark.parametrize("method", kind.OF_A_TASK)
def test_hostile_tasks_of_one_job_cost_nobody_else(deployment: Machine, method: str, is_deadly: bool) -> None:
    """Every way of a method in one job: each has one task, between two innocent ones."""
    # In this process one way to die is as good as another.
    alike = list(kind.KILLS)[1:]
    cases = [
        case
        for case in CASES
        if case.method == method and (case.outcome == QUARANTINED) == is_deadly and case.deed not in alike
    ]
    deployment.wipe()
    machines.put_tasks([task(number) for number in range(3 * len(cases))])
    acts = [case.act | {"tasks": [3 * number + 1]} for number, case in enumerate(cases)]
    job = document(*acts, shardSize=6 if is_deadly else 24)
    try:
        record, failures = run(deployment, "job-1", job)
        hostile.check_tally(record, failures, 3 * len(cases))
        outcomes = {kind.number_of(Task.from_json(line["task"])): line["outcome"] for line in failures}
        expected = {FAIL: "failed", QUARANTINED: "quarantined"}
        for number, case in enumerate(cases):
            of_case = [outcomes.get(3 * number + each) for each in range(3)]
            assert of_case == [None, expected.get(str(case.outcome)), None], str(case)
        check_retry(deployment, "job-1", record)
    finally:
        deployment.wipe()
        machines.put_tasks([task(number) for number in range(COUNT)])


@pytest.mark.parametrize("method", kind.OF_A_JOB)
def test_hostile_methods_of_a_job_cost_no_other_job(deployment: Machine, method: str) -> None:
    """Some ways of each sort, one job each, and a harmless job behind them on the same warm processes."""
    sorts = (kind.RAISES, kind.PLAIN, kind.ODD_VALUES, kind.DAMAGES, kind.PRANKS)
    some = {deed for sort in sorts for deed in list(sort)[:: 3 if method == "filter" else 10]}
    some |= {"exit", "odd", "interrupt", *kind.RESULTS, *kind.FILTERS, "spoil the partial", "change the job"}
    for case in CASES:
        if case.method == method and case.deed in some:
            job_id = f"{method}-{CASES.index(case)}"
            record, failures = run(deployment, job_id, document(case.act, shardSize=COUNT))
            hostile.check_outcome(case, record, failures)
    check_retry(deployment, job_id, record)
    check_next(deployment, job_id)


@pytest.mark.parametrize("deed", ["patch json.dumps", "empty the environment"])
def test_a_filter_that_damages_the_api_ends_its_process(deployment: Machine, deed: str) -> None:
    jobs = Jobs(Bucket(BUCKET), "arn:aws:states:eu-central-1:123456789012:stateMachine:FanOut")
    with pytest.raises(KilledError):
        jobs.start(document(Case("filter", deed, None).act))


# --- at random


def scripts(most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Acts of any method at any tasks, at most `most`."""
    deeds: dict[str, list[str]] = {}
    for case in CASES:
        deeds.setdefault(case.method, []).append(case.deed)
    method = st.sampled_from([*kind.OF_A_TASK * 3, *kind.OF_A_JOB])
    tasks = st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=3).map(sorted)
    act = method.flatmap(
        lambda name: st.fixed_dictionaries(
            {"method": st.just(name), "deed": st.sampled_from(deeds[name]), "tasks": tasks}
        )
    )
    return st.lists(act, min_size=1, max_size=most)


def check_random(machine: Machine, job_id: str, acts: list[dict[str, Any]], size: int) -> Any:
    """Whatever the acts are: the tally is exact, and only tasks that they name do not succeed."""
    record, failures = run(machine, job_id, document(*acts, shardSize=size))
    hostile.check_tally(record, failures)
    methods = {act["method"] for act in acts}
    if not record["counts"]["listed"]:
        assert "filter" in methods
    elif "zero" not in methods:
        bad = {number for act in acts if act["method"] in kind.OF_A_TASK for number in act["tasks"]}
        assert {kind.number_of(Task.from_json(line["task"])) for line in failures} <= bad
        assert not record["counts"]["unprocessed"]
    return record


@settings(max_examples=20)
@given(scripts(2), st.integers(COUNT - 2, COUNT))
def test_random_faults_of_a_kind_leave_an_exact_tally(
    deployment: Machine, acts: list[dict[str, Any]], size: int
) -> None:
    process = Process()
    try:
        check_random(deployment, f"random-{next(numbers)}", acts, size)
    finally:
        process.restore()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_random_kinds_leave_an_exact_tally(deployment: Machine, part: int) -> None:
    """In parts, each with examples of its own, and bounded in time."""
    ends_at = time.monotonic() + SECONDS_OF_A_PART

    @seed(part)
    @settings(max_examples=10_000 // PARTS, derandomize=False, database=None, deadline=None)
    @given(scripts(4), st.integers(1, COUNT))
    def check(acts: list[dict[str, Any]], size: int) -> None:
        if time.monotonic() > ends_at:
            return
        process = Process()
        try:
            job_id = f"random-{next(numbers)}"
            record = check_random(deployment, job_id, acts, size)
            # These methods are not told their job: they act in a retry, too.
            if not {act["method"] for act in acts} & {"zero", "reduction", "filter"}:
                check_retry(deployment, job_id, record)
            if len(done) % 10 == 0:
                check_next(deployment, job_id)
        finally:
            process.restore()
        done.append(job_id)

    done: list[str] = []
    check()
    deployment.wipe()
    machines.put_tasks([task(number) for number in range(COUNT)])
    print(f"{len(done)} random kinds")  # noqa: T201
    assert done
