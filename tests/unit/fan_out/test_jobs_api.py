from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.backends import get_backend
from moto.core.botocore_stubber import MockRawResponse

from fan_out import jobs, jobs_api
from fan_out.aws import clients as aws
from fan_out.aws.storage import LINK_SECONDS, Bucket, JobStore
from fan_out.errors import ServiceUnavailableError, ThrottledError
from fan_out.jobs import Jobs
from fan_out.model.job_input import check_id, new_id
from tests.support.context import Context
from tests.support.events import api_event, execution_ended
from tests.support.factories import put_plan
from tests.support.machine import BUCKET, REGION, forget_warm_state

ACCOUNT = "123456789012"
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:FanOut"
FINALIZER = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:Finalizer"


@pytest.fixture(scope="module")
def account() -> Iterator[None]:
    """An account with the job bucket and a state machine that starts executions and leaves them running."""
    environment = {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "BUCKET_NAME": BUCKET,
        "STATE_MACHINE_ARN": MACHINE,
        "FINALIZER_ARN": FINALIZER,
        "STACK_NAME": "FanOut",
        "POWERTOOLS_SERVICE_NAME": "test",
        "POWERTOOLS_METRICS_NAMESPACE": "FanOut",
        "POWERTOOLS_TRACE_DISABLED": "1",
    }
    with mock_aws(), patch.dict("os.environ", environment):
        forget_warm_state()
        boto3.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": cast("Any", REGION)}
        )
        boto3.client("stepfunctions").create_state_machine(
            name="FanOut",
            definition='{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}',
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/machine",
        )
        yield
        forget_warm_state()


