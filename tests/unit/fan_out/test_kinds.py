"""What holds for every kind. A user's own kind is covered as soon as its file is there, and is never run by a test."""

from __future__ import annotations

import copy
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kinds
from fan_out.errors import InvalidJobError
from fan_out.model import kind
from fan_out.model.job_input import read_input
from fan_out.model.kind import Failure, Job, Kind, Params
from fan_out.model.plan import make_plan
from fan_out.model.task import Row, Task
from tests.support.machine import ROOT, STARTED_AT, Machine, make_tasks, names, put_tasks

# The project's own kinds. Only of these does a test here call `process_many`.
SHIPPED = ("daily-plan", "import-tasks", "reschedule-overdue")
WITH_EXAMPLES = [name for name in kind.names() if kind.find(name).examples.results]
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
times = st.integers(0, 60 * 86400).map(lambda seconds: f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}")
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


def job_of(found: Kind[Any, Any], params: dict[str, Any] | None = None) -> Job[Any]:
    return Job(found.params.model_validate(params or {}), "job-1", STARTED_AT, f"job-1@{STARTED_AT}", write)


def items(found: Kind[Any, Any]) -> st.SearchStrategy[list[Any]]:
    return tasks if "tasks" in found.sources else rows


def results(found: Kind[Any, Any], some: list[Any], job: Job[Any]) -> list[tuple[Any, Any]]:
    """The tasks that succeed, with their results, in calls of the kind's size."""
    answers: list[Any] = []
    for start in range(0, len(some), found.batch):
        answers += found.process_many(some[start : start + found.batch], job)
    assert len(answers) == len(some)
    return [(each, answer) for each, answer in zip(some, answers, strict=True) if not isinstance(answer, Failure)]


def stored(value: Any) -> Any:
    """A value as it comes back from where it was stored."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", WITH_EXAMPLES)
@given(data=st.data())
def test_a_kind_obeys_the_laws_of_fold_and_merge(name: str, data: st.DataObject) -> None:
    found = kind.find(name)
    job = job_of(found, data.draw(st.sampled_from(found.examples.params)))
    done = [(each, stored(data.draw(st.sampled_from(found.examples.results)))) for each in data.draw(items(found))]

    # A kind may change its left argument, so each gets a copy, as it comes from where it was stored.
    def merge(left: Any, right: Any) -> Any:
        return found.merge(stored(left), stored(right), job)

    def fold(part: list[tuple[Any, Any]]) -> Any:
        value = stored(found.zero())
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
    one_by_one = stored(found.zero())
    for each in done:
        one_by_one = merge(fold([each]), one_by_one)
    assert json.dumps(one_by_one) == json.dumps(whole), "the same bytes, too"
    summary = found.summary(copy.deepcopy(whole), job)
    assert stored(summary) == summary


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if kind.find(name).lines_file])
@given(data=st.data())
def test_the_lines_of_a_kind_have_unique_printable_keys(name: str, data: st.DataObject) -> None:
    found = kind.find(name)
    job = job_of(found, data.draw(st.sampled_from(found.examples.params)))
    result = st.sampled_from(found.examples.results)
    lines = [found.line(each, stored(data.draw(result)), job) for each in data.draw(items(found))]
    keys = [line[0] for line in lines if line is not None]
    assert len(set(keys)) == len(keys)
    assert all(key.isprintable() for key in keys)
    assert all(stored(line[1]) == line[1] for line in lines if line is not None)


@pytest.mark.parametrize("name", SHIPPED)
@given(data=st.data())
def test_a_result_does_not_depend_on_the_other_tasks(name: str, data: st.DataObject) -> None:
    found = kind.find(name)
    job = job_of(found)
    some = data.draw(items(found))
    together = results(found, some, job)
    alone = [pair for each in some for pair in results(found, [each], job)]
    assert together == alone
    assert {stored(result) for _, result in together} <= set(found.examples.results)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_kind_says_what_it_takes_in_a_sentence(name: str) -> None:
    found = kind.find(name)
    for field in found.params.model_fields.values():
        assert field.description, "a refused parameter is explained by its description"
    source: Any = "tasks" if "tasks" in found.sources else {"csv": "uploads/x.csv"}
    asked = read_input({"kind": name, "source": source, "params": {"unheardOf": 1}})
    with pytest.raises(InvalidJobError, match=r"^params\.unheardOf "):
        make_plan("job-1", STARTED_AT, asked)


@pytest.mark.parametrize("name", kind.names())
def test_every_kind_can_be_loaded(name: str) -> None:
    assert kind.find(name).name == name


# --- loading


def test_a_file_in_the_folder_of_kinds_is_a_kind(trial: Any) -> None:
    assert "trial" in kind.names()
    assert kind.find("trial") is trial


def test_a_file_that_begins_with_an_underscore_is_none() -> None:
    assert not [name for name in kind.names() if name.startswith(("_", "-"))]


GOOD = """
from fan_out import Kind, Params

class Added(Kind):
    name = "added"
    params = Params
    {line}

    def process(self, task, job):
        return 1

    def zero(self):
        return {zero}

