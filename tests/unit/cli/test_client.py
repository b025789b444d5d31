import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fanout.client import (
    JOB_ID,
    AccessError,
    Deployment,
    FanOut,
    JobExistsError,
    JobNotFoundError,
    JobStateError,
    NotUpError,
    RefusedError,
    UnreachableError,
    new_job_id,
)
from tests.support.emulator import Emulator
from tests.unit.cli.conftest import Put, record_of


def job(end: str, **params: Any) -> dict[str, Any]:
    return {"params": {"end": end, **params}}


def ended(client: FanOut, job_id: str) -> str:
    *_, last = client.follow(job_id)
    return last.status


def test_job_ids_sort_by_their_start_and_never_repeat() -> None:
    ids = [new_job_id(datetime(2026, 11, 23, 10, 15, second, tzinfo=UTC)) for second in range(60)]
    assert all(one < other for one, other in pairwise(ids))
    assert all(JOB_ID.fullmatch(job_id) for job_id in ids)
    assert new_job_id(datetime(2026, 11, 23, tzinfo=UTC)) != new_job_id(datetime(2026, 11, 23, tzinfo=UTC))


def test_a_job_that_succeeded_has_the_executions_output_as_its_record(client: FanOut) -> None:
    record = record_of("x")
    started = client.start(job("succeed", record=record))
    assert ended(client, started.job_id) == "SUCCEEDED"
    assert client.record(started.job_id) == record


def test_the_same_job_started_again_is_the_same_job_while_it_runs_and_once_it_has_ended(
    client: FanOut,
) -> None:
    job_id = new_job_id()
    asked = job("succeed", record=record_of(job_id))
    assert not client.start(asked, job_id).is_repeat
    assert client.start(asked, job_id).is_repeat
    ended(client, job_id)
    assert client.start(asked, job_id).is_repeat


def test_another_job_under_the_same_id_is_refused(client: FanOut) -> None:
    job_id = client.start(job("succeed", record={})).job_id
    with pytest.raises(JobExistsError, match=job_id):
        client.start({"kind": "daily-plan"}, job_id)


def test_a_failed_job_has_the_account_that_was_written(client: FanOut, put: Put) -> None:
    job_id = new_job_id()
    record = record_of(job_id, "FAILED", failed=400)
    client.start(job("fail", error="ToleranceExceededError", cause="{}"), job_id)
    put(f"jobs/{job_id}/record.json", record)
    assert ended(client, job_id) == "FAILED"
    assert client.record(job_id, wait=True) == record


@pytest.mark.parametrize("left", ["job.json", "record.json"])
def test_a_job_is_not_started_under_a_name_that_stands_for_the_objects_of_another(
    client: FanOut, put: Put, left: str
) -> None:
    job_id = new_job_id()
    put(f"jobs/{job_id}/{left}", record_of(job_id))
    with pytest.raises(JobExistsError, match="its objects are kept"):
        client.start(job("succeed", record={}), job_id)


def test_a_failed_job_without_an_account_shows_the_executions_error(client: FanOut) -> None:
    job_id = client.start(job("fail", error="InvalidJobError", cause="shardSize is 0.")).job_id
    ended(client, job_id)
    record = client.record(job_id, wait=True)
    assert record["status"] == "FAILED"
    assert record["error"] == {"name": "InvalidJobError", "message": "shardSize is 0."}
    assert record["counts"]["listed"] == 0
    assert "endedAt" in record


def test_following_shows_listing_then_shards_then_the_end(client: FanOut, put: Put) -> None:
    job_id = new_job_id()
    client.start(job("shards", shards=[1, 2, 3], record=record_of(job_id)), job_id)
    put(f"jobs/{job_id}/job.json", {"kind": "daily-plan"})
    seen = []
    for progress in client.follow(job_id):
        seen.append(progress)
        if len(seen) == 1:
            running = client.record(job_id)
            assert (running["status"], running["kind"]) == ("RUNNING", "daily-plan")
            put(f"jobs/{job_id}/manifest.json", {"listed": 1500, "shards": 3})
    assert seen[0].phase == "listing"
    assert seen[-1].status == "SUCCEEDED"
    working = [progress for progress in seen if progress.phase == "working"]
    assert {progress.listed for progress in working} == {1500}
    assert [progress.done for progress in working] == sorted(progress.done for progress in working)
    assert any(0 < progress.done < 1500 for progress in working)


