"""Named cases of a whole job on the definition: how it ends, and which functions it calls on its way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fan_out.steps import reduction
from tests.contract.asl.definition import FILE, read
from tests.contract.asl.mutants import Mutant, mutants
from tests.support import machine as machines
from tests.support.machine import (
    Call,
    CallError,
    KilledError,
    Machine,
    StoppedError,
    make_tasks,
    names,
    put_tasks,
)

# Of a job over these tasks, which are in all four segments; each is a shard or more.
TASKS = 6
CALLS = {"Planner": 1, "Lister": 4, "Manifest": 1, "Worker": 4, "Reducer": 1}
# If two leaves are many and a node has two children.
LARGE = CALLS | {"Merger": 2, "Reducer": 2}
BEFORE_THE_WORK = {"Planner": 1, "Lister": 4, "Manifest": 1}


@pytest.fixture(scope="module")
def deployment() -> Iterator[Machine]:
    with machines.deployed() as machine:
        yield machine


@pytest.fixture
def machine(deployment: Machine) -> Machine:
    deployment.wipe()
    deployment.before = lambda call: None
    return deployment


def always(function: str, error: str = "AnError") -> Callable[[Call], None]:
    """Every call of the function fails."""

    def before(call: Call) -> None:
        if call.function == function:
            raise CallError(error)

    return before


def once(function: str, error: BaseException) -> Callable[[Call], None]:
    """The first call of the function fails."""
    left = [error]

    def before(call: Call) -> None:
        if call.function == function and left:
            raise left.pop()

    return before


def first_shard(error: str) -> Callable[[Call], None]:
    def before(call: Call) -> None:
        if call.function == "Worker" and call.event["shard"]["index"] == 0:
            raise CallError(error)

    return before


@dataclass(frozen=True)
class Case:
    """`calls` by function; `error` and `record` are what the job ends with."""

    before: Callable[[Call], None] = lambda call: None
    asked: dict[str, Any] = field(default_factory=dict)
    tasks: int = TASKS
    status: str = "SUCCEEDED"
    error: str | None = None
    record: str | None = "SUCCEEDED"
    calls: dict[str, int] = field(default_factory=lambda: CALLS)
    is_large: bool = False


def failed(before: Callable[[Call], None], error: str, **calls: int) -> Case:
    return Case(before, status="FAILED", error=error, record="FAILED", calls=calls)


def retried(function: str) -> Callable[[], Case]:
    return lambda: Case(
        once(function, CallError("Lambda.TooManyRequestsException")),
        calls=CALLS | {function: CALLS[function] + 1},
    )


# Made anew for each run, because a fault that strikes once remembers that it did.
CASES: dict[str, Callable[[], Case]] = {
    "happy": Case,
    "empty": lambda: Case(tasks=0, calls=BEFORE_THE_WORK | {"Reducer": 1}),
    "refused": lambda: Case(
        asked={"shardSize": 0}, status="FAILED", error="InvalidJobError", record="FAILED",
        calls={"Planner": 1, "Reducer": 1},
    ),
    # States.ALL retries six times, in a child fourteen times.
    "caught at the Planner": lambda: failed(always("Planner"), "AnError", Planner=7, Reducer=1),
    "caught at a Lister": lambda: failed(always("Lister"), "AnError", Planner=1, Lister=28, Reducer=1),
    "caught at the Manifest": lambda: failed(
        always("Manifest"), "AnError", Planner=1, Lister=4, Manifest=7, Reducer=1
    ),
    "caught at the Shards": lambda: failed(
        always("Worker"), "ShardStuckError", **BEFORE_THE_WORK, Worker=15, Reducer=1
    ),
    "caught at the Reducer": lambda: Case(
        always("Reducer"), status="FAILED", error="RecordNotWrittenError", record=None, calls=CALLS | {"Reducer": 7}
    ),
    "not retried": lambda: failed(
        always("Manifest", "CostLimitError"), "CostLimitError", **BEFORE_THE_WORK, Reducer=1
    ),
    **{f"{function} retried": retried(function) for function in CALLS},
    "a worker killed": lambda: Case(once("Worker", KilledError()), calls=CALLS | {"Worker": 5}),
    "tolerated": lambda: Case(
        first_shard("ShardStuckError"), asked={"toleratedFailurePercentage": 50}, record="PARTIAL", calls=CALLS
    ),
    "not tolerated": lambda: failed(
        first_shard("ShardStuckError"), "ShardStuckError", **BEFORE_THE_WORK, Worker=1, Reducer=1
    ),
    "large": lambda: Case(calls=LARGE, is_large=True),
    "a Merger retried": lambda: Case(
        once("Merger", CallError("Lambda.TooManyRequestsException")), calls=LARGE | {"Merger": 3}, is_large=True
    ),
    "caught at the Nodes": lambda: Case(always("Merger"), calls=LARGE | {"Merger": 8}, is_large=True),
    "stopped": lambda: Case(
        once("Worker", StoppedError()), status="ABORTED", record=None, calls=BEFORE_THE_WORK | {"Worker": 1}
    ),
}  # fmt: skip


def run(machine: Machine, asked: dict[str, Any], definition: str | None = None, tasks: int = TASKS) -> machines.Ended:
    put_tasks(make_tasks(tasks, complete=0))
    return machine.run({"shardSize": 2, **asked}, definition=definition)


def make_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a job over these tasks need Mergers."""
    monkeypatch.setattr(reduction, "FAN_IN", 2)
    monkeypatch.setattr(reduction, "WIDE", 2)


@pytest.mark.parametrize("name", CASES)
def test_a_job_ends_as_its_case_says(machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    case = CASES[name]()
    machine.before = case.before
    if case.is_large:
        make_large(monkeypatch)
    ended = run(machine, case.asked, tasks=case.tasks)
    assert (ended.status, ended.error) == (case.status, case.error)
    assert Counter(call.function for call in machine.calls if call.function in LARGE) == case.calls
    record = json.loads(machines.stored("record.json")) if "record.json" in names() else None
    assert (record and record["status"]) == case.record
    if case.status == "SUCCEEDED":
        assert ended.output == record


# --- paths


def is_read(name: str) -> bool:
    """Whether the definition reads from the path in this field; a ResultPath is written to."""
    return name.endswith((".$", "Path", "Variable")) and not name.endswith("ResultPath")


UNSELECTED = [
    mutant
    for mutant in mutants(read(FILE.read_text()))
    if mutant.rule.startswith("the text $.") and mutant.rule.endswith(".none") and is_read(mutant.path)
]


@pytest.mark.parametrize("mutant", UNSELECTED, ids=lambda mutant: mutant.name)
def test_a_path_that_selects_nothing_ends_a_job(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    make_large(monkeypatch)
    definition = json.dumps(mutant.definition.fields)
    asked = {"shardSize": 0} if mutant.path.startswith("Failed") else {}
    ended = run(machine, asked, definition)
    assert ended.status == "FAILED"
    # A path within a child fails its shard, and so the job.
    in_child = {"ShardStuckError", "ToleranceExceededError"}
    assert ended.error in (in_child if mutant.path.startswith("Shards.") else set()) | {"States.Runtime"}
