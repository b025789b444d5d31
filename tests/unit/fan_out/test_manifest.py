from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_out import manifest
from fan_out.aws.storage import JobStore
from fan_out.errors import AccountingError, CostLimitError, InvalidJobError
from fan_out.model import costs
from fan_out.model.documents import digest
from fan_out.model.outcomes import exceeds
from fan_out.model.plan import SEGMENTS
from fan_out.model.shard import Concurrency, Manifest
from fan_out.steps.listing import part_name
from tests.support.context import Context
from tests.support.factories import plan, put_plan
from tests.support.machine import Boundary, Machine, make_tasks, put_tasks, response


def put_part(
    store: JobStore, segment: int, step: int, counts: list[int], *, is_last: bool = True, skipped: int = 0
) -> None:
    shards = [
        {
            "index": number,
            "key": store.key(f"shards/{segment}-{step}-{number}"),
            "count": count,
            "bytes": count * 100,
        }
        for number, count in enumerate(counts)
    ]
    store.put(part_name(segment, step), {"shards": shards, "skipped": skipped, "cursor": None if is_last else "on"})


def call(steps: list[int]) -> Any:
    listing = [
        {"jobId": "job-1", "segment": segment, "step": taken, "cursor": None, "done": True}
        for segment, taken in enumerate(steps)
    ]
    return manifest.handler({"jobId": "job-1", "listing": listing}, Context())


def put_parts(store: JobStore) -> None:
    put_part(store, 0, 0, [5, 5], is_last=False)
    put_part(store, 0, 1, [2])
    put_part(store, 1, 0, [])
    put_part(store, 2, 0, [5], skipped=3)
    put_part(store, 3, 0, [1])


def test_the_manifest_has_a_line_for_each_shard_in_order(machine: Machine, store: JobStore) -> None:
    put_plan(store, shardSize=5)
    put_parts(store)
    assert call([2, 1, 1, 1]) == {
        "jobId": "job-1",
        "listed": 18,
        "shards": 5,
        "manifestKey": "work/job-1/manifest.jsonl",
        "workers": 5,
        "toleratedFailureCount": 0,
        "error": None,
    }
    lines = [json.loads(line.text) for line in store.lines("manifest.jsonl")]
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["count"] for line in lines] == [5, 5, 2, 5, 1]
    assert [line["key"].removeprefix("work/job-1/shards/") for line in lines] == [
        "0-0-0", "0-0-1", "0-1-0", "2-0-0", "3-0-0",
    ]  # fmt: skip
    body = store.bucket.get(store.key("manifest.jsonl"))
    assert body is not None
    because = "At most 5 workers at a time, because the job has 5 shards."
    bound = Concurrency(workers=5, reason=because)
    assert store.require("manifest.json", Manifest) == Manifest(5, 18, 3, digest(body), bound)


def test_the_order_of_the_segments_answers_does_not_matter(machine: Machine, store: JobStore) -> None:
    put_plan(store)
    put_parts(store)
    call([2, 1, 1, 1])
    first = store.bucket.get(store.key("manifest.jsonl"))
    listing = [{"segment": segment, "step": 2 if segment == 0 else 1} for segment in (3, 1, 0, 2)]
    manifest.handler({"jobId": "job-1", "listing": listing}, Context())
    assert store.bucket.get(store.key("manifest.jsonl")) == first


def test_a_missing_part_is_an_error_and_no_manifest(machine: Machine, store: JobStore) -> None:
    put_plan(store)
    put_parts(store)
    with pytest.raises(AccountingError, match=r"parts/0003-000001\.json is missing|is not where"):
        call([2, 1, 1, 2])
    put_part(store, 3, 0, [1], is_last=False)
    with pytest.raises(AccountingError, match=r"parts/0003-000001\.json is missing"):
        call([2, 1, 1, 2])
    assert store.get("manifest.json") is None
    assert not store.has("manifest.jsonl")


@pytest.mark.parametrize("steps", [[2, 1, 1], [2, 1, 1, 1, 1], []])
def test_a_missing_or_unknown_segment_is_an_error(machine: Machine, store: JobStore, steps: list[int]) -> None:
    put_plan(store)
    put_parts(store)
    with pytest.raises(AccountingError, match=f"but the plan has {SEGMENTS}"):
        call(steps)


def test_a_segment_that_did_not_come_to_its_end_is_an_error(machine: Machine, store: JobStore) -> None:
    put_plan(store)
    put_parts(store)
    with pytest.raises(AccountingError, match="Step 0 of segment 0 is not where the listing ended"):
        call([1, 1, 1, 1])


def test_a_part_after_the_end_of_its_segment_is_an_error(machine: Machine, store: JobStore) -> None:
    put_plan(store)
    put_parts(store)
    put_part(store, 1, 1, [4])
    with pytest.raises(AccountingError, match="Step 0 of segment 1"):
        call([2, 2, 1, 1])


