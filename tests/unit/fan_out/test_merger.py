"""Mergers make the nodes of a large job's levels at the same time; whatever becomes of them, the answer is the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_out.aws.storage import JobStore
from fan_out.model.documents import to_shape
from fan_out.model.shard import Manifest, Node, Shard
from fan_out.steps import reduction
from fan_out.steps.finalizing import finalize
from fan_out.steps.kind_merger import MARKER
from fan_out.steps.reduction import Cursor, Reduction, Span
from tests.support.context import Context
from tests.support.factories import plan, put_manifest, task
from tests.support.machine import (
    DEFINITION,
    STARTED_AT,
    Call,
    CallError,
    Ended,
    KilledError,
    Machine,
    TimedOutError,
    names,
    put_tasks,
)
from tests.unit.fan_out.conftest import reset
from tests.unit.fan_out.test_reducer import outputs, put_job

# A task each is a shard; five fail.
COUNT, FAILING = 40, (3, 14, 15, 26, 39)
# The nodes of each level below the root.
LEVELS = {0: 20, 1: 10, 2: 5, 3: 3, 4: 2}
NODES, ASKED = sum(LEVELS.values()), len(LEVELS) + 1
DOCUMENT = {"kind": "trial", "shardSize": 1, "toleratedFailurePercentage": 50}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "FAN_IN", 2)
    monkeypatch.setattr(reduction, "WIDE", 2)


def run(machine: Machine, trial: Any, **asked: Any) -> Ended:
    put_tasks([task(number) for number in range(COUNT)])
    trial.on.update({f"task-{number:05d}": ValueError(f"bad {number}") for number in FAILING})
    return machine.run(DOCUMENT | asked)


def answer(ended: Ended, store: JobStore) -> tuple[Any, ...]:
    """All that a job comes to, but its times."""
    record = {name: value for name, value in store.require("record.json").items() if name != "endedAt"}
    return ended.status, record, outputs(store)


@pytest.fixture
def expected(machine: Machine, store: JobStore, trial: Any) -> tuple[Any, ...]:
    """What the job comes to when the Reducer makes each node itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduction, "WIDE", COUNT)
        alone = answer(run(machine, trial), store)
    assert all(alone[2].values())
    assert called(machine) == {"Reducer": 1}
    reset(machine)
    return alone


def called(machine: Machine) -> dict[str, int]:
    return dict(Counter(call.function for call in machine.calls if call.function in ("Merger", "Reducer")))


def asked(machine: Machine) -> list[int]:
    """The levels of the Mergers' calls, in their order."""
    return [call.event["span"]["level"] for call in machine.calls if call.function == "Merger"]


def test_mergers_give_the_same_bytes_as_a_reducer_alone(
    machine: Machine, store: JobStore, trial: Any, expected: Any
) -> None:
    assert answer(run(machine, trial), store) == expected
    assert called(machine) == {"Merger": NODES, "Reducer": ASKED}
    assert asked(machine) == sorted(asked(machine))
    # Each of them made its nodes, and the Reducer the root alone.
    assert MARKER in names()
    assert store.require(MARKER) == {"step": "", "deaths": 0}


@pytest.mark.parametrize(("shards", "mergers"), [(15 * 64, 0), (15 * 64 + 1, 16)])
def test_only_a_large_job_has_mergers(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch, shards: int, mergers: int
) -> None:
    monkeypatch.undo()
    put_job(store, 1)
    put_manifest(store, [Shard(number, f"shards/{number}", 3, 9) for number in range(shards)])
    large = Reduction(store, plan(kind="trial"), store.require("manifest.json", Manifest))
    reached = large.run(Cursor(), lambda _: True, is_shared=True)
    assert isinstance(reached, Cursor)
    assert len(reached.spans or []) == mergers
    # Who has no Mergers is not given any.
    assert large.run(Cursor(), lambda _: True) == Cursor(0, 1, offset_of(store, 64))


def offset_of(store: JobStore, line: int) -> int:
    return [0, *(each.end for each in store.lines("manifest.jsonl"))][line]


