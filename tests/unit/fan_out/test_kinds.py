"""The laws that every kind obeys. A user's own kind is covered as soon as its file is there."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_out.errors import InvalidJobError
from fan_out.model import kind
from fan_out.model.job_input import read_input
from fan_out.model.kind import Failure, Job, Kind, Params
from fan_out.model.plan import make_plan
from fan_out.model.task import Row, Task, from_json
from tests.support.machine import ROOT, STARTED_AT

# Kinds that go out to users; those that only tests need make no promise but the laws.
DEPLOYED = [name for name in kind.names() if (ROOT / f"lambdas/kinds/{name.replace('-', '_')}.py").exists()]
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
times = st.integers(0, 60 * 86400).map(
    lambda seconds: f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
tasks = st.lists(
    st.fixed_dictionaries(
        {
            "title": words,
            "isComplete": st.just(False),
            "createdAt": times,
            "updatedAt": times,
            "version": st.integers(1, 1000),
        },
        optional={"detail": words, "dueAt": times},
    ),
    max_size=12,
).map(lambda found: [Task.from_json(each | {"id": f"task-{n}"}) for n, each in enumerate(found)])
rows = st.lists(
    st.fixed_dictionaries(
        {"title": words},
        optional={"detail": words, "dueAt": times, "isComplete": st.sampled_from(["true", "no", "?"])},
    ),
    max_size=12,
).map(lambda found: [Row(number + 2, fields) for number, fields in enumerate(found)])


def write(writes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Task Service, as far as a kind sees it: every outcome that it may answer, told by the id."""
    outcomes = {
        "create": ["created", "unchanged", "invalid", "conflict"],
        "update": ["updated", "unchanged", "missing", "conflict"],
    }
    return [
        {"id": each["id"], "outcome": of[sum(map(ord, each["id"])) % len(of)]}
        for each in writes
        for of in [outcomes[each["op"]]]
    ]


def job_of(found: Kind[Any, Any]) -> Job[Any]:
    source: Any = "tasks" if "tasks" in found.sources else {"csv": "uploads/x.csv"}
    return make_plan("job-1", STARTED_AT, read_input({"kind": found.name, "source": source})).job(write)


def results(found: Kind[Any, Any], some: list[Any], job: Job[Any]) -> list[tuple[Any, Any]]:
    """The tasks that succeed, with their results, in calls of the kind's size."""
    answers: list[Any] = []
    for start in range(0, len(some), found.batch):
        answers += found.process_many(some[start : start + found.batch], job)
    assert len(answers) == len(some)
    return [
        (each, answer) for each, answer in zip(some, answers, strict=True) if not isinstance(answer, Failure)
    ]


def stored(value: Any) -> Any:
    """A value as it comes back from where it was stored."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", kind.names())
@given(data=st.data())
def test_a_kind_folds_to_the_same_in_any_order_and_any_tree(name: str, data: st.DataObject) -> None:
    found = kind.find(name)
    job = job_of(found)
    some = data.draw(tasks if "tasks" in found.sources else rows)
    done = results(found, some, job)

    # A kind may change its left argument, so each gets a copy, as it comes from where it was stored.
    def merge(left: Any, right: Any) -> Any:
        return found.merge(stored(left), stored(right), job)

    def fold(part: list[tuple[Any, Any]]) -> Any:
        value = found.zero()
        for each, result in part:
            value = found.fold(value, each, stored(result), job)
        return value

    whole = fold(done)
    cut, other = sorted(data.draw(st.lists(st.integers(0, len(done)), min_size=2, max_size=2)))
    a, b, c = fold(done[:cut]), fold(done[cut:other]), fold(done[other:])
    assert stored(whole) == whole, "a partial is a plain JSON value"
    assert merge(a, merge(b, c)) == merge(merge(a, b), c) == whole
    assert merge(a, b) == merge(b, a)
    assert merge(found.zero(), whole) == merge(whole, found.zero()) == whole
    assert fold(data.draw(st.permutations(done))) == whole
    one_by_one = found.zero()
    for each in done:
        one_by_one = merge(fold([each]), one_by_one)
    assert json.dumps(one_by_one) == json.dumps(whole), "the same bytes, too"
    summary = found.summary(copy.deepcopy(whole), job)
    assert stored(summary) == summary


@pytest.mark.parametrize("name", kind.names())
@given(data=st.data())
def test_the_lines_of_a_kind_have_unique_printable_keys(name: str, data: st.DataObject) -> None:
    found = kind.find(name)
    job = job_of(found)
    some = data.draw(tasks if "tasks" in found.sources else rows)
    lines = [found.line(each, result, job) for each, result in results(found, some, job)]
    if found.lines_file is None:
        assert lines == [None] * len(lines)
        return
    keys = [line[0] for line in lines if line is not None]
    assert len(set(keys)) == len(keys)
    assert all(key.isprintable() for key in keys)
    assert all(stored(line[1]) == line[1] for line in lines if line is not None)


@pytest.mark.parametrize("name", DEPLOYED)
@given(data=st.data())
def test_the_result_of_a_task_does_not_depend_on_the_tasks_of_its_call(
    name: str, data: st.DataObject
) -> None:
    found = kind.find(name)
    job = job_of(found)
    some = data.draw(tasks if "tasks" in found.sources else rows)
    together = results(found, some, job)
    alone = [pair for each in some for pair in results(found, [each], job)]
    assert together == alone


@pytest.mark.parametrize("name", DEPLOYED)
def test_a_kind_says_what_it_takes_in_a_sentence(name: str) -> None:
    found = kind.find(name)
    assert issubclass(found.params, Params)
    assert found.sources <= {"tasks", "csv"}
    assert found.batch >= 1
    for field in found.params.model_fields.values():
        assert field.description, "a refused parameter is explained by its description"
    source: Any = "tasks" if "tasks" in found.sources else {"csv": "uploads/x.csv"}
    asked = read_input({"kind": name, "source": source, "params": {"unheardOf": 1}})
    with pytest.raises(InvalidJobError, match=r"^params\.unheardOf "):
        make_plan("job-1", STARTED_AT, asked)


def test_a_file_in_the_folder_of_kinds_is_a_kind(trial: Any) -> None:
    assert "trial" in kind.names()
    assert kind.find("trial") is trial


def test_a_file_that_begins_with_an_underscore_is_none() -> None:
    assert not [name for name in kind.names() if name.startswith(("_", "-"))]


def test_a_file_that_does_not_define_its_kind_is_a_fault_of_the_deployment(
    trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(trial), "name", "another")
    kind.find.cache_clear()
    with pytest.raises(RuntimeError, match=r"kinds/trial\.py must define KIND"):
        kind.find("trial")


class Bare(Kind[Params, Task]):
    name = "bare"
    params = Params


def test_a_kind_without_any_work_says_what_it_lacks() -> None:
    each = from_json(
        {"id": "a", "title": "A", "isComplete": False, "createdAt": "", "updatedAt": "", "version": 1}
    )
    call = partial(Bare().process_many, [each], job_of(kind.find("daily-plan")))  # type: ignore[list-item]
    with pytest.raises(NotImplementedError, match="neither process nor process_many"):
        call()
