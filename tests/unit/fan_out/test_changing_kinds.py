"""import-tasks and reschedule-overdue through the whole workflow, with the Task Service behind it."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest

from fan_out.aws import clients as aws
from fan_out.aws.storage import JobStore
from fan_out.model import kind
from tests.support.factories import task
from tests.support.machine import (
    BUCKET,
    STARTED_AT,
    TABLE,
    Call,
    KilledError,
    Machine,
    forget_processes,
    key,
    make_tasks,
    names,
    put_tasks,
    tasks,
)

IMPORT = {"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}, "toleratedFailurePercentage": 100}


def table() -> dict[str, dict[str, Any]]:
    """Every stored task, by its id, with numbers as JSON has them."""
    found: list[Any] = boto3.resource("dynamodb").Table(TABLE).scan()["Items"]
    return {each["id"]: each | {"version": int(each["version"])} for each in found}


def failed(store: JobStore) -> list[dict[str, Any]]:
    return [json.loads(line.text) for line in store.lines("failures.jsonl")]


def lose_the_first_answer(machine: Machine, function: str) -> None:
    """Every call's first answer is lost after the call did its work."""
    seen: set[str] = set()

    def after(call: Call, answer: Any) -> Any:
        text = json.dumps(call.event)
        if call.function == function and text not in seen:
            seen.add(text)
            raise KilledError
        return answer

    machine.after = after


# --- import-tasks


def test_rows_become_tasks_with_the_fields_that_they_name(machine: Machine, store: JobStore) -> None:
    store.bucket.put(
        "uploads/x.csv",
        '\ufeffdueAt,title,isComplete,detail\r\n2026-12-01T10:00:00+01:00,"Say ""hi"", 検討",Yes,"two\nlines"\r\n'
        ",Plain,,\r\n,Open,FALSE,\r\n".encode(),
    )
    ended = machine.run(IMPORT)
    assert ended.output["status"] == "SUCCEEDED"
    assert ended.output["counts"]["listed"] == 3
    tasks = {each["title"]: each for each in table().values()}
    assert tasks['Say "hi", 検討']["dueAt"] == "2026-12-01T09:00:00Z"
    assert tasks['Say "hi", 検討']["isComplete"] is True
    assert tasks['Say "hi", 検討']["detail"] == "two\nlines"
    assert tasks["Plain"].keys() & {"dueAt", "detail"} == set()
    assert tasks["Open"]["isComplete"] is False
    assert {each["createdAt"] for each in tasks.values()} == {STARTED_AT}


def test_bad_rows_fail_by_number_and_reason_and_good_ones_pass(machine: Machine, store: JobStore) -> None:
    store.bucket.put(
        "uploads/x.csv",
        b"title,dueAt,isComplete\nGood 1,,\n,,\n" + b"x" * 101 + b",,\nBad date,tomorrow,\nBad flag,,maybe\n"
        b'\xff,,\na,b,c,d\n"open,,\nGood 2,,\n',
    )
    ended = machine.run(IMPORT)
    assert ended.output["status"] == "PARTIAL"
    assert ended.output["counts"]["succeeded"] == 2
    assert {each["title"] for each in table().values()} == {"Good 1", "Good 2"}
    reasons = {each["task"]["row"]: each["error"]["message"] for each in failed(store)}
    assert sorted(reasons) == [3, 4, 5, 6, 7, 8, 9]
    assert all(message.startswith(f"Row {row}: ") for row, message in reasons.items())
    for row, word in {
        3: "title",
        4: "title",
        5: "dueAt",
        6: "isComplete",
        7: "UTF-8",
        8: "fields",
        9: "quote",
    }.items():
        assert word in reasons[row]


