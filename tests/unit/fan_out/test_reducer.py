from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fan_out.aws import clients as aws
from fan_out.aws import storage
from fan_out.aws.storage import Bucket, JobStore
from fan_out.errors import ServiceUnavailableError
from fan_out.model.outcomes import Counts, failure
from fan_out.model.shard import Manifest, Node, Progress, Shard
from fan_out.steps import reduction
from fan_out.steps.finalizing import finalize
from fan_out.steps.kind_merger import KindMerger
from fan_out.steps.reduction import Cursor, Reduction
from infra.functions import FUNCTIONS
from tests.support.context import Context
from tests.support.factories import RangedReads, plan, put_manifest, put_partial, put_plan, put_shard, task
from tests.support.machine import (
    BUCKET,
    STARTED_AT,
    Boundary,
    Call,
    KilledError,
    Machine,
    make_tasks,
    names,
    put_tasks,
    response,
)
from tests.unit.fan_out.conftest import reset


def progress(tasks: list[dict[str, Any]], *, failed: int = 0, shard: int = 0) -> Progress:
    """What a worker of the kind `trial` commits: the first `failed` tasks failed."""
    good = tasks[failed:]
    return Progress(
        next=len(tasks),
        counts=Counts(succeeded=len(good), failed=failed),
        value={"tasks": len(good), "length": sum(len(each["title"]) for each in good)},
        lines=[f"{each['id']}\t{json.dumps({'id': each['id']})}" for each in good],
        failures=[
            failure(each, "failed", "BadError", f"bad {each['id']}", shard=shard, attempts=1) for each in tasks[:failed]
        ],
    )


def put_job(
    store: JobStore,
    shards: int,
    *,
    size: int = 3,
    failed: int = 0,
    missing: tuple[int, ...] = (),
    **asked: Any,
) -> list[Shard]:
    """A worked-on job of the kind `trial`; the shards `missing` have no partial."""
    put_plan(store, kind="trial", **asked)
    made = []
    for index in range(shards):
        # Ids that interleave over the shards, so that a merge has something to do.
        tasks = [task(number * shards + index) for number in range(size)]
        shard = put_shard(store, index, tasks)
        made.append(shard)
        if index not in missing:
            put_partial(store, shard, progress(tasks, failed=failed, shard=index))
    put_manifest(store, made)
    return made


def call(machine: Machine, state: Any = None) -> Any:
    state = {"error": None} if state is None else state
    return machine.call("Reducer", {"jobId": "job-1", "startedAt": STARTED_AT, "state": state})


def root(store: JobStore, **asked: Any) -> Node:
    manifest = store.require("manifest.json", Manifest)
    reached = Reduction(store, plan(kind="trial", **asked), manifest).run(Cursor(), lambda _: False)
    assert isinstance(reached, Node)
    return reached


OUTPUTS = ("trial.jsonl", "result.json", "failures.jsonl", "digest.json")


def outputs(store: JobStore) -> dict[str, bytes | None]:
    return {name: store.bucket.get(store.key(name)) for name in OUTPUTS}


def test_a_jobs_tally_is_committed_as_its_record(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 5, failed=1, toleratedFailurePercentage=50)
    answer = call(machine)
    record = answer["record"]
    assert answer == {"done": True, "record": record, "error": None}
    assert record["status"] == "PARTIAL"
    assert record["counts"] == {
        "listed": 15, "succeeded": 10, "failed": 5, "quarantined": 0, "unprocessed": 0,
    }  # fmt: skip
    assert record["shards"] == {"planned": 5, "done": 5, "failed": 0}
    assert record["result"]["tasks"] == 10
    assert record["resultUrl"] == "s3://jobs-bucket/jobs/job-1/trial.jsonl"
    assert record["failuresUrl"] == "s3://jobs-bucket/jobs/job-1/failures.jsonl"
    assert store.require("record.json") == record


def test_a_jobs_lines_are_sorted_over_all_shards(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 7)
    call(machine)
    assert [json.loads(line.text)["id"] for line in store.lines("trial.jsonl")] == [
        f"task-{number:05d}" for number in range(21)
    ]