def test_a_stopped_job_gives_its_closing_account_and_stays_stopped(client: FanOut, put: Put) -> None:
    job_id = client.start(job("wait")).job_id
    closing = record_of(job_id, "STOPPED", failed=0)
    put(f"jobs/{job_id}/record.json", closing)
    assert client.stop(job_id) == closing
    assert client.stop(job_id) == closing


def test_a_stopped_job_without_an_account_is_known_as_stopped(client: FanOut) -> None:
    job_id = client.start(job("wait")).job_id
    record = client.stop(job_id)
    assert record["status"] == "STOPPED"
    assert record["error"]["name"] == "JobStoppedError"


def test_a_job_that_has_ended_cannot_be_stopped(client: FanOut) -> None:
    job_id = client.start(job("succeed", record=record_of("x"))).job_id
    ended(client, job_id)
    with pytest.raises(JobStateError, match="had ended"):
        client.stop(job_id)


def test_a_retry_asks_for_what_failed_and_for_nothing_that_was_not_said(
    client: FanOut, put: Put, emulator: Emulator, deployment: Deployment
) -> None:
    job_id = new_job_id()
    put(f"jobs/{job_id}/record.json", record_of(job_id, "PARTIAL", failed=3))
    retried = client.retry(job_id, {"shardSize": 10}).job_id
    arn = deployment.state_machine_arn.replace(":stateMachine:", ":execution:") + f":{retried}"
    assert json.loads(emulator.describe(arn)["input"]) == {"shardSize": 10, "source": {"failedIn": job_id}}


@pytest.mark.parametrize("fields", [{}, {"counts": {"listed": 0, "succeeded": 0}}])
def test_a_job_without_failures_is_not_retried(client: FanOut, put: Put, fields: Any) -> None:
    job_id = new_job_id()
    put(f"jobs/{job_id}/record.json", record_of(job_id) | fields)
    with pytest.raises(JobStateError, match="nothing to retry"):
        client.retry(job_id)


def test_a_job_that_was_stopped_before_it_had_listed_is_retried(client: FanOut, put: Put) -> None:
    job_id = new_job_id()
    put(
        f"jobs/{job_id}/record.json", record_of(job_id, "STOPPED") | {"counts": {"listed": 0, "succeeded": 0}}
    )
    assert client.retry(job_id).job_id


def test_a_running_job_is_not_retried(client: FanOut) -> None:
    job_id = client.start(job("wait")).job_id
    with pytest.raises(JobStateError, match="still runs"):
        client.retry(job_id)
    client.stop(job_id)


def test_an_account_outlives_its_execution(client: FanOut, put: Put) -> None:
    put("jobs/long-ago/record.json", record_of("long-ago", "PARTIAL", failed=1))
    assert client.record("long-ago")["status"] == "PARTIAL"


@pytest.mark.parametrize("ask", ["record", "stop", "retry", "follow"])
def test_an_unknown_job_is_named(client: FanOut, ask: str) -> None:
    with pytest.raises(JobNotFoundError, match="no-such-job"):
        list(getattr(client, ask)("no-such-job"))