def test_importing_again_under_one_job_creates_none_twice(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\n" + b"".join(b"Row %d\n" % n for n in range(30)))
    lose_the_first_answer(machine, "WriteTasks")
    machine.order = lambda items: items * 2
    ended = machine.run(IMPORT | {"shardSize": 8})
    assert ended.output["status"] == "SUCCEEDED"
    assert ended.output["counts"]["succeeded"] == 30
    assert sorted(each["title"] for each in table().values()) == sorted(f"Row {n}" for n in range(30))


def test_another_import_of_the_same_object_creates_its_own_tasks(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\nA\n")
    machine.run(IMPORT)
    machine.run(IMPORT, "job-2")
    assert len(table()) == 2


def test_a_rerun_does_not_overwrite_an_edited_task(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\nA\n")
    machine.run(IMPORT)
    (each,) = table().values()
    put_tasks([each | {"title": "Edited", "version": 2}])
    for name in ("record.json", "partials/00000000.json"):
        boto3.client("s3").delete_object(Bucket=store.bucket.name, Key=store.key(name))
    assert machine.run(IMPORT).output["counts"]["succeeded"] == 1
    assert [each["title"] for each in table().values()] == ["Edited"]


def test_a_header_that_is_wrong_fails_the_import_with_a_sentence(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"name\nA\n")
    ended = machine.run(IMPORT)
    assert (ended.status, ended.error) == ("FAILED", "InvalidJobError")
    assert str(ended.cause).startswith('The CSV header has a column "name"')


def test_an_object_of_a_header_alone_is_an_import_of_no_tasks(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\n")
    ended = machine.run(IMPORT)
    assert ended.output["status"] == "SUCCEEDED"
    assert ended.output["result"] == {"imported": 0}


def test_a_retried_import_works_on_the_failed_rows_alone(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title,dueAt\nGood,\nBad,soon\n")
    machine.run(IMPORT)
    again = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert again.output["counts"]["listed"] == again.output["counts"]["failed"] == 1
    assert len(table()) == 1


def test_a_retry_of_a_stopped_import_creates_none_twice(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\n" + b"".join(b"Row %d\n" % n for n in range(8)))

    class StoppedError(BaseException):
        pass

    def stop(call: Call, answer: Any) -> Any:
        # The tasks of this call are created, and nobody hears of it any more.
        if call.function == "WriteTasks":
            raise StoppedError
        return answer

    machine.after = stop
    with pytest.raises(StoppedError):
        machine.run(IMPORT | {"shardSize": 4})
    machine.after = lambda call, answer: answer
    assert len(table()) == 4
    ended = {"name": "job-1", "status": "ABORTED", "startDate": 1795424400123}
    machine.call("Finalizer", {"detail": ended})
    again = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert again.output["counts"]["succeeded"] == 8
    assert sorted(each["title"] for each in table().values()) == [f"Row {n}" for n in range(8)]


# --- reschedule-overdue


def test_overdue_open_tasks_move_and_no_others(machine: Machine, store: JobStore) -> None:
    tasks = make_tasks(60)
    put_tasks(tasks)
    overdue = [each for each in tasks if not each["isComplete"] and each.get("dueAt", STARTED_AT) < STARTED_AT]
    ended = machine.run(
        {"kind": "reschedule-overdue", "shardSize": 7, "params": {"dueAt": "2026-12-24T18:00:00+01:00"}}
    )
    assert ended.output["counts"]["listed"] == ended.output["counts"]["succeeded"] == len(overdue) > 5
    assert ended.output["result"] == {"rescheduled": len(overdue), "dueAt": "2026-12-24T17:00:00Z"}
    after = table()
    moved = {each["id"] for each in overdue}
    for each in tasks:
        if each["id"] in moved:
            assert after[each["id"]]["dueAt"] == "2026-12-24T17:00:00Z"
            assert after[each["id"]]["version"] == 2
            assert after[each["id"]]["title"] == each["title"]
        else:
            assert after[each["id"]] == each


@pytest.mark.parametrize(
    ("params", "due"),
    [
        ({}, "2026-11-23T23:59:59Z"),
        ({"timeZone": "Europe/Berlin"}, "2026-11-23T22:59:59Z"),
        ({"asOf": "2026-10-25T09:00:00+01:00", "timeZone": "Europe/Berlin"}, "2026-10-25T22:59:59Z"),
    ],
)
def test_by_default_tasks_move_to_the_end_of_the_zones_day(machine: Machine, params: dict[str, Any], due: str) -> None:
    put_tasks([task(1, dueAt="2026-10-01T00:00:00Z")])
    machine.run({"kind": "reschedule-overdue", "params": params})
    assert table()["task-00001"]["dueAt"] == due


def test_a_change_is_applied_once_whatever_answers_are_lost(machine: Machine) -> None:
    put_tasks([task(number, dueAt="2026-11-01T00:00:00Z") for number in range(30)])
    lose_the_first_answer(machine, "WriteTasks")
    machine.order = lambda items: items * 2
    ended = machine.run({"kind": "reschedule-overdue", "shardSize": 8})
    assert ended.output["counts"]["succeeded"] == 30
    assert {each["version"] for each in table().values()} == {2}


def test_a_change_after_the_listing_is_kept(machine: Machine, store: JobStore) -> None:
    put_tasks([task(number, dueAt="2026-11-01T00:00:00Z") for number in range(10)])

    def edit(call: Call) -> None:
        if call.function == "Manifest":
            put_tasks([task(3, title="Theirs", dueAt="2026-11-01T00:00:00Z", version=2)])
            boto3.resource("dynamodb").Table(TABLE).delete_item(Key={"id": "task-00004"})

    machine.before = edit
    ended = machine.run({"kind": "reschedule-overdue", "toleratedFailurePercentage": 50})
    assert ended.output["counts"]["succeeded"] == 8
    assert table()["task-00003"]["title"] == "Theirs"
    assert table()["task-00003"]["dueAt"] == "2026-11-01T00:00:00Z"
    assert {each["task"]["id"] for each in failed(store)} == {"task-00003", "task-00004"}


def test_a_retry_applies_the_change_to_the_task_as_it_is_now(machine: Machine, store: JobStore) -> None:
    put_tasks([task(number, dueAt="2026-11-01T00:00:00Z") for number in range(4)])

    def edit(call: Call) -> None:
        if call.function == "Manifest" and call.event["jobId"] == "job-1":
            put_tasks([task(3, dueAt="2026-11-02T00:00:00Z", version=2)])

    machine.before = edit
    ended = machine.run({"kind": "reschedule-overdue", "toleratedFailurePercentage": 25})
    assert ended.output["status"] == "PARTIAL"
    again = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert again.output["counts"]["listed"] == again.output["counts"]["succeeded"] == 1
    assert table()["task-00003"]["version"] == 3
    assert {each["dueAt"] for each in table().values()} == {"2026-11-23T23:59:59Z"}


def test_running_it_again_changes_nothing(machine: Machine) -> None:
    put_tasks([task(number, dueAt="2026-11-01T00:00:00Z") for number in range(5)])
    machine.run({"kind": "reschedule-overdue"})
    before = table()
    again = machine.run({"kind": "reschedule-overdue"}, "job-2")
    assert again.output["counts"]["listed"] == 0
    assert table() == before


def test_an_expired_jobs_name_used_again_is_another_job(machine: Machine, store: JobStore) -> None:
    """Step Functions forgets a name after 90 days, S3 the objects; the tasks keep the keys of their effects."""
    document = {"kind": "import-tasks", "source": {"csv": "uploads/quarter.csv"}}
    for started_at, rows in (("2026-01-05T09:00:00Z", [b"A", b"B"]), ("2026-04-06T09:00:00Z", [b"C", b"D"])):
        store.bucket.put("uploads/quarter.csv", b"\n".join([b"title", *rows]))
        assert machine.run(document, "quarterly", started_at).output["counts"]["succeeded"] == 2
        for name in names("quarterly"):
            aws.s3().delete_object(Bucket=BUCKET, Key=key(name, "quarterly"))
        forget_processes()
    assert sorted(each["title"] for each in table().values()) == ["A", "B", "C", "D"]


def test_a_kind_that_does_not_say_that_it_writes_may_not(
    machine: Machine, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(kind.find("import-tasks")), "writes", False)
    store.bucket.put("uploads/x.csv", b"title\nA\nB\n")
    ended = machine.run({"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}})
    assert ended.status == "FAILED"
    assert tasks() == {}
    (group,) = store.require("digest.json")
    assert (group["error"], group["count"]) == ("UndeclaredWriteError", 2)
    assert group["message"] == (
        "The kind import-tasks calls job.write, but does not say so: it must have writes = True."
    )