@pytest.fixture
def bucket(account: None) -> Bucket:
    """The empty job bucket; no job was ever started."""
    get_backend("s3")[ACCOUNT]["aws"].buckets[BUCKET].keys.clear()
    for machine in get_backend("stepfunctions")[ACCOUNT][REGION].state_machines:
        machine.executions.clear()
    jobs_api.jobs.cache_clear()
    return Bucket(BUCKET)


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def problem(self) -> dict[str, Any]:
        """The body of a refused request: problem details that agree with the answer."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.body["status"] == self.status
        return cast("dict[str, Any]", self.body)

    @property
    def refusal(self) -> tuple[int, str, str]:
        """Status, title and the only field that is to blame."""
        (error,) = self.problem["errors"]
        return self.status, self.problem["title"], error["field"]


def request(
    method: str,
    path: str,
    body: str | bytes | None = None,
    *,
    content_type: str | None = "application/json",
    query: Mapping[str, str | list[str]] | None = None,
) -> Answer:
    """A request through API Gateway."""
    event = api_event(method, path, body, content_type=content_type, query=query)
    answer = jobs_api.handler(event, Context())
    answer["body"].encode()
    return Answer(answer["statusCode"], json.loads(answer["body"]), answer["headers"])


def send(method: str, path: str, body: str | bytes | None = None, **options: Any) -> tuple[int, Any]:
    """The status and the document of the answer."""
    answer = request(method, path, body, **options)
    return answer.status, answer.body


def running(job_id: str) -> str:
    return f"{MACHINE.replace('stateMachine', 'execution')}:{job_id}"


def describe(job_id: str) -> Any:
    return aws.step_functions().describe_execution(executionArn=running(job_id))


# --- starting jobs


def test_a_job_is_started_with_its_input_as_it_was_sent(bucket: Bucket) -> None:
    status, answer = send("POST", "/jobs", '{"jobId": "mine", "shardSize": 7, "Comment": "über"}')
    assert (status, answer) == (202, {"jobId": "mine", "executionArn": running("mine"), "status": "RUNNING"})
    assert json.loads(describe("mine")["input"]) == {"shardSize": 7, "Comment": "über"}


@pytest.mark.parametrize("body", [None, "", "  ", "{}", b"", b"{}"])
def test_no_body_starts_todays_plan_under_a_new_id(bucket: Bucket, body: Any) -> None:
    status, answer = send("POST", "/jobs", body, content_type=None)
    assert status == 202
    assert json.loads(describe(answer["jobId"])["input"]) == {}


def test_a_body_may_come_in_base64(bucket: Bucket) -> None:
    _, answer = send("POST", "/jobs", b'{"jobId": "b64"}')
    assert answer["jobId"] == "b64"


def test_new_ids_sort_by_time_and_are_ids() -> None:
    made = [new_id() for _ in range(20)]
    assert len(set(made)) == 20
    assert all(check_id(each) == each for each in made)


@pytest.mark.parametrize(
    "body",
    [
        "{", "no", "{'a': 1}", '{"a": NaN}', '{"Comment": Infinity}', '{"kind": "\\ud800"}', b"\xff\xfe", "[" * 100_000,
        '{"shardSize": ' + "9" * 5000 + "}",
    ],
    ids=lambda body: str(body)[:20],
)  # fmt: skip
def test_a_body_that_is_no_json_is_refused(bucket: Bucket, body: Any) -> None:
    assert request("POST", "/jobs", body).refusal == (400, "InvalidRequestError", "body")


@pytest.mark.parametrize("body", ["[]", "5", '"x"', "null", "true"])
def test_a_body_that_is_no_object_is_refused(bucket: Bucket, body: str) -> None:
    answer = request("POST", "/jobs", body)
    assert answer.refusal == (400, "InvalidRequestError", "body")
    assert answer.problem["detail"] == f"body is {body}, but must be a JSON object in UTF-8."


def test_a_body_that_is_no_base64_although_it_says_so_is_refused(bucket: Bucket) -> None:
    event = api_event("POST", "/jobs", b"") | {"body": "***"}
    assert jobs_api.handler(event, Context())["statusCode"] == 400


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"shardSize": 0}, "shardSize"),
        ({"params": {"top": 99}}, "params.top"),
        ({"filter": {"isComplete": 1}}, "filter.isComplete"),
        ({"unheardOf": 1}, "unheardOf"),
        ({"kind": "x" * 10_000}, "kind"),
        ({"source": {"csv": "x"}}, "source"),
        ({"jobId": ""}, "jobId"),
        ({"jobId": "x" * 81}, "jobId"),
        ({"jobId": "a/b"}, "jobId"),
        ({"jobId": "ü"}, "jobId"),
        ({"jobId": 5}, "jobId"),
        ({"jobId": None}, "jobId"),
    ],
)
def test_a_wrong_input_is_refused_and_starts_nothing(bucket: Bucket, document: dict[str, Any], field: str) -> None:
    answer = request("POST", "/jobs", json.dumps(document))
    assert answer.refusal == (400, "InvalidJobError", field)
    assert answer.problem["detail"].startswith(f"{field} ")
    assert answer.problem["errors"][0]["allowed"] in answer.problem["detail"]
    assert len(json.dumps(answer.problem)) < 2000
    assert aws.step_functions().list_executions(stateMachineArn=MACHINE)["executions"] == []


def test_the_same_job_again_is_the_same_job(bucket: Bucket) -> None:
    first = send("POST", "/jobs", '{"jobId": "mine", "shardSize": 7, "maxConcurrency": 2}')
    assert send("POST", "/jobs", '{"maxConcurrency": 2, "shardSize": 7, "jobId": "mine"}') == first
    assert len(aws.step_functions().list_executions(stateMachineArn=MACHINE)["executions"]) == 1


def test_the_same_job_after_its_end_has_its_status(bucket: Bucket) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    aws.step_functions().stop_execution(executionArn=running("mine"))
    assert send("POST", "/jobs", '{"jobId": "mine"}')[1]["status"] == "STOPPED"
    JobStore(bucket, "mine").put("record.json", RECORD | {"status": "PARTIAL"})
    assert send("POST", "/jobs", '{"jobId": "mine"}')[1]["status"] == "PARTIAL"


def test_another_job_under_the_same_id_is_a_conflict(bucket: Bucket) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    status, answer = send("POST", "/jobs", '{"jobId": "mine", "shardSize": 7}')
    assert (status, answer["title"]) == (409, "JobExistsError")
    assert json.loads(describe("mine")["input"]) == {}


def test_an_input_larger_than_an_execution_takes_is_refused(bucket: Bucket) -> None:
    status, answer = send("POST", "/jobs", json.dumps({"Comment": "x" * jobs_api.LARGEST_INPUT}))
    assert (status, answer["title"]) == (413, "PayloadTooLargeError")


# --- looking at jobs


def test_the_latest_jobs_are_listed_up_to_the_limit(bucket: Bucket) -> None:
    for number in range(5):
        send("POST", "/jobs", json.dumps({"jobId": f"job-{number}"}))
    aws.step_functions().stop_execution(executionArn=running("job-4"))
    status, answer = send("GET", "/jobs")
    assert status == 200
    assert {job["jobId"] for job in answer["jobs"]} == {f"job-{number}" for number in range(5)}
    by_id = {job["jobId"]: job for job in answer["jobs"]}
    assert by_id["job-4"]["status"] == "STOPPED"
    assert by_id["job-0"]["status"] == "RUNNING"
    assert set(by_id["job-4"]) == {"jobId", "kind", "status", "startedAt", "endedAt"}
    assert len(send("GET", "/jobs", query={"limit": "2"})[1]["jobs"]) == 2


def test_a_listed_job_that_ended_has_the_status_of_its_record(bucket: Bucket) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    execution = {
        "name": "mine",
        "status": "SUCCEEDED",
        "startDate": datetime(2026, 11, 23, 9, tzinfo=UTC),
        "stopDate": datetime(2026, 11, 23, 10, tzinfo=UTC),
    }
    jobs = jobs_api.jobs()
    assert jobs._summary(execution)["status"] == "SUCCEEDED"
    JobStore(bucket, "mine").put("record.json", RECORD)
    found = jobs._summary(execution)
    assert (found["status"], found["kind"], found["counts"]) == ("PARTIAL", "daily-plan", RECORD["counts"])


def test_pages_of_jobs_together_are_all_jobs(bucket: Bucket) -> None:
    for number in range(5):
        send("POST", "/jobs", json.dumps({"jobId": f"job-{number}"}))
    found, query = [], {"limit": "2"}
    while True:
        page = send("GET", "/jobs", query=query)[1]
        found += [job["jobId"] for job in page["jobs"]]
        if "nextPageToken" not in page:
            break
        query = {"limit": "2", "pageToken": page["nextPageToken"]}
    assert sorted(found) == [f"job-{number}" for number in range(5)]


def test_a_page_token_that_is_none_is_refused(bucket: Bucket) -> None:
    answer = request("GET", "/jobs", query={"pageToken": "nonsense"})
    assert answer.refusal == (400, "InvalidRequestError", "pageToken")


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1.5", "9" * 5000, "²"])
def test_a_wrong_limit_is_refused(bucket: Bucket, limit: str) -> None:
    answer = request("GET", "/jobs", query={"limit": limit})
    assert answer.refusal == (400, "InvalidRequestError", "limit")


def test_a_job_that_just_started_has_a_record_of_nothing_yet(bucket: Bucket) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    status, record = send("GET", "/jobs/mine")
    assert status == 200
    assert (record["jobId"], record["kind"], record["status"]) == ("mine", None, "RUNNING")
    assert record["counts"] == {"listed": 0, "succeeded": 0, "failed": 0, "quarantined": 0, "unprocessed": 0}
    assert record["startedAt"].endswith("Z")


class MapRuns:
    """Step Functions' answers about a running map, which moto does not have."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        events: Any = aws.step_functions().meta.events
        events.register_first("before-send.sfn.ListMapRuns", self._list)
        events.register_first("before-send.sfn.DescribeMapRun", self._describe)

    def _list(self, request: Any, **_: Any) -> AWSResponse:
        self.asked.append("ListMapRuns")
        arn = f"arn:aws:states:{REGION}:{ACCOUNT}:mapRun:FanOut/Shards:1"
        run = {"executionArn": "e", "mapRunArn": arn, "stateMachineArn": MACHINE, "startDate": 1.0}
        return self._answer(request, {"mapRuns": [run]})

    def _describe(self, request: Any, **_: Any) -> AWSResponse:
        self.asked.append("DescribeMapRun")
        names = (
            "pending",
            "running",
            "succeeded",
            "failed",
            "timedOut",
            "aborted",
            "total",
            "resultsWritten",
        )
        counts = dict(zip(names, (1, 2, 30, 4, 5, 6, 48, 0), strict=True))
        return self._answer(request, {"itemCounts": counts})

    @staticmethod
    def _answer(request: Any, document: Any) -> AWSResponse:
        raw = MockRawResponse(json.dumps(document))
        return AWSResponse(request.url, 200, cast("Any", {"Content-Type": "application/x-amz-json-1.0"}), raw)


