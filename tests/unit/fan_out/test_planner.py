from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from fan_out import planner
from fan_out.aws import clients as aws
from fan_out.aws.storage import Bucket, JobStore
from fan_out.errors import InvalidJobError, SourceNotFoundError
from fan_out.model import kind
from fan_out.model.job_input import read_input
from fan_out.model.plan import MOST_LISTERS, MOST_SEGMENTS, SEGMENTS, Plan, make_plan
from fan_out.model.shard import Manifest, Node
from fan_out.steps.reduction import ROOT
from tests.support.context import Context
from tests.support.factories import plan, put_plan
from tests.support.machine import BUCKET, STARTED_AT, Boundary, Machine, make_tasks, put_tasks, response

WHOLE = "a whole number from 1 to 10,000"
SOURCE = '"tasks", {"csv": "uploads/NAME.csv"} or {"failedIn": "JOB-ID"}'
TIME = 'an ISO 8601 timestamp with a zone, such as "2026-11-23T09:00:00+01:00"'
FILTER = "an object with isComplete, dueBefore and dueAfter, each optional"
RATE = "a number from 0.1 to 1,000,000, or null for no ceiling"
KINDS = "one of " + ", ".join(kind.names())
INPUT_FIELDS = (
    "one of kind, params, filter, shardSize, maxConcurrency, toleratedFailurePercentage, "
    "tasksPerSecond, maxCostUsd, source, Comment"
)
NAN = float("nan")
INFINITE = float("inf")
HUGE = 10**30


def values(*all_of: Any) -> tuple[Any, ...]:
    return all_of


