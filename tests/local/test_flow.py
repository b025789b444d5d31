"""The whole flow on the embedded AWS: the synthesized stack, the real state machine, real processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench import flow
from bench.run import Run
from fanout import local
from tests.support.deployment import Deployment, deployed
from tests.support.machine import make_tasks
from tests.support.plan import plan

AS_OF = "2026-11-23T09:00:00Z"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("flow")) as deployment:
        yield deployment


@pytest.fixture
def empty(aws: Deployment) -> Deployment:
    aws.empty()
    return aws


def accounted(record: dict[str, Any]) -> bool:
    counts: dict[str, int] = record["counts"]
    return counts["listed"] == sum(counts[name] for name in ("succeeded", "failed", "quarantined", "unprocessed"))


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_the_default_job_plans_every_open_task(empty: Deployment, count: int) -> None:
    tasks = make_tasks(count, complete=0.0 if count == 1 else 0.2)
    empty.put_tasks(tasks)
    document = {"params": {"asOf": AS_OF}, "shardSize": 50} if count else {}
    record = empty.run(document, f"plan-{count}")
    expected = plan(tasks, AS_OF, "UTC", top=5)
    assert record["status"] == "SUCCEEDED"
    assert accounted(record)
    assert record["counts"]["succeeded"] == len(expected.lines)
    assert empty.lines(f"plan-{count}", "plan.jsonl") == expected.lines
    if count:
        assert record["result"]["counts"] == expected.counts
        assert record["result"]["mostUrgent"] == expected.most_urgent


def test_every_field_of_the_input_is_taken(empty: Deployment) -> None:
    empty.put_tasks(make_tasks(60))
    record = empty.run(
        {
            "Comment": "from the console",
            "kind": "daily-plan",
            "params": {"asOf": AS_OF, "timeZone": "Asia/Kolkata", "top": 1},
            "source": "tasks",
            "filter": {"isComplete": False, "dueBefore": "2026-12-24T00:00:00+01:00", "dueAfter": AS_OF},
            "shardSize": 10,
            "maxConcurrency": 3,
            "toleratedFailurePercentage": 0,
            "tasksPerSecond": 1000,
            "maxCostUsd": 1,
        },
        "all-fields",
    )
    assert record["result"]["timeZone"] == "Asia/Kolkata"
    assert record["result"]["counts"]["overdue"] == record["result"]["counts"]["undated"] == 0
    assert record["shards"]["planned"] == record["shards"]["done"] >= 2


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"shardSize": "many"}, 'shardSize is "many", but must be a whole number from 1 to 10,000.'),
        (
            {"filter": {"dueBefore": "soon"}},
            'filter.dueBefore is "soon", but must be an ISO 8601 timestamp with a zone',
        ),
        ([], "The job's input is [], but must be an object"),
        ({"maxCostUsd": 1e-9, "kind": "probe"}, "maxCostUsd is 1e-09, but the job's"),
    ],
)
def test_a_wrong_input_ends_in_fail_with_a_sentence(aws: Deployment, document: Any, said: str) -> None:
    aws.put_tasks(make_tasks(3))
    job_id = f"wrong-{abs(hash(said))}"
    ended = aws.wait(aws.start(document, job_id))
    assert ended["status"] == "FAILED"
    assert ended["error"] in {"InvalidJobError", "CostLimitError"}
    assert ended["cause"].startswith(said)
    assert "Traceback" not in ended["cause"]
    status, record = aws.http("GET", f"/jobs/{job_id}")
    assert (status, record["status"], record["error"]["message"]) == (200, "FAILED", ended["cause"])


# A new account allows ten functions at a time.
@pytest.mark.parametrize("bound", [1, 7, pytest.param(40, marks=pytest.mark.embedded)])
def test_the_peak_of_simultaneous_workers_is_the_bound(empty: Deployment, bound: int) -> None:
    shards = {1: 4, 7: 28, 40: 100}[bound]
    empty.put_tasks(make_tasks(shards, complete=0))
    job_id = f"bound-{bound}"
    empty.run({"kind": "probe", "params": {"seconds": 0.5}, "shardSize": 1, "maxConcurrency": bound}, job_id)
    if empty.session is None:
        (run,) = [run for run in local.map_runs(empty.home) if str(run["executionArn"]).endswith(f":{job_id}")]
        assert run["peakRunning"] == bound
    spans = empty.lines(job_id, "spans.jsonl")
    assert len(spans) == shards
    edges = sorted([(span["begun"], 1) for span in spans] + [(span["ended"], -1) for span in spans])
    running = peak = 0
    for _, step in edges:
        running += step
        peak = max(peak, running)
    assert peak <= bound


# A fifth of what all the others cost on an account.
@pytest.mark.embedded
def test_the_parent_execution_is_the_same_at_200_shards(empty: Deployment) -> None:
    empty.put_tasks(make_tasks(200, complete=0))
    histories = []
    for size, job_id in ((20, "shards-10"), (1, "shards-200")):
        execution = empty.start({"params": {"asOf": AS_OF}, "shardSize": size}, job_id)
        assert json.loads(empty.wait(execution)["output"])["counts"]["succeeded"] == 200
        histories.append(empty.payloads(execution))
    few, many = histories
    assert max(size for _, _, size in many) < 32 * 1024
    # The segments end in any order, and numbers have more digits in the larger job.
    assert sorted((kind, state) for kind, state, _ in few) == sorted((kind, state) for kind, state, _ in many)
    sizes = [sum(size for _, _, size in history) for history in histories]
    assert abs(sizes[0] - sizes[1]) < 200


def test_a_csv_is_imported_and_its_bad_rows_are_named(empty: Deployment) -> None:
    rows = 'dueAt,title\r\n2026-11-24T10:00:00+01:00,"Zwei\nZeilen, „zitiert“"\r\n,no date\r\nsoon,bad date\r\n,\r\n'
    status, started = empty.http(
        "POST",
        "/tasks/upload",
        ("\ufeff" + rows).encode() + b"\xff,not text\r\n",
        headers={"Content-Type": "text/csv"},
    )
    assert status == 202
    execution = started["executionArn"]
    record = json.loads(empty.wait(execution)["output"])
    assert (record["status"], record["counts"]["succeeded"], record["counts"]["failed"]) == ("PARTIAL", 2, 3)
    status, failures = empty.http("GET", f"/jobs/{record['jobId']}/failures")
    assert status == 200
    assert sum(group["count"] for group in failures["digest"]) == 3
    numbers = [line["task"]["row"] for line in empty.lines(record["jobId"], "failures.jsonl")]
    assert numbers == [4, 5, 6]
    status, listed = empty.http("GET", "/tasks?dueAfter=2026-11-24T09%3A00%3A00Z")
    assert [task["title"] for task in listed["tasks"]] == ["Zwei\nZeilen, „zitiert“"]


def test_jobs_are_started_and_read_by_http(empty: Deployment) -> None:
    empty.put_tasks(make_tasks(20))
    status, started = empty.http("POST", "/jobs", b'{"shardSize": 5, "jobId": "by-http"}')
    assert (status, started["status"]) == (202, "RUNNING")
    assert empty.http("POST", "/jobs", b'{"shardSize": 5, "jobId": "by-http"}')[0] == 202
    assert empty.http("POST", "/jobs", b'{"shardSize": 6, "jobId": "by-http"}')[0] == 409
    ended = json.loads(empty.wait(started["executionArn"])["output"])
    status, record = empty.http("GET", "/jobs/by-http")
    assert status == 200
    assert record["counts"] == ended["counts"]
    assert record["resultUrl"].startswith("http")
    assert empty.http("GET", "/jobs/nowhere")[0] == 404
    assert empty.http("POST", "/jobs", b'{"kind": "nothing"}')[0] == 400
    assert "by-http" in [job["jobId"] for job in empty.http("GET", "/jobs")[1]["jobs"]]
    assert empty.http("GET", "/jobs", signed=False)[0] == 403


def test_a_stopped_job_is_accounted_for_and_retried(empty: Deployment) -> None:
    tasks = make_tasks(30, complete=0)
    empty.put_tasks(tasks)
    document = {
        "kind": "probe",
        "params": {"seconds": 0.4},
        "shardSize": 1,
        "maxConcurrency": 2,
        "jobId": "stopped-early",
    }
    started = empty.http("POST", "/jobs", json.dumps(document).encode())[1]
    wait_until(lambda: empty.http("GET", "/jobs/stopped-early")[1]["shards"]["done"] > 0)
    assert empty.http("DELETE", "/jobs/stopped-early")[0] == 202
    assert empty.wait(started["executionArn"])["status"] == "ABORTED"
    record = wait_until(lambda: (found := empty.http("GET", "/jobs/stopped-early")[1]).get("endedAt") and found)
    assert record["status"] == "STOPPED"
    assert accounted(record)
    assert 0 < record["counts"]["unprocessed"] < 30
    status, retried = empty.http("POST", "/jobs/stopped-early/retry", b'{"params": {"seconds": 0.4}}')
    assert (status, retried["origin"]) == (202, "stopped-early")
    again = json.loads(empty.wait(retried["executionArn"])["output"])
    assert again["origin"] == "stopped-early"
    assert again["counts"]["succeeded"] == record["counts"]["unprocessed"]


def test_a_job_whose_event_is_lost_gets_its_record(empty: Deployment) -> None:
    """By whoever asks for it ten seconds after its end, or by the sweep."""
    events, functions = empty.client("events"), empty.client("lambda")
    name = empty.resource("AWS::Events::Rule", "JobEndedEarly")
    events.disable_rule(Name=name)
    try:
        empty.put_tasks(make_tasks(5, complete=0))
        for job_id in ("asked", "swept"):
            document = {"kind": "probe", "params": {"seconds": 60}, "shardSize": 1, "jobId": job_id}
            execution = empty.http("POST", "/jobs", json.dumps(document).encode())[1]["executionArn"]
            assert empty.http("DELETE", f"/jobs/{job_id}")[0] == 202
            assert empty.wait(execution)["status"] == "ABORTED"
        wait_until(lambda: (found := empty.http("GET", "/jobs/asked")[1]).get("endedAt") and found)
        assert empty.http("GET", "/jobs")[1]["jobs"][0].get("counts") is None
        event = b'{"detail-type": "Scheduled Event"}'
        answer = functions.invoke(FunctionName=empty.function("Finalizer"), Payload=event)
        assert json.loads(answer["Payload"].read()) == {"finalized": 1}
        assert empty.http("GET", "/jobs/swept")[1]["status"] == "STOPPED"
        assert "endedAt" in empty.http("GET", "/jobs/swept")[1]
    finally:
        events.enable_rule(Name=name)


def wait_until(found: Any, seconds: float = 60) -> Any:
    """What `found` answers once it is truthy."""
    import time

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError("waited in vain")


@pytest.mark.embedded
def test_the_benchmark_of_whole_jobs_runs(empty: Deployment) -> None:
    run = Run("smoke", time.monotonic() + 100)
    tables = list(flow.measured(flow.Deployment(empty.home, empty.at, run)))
    assert [len(table.rows) for table in tables] == [1, 1, 1]
    assert not [note for table in tables for note in table.notes]