def test_a_running_jobs_record_has_live_counts(bucket: Bucket) -> None:
    runs = MapRuns()
    send("POST", "/jobs", '{"jobId": "mine"}')
    store = JobStore(bucket, "mine")
    put_plan(store, maxConcurrency=3)
    bound = {"workers": 3, "reason": "At most 3 workers at a time, because maxConcurrency is 3."}
    store.put("manifest.json", {"shards": 48, "listed": 480, "skipped": 0, "concurrency": bound})
    _, record = send("GET", "/jobs/mine")
    assert record["concurrency"] == bound
    assert (record["kind"], record["status"], record["counts"]["listed"]) == ("daily-plan", "RUNNING", 480)
    assert record["shards"] == {"planned": 48, "done": 30, "failed": 15}
    assert runs.asked == ["ListMapRuns", "DescribeMapRun"]


def test_many_viewers_of_a_job_share_one_look_at_its_map(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = MapRuns()
    send("POST", "/jobs", '{"jobId": "mine"}')
    store = JobStore(bucket, "mine")
    put_plan(store)
    store.put("manifest.json", {"shards": 48, "listed": 480, "skipped": 0})
    now = 100.0
    monkeypatch.setattr("fan_out.jobs.time", SimpleNamespace(monotonic=lambda: now))
    for _ in range(10):
        send("GET", "/jobs/mine")
    assert len(runs.asked) == 2
    now += jobs.PROGRESS_SECONDS
    send("GET", "/jobs/mine")
    assert len(runs.asked) == 4


RECORD: dict[str, Any] = {
    "jobId": "mine",
    "kind": "daily-plan",
    "status": "PARTIAL",
    "startedAt": "2026-11-23T09:00:00Z",
    "endedAt": "2026-11-23T10:00:00Z",
    "counts": {"listed": 1, "succeeded": 0, "failed": 1, "quarantined": 0, "unprocessed": 0},
    "shards": {"planned": 1, "done": 1, "failed": 0},
    "resultUrl": f"s3://{BUCKET}/jobs/mine/result.json",
    "failuresUrl": f"s3://{BUCKET}/jobs/mine/failures.jsonl",
}


def put_failed(bucket: Bucket) -> None:
    """The job `mine`, of which one task failed."""
    store = JobStore(bucket, "mine")
    put_plan(store)
    store.put("record.json", RECORD)
    store.put_lines("failures.jsonl", [b"{}"])


def test_an_ended_job_is_its_record_with_links_that_work(bucket: Bucket) -> None:
    store = JobStore(bucket, "mine")
    store.put("record.json", RECORD)
    store.put("result.json", {"n": 1})
    _, record = send("GET", "/jobs/mine")
    assert record["status"] == "PARTIAL"
    assert record["resultUrl"].startswith("https://")
    assert "Signature" in record["resultUrl"]
    assert "jobs/mine/failures.jsonl" in record["failuresUrl"]
    # The record itself holds no link, which would be dead an hour later.
    assert store.require("record.json") == RECORD


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/none"),
        ("GET", "/jobs/none/failures"),
        ("POST", "/jobs/none/retry"),
        ("DELETE", "/jobs/none"),
    ],
)
def test_a_job_that_does_not_exist_is_not_found(bucket: Bucket, method: str, path: str) -> None:
    answer = request(method, path)
    assert (answer.status, answer.problem["title"]) == (404, "JobNotFoundError")
    assert answer.problem["detail"] == 'There is no job "none".'


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/nothing"), ("PUT", "/jobs"), ("GET", "/jobs/a/b/c")]
)
def test_a_path_that_does_not_exist_is_not_found(bucket: Bucket, method: str, path: str) -> None:
    assert send(method, path)[0] == 404