def test_a_repeated_reducer_answers_the_record_that_stands(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 2)
    first = call(machine)
    # Not even the objects that it was made of are looked at again.
    boto3.client("s3").delete_object(Bucket=BUCKET, Key=store.key("manifest.jsonl"))
    assert call(machine) == first
    assert call(machine, {"Error": "States.Timeout", "Cause": "late"}) == first


def test_the_bytes_are_the_same_whatever_the_fan_in(
    deployment: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for fan_in in (64, 2, 9):
        reset(deployment)
        monkeypatch.setattr(reduction, "FAN_IN", fan_in)
        put_job(store, 10, failed=1, missing=(4,))
        node = root(store)
        found.append((outputs(store), node.counts, node.done, node.failed))
    assert all(each == found[0] for each in found)
    assert all(found[0][0].values())


def test_a_tree_has_as_many_levels_as_its_shards_need(
    store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "FAN_IN", 3)
    put_job(store, 10)
    assert root(store).counts.total == 30
    nodes = sorted(
        name.removeprefix("reduce/")
        for name in names()
        if name.startswith("reduce/") and name.endswith(".json") and name[7].isdigit()
    )
    assert nodes == [
        "0-0000000.json", "0-0000001.json", "0-0000002.json", "0-0000003.json",
        "1-0000000.json", "1-0000001.json",
    ]  # fmt: skip


@settings(max_examples=8)
@given(
    fan_in=st.integers(2, 5),
    shards=st.integers(0, 9),
    late=st.lists(st.booleans(), min_size=40, max_size=40),
)
@example(fan_in=2, shards=9, late=[True] * 40)
def test_a_reduction_over_many_calls_gives_the_same_bytes(
    deployment: Machine, trial: Any, fan_in: int, shards: int, late: list[bool]
) -> None:
    store = JobStore(Bucket(BUCKET), "job-1")
    found = []
    for answers in (itertools.repeat(False), itertools.chain(late, itertools.repeat(False))):
        reset(deployment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reduction, "FAN_IN", fan_in)
            put_job(store, shards, size=2)
            manifest = store.require("manifest.json", Manifest)
            reached: Cursor | Node = Cursor()
            while isinstance(reached, Cursor):
                # As in a new call: nothing but the cursor is remembered.
                answer = Reduction(store, plan(kind="trial"), manifest)
                reached = answer.run(reached, lambda _: next(answers))  # noqa: B023
        found.append((outputs(store), reached))
    assert found[0] == found[1]


def test_a_late_reducer_answers_a_cursor_and_the_error(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "FAN_IN", 2)
    put_job(store, 5, missing=(3, 4))
    machine.contexts["Reducer"] = lambda: Context(iter([900_000, *[1] * 99]).__next__)
    error = {"Error": "States.Timeout", "Cause": "the map took too long"}
    state: Any = {"jobId": "job-1", "error": error}
    calls = 0
    while True:
        state = call(machine, state)
        calls += 1
        assert len(json.dumps(state)) < 32 * 1024
        if state["done"]:
            break
        assert state["error"] == {"name": "States.Timeout", "message": "the map took too long"}
    assert calls > 3
    assert "the map took too long" in state["record"]["error"]["message"]


def test_a_node_that_is_committed_is_not_made_again(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "FAN_IN", 2)
    put_job(store, 4)
    manifest = store.require("manifest.json", Manifest)
    reducer = Reduction(store, plan(kind="trial"), manifest)
    assert reducer.run(Cursor(), lambda _: True) == Cursor(0, 1, store_offset(store, 2))
    before = store.require("reduce/0-0000000.json")
    # A worker of a map that had been given up commits late.
    store.put("partials/00000000.json", {"counts": {}})
    root(store)
    assert store.require("reduce/0-0000000.json") == before


def test_of_two_reducers_the_first_commit_of_a_node_counts(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = put_job(store, 3, missing=(1,), toleratedFailurePercentage=50)
    first = root(store), outputs(store)
    # The other one looked before the first commit, and sees a partial that came late.
    put_partial(store, shards[1], progress([task(number * 3 + 1) for number in range(3)]))
    real = JobStore.find

    def find(self: JobStore, name: str, shape: Any = Any) -> Any:
        return None if name == reduction.ROOT or name.startswith("reduce/") else real(self, name, shape)

    monkeypatch.setattr(JobStore, "find", find)
    assert (root(store), outputs(store)) == first


def store_offset(store: JobStore, lines: int) -> int:
    return list(store.lines("manifest.jsonl"))[lines - 1].end


# --- the account


def test_tasks_of_a_shard_without_a_partial_are_named(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 4, missing=(1,), toleratedFailurePercentage=50)
    record = call(machine)["record"]
    assert (record["status"], record["counts"]["unprocessed"]) == ("PARTIAL", 3)
    assert record["shards"] == {"planned": 4, "done": 3, "failed": 1}
    failed = [json.loads(line.text) for line in store.lines("failures.jsonl")]
    assert [each["task"] for each in failed] == [task(number * 4 + 1) for number in range(3)]
    assert {each["outcome"] for each in failed} == {"unprocessed"}
    assert {each["shard"] for each in failed} == {1}


def test_what_a_shards_checkpoint_has_done_counts(machine: Machine, store: JobStore, trial: Any) -> None:
    shards = put_job(store, 2, missing=(1,), toleratedFailurePercentage=50)
    done = progress([task(1), task(3)], failed=1, shard=1)
    store.put(shards[1].checkpoint, done.to_json())
    record = call(machine)["record"]
    assert record["counts"] == {
        "listed": 6, "succeeded": 4, "failed": 1, "quarantined": 0, "unprocessed": 1,
    }  # fmt: skip
    assert record["result"]["tasks"] == 4


def test_a_shard_without_its_object_is_named(machine: Machine, store: JobStore, trial: Any) -> None:
    shards = put_job(store, 3, missing=(2,), toleratedFailurePercentage=100)
    boto3.client("s3").delete_object(Bucket=store.bucket.name, Key=shards[2].key)
    answer = call(machine)
    assert answer["record"]["status"] == "FAILED"
    assert answer["error"]["name"] == "AccountingError"
    assert "Shard 2 is lost" in answer["record"]["error"]["message"]
    assert answer["record"]["counts"]["unprocessed"] == 3


def test_a_partial_of_too_few_tasks_is_lost(machine: Machine, store: JobStore, trial: Any) -> None:
    shards = put_job(store, 3, missing=(1,), toleratedFailurePercentage=100)
    put_partial(store, shards[1], progress([task(1)]))
    record = call(machine)["record"]
    assert (record["status"], record["error"]["name"]) == ("FAILED", "AccountingError")
    assert f"The object {store.key(shards[1].partial)} has 1 of 3 tasks." in record["error"]["message"]
    assert record["counts"] == {"listed": 9, "succeeded": 6, "failed": 0, "quarantined": 0, "unprocessed": 3}


def test_a_checkpoint_of_other_counts_is_lost(machine: Machine, store: JobStore, trial: Any) -> None:
    shards = put_job(store, 3, missing=(1,), toleratedFailurePercentage=100)
    saved = progress([task(1)])
    saved.next = 2
    store.put(shards[1].checkpoint, saved.to_json())
    record = call(machine)["record"]
    assert (record["status"], record["error"]["name"]) == ("FAILED", "AccountingError")
    assert f"The object {store.key(shards[1].checkpoint)} has 1 of 3 tasks." in record["error"]["message"]
    assert record["counts"] == {"listed": 9, "succeeded": 6, "failed": 0, "quarantined": 0, "unprocessed": 3}


@pytest.mark.parametrize("kept", [[0, 1], [0, 2], [1, 0, 2], []], ids=str)
def test_a_changed_manifest_fails_the_job(machine: Machine, store: JobStore, trial: Any, kept: list[int]) -> None:
    put_job(store, 3, toleratedFailurePercentage=100)
    lines = [line.text for line in store.lines("manifest.jsonl")]
    store.put_lines("manifest.jsonl", [lines[number] for number in kept])
    answer = call(machine)
    record = answer["record"]
    assert answer["error"]["name"] == "AccountingError"
    assert "manifest.jsonl is not what was committed" in record["error"]["message"]
    assert (record["counts"]["listed"], record["counts"]["unprocessed"]) == (9, 9)
    assert store.require("record.json") == record


def test_a_job_without_a_manifest_fails_with_what_was_caught(machine: Machine, store: JobStore) -> None:
    cause = json.dumps({"errorMessage": "shardSize is 0, but must be more.", "stackTrace": ["x"]})
    answer = call(machine, {"Error": "InvalidJobError", "Cause": cause})
    assert answer["error"] == {"name": "InvalidJobError", "cause": "shardSize is 0, but must be more."}
    assert answer["record"]["status"] == "FAILED"
    assert answer["record"]["kind"] is None
    assert answer["record"]["counts"]["listed"] == 0


def test_a_job_that_lost_its_manifest_without_a_word_fails(machine: Machine, store: JobStore) -> None:
    put_plan(store)
    assert call(machine)["error"]["name"] == "AccountingError"


def test_a_job_of_no_tasks_succeeds(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 0)
    record = call(machine)["record"]
    assert (record["status"], record["counts"]["listed"]) == ("SUCCEEDED", 0)
    assert record["result"] == {"tasks": 0, "length": 0}
    assert store.bucket.get(store.key("trial.jsonl")) == b""


@pytest.mark.parametrize(("failed", "status"), [(0, "SUCCEEDED"), (1, "PARTIAL"), (2, "FAILED")])
def test_the_tolerance_decides_between_partial_and_failed(
    machine: Machine, store: JobStore, trial: Any, failed: int, status: str
) -> None:
    put_job(store, 1, size=4, failed=failed, toleratedFailurePercentage=25)
    answer = call(machine)
    assert answer["record"]["status"] == status
    if status == "FAILED":
        assert answer["error"]["name"] == "ToleranceExceededError"
        account = json.loads(answer["error"]["cause"])
        assert account["counts"]["failed"] == 2
        assert "result" not in account
        assert "2 of 4 tasks did not succeed" in account["error"]["message"]


def test_a_map_that_broke_off_after_all_work_succeeds(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 3)
    answer = call(machine, {"error": {"Error": "States.ResultWriterFailed", "Cause": "S3"}})
    assert answer["record"]["status"] == "SUCCEEDED"


def test_a_map_that_broke_off_with_work_left_fails(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 3, missing=(1,), toleratedFailurePercentage=100)
    answer = call(machine, {"error": {"Error": "States.ItemReaderFailed", "Cause": "S3 said no"}})
    assert answer["record"]["status"] == "FAILED"
    assert answer["error"]["name"] == "States.ItemReaderFailed"
    assert "S3 said no" in answer["record"]["error"]["message"]


def test_a_job_without_a_finished_shard_fails(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 2, missing=(0, 1), toleratedFailurePercentage=100)
    answer = call(machine)
    assert (answer["record"]["status"], answer["error"]["name"]) == ("FAILED", "ShardStuckError")
    assert answer["record"]["counts"]["unprocessed"] == answer["record"]["counts"]["listed"] == 6


def test_a_redriven_execution_ends_as_the_stopped_job(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 1)
    error = {"name": "JobStoppedError", "message": "The job was stopped."}
    finalize(store, "2026-11-23T09:00:00Z", Cursor(), lambda _: False, error=error, status="STOPPED")
    answer = call(machine)
    assert (answer["record"]["status"], answer["error"]["name"]) == ("STOPPED", "JobStoppedError")


def test_an_earlier_jobs_record_is_not_this_jobs(machine: Machine, store: JobStore, trial: Any) -> None:
    put_job(store, 1)
    earlier = call(machine)["record"] | {"startedAt": "2026-01-01T00:00:00Z"}
    store.put("record.json", earlier)
    refused = {"Error": "InvalidJobError", "Cause": '{"errorMessage": "jobId is taken."}'}
    answer = call(machine, refused)
    assert (answer["record"]["status"], answer["error"]["cause"]) == ("FAILED", "jobId is taken.")
    assert store.require("record.json")["status"] == "SUCCEEDED"


def test_a_merges_memory_does_not_grow_with_its_lines(
    store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = {
        store.key(f"{index}.lines"): b"".join(b"%07d-%d\t%s\n" % (number, index, b"x" * 1000) for number in range(1000))
        for index in range(8)
    }
    monkeypatch.setattr("fan_out.aws.storage.BLOCK", 16 * 1024)
    monkeypatch.setattr(aws, "s3", lambda: RangedReads(bodies))
    reducer = Reduction(store, plan(kind="trial"), Manifest(8, 8, 0))
    children = [Node(lines=f"{index}.lines") for index in range(8)]
    written, last = 0, b""
    tracemalloc.start()
    try:
        for line in reducer._merged_lines(children):
            assert line > last
            written, last = written + len(line) + 1, line
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written == sum(map(len, bodies.values())) > 8_000_000
    assert peak < 1_000_000


def test_the_open_streams_of_a_node_fit_into_the_reducers_memory() -> None:
    # A stream holds a block, and what of it is cut into lines.
    held = reduction.FAN_IN * 2 * storage.BLOCK
    assert held <= FUNCTIONS["Reducer"].memory * 2**20 / 4


def test_repeated_workers_in_any_order_give_the_same_bytes(deployment: Machine, store: JobStore) -> None:
    tasks = make_tasks(60)
    found = []
    orders: tuple[Callable[[list[Any]], list[Any]], ...] = (
        list,
        lambda items: items[::-1],
        lambda items: sorted(items * 2, key=lambda item: item[0] % 3),
    )
    for order in orders:
        reset(deployment)
        put_tasks(tasks)
        deployment.order = order
        ended = deployment.run({"shardSize": 7})
        found.append((ended.output["result"], store.bucket.get(store.key("plan.jsonl"))))
    assert found[0] == found[1] == found[2]


def test_a_reducer_that_dies_is_called_again(machine: Machine) -> None:
    put_tasks(make_tasks(20))
    deaths = iter([True, True])

    def die(call: Call) -> None:
        if call.function == "Reducer" and next(deaths, False):
            raise KilledError

    machine.before = die
    assert machine.run().output["status"] == "SUCCEEDED"


def test_a_job_without_its_record_fails_loudly(machine: Machine) -> None:
    def die(call: Call) -> None:
        if call.function == "Reducer":
            raise KilledError

    machine.before = die
    ended = machine.run()
    assert (ended.status, ended.error) == ("FAILED", "RecordNotWrittenError")


# --- a kind that fails on what its tasks came to


def broken(*_: Any) -> Any:
    raise ZeroDivisionError("no task has a length")


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def raise_(error: BaseException) -> Callable[..., Any]:
    def method(*_: Any) -> Any:
        raise error

    return method


def give(value: Any) -> Callable[..., Any]:
    return lambda *_: value


NESTED: Any = []
for _ in range(900):
    NESTED = [NESTED]
WAYS = {
    "raises": broken,
    "set": give({1, 2}),
    "nan": give(float("nan")),
    "nested": give({"deep": NESTED}),
    "surrogate": give({"text": "\ud800"}),
    "no text": raise_(NoTextError()),
    "text of a surrogate": raise_(ValueError("\ud800")),
    "exit": raise_(SystemExit(1)),
}
FAULTS = {f"{method} {name}": (method, way) for method in ("zero", "merge", "summary") for name, way in WAYS.items()}
FAULTS |= {"summary None": ("summary", give(None)), "summary list": ("summary", give([1]))}


@pytest.mark.parametrize(("method", "way"), FAULTS.values(), ids=FAULTS)
def test_a_kinds_fault_costs_the_result_not_the_tally(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch, method: str, way: Any
) -> None:
    put_job(store, 5, size=4, failed=1, missing=(2,), toleratedFailurePercentage=100)
    monkeypatch.setattr(type(trial), method, way)
    answer = call(machine)
    record = answer["record"]
    assert answer["error"]["name"] == record["error"]["name"] == "KindFailedError"
    assert record["status"] == "FAILED"
    assert record["counts"] == {
        "listed": 20, "succeeded": 12, "failed": 4, "quarantined": 0, "unprocessed": 4,
    }  # fmt: skip
    assert "result" not in record
    assert (
        len(list(store.lines("failures.jsonl"))) == sum(group["count"] for group in store.require("digest.json")) == 8
    )
    # The lines need none of it.
    assert record["resultUrl"].endswith("/trial.jsonl")
    assert len(list(store.lines("trial.jsonl"))) == 12


@pytest.mark.parametrize("method", ["zero", "merge", "summary"])
def test_a_kind_that_kills_the_reducer_costs_the_result(
    machine: Machine, trial: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    put_tasks([task(number) for number in range(20)])
    real = getattr(type(trial), method)

    def kill(*arguments: Any) -> Any:
        if machine._running[-1].function == "Reducer":
            raise KilledError
        return real(*arguments)

    monkeypatch.setattr(type(trial), method, kill)
    ended = machine.run({"kind": "trial", "shardSize": 3})
    assert ended.error == "KindFailedError"
    record = json.loads(str(ended.cause))
    assert record["counts"]["succeeded"] == record["counts"]["listed"] == 20
    assert f"ended the reducer's process {reduction.DEADLY} times" in record["error"]["message"]
    assert len([each for each in machine.calls if each.function == "Reducer"]) == reduction.DEADLY + 1


def test_a_marker_with_a_lost_answer_counts_no_death(store: JobStore, trial: Any) -> None:
    merger = KindMerger(store, put_plan(store, kind="trial"), deadly=2)
    put, lost = JobStore.put, iter([True])

    def lose(self: JobStore, name: str, document: Any) -> None:
        put(self, name, document)
        if next(lost, False):
            raise ServiceUnavailableError("the answer is lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobStore, "put", lose)
        with pytest.raises(ServiceUnavailableError), merger.step("root"):
            pytest.fail("the step was begun")
    assert store.require("reduce/marker.json")["deaths"] == 0


@pytest.mark.parametrize(("owner", "is_fault"), [(5, False), (2, True)])
def test_a_reducers_deaths_are_not_the_finalizers(store: JobStore, trial: Any, owner: int, is_fault: bool) -> None:
    store.put("reduce/marker.json", {"step": f"{owner} root", "deaths": 3})
    _, fault = KindMerger(store, put_plan(store, kind="trial"), deadly=2).merge([])
    assert (fault is not None) is is_fault


def test_a_throttled_reducer_is_not_taken_for_a_dead_one(machine: Machine, trial: Any) -> None:
    put_tasks([task(number) for number in range(20)])
    refusals = iter(range(5))

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        request = boundary.request
        if request is None or boundary.operation != "PutObject" or not request.url.endswith("/0-0000000.json"):
            return cross()
        if boundary.attempt > 1 or next(refusals, None) is not None:
            return response(request, 503, "<Error><Code>SlowDown</Code></Error>")
        return cross()

    machine.around = around
    ended = machine.run({"kind": "trial", "shardSize": 3})
    assert ended.status == "SUCCEEDED", ended
    assert len([each for each in machine.calls if each.function == "Reducer"]) == 6


def test_a_job_whose_kind_is_gone_has_its_tally(
    machine: Machine, store: JobStore, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_job(store, 3, missing=(1,))
    with monkeypatch.context() as patched:
        patched.setattr("fan_out.model.kind.find", broken)
        record = call(machine)["record"]
    assert (record["status"], record["error"]["name"]) == ("FAILED", "KindFailedError")
    assert record["counts"] == {"listed": 9, "succeeded": 6, "failed": 0, "quarantined": 0, "unprocessed": 3}


def test_a_retry_after_a_kinds_fault_works_on_the_failures(
    machine: Machine, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks([task(number) for number in range(20)])
    trial.on.update({f"task-{number:05d}": ValueError("no") for number in range(4)})
    document = {"kind": "trial", "shardSize": 3, "toleratedFailurePercentage": 100}
    with monkeypatch.context() as patched:
        patched.setattr(type(trial), "summary", broken)
        assert machine.run(document).error == "KindFailedError"
    trial.on.clear()
    trial.calls.clear()
    ended = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert ended.output["counts"]["succeeded"] == 4
    assert sum(map(len, trial.calls)) == 4


def test_a_lost_shard_is_in_the_digest_without_names(machine: Machine, store: JobStore, trial: Any) -> None:
    shards = put_job(store, 3, failed=1, missing=(1,))
    aws.s3().delete_object(Bucket=BUCKET, Key=shards[1].key)
    call(machine)
    groups = store.require("digest.json")
    assert [(group["outcome"], group["error"], group["count"]) for group in groups] == [
        ("unprocessed", "AccountingError", 3),
        ("failed", "BadError", 2),
    ]