KIND = {kind}
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Kind[Any, Any]]]:
    """Loads a kind from this text of a file."""
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])

    def load(text: str) -> Kind[Any, Any]:
        kind.find.cache_clear()
        sys.modules.pop("kinds.added", None)
        importlib.invalidate_caches()
        (tmp_path / "added.py").write_text(text)
        return kind.find("added")

    yield load
    kind.find.cache_clear()
    sys.modules.pop("kinds.added", None)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("name = 'another'", "name must be"),
        ("params = dict", "params must be"),
        ("params = 5", "cannot be used: TypeError"),
        ("sources = {'tasks', 'elsewhere'}", "sources must be"),
        ("sources = frozenset()", "sources must be"),
        ("sources = 'tasks'", "sources must be"),
        ("batch = 0", "batch must be"),
        ("batch = 1.5", "batch must be"),
        ("batch = True", "batch must be"),
        ("batch = '5'", "batch must be"),
        ("writes = 1", "writes must be"),
        ("shard_size = 0", "shard_size must be"),
        ("shard_size = 10_001", "shard_size must be"),
        ("shard_size = 5.0", "shard_size must be"),
        ("lines_file = 'record.json'", "lines_file must be"),
        ("lines_file = 'shards/x'", "lines_file must be"),
        ("lines_file = '..'", "lines_file must be"),
        ("lines_file = ''", "lines_file must be"),
        ("lines_file = 7", "cannot be used: TypeError"),
        ("seconds_per_task = -1", "seconds_per_task must be"),
        ("seconds_per_task = float('nan')", "seconds_per_task must be"),
        ("seconds_per_task = 'long'", "cannot be used: TypeError"),
        ("examples = [1]", "examples must be"),
        ("process = Kind.process", "the kind must have process or process_many"),
    ],
)
def test_a_kind_that_breaks_a_rule_is_refused(added: Callable[[str], Kind[Any, Any]], line: str, rule: str) -> None:
    text = GOOD.format(line="pass", zero="{}", kind="Added()")
    with pytest.raises(InvalidJobError, match=re.escape(rule)) as refused:
        added(text.replace("KIND =", f"Added.{line}\nKIND ="))
    assert refused.value.faults[0].field == "kind"


@pytest.mark.parametrize("zero", ["{1}", "{1: 2}", "float('nan')", "1 / 0", "exit(3)", "[0]"], ids=repr)
def test_a_zero_that_is_not_plain_json_is_refused(added: Callable[[str], Kind[Any, Any]], zero: str) -> None:
    text = GOOD.format(line="pass", zero=zero, kind="Added()")
    if zero == "[0]":
        assert added(text).zero() == [0]
        return
    with pytest.raises(InvalidJobError, match=r'^kind is "added", but kinds/added\.py cannot be used'):
        added(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: no message"),
        ("class E(Exception):\n    __str__ = None\nraise E", "E: an object without a text"),
        ("KINDS = []", "AttributeError"),
        ("KIND = 5", "KIND must be an object of a class of Kind"),
        (GOOD.format(line="pass", zero="{}", kind="Added"), "KIND must be an object of a class of Kind"),
    ],
)
def test_a_file_that_is_no_kind_is_refused_by_a_sentence(
    added: Callable[[str], Kind[Any, Any]], text: str, said: str
) -> None:
    with pytest.raises(InvalidJobError, match=re.escape(said)) as refused:
        added(text)
    assert str(refused.value).startswith('kind is "added", but ')
    assert refused.value.faults[0].field == "kind"


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("exit(3)", "SystemExit: 3"),
        ("None", "ValueError: Input should be"),
        ("[]", "ValueError: Input should be"),
        ("{'colour': 'red'}", "ValueError: colour: "),
        ("{'isComplete': 'no'}", "ValueError: isComplete: "),
        ("{'dueBefore': 'soon'}", "ValueError: dueBefore: "),
    ],
)
def test_a_kind_whose_filter_fails_is_refused(added: Callable[[str], Kind[Any, Any]], gives: str, said: str) -> None:
    added(GOOD.format(line=f"filter = lambda *_: {gives}", zero="{}", kind="Added()"))
    for document in ({"kind": "added"}, {"kind": "added", "filter": {"dueBefore": STARTED_AT, "isComplete": True}}):
        with pytest.raises(InvalidJobError, match=re.escape(f"its filter cannot be used: {said}")) as refused:
            make_plan("job-1", STARTED_AT, read_input(document))
        assert str(refused.value).startswith('kind is "added", but ')
        assert (refused.value.status, refused.value.faults[0].field) == (400, "kind")


def test_a_kinds_file_has_no_name_of_a_jobs_own_objects(machine: Machine, trial: Any) -> None:
    put_tasks(make_tasks(30))
    trial.on.update({task["id"]: Failure("BadError", "no") for task in make_tasks(30)})
    machine.run({"kind": "trial", "shardSize": 2})
    trial.on.clear()
    machine.run({"kind": "trial"}, "job-2")
    plain = {name for job in ("job-1", "job-2") for name in names(job) if "/" not in name}
    assert plain - {trial.lines_file} <= kind.RESERVED
    assert {"record.json", "manifest.jsonl", "failures.jsonl"} <= plain


def test_a_kind_imports_what_it_needs_without_the_aws_sdk() -> None:
    code = "import sys; from fan_out import *; import kinds.daily_plan, kinds.import_tasks, fan_out.model.shard; "
    code += "print([name for name in sys.modules if name.startswith(('boto', 'aws_lambda', 'fan_out.aws'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "lambdas", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_job_for_tests_takes_parameters_alone() -> None:
    job = Job(params=Params())
    assert job.effect_key(Row(2, {})) == "test/row-2"
    assert job.write([{"op": "create", "id": "a"}]) == [{"id": "a", "outcome": "created"}]
