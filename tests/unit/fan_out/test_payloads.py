"""What travels between the states, and how often they are entered, at any number of tasks."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from ministack.services import stepfunctions as interpreter

from tests.support.factories import task
from tests.support.machine import Machine, put_tasks
from tests.unit.fan_out.conftest import reset

# Step Functions takes 256 KiB between two states; this is what we keep to.
LARGEST = 32 * 1024
TITLE = "an unmistakable title"


@dataclass
class Payloads:
    """The inputs and outputs of every state, as text, in the order of the execution."""

    of_parent: list[tuple[str, str, str]] = field(default_factory=list)
    of_children: list[tuple[str, str, str]] = field(default_factory=list)


@pytest.fixture
def payloads(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Payloads:
    seen = Payloads()

    def watched(name: str) -> None:
        real = getattr(interpreter, name)

        def execute(state: Any, given: Any, *rest: Any) -> Any:
            answer, following = real(state, given, *rest)
            context = rest[-1]
            is_child = "Map" in context or "-child-" in context["Execution"]["Name"]
            into = seen.of_children if is_child else seen.of_parent
            # A map's name is told by its label; a state that ran others is no longer the current one.
            into.append((state.get("Comment", context["State"]["Name"]), json.dumps(given), json.dumps(answer)))
            return answer, following

        monkeypatch.setattr(interpreter, name, execute)

    for name in ("_execute_task", "_execute_map", "_execute_choice"):
        watched(name)
    return seen


def run(machine: Machine, payloads: Payloads, shards: int) -> tuple[Payloads, Counter[str]]:
    reset(machine)
    payloads.of_parent.clear()
    payloads.of_children.clear()
    put_tasks([task(number, title=f"{TITLE} {number}") for number in range(shards)])
    ended = machine.run({"shardSize": 1, "maxConcurrency": 5, "params": {"top": 0}})
    assert ended.output["shards"]["done"] == shards
    return (
        Payloads(list(payloads.of_parent), list(payloads.of_children)),
        Counter(call.function for call in machine.calls),
    )


def shape(text: str) -> str:
    """A payload without the digits of its numbers and times."""
    return re.sub(r"\d+", "0", text)


def test_payloads_are_the_same_for_any_number_of_shards(machine: Machine, payloads: Payloads) -> None:
    few, calls_of_few = run(machine, payloads, 10)
    many, calls_of_many = run(machine, payloads, 200)
    assert [(name, shape(given), shape(answer)) for name, given, answer in few.of_parent] == [
        (name, shape(given), shape(answer)) for name, given, answer in many.of_parent
    ]
    # Planner, Segments, Manifest, AnyShards, Shards, Reducer, MoreToReduce, Outcome
    assert len(few.of_parent) == 8
    assert len(many.of_children) - len(few.of_children) == 2 * 190
    for _, given, answer in [*many.of_parent, *many.of_children]:
        assert max(len(given), len(answer)) < 2 * 1024 < LARGEST
        assert TITLE not in given + answer
    assert calls_of_many.pop("Worker") == 200
    assert calls_of_few.pop("Worker") == 10
    assert calls_of_many == calls_of_few


def test_a_record_of_the_most_urgent_tasks_keeps_to_the_bound(machine: Machine, payloads: Payloads) -> None:
    put_tasks([task(number, title="🐛" * 100) for number in range(30)])
    machine.run({"shardSize": 3, "params": {"top": 10}})
    assert max(len(text) for _, *both in payloads.of_parent for text in both) < LARGEST


def test_a_job_of_failures_keeps_to_the_bound_too(machine: Machine, trial: Any, payloads: Payloads) -> None:
    put_tasks([task(number) for number in range(60)])
    trial.on.update({f"task-{number:05d}": ValueError("x" * 10_000 + str(number)) for number in range(60)})
    ended = machine.run({"kind": "trial", "shardSize": 20, "toleratedFailurePercentage": 20})
    assert ended.error == "ToleranceExceededError"
    assert max(len(text) for _, *both in payloads.of_parent for text in both) < LARGEST
    assert len(str(ended.cause)) < 32_768