@settings(max_examples=30)
@given(shards=st.integers(3, 400), fan_in=st.integers(2, 5), spans=st.integers(1, 30), level=st.integers(0, 2))
def test_spans_have_each_node_of_a_level_once(
    machine: Machine, store: JobStore, shards: int, fan_in: int, spans: int, level: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduction, "FAN_IN", fan_in)
        patch.setattr(reduction, "WIDE", 1)
        patch.setattr(reduction, "SPANS", spans)
        put_manifest(store, [Shard(number, f"shards/{number}", 1, 9) for number in range(shards)])
        wide = Reduction(store, plan(), store.require("manifest.json", Manifest))
        reached = wide.run(Cursor(), lambda _: False, is_shared=True)
        if level and wide.width(level - 1) > fan_in:
            reached = wide.run(Cursor(level), lambda _: False, is_shared=True)
        assert isinstance(reached, Cursor)
        assert reached.spans
        assert [number for span in reached.spans for number in range(span.first, span.last)] == list(
            range(wide.width(reached.level))
        )
        assert len(reached.spans) <= spans
        assert {span.level for span in reached.spans} == {reached.level}
        for span in reached.spans:
            assert span.offset == (offset_of(store, span.first * fan_in) if reached.level == 0 else 0)


def test_the_most_spans_are_a_small_answer(machine: Machine, store: JobStore) -> None:
    put_manifest(store, [Shard(number, f"shards/{number}", 1, 9) for number in range(3000)])
    wide = Reduction(store, plan(), store.require("manifest.json", Manifest))
    reached = wide.run(Cursor(), lambda _: False, is_shared=True)
    assert isinstance(reached, Cursor)
    assert len(reached.spans or []) == reduction.SPANS
    assert len(json.dumps(asdict(reached))) < 2 * 1024


def test_a_late_merger_goes_on_where_it_was(
    machine: Machine, store: JobStore, trial: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "SPANS", 2)
    machine.contexts["Merger"] = lambda: Context(iter([900_000, *[1] * 99]).__next__)
    assert answer(run(machine, trial), store) == expected
    # A node a call, and one that sees that a span is at its end.
    assert called(machine) == {"Merger": NODES + 2 * len(LEVELS), "Reducer": ASKED}


def fail_(error: BaseException, at: Callable[[Call], bool]) -> Callable[[Call], None]:
    def before(call: Call) -> None:
        if call.function == "Merger" and at(call):
            raise error

    return before


