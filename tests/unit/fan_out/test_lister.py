from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from fan_out import sources
from fan_out.aws import task_service
from fan_out.aws.storage import Bucket, JobStore, Line
from fan_out.errors import (
    AccountingError,
    InvalidJobError,
    ServiceUnavailableError,
    TaskServiceError,
    ThrottledError,
)
from fan_out.model.documents import encode
from fan_out.model.job_input import read_input
from fan_out.model.plan import SEGMENTS, RetrySource, make_plan
from fan_out.sources import Batch, csv
from fan_out.steps import listing
from fan_out.steps.listing import list_step
from tests.support.context import Context
from tests.support.factories import plan, put_plan, task
from tests.support.machine import Boundary, Call, Machine, make_tasks, names, put_tasks

LATE = 5_000


class Late(Context):
    """A call that has no time left by the first time it looks."""

    def __init__(self) -> None:
        answers = itertools.chain([900_000], itertools.repeat(LATE))
        super().__init__(lambda: next(answers))


Step = Callable[..., Any]


@pytest.fixture
def step(machine: Machine) -> Callable[..., Any]:
    """One call of the lister for job-1."""

    def call(segment: int = 0, number: int = 0, cursor: str | None = None, *, is_late: bool = False) -> Any:
        machine.contexts["Lister"] = Late if is_late else Context
        return machine.call("Lister", {"jobId": "job-1", "segment": segment, "step": number, "cursor": cursor})

    return call


def listed(store: JobStore, segment: int = 0, number: int = 0) -> list[dict[str, Any]]:
    """The tasks of a step's shards, in order."""
    part = store.require(listing.part_name(segment, number))
    return [json.loads(line.text) for shard in part["shards"] for line in store.bucket.lines(shard["key"])]


def put_rows(store: JobStore, count: int) -> None:
    store.bucket.put("uploads/x.csv", b"title\n" + b"".join(b"Row %d\n" % n for n in range(count)))
    put_plan(store, kind="import-tasks", source={"csv": "uploads/x.csv"}, shardSize=4)


def test_the_segments_together_list_every_open_task_once(step: Step, machine: Machine, store: JobStore) -> None:
    tasks = make_tasks(60)
    put_tasks(tasks)
    put_plan(store, shardSize=7)
    found = []
    for segment in range(SEGMENTS):
        assert step(segment)["done"] is True
        found += listed(store, segment)
    expected = [each for each in tasks if not each["isComplete"]]
    assert sorted(found, key=lambda each: each["id"]) == sorted(expected, key=lambda each: each["id"])


def test_a_step_answers_only_what_the_next_one_needs(step: Step, machine: Machine, store: JobStore) -> None:
    put_rows(store, 9)
    assert step() == {"jobId": "job-1", "segment": 0, "step": 1, "cursor": None, "done": True}


def test_a_source_of_no_tasks_commits_a_part_without_shards(step: Step, machine: Machine, store: JobStore) -> None:
    put_plan(store)
    assert step()["done"] is True
    assert store.require("parts/0000-000000.json") == {"shards": [], "skipped": 0, "cursor": None}


