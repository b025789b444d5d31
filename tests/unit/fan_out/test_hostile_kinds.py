"""Whatever the code of a kind raises, returns or damages costs its task, and never the shard or a later job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fan_out import Failure, RetryableError, TaskError
from fan_out.aws.storage import JobStore
from fan_out.model.shard import Shard
from fan_out.steps import process_guard
from fan_out.steps.process_guard import ProcessGuard
from tests.support.factories import put_plan, put_shard, task
from tests.support.machine import ROOT, KilledError, Machine
from tests.unit.fan_out.test_worker import committed, event, failures, run_to_the_end


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class NoneTextError(Exception):
    __str__ = None  # type: ignore[assignment]


class BareTaskError(TaskError):
    def __init__(self) -> None:
        pass


class NoTextThrottleError(RetryableError):
    __str__ = NoTextError.__str__


class NoText:
    def __str__(self) -> str:
        raise NoTextError

    def __bool__(self) -> bool:
        raise NoTextError

    def __eq__(self, other: object) -> bool:
        raise NoTextError

    __hash__ = None  # type: ignore[assignment]


class NoClass:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise NoTextError


# By name: pytest would look at the objects.
RAISED: dict[str, BaseException] = {
    "no text": NoTextError(),
    "text is None": NoneTextError(),
    "bare TaskError": BareTaskError(),
    "throttle without a text": NoTextThrottleError(),
    "recursion": RecursionError(),
    "key": KeyError(),
    "objects for texts": TaskError(NoText(), NoText()),  # type: ignore[arg-type]
    "JSON for texts": TaskError({"a": 1}, ["b"]),  # type: ignore[arg-type]
    "lone surrogates": TaskError("Lone\ud800", "\ud800"),
    "exit": SystemExit(NoText()),
    "interrupt": KeyboardInterrupt(),
    "generator": GeneratorExit(),
    "group": ExceptionGroup("many", [NoTextError()]),
}
ANSWERED: dict[str, Any] = {
    "failure of objects": Failure(NoText(), NoText()),  # type: ignore[arg-type]
    "failure of numbers": Failure(1, None),  # type: ignore[arg-type]
    "failure with an object": Failure("A", "b", retry=NoText()),  # type: ignore[arg-type]
    "an object without a text": NoText(),
    "an object without a class": NoClass(),
    "a set": {1, 2},
    "an object": object(),
    "not a number": float("nan"),
    "nested deep": json.loads("[" * 900 + "]" * 900),
}


@pytest.fixture
def shard(trial: Any, store: JobStore) -> Shard:
    """A shard of 20 tasks of a job of the kind `trial`."""
    put_plan(store, kind="trial")
    return put_shard(store, 0, [task(number) for number in range(20)])


def check_only_fails(store: JobStore, shard: Shard, number: int = 7) -> None:
    """Only this task failed, with a name and a text."""
    assert committed(store, shard)["counts"] == {
        "succeeded": shard.count - 1, "failed": 1, "quarantined": 0, "unprocessed": 0,
    }  # fmt: skip
    (line,) = failures(store, shard)
    assert line["task"]["id"] == f"task-{number:05d}"
    assert line["error"]["name"]
    assert line["error"]["message"]


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("where", ["process_many", "line", "fold"])
def test_whatever_is_raised_fails_its_task_alone(
    machine: Machine,
    store: JobStore,
    shard: Shard,
    trial: Any,
    monkeypatch: pytest.MonkeyPatch,
    raised: str,
    where: str,
) -> None:
    if where == "process_many":
        trial.on["task-00007"] = lambda: RAISED[raised]
    else:
        good = getattr(type(trial), where)

        def bad(self: Any, *arguments: Any) -> Any:
            each = arguments[0] if where == "line" else arguments[1]
            if each.id == "task-00007":
                raise RAISED[raised]
            return good(self, *arguments)

        monkeypatch.setattr(type(trial), where, bad)
    assert run_to_the_end(machine, shard) == (1, 0)
    check_only_fails(store, shard)


@pytest.mark.parametrize("answer", ANSWERED)
def test_whatever_is_returned_fails_its_task_alone(
    machine: Machine,
    store: JobStore,
    shard: Shard,
    trial: Any,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    def fold(self: Any, partial: Any, task: Any, result: Any, job: Any) -> Any:
        return partial | {task.id: result}

    monkeypatch.setattr(type(trial), "fold", fold)
    trial.on["task-00007"] = lambda: ANSWERED[answer]
    assert run_to_the_end(machine, shard) == (1, 0)
    check_only_fails(store, shard)


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


def clear_environment() -> None:
    os.environ.clear()


def patch_json() -> None:
    json.dumps = lambda *_, **__: "{}"


def patch_encoder() -> None:
    json.JSONEncoder.default = lambda self, value: str(value)  # type: ignore[method-assign,assignment]


def patch_builtins() -> None:
    import builtins

    builtins.sorted = reversed  # type: ignore[assignment]


def lower_limit() -> None:
    sys.setrecursionlimit(sys.getrecursionlimit() - 1)


DAMAGES = [clear_environment, patch_json, patch_encoder, patch_builtins, lower_limit]


@pytest.fixture
def undamaged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes back what DAMAGES do when a process ends, and after the test."""
    import builtins

    environment, limit = dict(os.environ), sys.getrecursionlimit()
    originals = (json.dumps, json.JSONEncoder.default, builtins.sorted)

    def restore(code: int = 0) -> None:
        json.dumps, json.JSONEncoder.default, builtins.sorted = originals  # type: ignore[method-assign]
        os.environ.update(environment)
        sys.setrecursionlimit(limit)

    def end(code: int) -> None:
        restore()
        raise KilledError

    monkeypatch.setattr(process_guard, "_exit", end)
    yield
    restore()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_task_that_damages_its_process_is_quarantined(
    machine: Machine, store: JobStore, shard: Shard, trial: Any, undamaged: None, damage: Callable[[], None]
) -> None:
    def work() -> int:
        damage()
        return 1

    trial.on["task-00007"] = work
    run_to_the_end(machine, shard)
    assert committed(store, shard)["counts"] == {
        "succeeded": 19, "failed": 0, "quarantined": 1, "unprocessed": 0,
    }  # fmt: skip
    assert failures(store, shard)[0]["task"]["id"] == "task-00007"


def test_a_process_in_order_is_not_damaged() -> None:
    guard = ProcessGuard()
    os.environ["ADDED_BY_A_KIND"] = "1"
    try:
        assert guard.damage() is None
    finally:
        del os.environ["ADDED_BY_A_KIND"]


REAL = """
import os, sys
sys.path.insert(0, {lambdas!r})
from fan_out.steps.process_guard import ProcessGuard, end_fork
guard, pid = ProcessGuard(), os.getpid()
{damage}
guard.check()
print("still here")
"""


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        ("pass", 0, "still here\n"),
        ("os.close(1)", 1, ""),
        ("os.closerange(0, 3)", 1, ""),
        ("import json; json.loads = eval", 1, ""),
        ("os.environ.clear()", 1, ""),
        # The child returns like its parent: only one of them is still there.
        ("os.fork() or end_fork(pid)", 0, "still here\n"),
        ("os.fork()", 0, "still here\n"),
    ],
)
def test_a_damaged_process_ends_itself(damage: str, code: int, said: str) -> None:
    source = REAL.format(lambdas=str(ROOT / "lambdas"), damage=damage)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (code, said), done.stderr


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