ERRORS = {
    "its process ends": KilledError(),
    "its time is over": TimedOutError(),
    "Lambda has no room": CallError("Lambda.TooManyRequestsException"),
    "S3 throttles it": CallError("ThrottledError"),
    "an object is lost": CallError("AccountingError"),
    "the call is lost": CallError("States.Timeout"),
}
PLACES: dict[str, Callable[[Call], bool]] = {
    "each": lambda call: True,
    "a few": lambda call: call.event["span"]["first"] % 7 == 3,
    "on level 1": lambda call: call.event["span"]["level"] == 1,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", ERRORS)
def test_the_reducer_makes_what_mergers_left(
    machine: Machine, store: JobStore, trial: Any, expected: Any, error: str, place: str
) -> None:
    machine.before = fail_(ERRORS[error], PLACES[place])
    assert answer(run(machine, trial), store) == expected
    assert called(machine)["Reducer"] == ASKED


@pytest.mark.parametrize("place", PLACES)
def test_a_late_reducer_asks_for_each_level_once(
    machine: Machine, store: JobStore, trial: Any, expected: Any, place: str
) -> None:
    machine.before = fail_(CallError("AccountingError"), PLACES[place])
    machine.contexts["Reducer"] = lambda: Context(iter([900_000, *[1] * 99]).__next__)
    assert answer(run(machine, trial), store) == expected
    assert Counter(asked(machine)) == LEVELS


def test_a_level_is_given_to_mergers_once(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 5)
    large = Reduction(store, plan(kind="trial"), store.require("manifest.json", Manifest))
    first = large.run(Cursor(), lambda _: False, is_shared=True)
    assert isinstance(first, Cursor)
    assert first.spans == [Span(0, 0, 1, 0), Span(0, 1, 2, offset_of(store, 2)), Span(0, 2, 3, offset_of(store, 4))]
    again = large.run(to_shape(asdict(first), Cursor), lambda _: False, is_shared=True)
    assert isinstance(again, Cursor)
    assert (again.level, len(again.spans or [])) == (1, 2)
    # Of which none was made.
    assert isinstance(large.run(to_shape(asdict(again), Cursor), lambda _: False, is_shared=True), Node)


def test_a_damaged_node_of_a_merger_is_made_again(machine: Machine, store: JobStore, trial: Any, expected: Any) -> None:
    def after(call: Call, made: Any) -> Any:
        if call.function == "Merger" and call.event["span"]["first"] == 2:
            name = f"reduce/{call.event['span']['level']}-0000002.json"
            store.bucket.put(store.key(name), b"{}")
        return made

    machine.after = after
    assert answer(run(machine, trial), store) == expected


@pytest.mark.parametrize("is_refused", [False, True])
def test_an_error_of_the_job_outlives_the_mergers_own(
    machine: Machine, store: JobStore, trial: Any, is_refused: bool
) -> None:
    """What is caught at the nodes neither replaces nor hides what was caught at the shards."""
    put_job(store, 9, missing=(4,), toleratedFailurePercentage=100)
    if is_refused:
        machine.before = fail_(CallError("AccountingError", "a Merger found nothing"), PLACES["each"])
    definition = json.dumps(json.loads(DEFINITION.read_text()) | {"StartAt": "Reducer"})
    caught = {"Error": "States.ItemReaderFailed", "Cause": "S3 said no"}
    ended = machine.run({"jobId": "job-1", "error": caught}, definition=definition)
    error = store.require("record.json")["error"]
    assert ended.error == error["name"] == "States.ItemReaderFailed"
    assert error["message"].startswith("S3 said no 3 of 27 tasks did not succeed")
    assert called(machine)["Merger"]


def test_a_merge_that_kills_everyone_costs_the_result(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> Any:
        raise KilledError

    monkeypatch.setattr(type(trial), "merge", kill)
    ended = run(machine, trial)
    record = store.require("record.json")
    assert ended.error == record["error"]["name"] == "KindFailedError"
    assert f"ended the reducer's process {reduction.DEADLY} times" in record["error"]["message"]
    assert (record["counts"]["succeeded"], record["counts"]["failed"]) == (COUNT - len(FAILING), len(FAILING))
    # The Mergers of level 0 are called four times each. Those above find a fault in each node, or that the kind kills.
    assert Counter(asked(machine)) == LEVELS | {0: 4 * LEVELS[0]}
    assert called(machine)["Reducer"] == ASKED + reduction.DEADLY


def test_a_merge_that_kills_mergers_alone_costs_nothing(
    machine: Machine, store: JobStore, trial: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = type(trial).merge

    def kill(*arguments: Any) -> Any:
        if machine._running[-1].function == "Merger":
            raise KilledError
        return merge(*arguments)

    monkeypatch.setattr(type(trial), "merge", kill)
    assert answer(run(machine, trial), store) == expected


@pytest.mark.parametrize("is_dead", [False, True])
def test_mergers_leave_the_deaths_of_a_reducer_alone(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch, is_dead: bool
) -> None:
    """A Merger may still run beside the Reducer that makes what its Map left."""
    put_job(store, 4)
    mark = {"step": f"{reduction.DEADLY} reduce/0-0000001.json", "deaths": 3}
    store.put(MARKER, mark)

    def kill(*_: Any) -> Any:
        raise KilledError

    event = {"jobId": "job-1", "span": asdict(Span(0, 0, 1, 0))}
    if is_dead:
        monkeypatch.setattr(type(trial), "merge", kill)
        with pytest.raises(KilledError):
            machine.call("Merger", event)
    else:
        assert machine.call("Merger", event) == {"jobId": "job-1", "span": None, "done": True}
    assert store.require(MARKER) == mark


def test_the_finalizer_needs_no_mergers(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 9, missing=(4,))
    error = {"name": "JobStoppedError", "message": "The job was stopped."}
    record = finalize(store, STARTED_AT, Cursor(), lambda _: False, error=error, status="STOPPED")
    assert not isinstance(record, Cursor)
    assert (record["status"], record["counts"]["succeeded"], record["counts"]["unprocessed"]) == ("STOPPED", 24, 3)


def test_a_merger_that_outlives_its_job_changes_nothing(
    machine: Machine, store: JobStore, trial: Any, expected: Any
) -> None:
    assert answer(run(machine, trial), store) == expected
    for event in [call.event for call in machine.calls if call.function == "Merger"]:
        assert machine.call("Merger", event)["done"] is True
    assert answer(machine.run(DOCUMENT), store)[1:] == expected[1:]