def test_a_late_lister_answers_a_cursor_for_the_next_step(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAGE", 5)
    put_rows(store, 12)
    steps, cursor, done = 0, None, False
    while not done:
        answer = step(0, steps, cursor, is_late=True)
        steps, cursor, done = answer["step"], answer["cursor"], answer["done"]
    rows = [row["row"] for number in range(steps) for row in listed(store, 0, number)]
    assert steps == 3
    assert rows == list(range(2, 14))


def test_an_overwritten_csv_is_never_mixed_with_the_new_one(machine: Machine, store: JobStore) -> None:
    key = "uploads/a.csv"
    store.bucket.put(key, b"title\nold\n")
    document = {"kind": "import-tasks", "source": {"csv": key}}
    planned = machine.call("Planner", {"jobId": store.job_id, "startedAt": "2026-11-23T09:00:00Z", "input": document})
    assert planned["segments"] == [0]
    store.bucket.put(key, b"title\nnew\n")
    with pytest.raises(InvalidJobError, match="was overwritten while the job read it"):
        machine.call("Lister", {"jobId": store.job_id, "segment": 0, "step": 0, "cursor": None})


def test_a_late_lister_of_tasks_goes_on_too(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAGE", 3)
    tasks = make_tasks(40, complete=0)
    put_tasks(tasks)
    put_plan(store)
    found, steps = [], []
    for segment in range(SEGMENTS):
        number, cursor, done = 0, None, False
        while not done:
            answer = step(segment, number, cursor, is_late=True)
            found += listed(store, segment, number)
            number, cursor, done = answer["step"], answer["cursor"], answer["done"]
        steps.append(number)
    assert sorted(each["id"] for each in found) == sorted(each["id"] for each in tasks)
    # Each took as many steps as its own tasks needed.
    assert min(steps) > 1
    assert len(set(steps)) > 1, steps


def test_a_repeated_step_is_answered_from_its_part(step: Step, machine: Machine, store: JobStore) -> None:
    put_tasks(make_tasks(30))
    put_plan(store, shardSize=4)
    first = step()
    before = {name: store.get(name) for name in names() if name.startswith("parts/")}, names()
    machine.calls.clear()
    put_tasks(make_tasks(30, seed=2))
    assert step() == first
    assert [call.function for call in machine.calls] == ["Lister"]
    assert ({name: store.get(name) for name in names() if name.startswith("parts/")}, names()) == before


def test_a_step_that_died_writes_the_same_shards_again(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks(make_tasks(30))
    put_plan(store, shardSize=4)
    with monkeypatch.context() as broken:
        broken.setattr(JobStore, "put_once", lambda *_: (_ for _ in ()).throw(RuntimeError("died")))
        with pytest.raises(RuntimeError):
            step()
    stray = {name for name in names() if name.startswith("shards/")}
    step()
    assert stray
    assert {name for name in names() if name.startswith("shards/")} == stray


def test_another_listing_cannot_change_a_committed_shard(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_rows(store, 4)
    step()
    before = listed(store)
    # A second attempt that began before the first one committed, and sees an object that has changed since.
    store.bucket.put("uploads/x.csv", b"title\nOther 1\nOther 2\n")
    monkeypatch.setattr(JobStore, "find", lambda *_: None)
    answer = step()
    monkeypatch.undo()
    assert answer["done"] is True
    assert listed(store) == before
    assert len([name for name in names() if name.startswith("shards/")]) == 2


def test_objects_that_no_part_names_do_not_belong_to_the_job(machine: Machine, store: JobStore) -> None:
    put_tasks(make_tasks(20, complete=0))
    store.bucket.put(store.key("shards/0000-000000-000009-0123456789abcdef.jsonl"), encode(task(1)) + b"\n")
    store.bucket.put(store.key("parts/0009-000000.json"), b'{"shards": [], "skipped": 0, "cursor": null}')
    ended = machine.run()
    assert ended.output["counts"]["listed"] == ended.output["counts"]["succeeded"] == 20


def test_an_empty_page_with_a_cursor_is_not_the_end(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_plan(store, shardSize=4)
    pages = {None: ([], "a"), "a": ([encode(task(1))], "b"), "b": ([], "c"), "c": ([encode(task(2))], None)}

    def answer(list_tasks: Any, *, cursor: str | None, **_: Any) -> Any:
        return pages[cursor]

    monkeypatch.setattr(task_service, "list_page", answer)
    assert step()["done"] is True
    assert [each["id"] for each in listed(store)] == ["task-00001", "task-00002"]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        ("ThrottledError", ThrottledError),
        ("Runtime.ExitError", ServiceUnavailableError),
        ("Sandbox.Timedout", ServiceUnavailableError),
        ("InvalidRequestError", TaskServiceError),
    ],
)
def test_errors_of_the_list_function_differ_by_class(
    step: Step, machine: Machine, store: JobStore, raised: str, seen: type[Exception]
) -> None:
    put_plan(store)

    def fail(call: Call) -> None:
        if call.function == "Lister":
            return
        raise type(raised, (Exception,), {})("told so")

    machine.before = fail
    with pytest.raises(seen):
        step()
    assert not [name for name in names() if name.startswith("parts/")]


def test_a_csv_with_a_wrong_header_is_an_invalid_job(step: Step, machine: Machine, store: JobStore) -> None:
    put_rows(store, 0)
    store.bucket.put("uploads/x.csv", b"name,due\nA,B\n")
    with pytest.raises(InvalidJobError, match='column "name"'):
        step()


def test_a_job_without_a_plan_is_no_job(step: Step, machine: Machine) -> None:
    with pytest.raises(AccountingError, match=r"job\.json is missing"):
        step()


def failed(store: JobStore, tasks: list[dict[str, Any]], **asked: Any) -> None:
    """job-0, in which these tasks failed, and the plan of job-1, which retries it."""
    earlier = JobStore(store.bucket, "job-0")
    origin = put_plan(earlier, **asked)
    earlier.put_lines("failures.jsonl", [encode({"task": each, "outcome": "failed"}) for each in tasks])
    again = read_input({"source": {"failedIn": "job-0"}})
    retry = make_plan("job-1", "2026-11-24T09:00:00Z", again, RetrySource(origin, 100, expected_count=len(tasks)))
    store.put("job.json", retry.to_json())


def test_a_retry_of_rows_lists_just_the_rows_that_failed(step: Step, machine: Machine, store: JobStore) -> None:
    rows = [{"row": number, "fields": {"title": "A"}} for number in (3, 7)]
    failed(store, rows, kind="import-tasks", source={"csv": "uploads/x.csv"})
    assert step()["done"] is True
    assert listed(store) == rows


def test_a_retry_lists_tasks_as_they_are_now(step: Step, machine: Machine, store: JobStore) -> None:
    put_tasks([task(1, title="New", version=3), task(3, isComplete=True), task(4)])
    failed(store, [task(1), task(2), task(3)])
    assert step()["done"] is True
    assert listed(store) == [task(1, title="New", version=3)]
    assert store.require("parts/0000-000000.json")["skipped"] == 2


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), max_size=60),
    size=st.integers(1, 20),
    limit=st.integers(1, 200),
)
def test_shards_are_the_listing_and_keep_to_their_bounds(lines: list[bytes], size: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "SHARD_BYTES", limit)
        bodies = list(listing.cut(lines, size))
    assert b"".join(bodies) == b"".join(line + b"\n" for line in lines)
    for body in bodies:
        assert 1 <= body.count(b"\n") <= size
        assert len(body) <= limit or body.count(b"\n") == 1
    # No shard is cut before it must be.
    for left, right in itertools.pairwise(bodies):
        next_line = right.partition(b"\n")[0] + b"\n"
        assert left.count(b"\n") == size or len(left) + len(next_line) > limit