def test_jobs_are_listed_newest_first_with_the_status_of_their_accounts(client: FanOut, put: Put) -> None:
    first, second = new_job_id(), new_job_id()
    client.start(job("succeed", record={}), first)
    ended(client, first)
    put(f"jobs/{first}/record.json", record_of(first, "PARTIAL", failed=1))
    client.start(job("wait"), second)
    listed = list(client.jobs(2))
    client.stop(second)
    assert [(line["jobId"], line["status"]) for line in listed] == [(second, "RUNNING"), (first, "PARTIAL")]
    assert len(list(client.jobs(1))) == 1


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_lines_come_whole_whatever_the_size_of_a_block(
    client: FanOut, put: Put, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanout.client._BLOCK", block)
    put("some/lines", "ein\nzweites, längeres\n\nletztes".encode())
    assert list(client.lines("some/lines")) == [b"ein", "zweites, längeres".encode(), b"", b"letztes"]


def test_there_are_no_lines_in_an_empty_or_a_missing_object(client: FanOut, put: Put) -> None:
    put("some/empty", b"")
    assert list(client.lines("some/empty")) == []
    assert list(client.lines("some/missing")) == []
    whole = record_of("missing")
    assert list(client.failures(whole)) == []
    assert client.digest(whole) == []


def test_what_is_no_longer_kept_is_said_and_not_passed_off_as_nothing(client: FanOut) -> None:
    url = f"s3://{client.deployment.bucket_name}/jobs/gone/x"
    gone = record_of("gone", "PARTIAL", failed=1, resultUrl=url, failuresUrl=url)
    for ask in (client.failures, client.digest, client.whole_result):
        with pytest.raises(JobStateError, match="of job gone is no longer kept"):
            ask(gone)


def test_an_upload_takes_a_stream_that_cannot_seek_and_a_download_is_the_same_bytes(
    client: FanOut, tmp_path: Path
) -> None:
    content = b"title\n" + b"x" * 100_000
    with subprocess.Popen(["cat", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin
        assert cat.stdout
        writer = Thread(target=lambda: (cat.stdin.write(content), cat.stdin.close()))
        writer.start()
        key = client.upload(cat.stdout, "a-job")
        writer.join()
    assert key == "uploads/a-job.csv"
    assert client.download(key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert not client.download("uploads/missing.csv", tmp_path / "other")
    with pytest.raises(OSError, match="nowhere/copy"):
        client.download(key, tmp_path / "nowhere" / "copy")


def test_a_running_job_has_no_result_yet(client: FanOut) -> None:
    record: Any = record_of("j", "RUNNING")
    with pytest.raises(JobStateError, match="still runs"):
        client.whole_result(record)


class Api:
    """A REST API with 2,500 tasks in pages, which wants signed requests and can be told to fail."""

    def __init__(self) -> None:
        self.queries: list[dict[str, str]] = []
        self.answers: list[tuple[int, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                api.queries.append(query)
                status, content = api.answers.pop(0) if api.answers else (200, api.page(query))
                if "/execute-api/aws4_request" not in self.headers.get("Authorization", ""):
                    status, content = 403, {}
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/"

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        first, limit = int(query.get("pageToken", "0")), int(query["limit"])
        assert 1 <= limit <= 1000
        page: dict[str, Any] = {"tasks": [{"id": str(n)} for n in range(first, min(first + limit, 2500))]}
        if first + limit < 2500:
            page["nextPageToken"] = str(first + limit)
        return page


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()


def of_api(api: Api, *, endpoint_url: str | None = "http://127.0.0.1:1") -> FanOut:
    return FanOut(
        Deployment(
            region="us-east-1",
            api_url=api.url,
            state_machine_arn="arn:aws:states:us-east-1:000000000000:stateMachine:m",
            bucket_name="b",
            task_table_name="t",
            endpoint_url=endpoint_url,
        )
    )


@pytest.mark.parametrize(("limit", "pages"), [(None, 3), (1, 1), (1000, 1), (1001, 2), (9999, 3)])
def test_tasks_come_page_by_page_up_to_the_limit(api: Api, limit: int | None, pages: int) -> None:
    tasks = list(of_api(api).tasks({}, limit))
    assert [task["id"] for task in tasks] == [str(n) for n in range(min(limit or 2500, 2500))]
    assert len(api.queries) == pages


def test_a_filter_is_sent_as_the_api_spells_it_with_every_page(api: Api) -> None:
    matching = {"isComplete": False, "dueBefore": "2026-11-23T00:00:00+01:00"}
    list(of_api(api).tasks(matching))
    assert len(api.queries) == 3
    for query in api.queries:
        assert query["isComplete"] == "false"
        assert query["dueBefore"] == "2026-11-23T00:00:00+01:00"


def test_the_apis_own_sentence_says_why_it_refused(api: Api) -> None:
    api.answers = [(400, {"error": {"name": "InvalidTaskError", "message": "dueBefore is wrong."}})]
    with pytest.raises(RefusedError, match=r"dueBefore is wrong\."):
        list(of_api(api).tasks({}))


def test_a_read_that_aws_failed_or_throttled_is_tried_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr("fanout.client.time.sleep", lambda _: None)
    api.answers = [(502, {}), (429, {}), (200, {"tasks": []})]
    assert list(of_api(api, endpoint_url=None).tasks({})) == []
    assert len(api.queries) == 3


def test_a_local_server_that_is_gone_is_said_to_be_gone_with_what_to_do() -> None:
    api = Api()
    api.server.server_close()
    gone = of_api(api)
    for ask in (lambda: gone.record("j"), lambda: next(gone.tasks({})), lambda: next(gone.follow("j"))):
        with pytest.raises(UnreachableError, match="fanout up"):
            ask()


def test_the_developers_own_profile_and_credentials_never_reach_the_embedded_aws(
    client: FanOut, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "there-is-no-such-profile")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-developers")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path))
    assert list(client.lines("missing")) == []
    credentials = client._session.get_credentials()
    assert credentials is not None
    assert credentials.access_key == "test"


def test_a_home_without_a_deployment_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotUpError, match="fanout up"):
        Deployment.of_home(tmp_path / "none")
    (tmp_path / "local.json").write_text("{}")
    with pytest.raises(NotUpError, match="fanout down"):
        Deployment.of_home(tmp_path)


def test_a_deployment_is_read_as_up_left_it(tmp_path: Path, deployment: Deployment) -> None:
    (tmp_path / "local.json").write_text(json.dumps({**deployment.to_json(), "pid": 1, "port": 2}))
    assert Deployment.of_home(tmp_path) == deployment


@pytest.fixture
def account(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator in place of the developer's AWS account."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


OUTPUTS = {"ApiUrl": "https://x", "StateMachineArn": "arn:m", "BucketName": "b", "TaskTableName": "t"}


def stack(emulator: Emulator, outputs: dict[str, str]) -> str:
    name = emulator.name("stack")
    template = {
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    emulator.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
    emulator.client("cloudformation").get_waiter("stack_create_complete").wait(
        StackName=name, WaiterConfig={"Delay": 1}
    )
    return name


@pytest.mark.usefixtures("account")
def test_a_deployed_stack_is_found_by_its_outputs(emulator: Emulator) -> None:
    found = Deployment.of_stack(stack(emulator, OUTPUTS))
    assert found == Deployment(
        region="us-east-1",
        api_url="https://x",
        state_machine_arn="arn:m",
        bucket_name="b",
        task_table_name="t",
    )


@pytest.mark.usefixtures("account")
def test_a_stack_that_is_no_fan_out_or_not_there_is_said_to_be_so(emulator: Emulator) -> None:
    with pytest.raises(NotUpError, match="no output StateMachineArn"):
        Deployment.of_stack(stack(emulator, {"ApiUrl": "https://x"}))
    with pytest.raises(NotUpError, match="There is no stack Nope in us-east-1"):
        Deployment.of_stack("Nope")


def test_missing_credentials_and_region_are_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessError, match="--region"):
        Deployment.of_stack("FanOut")
    with pytest.raises(AccessError, match="credentials"):
        Deployment.of_stack("FanOut", "eu-west-1")