def test_an_empty_listing_is_a_manifest_of_no_shards(machine: Machine, store: JobStore) -> None:
    put_plan(store)
    for segment in range(SEGMENTS):
        put_part(store, segment, 0, [])
    answer = call([1, 1, 1, 1])
    assert (answer["listed"], answer["shards"], answer["workers"]) == (0, 0, 1)


@pytest.mark.parametrize(("rate", "workers"), [(None, 5), (0.1, 1), (0.3, 3), (1000, 5)])
def test_a_low_ceiling_lowers_the_number_of_workers(
    machine: Machine, store: JobStore, rate: float | None, workers: int
) -> None:
    put_plan(store, tasksPerSecond=rate)
    put_parts(store)
    assert call([2, 1, 1, 1])["workers"] == workers


def test_the_bound_of_the_job_bounds_its_workers(machine: Machine, store: JobStore) -> None:
    put_plan(store, maxConcurrency=2)
    put_parts(store)
    assert call([2, 1, 1, 1])["workers"] == 2


@pytest.mark.parametrize(("tolerated", "of_map"), [(0, 0), (5, 0), (12.5, 1), (16.6, 1), (20, 2), (100, 5)])
def test_the_map_tolerates_a_count_of_the_jobs_shards(
    machine: Machine, store: JobStore, tolerated: float, of_map: int
) -> None:
    put_plan(store, toleratedFailurePercentage=tolerated)
    put_parts(store)
    answer = call([2, 1, 1, 1])["toleratedFailureCount"]
    assert answer == of_map
    assert isinstance(answer, int)