@pytest.mark.parametrize("job_id", ["x" * 81, "a.b", "a b"])
def test_what_cannot_be_the_id_of_a_job_is_refused(bucket: Bucket, job_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/failures"), ("POST", "/retry"), ("DELETE", "")):
        answer = request(method, f"/jobs/{job_id}{path}")
        assert answer.refusal == (400, "InvalidJobError", "jobId")


# --- a job whose ending was not delivered


class Finalizer:
    """Lambda's answers to asynchronous calls of the Finalizer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[Any] = []
        self.error: Exception | None = None
        monkeypatch.setattr("fan_out.jobs.time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr("fan_out.jobs.aws.lambda_client", lambda: self)
        self.now = 1000.0

    def invoke(self, **asked: Any) -> Any:
        assert (asked["FunctionName"], asked["InvocationType"]) == (FINALIZER, "Event")
        if self.error is not None:
            raise self.error
        self.events.append(json.loads(asked["Payload"]))
        return {"StatusCode": 202}


def end_early(job_id: str, status: str, seconds: int = 11) -> None:
    """End a job some seconds ago, of which no event comes."""
    send("POST", "/jobs", json.dumps({"jobId": job_id}))
    aws.step_functions().stop_execution(executionArn=running(job_id))
    (machine,) = get_backend("stepfunctions")[ACCOUNT][REGION].state_machines
    execution = next(each for each in machine.executions if each.name == job_id)
    execution.status = status
    execution.stop_date = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("status", ["ABORTED", "FAILED"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/result"), ("GET", "/failures"), ("POST", "/retry")]
)
def test_asking_for_a_job_without_its_record_finalizes_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, status: str, method: str, path: str
) -> None:
    finalizer = Finalizer(monkeypatch)
    end_early("mine", status)
    send(method, f"/jobs/mine{path}")
    (event,) = finalizer.events
    expected = execution_ended(status, "mine")
    assert {name: event[name] for name in ("source", "detail-type")} == {
        name: expected[name] for name in ("source", "detail-type")
    }
    detail = event["detail"]
    assert (detail["name"], detail["status"], detail["executionArn"]) == ("mine", status, running("mine"))
    assert set(detail) == set(expected["detail"]) - {"input", "output"}
    assert abs(detail["startDate"] / 1000 - datetime.now(UTC).timestamp()) < 60


def test_a_job_is_finalized_at_most_once_a_minute(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    finalizer = Finalizer(monkeypatch)
    for name in ("mine", "other"):
        end_early(name, "ABORTED")
        send("GET", f"/jobs/{name}")
    finalizer.now += 59
    send("GET", "/jobs/mine")
    assert [event["detail"]["name"] for event in finalizer.events] == ["mine", "other"]
    finalizer.now += 1
    send("GET", "/jobs/mine")
    assert len(finalizer.events) == 3


def test_an_event_has_its_time_before_a_job_is_finalized(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    finalizer = Finalizer(monkeypatch)
    end_early("mine", "ABORTED", seconds=5)
    send("POST", "/jobs", '{"jobId": "runs"}')
    for name in ("mine", "runs"):
        send("GET", f"/jobs/{name}")
    assert finalizer.events == []


def test_a_job_whose_record_has_expired_is_told_so(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    finalizer = Finalizer(monkeypatch)
    for name, days, error in (("new", 7, "RecordPendingError"), ("old", 9, "RecordExpiredError")):
        end_early(name, "ABORTED", seconds=days * 86_400)
        assert send("GET", f"/jobs/{name}")[1]["error"]["name"] == error
    # The Finalizer would write a record of nothing.
    assert [event["detail"]["name"] for event in finalizer.events] == ["new"]


def test_a_job_is_told_of_while_its_finalizer_is_throttled(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    finalizer = Finalizer(monkeypatch)
    end_early("mine", "ABORTED")
    finalizer.error = ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")
    assert send("GET", "/jobs/mine")[1]["error"]["name"] == "RecordPendingError"
    finalizer.error = None
    send("GET", "/jobs/mine")
    assert len(finalizer.events) == 1


# --- failures, retry, stop


def test_failures_come_with_digest_and_retry_command(
    bucket: Bucket,
) -> None:
    store = JobStore(bucket, "mine")
    store.put("record.json", RECORD)
    groups = [{"outcome": "failed", "error": "BadError", "message": "", "count": 1, "samples": []}]
    store.put("digest.json", groups)
    _, answer = send("GET", "/jobs/mine/failures")
    assert answer["digest"] == groups
    assert answer["retryCommand"] == f"fanout retry --stack FanOut --region {REGION} mine"
    assert answer["retryRequest"] == "POST /jobs/mine/retry"
    assert answer["failuresUrl"].startswith("https://")
    assert answer["counts"]["failed"] == 1


def test_what_is_not_named_is_retried_too(bucket: Bucket) -> None:
    """A job that was stopped before its listing stood, or whose account is off, lists its source anew."""
    unlisted = {name: value for name, value in RECORD.items() if not name.endswith("Url")}
    counts = dict.fromkeys(RECORD["counts"], 0)
    JobStore(bucket, "mine").put("record.json", unlisted | {"status": "STOPPED", "counts": counts})
    _, answer = send("GET", "/jobs/mine/failures")
    assert answer["digest"] == []
    assert answer["retryRequest"] == "POST /jobs/mine/retry"


def test_a_command_for_the_embedded_aws_has_no_options(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert jobs_api.jobs().options == ()


def test_a_job_without_failures_has_nothing_to_retry(bucket: Bucket) -> None:
    counts = RECORD["counts"] | {"succeeded": 1, "failed": 0}
    JobStore(bucket, "mine").put("record.json", RECORD | {"status": "SUCCEEDED", "counts": counts})
    _, answer = send("GET", "/jobs/mine/failures")
    assert answer["digest"] == []
    assert "retryCommand" not in answer


@pytest.mark.parametrize("body", [None, '{"maxConcurrency": 2}'])
def test_a_retry_is_a_job_over_the_failures_with_changes(bucket: Bucket, body: str | None) -> None:
    put_failed(bucket)
    status, answer = send("POST", "/jobs/mine/retry", body)
    assert (status, answer["origin"]) == (202, "mine")
    expected = {"source": {"failedIn": "mine"}} | ({} if body is None else {"maxConcurrency": 2})
    assert json.loads(describe(answer["jobId"])["input"]) == expected


@pytest.mark.parametrize(
    "change", [{"shardSize": 0}, {"kind": "import-tasks"}, {"params": {"top": 1}}, {"source": "tasks"}]
)
def test_a_retry_with_a_wrong_change_is_refused(bucket: Bucket, change: dict[str, Any]) -> None:
    put_failed(bucket)
    answer = request("POST", "/jobs/mine/retry", json.dumps(change))
    assert answer.refusal == (400, "InvalidJobError", *change)
    assert not aws.step_functions().list_executions(stateMachineArn=MACHINE)["executions"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "a job that has ended and has its record"),
        (
            RECORD | {"counts": RECORD["counts"] | {"succeeded": 1, "failed": 0}},
            "a job with failed, quarantined or unprocessed tasks",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/jobs/mine/retry", "/jobs"])
def test_nothing_to_retry_is_refused_before_a_start(
    bucket: Bucket, path: str, record: dict[str, Any] | None, said: str
) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    put_plan(JobStore(bucket, "mine"))
    if record is not None:
        JobStore(bucket, "mine").put("record.json", record)
    body = '{"source": {"failedIn": "mine"}}' if path == "/jobs" else None
    answer = request("POST", path, body)
    assert answer.refusal == (400, "InvalidJobError", "source.failedIn")
    assert answer.problem["errors"][0]["allowed"] == said
    assert len(aws.step_functions().list_executions(stateMachineArn=MACHINE)["executions"]) == 1


def test_a_job_is_stopped_once(bucket: Bucket) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    assert send("DELETE", "/jobs/mine") == (202, {"jobId": "mine", "status": "STOPPED"})
    assert describe("mine")["status"] == "ABORTED"
    assert send("DELETE", "/jobs/mine") == (202, {"jobId": "mine", "status": "STOPPED"})


def test_a_stopped_job_says_so_before_its_account_is_written(bucket: Bucket) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    send("DELETE", "/jobs/mine")
    _, record = send("GET", "/jobs/mine")
    assert (record["status"], record["error"]["name"]) == ("STOPPED", "RecordPendingError")


# --- results


def test_the_result_of_an_ended_job_comes_with_its_link(bucket: Bucket) -> None:
    store = JobStore(bucket, "mine")
    store.put("record.json", RECORD | {"result": {"n": 1}})
    store.put("result.json", {"n": 1})
    status, answer = send("GET", "/jobs/mine/result")
    assert (status, answer["result"], answer["fileName"]) == (200, {"n": 1}, "result.json")
    assert answer["contentLength"] == len(bucket.get("jobs/mine/result.json") or b"")
    assert answer["resultUrl"].startswith("https://")


@pytest.mark.parametrize("is_too_large", [False, True])
def test_a_result_too_large_for_a_record_is_read(
    bucket: Bucket, is_too_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(bucket, "mine")
    result, key = {"text": "x" * 20_000}, {"resultKey": "jobs/mine/result.json"}
    store.put("record.json", RECORD | {"result": key})
    store.put("result.json", result)
    if is_too_large:
        monkeypatch.setattr(jobs, "LARGEST_RESULT", 20_000)
    assert send("GET", "/jobs/mine/result")[1]["result"] == (key if is_too_large else result)


def test_a_job_without_a_result_says_so(bucket: Bucket) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    answer = request("GET", "/jobs/mine/result")
    assert (answer.status, answer.problem["title"]) == (409, "JobNotEndedError")
    JobStore(bucket, "mine").put("record.json", RECORD)
    answer = request("GET", "/jobs/mine/result")
    assert (answer.status, answer.problem["title"]) == (404, "ResultNotFoundError")
    bare = {name: value for name, value in RECORD.items() if name != "resultUrl"}
    JobStore(bucket, "mine").put("record.json", bare)
    answer = request("GET", "/jobs/mine/result")
    assert (answer.status, answer.problem["title"]) == (404, "ResultNotFoundError")


def test_a_running_jobs_phase_follows_its_objects(bucket: Bucket) -> None:
    def phase() -> str:
        jobs_api.jobs.cache_clear()
        return str(send("GET", "/jobs/mine")[1]["phase"])

    MapRuns()
    send("POST", "/jobs", '{"jobId": "mine"}')
    assert phase() == "LISTING"
    store = JobStore(bucket, "mine")
    put_plan(store)
    store.put("manifest.json", {"shards": 48, "listed": 480, "skipped": 0})
    assert phase() == "WORKING"
    store.put("manifest.json", {"shards": 45, "listed": 450, "skipped": 0})
    assert phase() == "REDUCING"


def test_jobs_are_filtered_by_their_records_status(bucket: Bucket) -> None:
    for job_id in ("running", "partial", "stopped"):
        send("POST", "/jobs", json.dumps({"jobId": job_id}))
    for job_id in ("partial", "stopped"):
        aws.step_functions().stop_execution(executionArn=running(job_id))
    JobStore(bucket, "partial").put("record.json", RECORD | {"jobId": "partial"})
    for status, expected in (("RUNNING", ["running"]), ("PARTIAL", ["partial"]), ("STOPPED", ["stopped"])):
        page = send("GET", "/jobs", query={"status": status})[1]
        assert [job["jobId"] for job in page["jobs"]] == expected
    assert request("GET", "/jobs", query={"status": "OVER"}).refusal == (400, "InvalidRequestError", "status")


def test_a_started_job_has_its_location(bucket: Bucket) -> None:
    put_failed(bucket)
    bucket.put("uploads/a.csv", b"title\nA\n")
    for path, body in (
        ("/jobs", "{}"),
        ("/jobs/mine/retry", None),
        ("/tasks/upload", '{"source": {"csv": "uploads/a.csv"}}'),
    ):
        answer = request("POST", path, body)
        assert answer.headers["Location"] == f"/v1/jobs/{answer.body['jobId']}"


def test_a_csv_that_is_not_there_starts_no_job(bucket: Bucket) -> None:
    body = '{"kind": "import-tasks", "source": {"csv": "uploads/gone.csv"}}'
    assert request("POST", "/jobs", body).refusal == (400, "SourceNotFoundError", "source.csv")
    assert aws.step_functions().list_executions(stateMachineArn=MACHINE)["executions"] == []


@pytest.mark.parametrize(
    "source", [{"csv": "uploads/"}, {"csv": "uploads/a\nb"}, {"failedIn": "a\nb"}, {"failedIn": "a.b"}]
)
def test_a_source_that_cannot_be_is_refused(bucket: Bucket, source: dict[str, str]) -> None:
    body = json.dumps({"source": source})
    assert request("POST", "/jobs", body).refusal == (400, "InvalidJobError", "source")


@pytest.mark.parametrize("path", ["/jobs/mine", "/jobs/mine/failures", "/jobs/mine/result"])
def test_an_unknown_query_parameter_is_refused(bucket: Bucket, path: str) -> None:
    answer = request("GET", path, query={"verbose": "1"})
    assert answer.refusal == (400, "InvalidRequestError", "verbose")


# --- uploads


MIB = 1 << 20


def test_a_small_upload_is_one_link(bucket: Bucket) -> None:
    for body in (None, "{}", f'{{"bytes": {64 * MIB}}}'):
        status, answer = send("POST", "/uploads", body)
        assert (status, answer["method"], answer["expiresIn"]) == (201, "PUT", LINK_SECONDS)
        assert answer["source"]["csv"] in answer["url"]


@pytest.mark.parametrize(
    ("size", "part", "parts"),
    [(64 * MIB + 1, 16 * MIB, 5), (160_000 * MIB, 16 * MIB, 10_000), (5 << 40, 525 * MIB, 9_987)],
)
def test_a_large_upload_has_links_for_its_parts(bucket: Bucket, size: int, part: int, parts: int) -> None:
    _, answer = send("POST", "/uploads", json.dumps({"bytes": size}))
    assert (answer["partBytes"], answer["parts"]) == (part, parts)
    assert part * (parts - 1) < size <= part * parts
    assert len(answer["urls"]) == min(parts, 100)
    assert "partNumber=1&" in answer["urls"][0]
    _, more = send("POST", f"/uploads/{answer['uploadId']}/parts", '{"from": 9950}')
    assert ["partNumber=9950&" in more["urls"][0], len(more["urls"])] == [True, 51]


@pytest.mark.parametrize("upload_id", ["x", "%%%", "ÿ", "eA", "x" * 2000])
def test_an_upload_that_does_not_exist_is_not_found(bucket: Bucket, upload_id: str) -> None:
    for action, body in (("parts", '{"from": 1}'), ("complete", '{"etags": ["a"]}')):
        answer = request("POST", f"/uploads/{upload_id}/{action}", body)
        assert (answer.status, answer.problem["title"]) == (404, "UploadNotFoundError")


@pytest.mark.parametrize("body", ["title\nÄ\n", "title\nÄ\n".encode(), b"title\n\xff\n"])
@pytest.mark.parametrize("content_type", ["text/csv", "Text/CSV; charset=utf-8"])
def test_an_uploaded_csv_is_stored_and_imported(bucket: Bucket, body: str | bytes, content_type: str) -> None:
    status, answer = send("POST", "/tasks/upload", body, content_type=content_type)
    assert status == 202
    asked = json.loads(describe(answer["jobId"])["input"])
    assert asked == {
        "kind": "import-tasks",
        "source": {"csv": f"uploads/{answer['jobId']}.csv"},
        "toleratedFailurePercentage": 100,
    }
    assert bucket.get(asked["source"]["csv"]) == (body if isinstance(body, bytes) else body.encode())


def test_a_csv_too_large_for_a_request_is_shown_the_other_way(bucket: Bucket) -> None:
    status, answer = send("POST", "/tasks/upload", "x" * (jobs_api.LARGEST_CSV + 1), content_type="text/csv")
    assert (status, answer["title"]) == (413, "PayloadTooLargeError")
    assert "through POST /uploads" in answer["detail"]


@pytest.mark.parametrize("body", [None, "{}"])
def test_a_presigned_upload_can_be_put_to_and_then_imported(bucket: Bucket, body: str | None) -> None:
    status, answer = send("POST", "/tasks/upload", body)
    assert (status, answer["method"], answer["expiresIn"]) == (201, "PUT", LINK_SECONDS)
    assert answer["source"]["csv"] in answer["uploadUrl"]
    # Version 2 signatures and the host of another region are refused by S3.
    assert answer["uploadUrl"].startswith(f"https://{BUCKET}.s3.{REGION}.amazonaws.com/")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in answer["uploadUrl"]
    bucket.put(answer["source"]["csv"], b"title\nA\n")
    status, started = send("POST", "/tasks/upload", json.dumps({"source": answer["source"]}))
    assert status == 202
    assert json.loads(describe(started["jobId"])["input"])["source"] == answer["source"]


@pytest.mark.parametrize("key", ["uploads/gone.csv", "uploads/", "uploads/a\nb", "", 5, None, ["x"], "x" * 2000])
def test_an_import_of_what_was_not_uploaded_is_refused(bucket: Bucket, key: Any) -> None:
    answer = request("POST", "/tasks/upload", json.dumps({"source": {"csv": key}}))
    title = "SourceNotFoundError" if key == "uploads/gone.csv" else "InvalidJobError"
    assert answer.refusal == (400, title, "source.csv")


def test_a_jobs_own_objects_cannot_be_imported(bucket: Bucket) -> None:
    bucket.put("jobs/mine/failures.jsonl", b"title\nA\n")
    status, answer = send("POST", "/tasks/upload", '{"source": {"csv": "jobs/mine/failures.jsonl"}}')
    assert (status, answer["title"]) == (400, "InvalidJobError")


@pytest.mark.parametrize("content_type", [None, "text/plain", "", "application/x-www-form-urlencoded"])
def test_an_upload_of_another_type_is_refused(bucket: Bucket, content_type: str | None) -> None:
    answer = request("POST", "/tasks/upload", "title\nA\n", content_type=content_type)
    assert answer.refusal == (415, "UnsupportedMediaTypeError", "Content-Type")


@pytest.mark.parametrize(
    "body", ['{"csv": "uploads/a.csv"}', '{"source": "tasks"}', '{"source": {"csv": "a", "b": 1}}']
)
def test_an_upload_that_asks_for_something_else_is_refused(bucket: Bucket, body: str) -> None:
    answer = request("POST", "/tasks/upload", body, content_type="application/json")
    assert answer.refusal == (400, "InvalidRequestError", "body")


# --- faults


def broken(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_a_fault_of_aws_asks_to_come_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jobs, "list", broken(ServiceUnavailableError("ListExecutions failed on the side of AWS.")))
    status, answer = send("GET", "/jobs")
    assert (status, answer["title"]) == (503, "ServiceUnavailableError")


def test_throttling_by_aws_asks_to_come_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "ListExecutions")

    class Busy:
        list_executions = staticmethod(broken(throttled))

    monkeypatch.setattr(aws, "step_functions", Busy)
    answer = request("GET", "/jobs")
    assert (answer.status, answer.problem["title"]) == (503, "ThrottledError")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "error",
    [ValueError("secret detail"), ClientError({"Error": {"Code": "AccessDenied", "Message": "secret"}}, "x")],
)
def test_a_fault_of_our_own_says_nothing_of_its_insides(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Jobs, "get", broken(error))
    answer = request("GET", "/jobs/mine")
    assert (answer.status, answer.problem["title"]) == (500, "InternalError")
    assert "secret" not in json.dumps(answer.problem)


# --- ends and odds


def test_a_name_with_objects_left_is_taken(bucket: Bucket) -> None:
    put_failed(bucket)
    status, answer = send("POST", "/jobs", '{"jobId": "mine"}')
    assert (status, answer["title"]) == (409, "JobExistsError")
    assert not aws.step_functions().list_executions(stateMachineArn=MACHINE)["executions"]


def test_an_expired_job_is_what_its_execution_says(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = {"status": "SUCCEEDED", "output": json.dumps(RECORD), "executionArn": running("mine")}
    monkeypatch.setattr(Jobs, "_describe", lambda jobs, job_id: ended)
    assert send("GET", "/jobs/mine")[1]["status"] == "PARTIAL"
    assert send("DELETE", "/jobs/mine")[1]["status"] == "PARTIAL"


@pytest.mark.parametrize("token", ["", "x" * 5000, "not one of ours"])
def test_any_page_token_that_is_none_is_refused(bucket: Bucket, token: str) -> None:
    answer = request("GET", "/jobs", query={"pageToken": token})
    assert answer.refusal == (400, "InvalidRequestError", "pageToken")


@pytest.mark.parametrize("body", ['{"Comment": 1e400}', '{"shardSize": -1e999}', '{"params": {"x": [1e400]}}'])
def test_a_number_beyond_all_numbers_is_no_json(bucket: Bucket, body: str) -> None:
    assert request("POST", "/jobs", body).refusal == (400, "InvalidRequestError", "body")


def test_a_presigned_upload_is_imported_once(
    bucket: Bucket,
) -> None:
    key = send("POST", "/tasks/upload", "{}")[1]["source"]["csv"]
    bucket.put(key, b"title\na\n")
    first = send("POST", "/tasks/upload", json.dumps({"source": {"csv": key}}))
    assert send("POST", "/tasks/upload", json.dumps({"source": {"csv": key}})) == first
    assert f"uploads/{first[1]['jobId']}.csv" == key
    # A key of somebody's own may hold something else the next time.
    bucket.put("uploads/weekly.csv", b"title\na\n")
    own = [send("POST", "/tasks/upload", '{"source": {"csv": "uploads/weekly.csv"}}')[1]["jobId"] for _ in range(2)]
    assert len(set(own)) == 2


def test_jobs_that_are_watched_at_once_each_have_their_own_look(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(_: Jobs, arn: str) -> dict[str, int]:
        asked.append(arn)
        return {"done": 1, "failed": 0}

    monkeypatch.setattr(Jobs, "_counted", counted)
    watched = jobs_api.jobs()
    for _ in range(10):
        for arn in ("one", "two"):
            assert watched._shards(arn) == {"done": 1, "failed": 0}
    assert asked == ["one", "two"]
    for number in range(2 * jobs.CACHED_JOBS):
        watched._shards(str(number))
    assert len(watched._progress) == jobs.CACHED_JOBS


def test_a_look_that_is_throttled_shows_what_was_known_before(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def throttled(jobs: Jobs, arn: str) -> dict[str, int]:
        raise ThrottledError("slow down")

    watched = jobs_api.jobs()
    monkeypatch.setattr(Jobs, "_counted", throttled)
    assert watched._shards("one") == {}
    watched._progress["one"] = (-10.0, {"done": 3, "failed": 0})
    assert watched._shards("one") == {"done": 3, "failed": 0}


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[]", b'{"jobId": "mine", "status": "SUCCEEDED"}'])
def test_a_record_that_cannot_be_read_is_no_record(bucket: Bucket, body: bytes) -> None:
    send("POST", "/jobs", '{"jobId": "mine"}')
    put_plan(JobStore(bucket, "mine"))
    for name in ("record.json", "manifest.json", "digest.json"):
        bucket.put(f"jobs/mine/{name}", body)
    status, answer = send("GET", "/jobs/mine")
    assert (status, answer["status"], answer["counts"]["listed"]) == (200, "RUNNING", 0)
    assert send("GET", "/jobs/mine/failures")[1]["digest"] == []
    assert send("POST", "/jobs/mine/retry")[1]["errors"][0]["field"] == "source.failedIn"