# Field, value, and what the sentence says is allowed.
WRONG: list[tuple[str, Any, str]] = [
    *(("shardSize", value, WHOLE) for value in values(0, -1, 10_001, HUGE, True, "500", 500.0, 0.5, NAN, None, [], {})),
    *(("maxConcurrency", value, WHOLE) for value in values(0, -1, 10_001, HUGE, False, "40", 1.5, None, [40])),
    *(
        ("toleratedFailurePercentage", value, "a number from 0 to 100")
        for value in values(-0.1, 100.1, NAN, INFINITE, -INFINITE, True, "5", None, {})
    ),
    *(("tasksPerSecond", value, RATE) for value in values(0, -1, 0.09, 1_000_001, NAN, INFINITE, True, "10", [])),
    *(
        ("maxCostUsd", value, "a number above 0, or null for no limit")
        for value in values(0, -1, NAN, INFINITE, 2_000_000, True, "1", {})
    ),
    *(("kind", value, "the name of a kind") for value in values(None, 1, True, ["daily-plan"], {})),
    *(("params", value, "an object with the kind's parameters") for value in values(None, [], "top=5", 5, True)),
    *(
        ("source", value, SOURCE)
        for value in values(
            None,
            True,
            7,
            [],
            {},
            "csv",
            "Tasks",
            {"csv": 5},
            {"csv": ""},
            {"csv": "tasks.csv"},
            {"csv": "jobs/job-1/manifest.jsonl"},
            {"csv": "uploads/" + "x" * 1024},
            {"csv": "uploads/x.csv", "failedIn": "job-0"},
            {"failedIn": ""},
            {"failedIn": None},
            {"failedIn": "a/b"},
            {"failedIn": "x" * 81},
            {"type": "tasks"},
        )
    ),
    *(("filter", value, FILTER) for value in values(None, [], "open", 1, True)),
]
WRONG_NESTED: list[tuple[dict[str, Any], str, Any, str]] = [
    *(
        ({"filter": {"isComplete": value}}, "filter.isComplete", value, "true or false")
        for value in values("true", 1, 0, [], "")
    ),
    *(
        ({"filter": {name: value}}, f"filter.{name}", value, TIME)
        for name in ("dueBefore", "dueAfter")
        for value in values(
            "tomorrow",
            "2026-11-23",
            "2026-11-23T09:00:00",
            1795424400,
            True,
            "",
            "0001-01-01T00:00:00+10:00",
        )
    ),
    ({"filter": {"title": "x"}}, "filter.title", "x", "one of isComplete, dueBefore, dueAfter"),
    ({"filter": {"is_complete": True}}, "filter.is_complete", True, "one of isComplete, dueBefore, dueAfter"),
    *(
        ({"params": {"top": value}}, "params.top", value, "a whole number from 0 to 10")
        for value in values(-1, 11, HUGE, True, "5", 5.0, None, NAN)
    ),
    *(
        ({"params": {"asOf": value}}, "params.asOf", value, TIME)
        for value in values("today", "2026-11-23T09:00:00", 5, True, "2026-13-01T00:00:00Z")
    ),
    *(
        (
            {"params": {"timeZone": value}},
            "params.timeZone",
            value,
            'the IANA name of a time zone, such as "Europe/Berlin"',
        )
        for value in values("Mars/Olympus", "", "../../etc/passwd", "europe/berlin", 1, None)
    ),
    ({"params": {"tops": 5}}, "params.tops", 5, "one of asOf, timeZone, top"),
    ({"params": {"time_zone": "UTC"}}, "params.time_zone", "UTC", "one of asOf, timeZone, top"),
    (
        {"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}, "params": {"top": 5}},
        "params.top",
        5,
        "left out: there are none",
    ),
    ({"kind": "weekly-plan"}, "kind", "weekly-plan", KINDS),
    ({"kind": "_day"}, "kind", "_day", KINDS),
    ({"kind": "daily_plan"}, "kind", "daily_plan", KINDS),
    (
        {"kind": "daily-plan", "source": {"csv": "uploads/x.csv"}},
        "source",
        "csv",
        "tasks for the kind daily-plan",
    ),
    ({"kind": "import-tasks"}, "source", "tasks", "csv for the kind import-tasks"),
    (
        {"filter": {"isComplete": True}},
        "filter.isComplete",
        True,
        "false for the kind daily-plan, or left out",
    ),
    ({"shardsize": 5}, "shardsize", 5, INPUT_FIELDS),
    ({"shard_size": 5}, "shard_size", 5, INPUT_FIELDS),
    ({"jobId": "x"}, "jobId", "x", INPUT_FIELDS),
]


@pytest.mark.parametrize("name", ["nightly.2026", "nächtlich", "a b", "x" * 81, "--all"])
def test_an_execution_whose_name_cannot_be_an_id_is_refused(machine: Machine, name: str) -> None:
    with pytest.raises(
        InvalidJobError, match=r"^jobId is .*, but must be 1 to 80 letters, digits, - or _, the first no -\.$"
    ):
        planner.handler({"jobId": name, "startedAt": STARTED_AT, "input": {}}, Context())


def test_a_name_whose_earlier_job_left_objects_is_refused(machine: Machine, store: JobStore) -> None:
    call({})
    with pytest.raises(InvalidJobError, match="a name that no job has whose objects are still kept"):
        planner.handler({"jobId": "job-1", "startedAt": "2027-11-23T09:00:00Z", "input": {}}, Context())
    assert store.require("job.json")["startedAt"] == STARTED_AT


def test_a_retrys_day_is_the_day_of_the_first_job_of_its_chain(machine: Machine, store: JobStore) -> None:
    origin(store, FAILED)
    planner.handler(
        {"jobId": "job-2", "startedAt": "2026-11-30T09:00:00Z", "input": {"source": {"failedIn": "job-0"}}},
        Context(),
    )
    retry = JobStore(store.bucket, "job-2").require("job.json", Plan)
    assert (retry.started_at, retry.job().started_at) == ("2026-11-30T09:00:00Z", STARTED_AT)


def call(document: Any) -> dict[str, Any]:
    return planner.handler({"jobId": "job-1", "startedAt": STARTED_AT, "input": document}, Context())


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"


def refused(document: Any) -> InvalidJobError:
    with pytest.raises(InvalidJobError) as caught:
        make_plan("job-1", STARTED_AT, read_input(document))
    return caught.value


@pytest.mark.parametrize(("field", "value", "allowed"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_field_is_refused_with_what_is_allowed(field: str, value: Any, allowed: str) -> None:
    error = refused({field: value})
    assert str(error) == f"{field} is {shown(value)}, but must be {allowed}."
    assert (error.faults[0].field, error.faults[0].allowed) == (field, allowed)


@pytest.mark.parametrize(("document", "field", "value", "allowed"), WRONG_NESTED, ids=lambda value: str(value)[:40])
def test_a_wrong_nested_field_is_refused_by_its_path(
    document: dict[str, Any], field: str, value: Any, allowed: str
) -> None:
    error = refused(document)
    assert str(error).startswith(f"{field} is {shown(value)}, but ")
    assert allowed in str(error)
    assert (error.faults[0].field, error.faults[0].allowed) == (field, allowed)


@pytest.mark.parametrize("document", [[], "daily-plan", 5, None, True, NAN, [{}]])
def test_an_input_that_is_no_object_is_refused(document: Any) -> None:
    assert str(refused(document)) == f"The job's input is {shown(document)}, but must be an object such as {{}}."


def test_every_wrong_field_of_an_input_is_named_up_to_five() -> None:
    text = str(refused({"shardSize": 0, "maxConcurrency": 0, "source": 1, "tasksPerSecond": 0, "kind": 1, "x": 1}))
    assert text.count("but must be") == 5


def test_a_value_of_any_length_is_cut_in_the_sentence() -> None:
    assert len(str(refused({"kind": "x" * 100_000}))) < 300
    assert len(str(refused({"source": ["x" * 1000] * 1000}))) < 300


def test_a_time_that_has_no_day_is_refused() -> None:
    for as_of in ("9999-12-31T12:00:00Z", "0001-01-01T12:00:00Z"):
        for name in ("daily-plan", "reschedule-overdue"):
            assert refused({"kind": name, "params": {"asOf": as_of}}).faults[0].field == "params.asOf"


def test_an_empty_input_is_todays_plan_with_every_default(machine: Machine, store: JobStore) -> None:
    assert call({}) == {"jobId": "job-1", "segments": list(range(SEGMENTS)), "listers": SEGMENTS, "error": None}
    assert store.require("job.json") == {
        "jobId": "job-1",
        "kind": "daily-plan",
        "params": {},
        "source": {"type": "tasks"},
        "filter": {"isComplete": False, "dueBefore": None, "dueAfter": None},
        "shardSize": 2_000,
        "maxConcurrency": 40,
        "toleratedFailurePercentage": 5,
        "tasksPerSecond": None,
        "maxCostUsd": None,
        "startedAt": STARTED_AT,
        "retryOf": None,
        "expectedCount": None,
        "effectScope": f"job-1@{STARTED_AT}",
        "chainStartedAt": STARTED_AT,
        "isCsv": False,
        "segments": SEGMENTS,
    }


def test_every_field_is_used_and_the_comment_ignored(machine: Machine, store: JobStore) -> None:
    call(
        {
            "Comment": {"any": ["thing"]},
            "kind": "reschedule-overdue",
            "params": {"timeZone": "Europe/Berlin", "dueAt": "2026-11-24T12:00:00+01:00"},
            "source": "tasks",
            "filter": {"isComplete": False, "dueAfter": "2026-01-01T01:00:00+01:00"},
            "shardSize": 10_000,
            "maxConcurrency": 10_000,
            "toleratedFailurePercentage": 12.5,
            "tasksPerSecond": 0.1,
            "maxCostUsd": 0.01,
        }
    )
    stored = store.require("job.json", Plan)
    assert stored.params == {"timeZone": "Europe/Berlin", "dueAt": "2026-11-24T12:00:00+01:00"}
    assert stored.filter.to_json() == {
        "isComplete": False,
        "dueBefore": STARTED_AT,
        "dueAfter": "2026-01-01T00:00:00Z",
    }
    assert (stored.shard_size, stored.max_concurrency) == (10_000, 10_000)
    assert (stored.tolerated_failure_percentage, stored.tasks_per_second, stored.max_cost_usd) == (
        12.5,
        0.1,
        0.01,
    )


def test_the_jobs_own_filter_only_narrows_what_the_kind_asks_for() -> None:
    later = plan(kind="reschedule-overdue", filter={"dueBefore": "2026-12-31T00:00:00Z"})
    earlier = plan(kind="reschedule-overdue", filter={"dueBefore": "2026-11-01T00:00:00Z"})
    assert later.filter.due_before == STARTED_AT
    assert earlier.filter.due_before == "2026-11-01T00:00:00Z"


def test_planning_again_writes_the_same_plan(machine: Machine, store: JobStore) -> None:
    first = call({"shardSize": 7}), store.bucket.get(store.key("job.json"))
    assert (call({"shardSize": 7}), store.bucket.get(store.key("job.json"))) == first


def test_a_refused_input_writes_nothing(machine: Machine, store: JobStore) -> None:
    with pytest.raises(InvalidJobError):
        call({"shardSize": 0})
    assert store.get("job.json") is None


def test_a_csv_object_is_one_segment_of_rows(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\nA\n")
    assert call({"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}})["segments"] == [0]
    assert store.require("job.json", Plan).is_csv


def test_a_filter_over_rows_is_refused_rather_than_ignored() -> None:
    error = refused({"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}, "filter": {"isComplete": True}})
    assert error.faults[0].field == "filter"


def test_a_csv_object_that_does_not_exist_is_named(machine: Machine) -> None:
    with pytest.raises(SourceNotFoundError, match=r'^source\.csv is "uploads/gone\.csv", but the job bucket'):
        call({"kind": "import-tasks", "source": {"csv": "uploads/gone.csv"}})


def origin(store: JobStore, record: dict[str, Any] | None, **asked: Any) -> JobStore:
    """An earlier job, job-0, that ended with this record."""
    earlier = JobStore(store.bucket, "job-0")
    put_plan(earlier, **asked)
    if record is not None:
        end(earlier, record)
    return earlier


def end(store: JobStore, record: dict[str, Any]) -> None:
    """End a job with this record, as its reducer does."""
    store.put("record.json", {"jobId": store.job_id} | record)
    if "failuresUrl" in record:
        store.put_lines("failures.jsonl", [b"{}"])
        written = store.bucket.head(store.key("failures.jsonl"))
        assert written is not None
        etag = written.etag
        store.put(ROOT, asdict(Node(failures="failures.jsonl", failures_etag=etag)))


def counts(listed: int, succeeded: int) -> dict[str, int]:
    failed = listed - succeeded
    return {"listed": listed, "succeeded": succeeded, "failed": failed, "quarantined": 0, "unprocessed": 0}


LISTED = {
    "kind": "daily-plan",
    "status": "SUCCEEDED",
    "startedAt": STARTED_AT,
    "endedAt": STARTED_AT,
    "counts": counts(9, 9),
    "shards": {"planned": 1, "done": 1, "failed": 0},
    "resultUrl": f"s3://{BUCKET}/jobs/job-0/result.json",
}
FAILED = LISTED | {
    "counts": counts(9, 5),
    "failuresUrl": f"s3://{BUCKET}/jobs/job-0/failures.jsonl",
}
UNLISTED = {name: value for name, value in LISTED.items() if name != "resultUrl"} | {
    "status": "FAILED",
    "counts": counts(0, 0),
    "error": {"name": "ThrottledError"},
}
SCOPE = f"job-0@{STARTED_AT}"


def test_a_retry_is_as_its_origin_where_the_input_says_nothing(machine: Machine, store: JobStore) -> None:
    origin(
        store,
        FAILED,
        kind="reschedule-overdue",
        shardSize=3,
        maxConcurrency=2,
        params={"timeZone": "Asia/Tokyo"},
    )
    assert call({"source": {"failedIn": "job-0"}, "maxConcurrency": 9})["segments"] == [0]
    stored = store.require("job.json", Plan)
    assert stored.expected_count == 4
    assert (stored.kind, stored.shard_size, stored.max_concurrency) == ("reschedule-overdue", 3, 9)
    assert stored.params == {"timeZone": "Asia/Tokyo"}
    assert stored.filter.due_before == STARTED_AT
    assert (stored.retry_of, stored.effect_scope) == ("job-0", SCOPE)


def test_effects_of_retries_are_keyed_by_the_first_job(machine: Machine, store: JobStore) -> None:
    origin(store, FAILED, kind="reschedule-overdue")
    call({"source": {"failedIn": "job-0"}})
    end(store, FAILED)
    planner.handler({"jobId": "job-2", "startedAt": STARTED_AT, "input": {"source": {"failedIn": "job-1"}}}, Context())
    stored = JobStore(store.bucket, "job-2").require("job.json", Plan)
    assert (stored.retry_of, stored.effect_scope) == ("job-1", SCOPE)


def test_a_retry_of_an_unlisted_job_lists_its_source_anew(machine: Machine, store: JobStore) -> None:
    """What a Manifest that outlived its job has written changes nothing."""
    earlier = origin(store, UNLISTED)
    earlier.put("manifest.json", asdict(Manifest(shards=1, listed=3, skipped=0)))
    assert call({"source": {"failedIn": "job-0"}})["segments"] == list(range(SEGMENTS))
    assert store.require("job.json", Plan).source.type == "tasks"


@pytest.mark.parametrize(
    ("record", "allowed"),
    [
        (None, "a job that has ended and has its record"),
        (LISTED, "a job with failed, quarantined or unprocessed tasks"),
    ],
)
def test_a_job_with_nothing_to_retry_is_refused(
    machine: Machine, store: JobStore, record: dict[str, Any] | None, allowed: str
) -> None:
    origin(store, record)
    with pytest.raises(InvalidJobError) as caught:
        call({"source": {"failedIn": "job-0"}})
    assert str(caught.value) == f'source.failedIn is "job-0", but must be {allowed}.'


@pytest.mark.parametrize("lost", ["the list of its failures", "objects that its tally is made of"])
def test_a_retry_after_lost_objects_lists_its_source_anew(machine: Machine, store: JobStore, lost: str) -> None:
    is_off = lost.startswith("objects")
    earlier = origin(store, FAILED | ({"error": {"name": "AccountingError"}} if is_off else {}))
    if not is_off:
        aws.s3().delete_object(Bucket=BUCKET, Key=earlier.key("failures.jsonl"))
    call({"source": {"failedIn": "job-0"}})
    stored = store.require("job.json", Plan)
    assert (stored.source.type, stored.expected_count, stored.effect_scope) == ("tasks", None, SCOPE)


def test_a_retry_of_a_retry_goes_back_past_a_lost_list(machine: Machine, store: JobStore) -> None:
    first = origin(store, FAILED)
    call({"source": {"failedIn": "job-0"}})
    aws.s3().delete_object(Bucket=BUCKET, Key=first.key("failures.jsonl"))
    end(store, UNLISTED)
    planner.handler({"jobId": "job-2", "startedAt": STARTED_AT, "input": {"source": {"failedIn": "job-1"}}}, Context())
    stored = JobStore(store.bucket, "job-2").require("job.json", Plan)
    assert (stored.source.type, stored.expected_count, stored.retry_of) == ("tasks", None, "job-1")


@pytest.mark.parametrize(
    ("asked", "sums", "tolerated"),
    [
        # What is tolerated are as many tasks as in the first job, of fewer.
        ({}, (2000, 1900), 100),
        ({}, (2000, 1800), 50),
        ({"toleratedFailurePercentage": 10}, (300, 200), 30),
        ({"toleratedFailurePercentage": 1}, (100, 97), 33.3334),
        ({"toleratedFailurePercentage": 0}, (100, 90), 0),
        ({"toleratedFailurePercentage": 100}, (100, 0), 100),
    ],
)
def test_a_retry_tolerates_as_many_failures_as_its_origin(
    machine: Machine, store: JobStore, asked: dict[str, Any], sums: tuple[int, int], tolerated: float
) -> None:
    listed, succeeded = sums
    origin(store, FAILED | {"counts": counts(listed, succeeded)}, **asked)
    call({"source": {"failedIn": "job-0"}})
    assert store.require("job.json", Plan).tolerated_failure_percentage == tolerated


def test_a_retry_tolerates_what_its_input_says(machine: Machine, store: JobStore) -> None:
    origin(store, FAILED)
    call({"source": {"failedIn": "job-0"}, "toleratedFailurePercentage": 2})
    assert store.require("job.json", Plan).tolerated_failure_percentage == 2


def test_a_name_with_the_record_of_another_job_is_refused(machine: Machine, store: JobStore) -> None:
    end(store, LISTED | {"startedAt": "2026-01-01T00:00:00Z"})
    with pytest.raises(InvalidJobError, match="must be a name that no job has whose objects are still kept"):
        call({})


def test_a_retry_of_a_job_whose_input_was_refused_is_refused(machine: Machine, store: JobStore) -> None:
    end(JobStore(store.bucket, "job-0"), UNLISTED | {"kind": None, "error": {"name": "InvalidJobError"}})
    with pytest.raises(InvalidJobError, match="must be a job whose own input was accepted"):
        call({"source": {"failedIn": "job-0"}})


def test_a_retry_of_no_job_is_refused(machine: Machine) -> None:
    with pytest.raises(SourceNotFoundError, match="there is no such job"):
        call({"source": {"failedIn": "job-0"}})


@pytest.mark.parametrize(
    "changed", [{"kind": "daily-plan"}, {"params": {"timeZone": "UTC"}}, {"filter": {"isComplete": True}}]
)
def test_a_retry_cannot_change_what_is_done(machine: Machine, store: JobStore, changed: dict[str, Any]) -> None:
    origin(store, FAILED, kind="reschedule-overdue")
    with pytest.raises(InvalidJobError, match=r"as in job job-0, or left out"):
        call({"source": {"failedIn": "job-0"}} | changed)


def test_workers_are_bounded_by_shards_bound_and_ceiling() -> None:
    assert plan().workers(3) == 3
    assert plan().workers(1000) == 40
    assert plan(tasksPerSecond=0.5).workers(1000) == 5
    assert plan(tasksPerSecond=0.1).workers(1000) == 1
    assert plan().workers(0) == 1


@pytest.mark.parametrize(
    ("tasks", "size", "segments"),
    [
        (0, 0, SEGMENTS),
        (64_000, 32 << 20, SEGMENTS),
        (64_001, 0, SEGMENTS + 1),
        (1_000_000, 300_000_000, 63),
        (64_000, (32 << 20) + 1, SEGMENTS + 1),
        (10**9, 10**12, MOST_SEGMENTS),
    ],
)
def test_segments_go_by_the_tables_size(tasks: int, size: int, segments: int) -> None:
    assert plan().in_segments(tasks, size).segments == segments
    assert plan(kind="import-tasks", source={"csv": "uploads/x.csv"}).in_segments(tasks, size).segments == 1


@pytest.mark.parametrize(
    ("tasks", "account", "listers"),
    [(10**9, 1000, MOST_LISTERS), (10**9, 50, 22), (10**9, 10, 4), (10**9, 1, 1), (10**9, "Denied", 4), (0, 1000, 4)],
)
def test_listers_fit_into_the_account(tasks: int, account: int | str, listers: int) -> None:
    """Each holds a call of ListTasks, and a tenth is left to others."""
    assert plan().in_segments(tasks).listers(account) == listers


def calls_of_planner(machine: Machine) -> list[str]:
    """What a Planner and the ListTasks that it calls ask of AWS, apart from objects."""
    asked = []

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.service != "s3":
            asked.append(boundary.operation)
        return cross()

    machine.around = around
    call = {"jobId": "job-1", "startedAt": STARTED_AT, "input": {}}
    assert machine.call("Planner", call)["error"] is None
    return asked


def test_a_small_table_costs_one_question(machine: Machine) -> None:
    put_tasks(make_tasks(3))
    assert calls_of_planner(machine) == ["Invoke", "GetSecretValue", "DescribeTable"]


def test_a_large_table_is_listed_in_more_segments(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fan_out.model.plan.TASKS_PER_SEGMENT", 4)
    machine.concurrency = 20
    put_tasks(make_tasks(45, complete=0))
    record = machine.run({"shardSize": 2}).output
    segments = {call.event["segment"] for call in machine.calls if call.function == "Lister"}
    assert segments == set(range(12))
    assert record["counts"]["succeeded"] == 45
    answer = machine.call("Planner", {"jobId": "job-2", "startedAt": STARTED_AT, "input": {}})
    assert answer["listers"] == 9
    # A table that may be small says nothing about the rows of an object.
    machine.calls.clear()
    JobStore(Bucket(BUCKET), "x").bucket.put("uploads/x.csv", b"title\nRow\n")
    rows = {"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}}
    answer = machine.call("Planner", {"jobId": "job-3", "startedAt": STARTED_AT, "input": rows})
    assert (answer["segments"], answer["listers"], len(machine.calls)) == ([0], 1, 1)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "InternalServerError"])
def test_a_table_whose_size_is_unknown_is_listed(machine: Machine, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fan_out.model.plan.TASKS_PER_SEGMENT", 1)

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.operation != "DescribeTable":
            return cross()
        assert boundary.request is not None
        return response(boundary.request, 400, json.dumps({"__type": code, "message": ""}), {"x-amzn-ErrorType": code})

    machine.around = around
    put_tasks(make_tasks(12, complete=0))
    ended = machine.run({})
    assert ended.output["counts"]["succeeded"] == 12
    assert sum(call.function == "Lister" for call in machine.calls) == SEGMENTS


def test_a_repeated_planner_keeps_its_segments(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Manifest counts the segments of the plan that is committed."""
    event = {"jobId": "job-1", "startedAt": STARTED_AT, "input": {}}
    first = machine.call("Planner", event)
    monkeypatch.setattr("fan_out.model.plan.TASKS_PER_SEGMENT", 1)
    put_tasks(make_tasks(12))
    assert machine.call("Planner", event) == first


def test_a_refused_job_ends_in_fail_with_a_sentence(machine: Machine) -> None:
    ended = machine.run({"shardSize": 0})
    assert ended.status == "FAILED"
    assert (ended.error, ended.cause) == ("InvalidJobError", f"shardSize is 0, but must be {WHOLE}.")


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, 2_000),
        ({"kind": "reschedule-overdue", "params": {"dueAt": STARTED_AT}}, 500),
        ({"shardSize": 7}, 7),
        ({"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}}, 2_000),
        # Even the number that another kind has by default.
        ({"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}, "shardSize": 500}, 500),
    ],
)
def test_a_kind_suggests_a_shard_size_and_the_input_decides(asked: dict[str, Any], size: int) -> None:
    assert plan(**asked).shard_size == size