WRITER = {"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}}


@pytest.mark.parametrize(
    ("asked", "account", "reserved", "workers", "why"),
    [
        ({}, 1000, None, 40, "maxConcurrency is 40"),
        ({"maxConcurrency": 1}, 1000, None, 1, "maxConcurrency is 1"),
        ({"maxConcurrency": 2000}, 1000, None, 500, "the job has 500 shards"),
        ({"tasksPerSecond": 0.5}, 1000, None, 5, "tasksPerSecond is 0.5"),
        # A new account: two are left to the API and the Reducer, and who writes takes two.
        ({}, 10, None, 8, "the AWS account has 10 concurrent executions"),
        (WRITER, 10, None, 4, "and a worker takes 2"),
        ({"maxConcurrency": 10_000}, 100, None, 90, "10 of them are kept for other functions"),
        (WRITER | {"maxConcurrency": 10_000}, 101, None, 45, "11 of them are kept for other functions"),
        (WRITER, 3, None, 1, "the AWS account has 3"),
        ({}, 0, None, 1, "the AWS account has 0"),
        # The Worker's own executions are not of the pool, those of WriteTasks are.
        ({}, 10, 25, 25, "the stack reserves 25 concurrent executions for workers"),
        (WRITER, 10, 25, 8, "and a worker takes 1"),
        (WRITER, 1000, 25, 25, "the stack reserves 25"),
        ({}, "AccessDeniedException", None, 40, "could not be read (AccessDeniedException)"),
    ],
)
def test_workers_fit_into_the_job_and_the_account(
    asked: dict[str, Any], account: int | str, reserved: int | None, workers: int, why: str
) -> None:
    found = plan(**asked).concurrency(500, account, reserved)
    assert found["workers"] == workers
    assert why in found["reason"]
    assert re.fullmatch(rf"At most {workers} workers? at a time, because .+\.", found["reason"])


def test_the_accounts_limit_bounds_the_workers_of_a_job(machine: Machine, store: JobStore) -> None:
    machine.concurrency = 10
    store.bucket.put("uploads/x.csv", b"title\n" + b"Row\n" * 60)
    record = machine.run(WRITER | {"shardSize": 5}).output
    (call,) = (call for call in machine.calls if call.function == "Worker" and call.event["shard"]["index"] == 0)
    assert call.event["workers"] == 4 == record["concurrency"]["workers"]
    assert record["concurrency"]["reason"].startswith("At most 4 workers at a time, because the AWS account has 10 ")
    assert record["counts"]["succeeded"] == 60


def test_the_stacks_reserved_concurrency_bounds_workers(
    machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_CONCURRENCY", "3")
    put_tasks(make_tasks(30, complete=0))
    record = machine.run({"shardSize": 2}).output
    assert record["concurrency"]["workers"] == 3


def test_a_limit_that_may_not_be_read_bounds_nothing(machine: Machine, store: JobStore) -> None:
    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.operation != "GetAccountSettings":
            return cross()
        assert boundary.request is not None
        denied = {"x-amzn-ErrorType": "AccessDeniedException"}
        return response(boundary.request, 403, '{"Message": "not authorized"}', denied)

    machine.around = around
    put_tasks(make_tasks(30, complete=0))
    record = machine.run({"shardSize": 2, "maxConcurrency": 9}).output
    assert record["concurrency"]["workers"] == 9
    assert "could not be read (AccessDeniedException)" in record["concurrency"]["reason"]


def test_the_limit_is_read_once_a_minute(machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    for machine.concurrency, now in ((10, 600.0), (20, 659.0), (30, 660.0)):
        monkeypatch.setattr("fan_out.aws.clients.time", SimpleNamespace(monotonic=lambda now=now: now))
        read.append(machine.call("Manifest", listed(store))["workers"])
    assert read == [8, 8, 27]


def listed(store: JobStore) -> Any:
    """The Manifest's event of a job of many shards."""
    put_plan(store)
    for segment in range(SEGMENTS):
        put_part(store, segment, 0, [1] * 10)
    return {"jobId": "job-1", "listing": [{"segment": segment, "step": 1} for segment in range(SEGMENTS)]}


@given(
    tolerated=st.decimals(0, 100, places=4).map(float),
    counts=st.lists(st.integers(1, 10_000), min_size=1, max_size=60),
)
def test_the_map_is_never_stricter_than_the_job(tolerated: float, counts: list[int]) -> None:
    """One failed shard more than the map tolerates is more than the job's percentage of tasks, whichever they are."""
    listed, most = sum(counts), manifest.tolerated_shards(counts, tolerated)
    smallest = sorted(counts)
    assert not exceeds(sum(smallest[:most]), tolerated, listed)
    assert most == len(counts) or exceeds(sum(smallest[: most + 1]), tolerated, listed)
    # Shards of one size count as their tasks do.
    assert most >= math.floor(tolerated * len(counts) / 100 - 1e-6)


def test_a_job_dearer_than_its_limit_is_refused_before_any_work(machine: Machine) -> None:
    put_tasks(make_tasks(30, complete=0))
    ended = machine.run({"shardSize": 1, "maxCostUsd": 0.0001})
    assert (ended.status, ended.error) == ("FAILED", "CostLimitError")
    assert "30 tasks in 30 shards cost about $" in str(ended.cause)
    assert not [call for call in machine.calls if call.function == "Worker"]


def test_a_job_dearer_than_its_limit_fails_whatever_it_tolerates(machine: Machine) -> None:
    put_tasks(make_tasks(30, complete=0))
    ended = machine.run({"shardSize": 1, "maxCostUsd": 0.0001, "toleratedFailurePercentage": 100})
    assert (ended.status, ended.error) == ("FAILED", "CostLimitError")


def test_the_limit_is_compared_with_the_estimate() -> None:
    summed = Manifest(shards=1000, listed=500_000, skipped=0)
    cost = costs.estimate_usd("daily-plan", 500_000, 1000)
    costs.check_limit(plan(maxCostUsd=cost), summed)
    costs.check_limit(plan(), summed)
    with pytest.raises(CostLimitError, match="Allow more, or make shardSize larger"):
        costs.check_limit(plan(maxCostUsd=cost * 0.999), summed)


def test_the_estimate_grows_with_shards_and_tasks() -> None:
    none, some = costs.estimate_usd("daily-plan", 0, 0), costs.estimate_usd("daily-plan", 1000, 2)
    more_shards, more_tasks = (
        costs.estimate_usd("daily-plan", 1000, 1000),
        costs.estimate_usd("import-tasks", 1000, 2),
    )
    assert 0 < none < some < more_tasks < more_shards
    # A thousand shards: their transitions alone are 4 x $0.025.
    assert 0.1 < more_shards < 0.2


def test_a_ceiling_that_makes_workers_wait_is_in_the_estimate() -> None:
    summed = Manifest(200, 100_000, 0)
    # Forty workers of a gigabyte for 10,000 seconds: about five dollars.
    with pytest.raises(CostLimitError, match="or maxConcurrency smaller"):
        costs.check_limit(plan(maxCostUsd=5, tasksPerSecond=10), summed)
    costs.check_limit(plan(maxCostUsd=6, tasksPerSecond=10), summed)
    costs.check_limit(plan(maxCostUsd=0.2, tasksPerSecond=10, maxConcurrency=1), summed)
    few = replace(summed, concurrency=Concurrency(workers=1, reason=""))
    costs.check_limit(plan(maxCostUsd=0.2, tasksPerSecond=10), few)


def test_a_ceiling_that_makes_a_job_too_long_is_refused() -> None:
    summed = Manifest(2000, 1_000_000, 0)
    with pytest.raises(InvalidJobError, match=r"tasksPerSecond is 1, but must be at least 1\.7 for 1000000 tasks"):
        costs.check_time(plan(tasksPerSecond=1), summed)
    costs.check_time(plan(tasksPerSecond=1.7), summed)
    costs.check_time(plan(), summed)