def throttled_at(machine: Machine, pages: set[int]) -> list[int]:
    """Throttle the calls of these numbers of the Task Service; how many there were."""
    calls = [0]

    def before(call: Call) -> None:
        if call.function == "ListTasks":
            calls[0] += 1
            if calls[0] in pages:
                raise ThrottledError("slow down")

    machine.before = before
    return calls


def test_a_throttled_page_keeps_what_was_listed_before_it(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAGE", 5)
    monkeypatch.setattr("fan_out.model.plan.SEGMENTS", 1)
    tasks = make_tasks(200, complete=0)
    put_tasks(tasks)
    put_plan(store)
    calls = throttled_at(machine, {7, 15, 31})
    number, cursor, done = 0, None, False
    found = []
    while not done:
        answer = step(0, number, cursor)
        found += listed(store, 0, number)
        number, cursor, done = answer["step"], answer["cursor"], answer["done"]
    assert number == 4
    assert calls == [40 + 3]
    assert sorted(each["id"] for each in found) == sorted(each["id"] for each in tasks)


def test_a_step_that_cannot_write_its_shards_is_repeated_whole(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a page must not be kept: the cursor is behind the whole pages before it."""
    monkeypatch.setattr(sources, "PAGE", 3)
    put_rows(store, 20)
    writes = [0]

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.operation == "PutObject" and "/shards/" in str(boundary.request and boundary.request.url):
            writes[0] += 1
            if 3 <= writes[0] <= 3 + 5:
                raise ConnectTimeoutError(endpoint_url="http://there")
        return cross()

    machine.around = around
    with pytest.raises(ServiceUnavailableError):
        step()
    assert not [name for name in names() if name.startswith("parts/")]
    machine.around = lambda boundary, cross: cross()
    assert step()["done"] is True
    assert [row["row"] for row in listed(store)] == list(range(2, 22))


def test_a_step_throttled_at_once_is_retried(step: Step, machine: Machine, store: JobStore) -> None:
    put_tasks(make_tasks(5))
    put_plan(store)
    throttled_at(machine, {1})
    with pytest.raises(ThrottledError):
        step()
    assert not [name for name in names() if name.startswith("parts/")]


def test_a_line_of_any_length_in_a_csv_is_one_bad_row(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fan_out.aws.storage.BLOCK", 1 << 16)
    monkeypatch.setattr("fan_out.aws.storage.LONGEST_LINE", 1 << 17)
    good = b"".join(b"Row %d\n" % number for number in range(5))
    body = b"title\n" + good + b"x" * 700_000 + b"\n" + good + b"y" * 300_000
    store.bucket.put("uploads/x.csv", body)
    put_plan(store, kind="import-tasks", source={"csv": "uploads/x.csv"}, shardSize=100)
    monkeypatch.setattr(sources, "PAGE", 3)
    number, cursor, done, rows = 0, None, False, []
    while not done:
        answer = step(0, number, cursor, is_late=True)
        rows += listed(store, 0, number)
        number, cursor, done = answer["step"], answer["cursor"], answer["done"]
    assert [row["row"] for row in rows] == list(range(2, 14))
    problems = {row["row"]: row["problem"] for row in rows if "problem" in row}
    assert problems == dict.fromkeys((7, 13), "the row is longer than 64 KiB")


def test_rows_are_handed_on_by_their_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"title\n" + (b"x" * 1000 + b"\n") * 50
    planned = plan(kind="import-tasks", source={"csv": "uploads/x.csv"})
    monkeypatch.setattr(sources, "BATCH_BYTES", 10_000)

    def lines(bucket: Bucket, key: str, offset: int, etag: str | None, *, is_cut: bool) -> Any:
        position = offset
        for text in body[offset:].splitlines():
            position += len(text) + 1
            yield Line(text, position)

    monkeypatch.setattr(Bucket, "lines", lines)
    batches = list(csv.batches(Bucket("b"), planned, 0, None, ""))
    assert max(sum(map(len, batch.lines)) for batch in batches) < 12_000
    assert sum(len(batch.lines) for batch in batches) == 50


def test_a_retry_that_lists_another_number_of_tasks_fails(step: Step, machine: Machine, store: JobStore) -> None:
    rows = [{"row": number, "fields": {"title": "A"}} for number in (3, 7)]
    failed(store, rows, kind="import-tasks", source={"csv": "uploads/x.csv"})
    JobStore(store.bucket, "job-0").put_lines("failures.jsonl", [encode({"task": rows[0]})])
    step()
    with pytest.raises(AccountingError, match="2 tasks of an earlier job are to be retried, but 1 are listed"):
        machine.call("Manifest", {"jobId": "job-1", "listing": [{"segment": 0, "step": 1}]})


class Lazy:
    """A pool whose work is done when its result is asked for, and not before."""

    waiting = most = 0

    def __init__(self, *_: Any):
        self.work: list[Callable[[], Any]] = []

    def __enter__(self) -> Lazy:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        Lazy.waiting += 1
        Lazy.most = max(Lazy.most, Lazy.waiting)

        def result() -> Any:
            Lazy.waiting -= 1
            return function(*arguments)

        return SimpleNamespace(result=result)


def test_a_lister_holds_few_shards_and_one_page_more(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its part comes after them: one that names a shard that is not there loses the shard's tasks."""
    monkeypatch.setattr(sources, "PAGE", 8)
    monkeypatch.setattr(listing, "ThreadPoolExecutor", Lazy)
    monkeypatch.setattr(Lazy, "waiting", 0)
    monkeypatch.setattr(Lazy, "most", 0)
    put_rows(store, 100)
    commit = JobStore.put_once

    def put_once(owner: JobStore, name: str, *more: Any) -> Any:
        assert Lazy.waiting == 0
        return commit(owner, name, *more)

    monkeypatch.setattr(JobStore, "put_once", put_once)
    assert step()["done"] is True
    assert [row["row"] for row in listed(store)] == list(range(2, 102))
    assert Lazy.most == listing.WRITERS + 1


def test_threads_write_the_same_shards(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is listed, in which order, and what is written do not depend on who does it."""
    lines = [encode(task(number)) for number in range(100)]

    def batches(*_: Any) -> Iterator[Batch]:
        for start in range(0, 100, 9):
            yield Batch(lines[start : start + 9], str(start) if start < 99 else None)

    monkeypatch.setitem(listing.SOURCES, "tasks", batches)
    planned, found = put_plan(store, shardSize=7), []
    for pool in (listing.ThreadPoolExecutor, ThreadPoolExecutor):
        written: dict[str, bytes] = {}
        monkeypatch.setattr(listing, "ThreadPoolExecutor", pool)
        monkeypatch.setattr(Bucket, "put", lambda _, key, body, to=written: to.update({key: body}))
        monkeypatch.setattr(JobStore, "find", lambda *_: None)
        monkeypatch.setattr(JobStore, "put_once", lambda *arguments: arguments[2])
        part: Any = list_step(store, planned, segment=0, step=0, cursor=None, list_function="", is_late=lambda _: False)
        found.append((part, [written[shard["key"]] for shard in part["shards"]]))
    assert found[0] == found[1]
    assert b"".join(found[0][1]) == b"".join(line + b"\n" for line in lines)


def test_the_next_page_is_asked_for_before_shards_are_written(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAGE", 5)
    monkeypatch.setattr("fan_out.model.plan.SEGMENTS", 1)
    put_tasks(make_tasks(20, complete=0))
    put_plan(store, shardSize=5)
    crossed = []

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.function == "Lister" and boundary.operation in ("Invoke", "PutObject"):
            crossed.append(boundary.operation)
        return cross()

    machine.around = around
    assert step()["done"] is True
    # A shard is full when there is a task too many for it, which is on the next page.
    page, shard = "Invoke", "PutObject"
    assert crossed == [page, page, page, shard, page, shard, shard, shard, "PutObject"]


def test_no_page_is_asked_for_without_the_time_for_it(
    step: Step, machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time for the longest so far, and for what is left to do of the page at hand."""
    clock, asked = [0.0], []

    def batches(*_: Any) -> Iterator[Batch]:
        for number, seconds in enumerate((10, 2, 30, 5, 5)):
            clock[0] += seconds
            yield Batch([encode(task(number))], str(number))

    def is_late(seconds: float) -> bool:
        asked.append(seconds)
        return seconds > 50

    monkeypatch.setitem(listing.SOURCES, "tasks", batches)
    part = list_step(
        store, put_plan(store), segment=0, step=0, cursor=None, list_function="", is_late=is_late, now=lambda: clock[0]
    )
    # Here the next batch is read to its end before the lines of this one are cut: 2 seconds of the first 12.
    assert asked == [20, 24, 64]
    assert (part.cursor, [shard.count for shard in part.shards]) == ("2", [3])


@pytest.mark.parametrize("line", ['{"id":"a"', '{"title":"A"}', '{"id":"a"}\n{"id":"b"}', "", "null"])
def test_a_line_that_is_no_task_is_an_error(step: Step, machine: Machine, store: JobStore, line: str) -> None:
    put_plan(store)
    good = encode(task(1)).decode()

    def after(call: Call, answer: Any) -> Any:
        return answer | {"lines": [good, line, good]} if call.function == "ListTasks" else answer

    machine.after = after
    with pytest.raises(TaskServiceError, match="a line that is no task"):
        step()
    assert not [name for name in names() if name.startswith(("parts/", "shards/"))]


def test_a_shard_that_cannot_be_written_has_no_part(step: Step, machine: Machine, store: JobStore) -> None:
    """Its write has begun, and the listing has come to its end meanwhile."""
    put_rows(store, 5)

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.operation == "PutObject" and "/shards/" in str(boundary.request and boundary.request.url):
            raise ConnectTimeoutError(endpoint_url="http://there")
        return cross()

    machine.around = around
    with pytest.raises(ServiceUnavailableError):
        step()
    assert not [name for name in names() if name.startswith("parts/")]
