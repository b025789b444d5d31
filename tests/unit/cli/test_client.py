from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fanout import cli, client
from fanout.client import (
    AccessError,
    Deployment,
    FanOut,
    JobStateError,
    NotUpError,
    ProblemError,
    TransferError,
    UnreachableError,
    new_job_id,
)
from tests.support.emulator import Emulator
from tests.unit.cli.conftest import record_of, running
from tests.unit.cli.fake_api import BREAK, HALF, FakeApi, problem

MISSING = "Missing Authentication Token"


def test_job_ids_sort_by_their_start_and_never_repeat() -> None:
    ids = [new_job_id(datetime(2026, 11, 23, 10, 15, second, tzinfo=UTC)) for second in range(60)]
    assert all(one < other for one, other in pairwise(ids))
    assert all(cli.JOB_ID.fullmatch(job_id) for job_id in ids)
    assert new_job_id(datetime(2026, 11, 23, tzinfo=UTC)) != new_job_id(datetime(2026, 11, 23, tzinfo=UTC))


# -- jobs ------------------------------------------------------------------------------------------------


def test_a_job_is_started_with_its_id_by_a_signed_request(api: FakeApi, there: FanOut) -> None:
    assert there.start({"shardSize": 5}, "my-job")["jobId"] == "my-job"
    (request,) = api.requests
    assert (request.method, request.path) == ("POST", "/v1/jobs")
    assert request.document == {"shardSize": 5, "jobId": "my-job"}
    assert request.is_signed


def test_a_refusal_has_the_name_sentence_and_fields(api: FakeApi, there: FanOut) -> None:
    with pytest.raises(ProblemError, match=r"^shardSize is 0, but must be a whole number from 1 to") as caught:
        there.start({"shardSize": 0}, "j")
    assert (caught.value.name, caught.value.status) == ("InvalidJobError", 400)
    assert caught.value.errors[0]["field"] == "shardSize"


@pytest.mark.parametrize("faults", [[BREAK, BREAK], [HALF], [(502, {}, {}), (504, b"<html>", {})]])
def test_a_start_whose_answer_is_lost_starts_once(api: FakeApi, there: FanOut, faults: list[Any]) -> None:
    api.faults = list(faults)
    there.start({}, "j")
    assert list(api.jobs) == ["j"]
    assert len(api.requests) == len(faults) + 1
    assert {json.dumps(request.document) for request in api.requests} == {'{"jobId": "j"}'}


def test_a_throttled_request_waits_as_long_as_the_api_says(
    api: FakeApi, there: FanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    answer = problem(429, "ThrottledError", "Too many requests.")
    api.faults = [(answer[0], answer[1], {"Retry-After": str(seconds)}) for seconds in (3, 9999)]
    there.start({}, "j")
    assert waits == [3, 20]


def test_a_request_that_stays_throttled_ends_with_the_sentence(api: FakeApi, there: FanOut) -> None:
    api.faults = [problem(503, "ThrottledError", "Too many requests.")] * 99
    with pytest.raises(ProblemError, match="Too many requests"):
        there.record("j")
    assert len(api.requests) == 1 + client.RETRIES.total  # type: ignore[operator]


def test_an_internal_error_is_not_repeated(api: FakeApi, there: FanOut) -> None:
    api.faults = [problem(500, "InternalError", "The request failed on our side.")]
    with pytest.raises(ProblemError, match="failed on our side"):
        there.record("j")
    assert len(api.requests) == 1


def test_following_gives_each_record_and_ends_with_the_final(api: FakeApi, there: FanOut) -> None:
    there.start({}, "j")
    phases = [(record["status"], record.get("phase")) for record in there.follow("j")]
    assert phases == [("RUNNING", "LISTING"), ("RUNNING", "WORKING"), ("SUCCEEDED", None)]


def test_following_waits_until_the_record_is_written(api: FakeApi, there: FanOut) -> None:
    pending = record_of(status="STOPPED", error={"name": "RecordPendingError", "message": "Wait."})
    api.jobs["j"] = [pending, pending, record_of(status="STOPPED", failed=2)]
    *_, last = there.follow("j")
    assert last == record_of(status="STOPPED", failed=2)


def test_following_gives_up_on_a_record_that_never_comes(api: FakeApi, there: FanOut) -> None:
    api.jobs["j"] = [record_of(status="FAILED", error={"name": "RecordPendingError", "message": "Wait."})]
    there._patience = 0.05
    *_, last = there.follow("j")
    assert last["status"] == "FAILED"


@pytest.mark.parametrize("fault", [BREAK, problem(503, "ThrottledError", "Too many requests.")])
def test_following_survives_a_lost_connection(api: FakeApi, there: FanOut, fault: Any) -> None:
    api.jobs["j"] = [running(), running(done=3), record_of()]
    said: list[str] = []
    follow = there.follow("j", said.append)
    next(follow)
    # More attempts than a request has, twice.
    api.faults = [fault] * (2 * (1 + client.RETRIES.total))  # type: ignore[operator]
    *_, last = follow
    assert last["status"] == "SUCCEEDED"
    assert len(said) == 1


def test_following_ends_when_an_outage_takes_too_long(api: FakeApi, there: FanOut) -> None:
    there._outage = 0.05
    api.jobs["j"] = [running()]
    follow = there.follow("j")
    next(follow)
    api.faults = [BREAK] * 10_000
    with pytest.raises(UnreachableError):
        next(follow)


def test_following_an_unknown_job_ends_at_once(api: FakeApi, there: FanOut) -> None:
    with pytest.raises(ProblemError, match="`fanout jobs` lists"):
        next(there.follow("nope"))


def test_a_new_job_may_be_unknown_for_a_moment(api: FakeApi, there: FanOut) -> None:
    api.jobs["j"] = [record_of()]
    api.faults = [problem(404, "JobNotFoundError", "There is no such job.")] * 2
    assert [record["status"] for record in there.follow("j", is_new=True)] == ["SUCCEEDED"]
    there._patience = 0.01
    with pytest.raises(ProblemError, match="There is no job"):
        list(there.follow("nope", is_new=True))


def test_a_stopped_job_gives_its_final_record(api: FakeApi, there: FanOut) -> None:
    api.jobs["j"] = [running()]
    assert there.stop("j")["status"] == "STOPPED"
    assert there.stop("j")["status"] == "STOPPED"


def test_a_job_that_has_ended_cannot_be_stopped(api: FakeApi, there: FanOut) -> None:
    api.jobs["j"] = [record_of()]
    with pytest.raises(JobStateError, match="had ended before it could be stopped: SUCCEEDED"):
        there.stop("j")


def test_a_retry_names_the_new_job_and_what_differs(api: FakeApi, there: FanOut) -> None:
    assert there.retry("j", {"shardSize": 10}, "again")["origin"] == "j"
    (request,) = api.named("POST", "/v1/jobs/j/retry")
    assert request.document == {"shardSize": 10, "jobId": "again"}


@pytest.mark.parametrize(("limit", "pages"), [(1, 1), (100, 1), (101, 2), (999, 3)])
def test_jobs_come_page_by_page_up_to_the_limit(api: FakeApi, there: FanOut, limit: int, pages: int) -> None:
    api.jobs = {str(n): [record_of(str(n))] for n in range(250)}
    assert len(list(there.jobs(limit))) == min(limit, 250)
    assert len(api.requests) == pages


def test_jobs_of_a_status_are_found_on_later_pages(api: FakeApi, there: FanOut) -> None:
    api.jobs = {str(n): [record_of(str(n), "FAILED" if n < 2 else "SUCCEEDED")] for n in range(250)}
    assert [job["jobId"] for job in there.jobs(20, "FAILED")] == ["1", "0"]
    assert len(api.requests) == 3
    assert len(list(there.jobs(20, "SUCCEEDED"))) == 20


# -- tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "pages"), [(None, 3), (1, 1), (10_000, 1), (10_001, 2), (99_999, 3)])
def test_tasks_come_page_by_page_up_to_the_limit(api: FakeApi, there: FanOut, limit: int | None, pages: int) -> None:
    api.tasks = [{"id": str(n)} for n in range(25_000)]
    assert [task["id"] for task in there.tasks({}, limit)] == [str(n) for n in range(min(limit or 25_000, 25_000))]
    assert len(api.requests) == pages


def test_a_filter_is_sent_as_the_api_spells_it(api: FakeApi, there: FanOut) -> None:
    api.tasks = [{"id": str(n)} for n in range(25_000)]
    list(there.tasks({"isComplete": False, "dueBefore": "2026-11-23T00:00:00+01:00"}))
    assert len(api.requests) == 3
    for request in api.requests:
        assert request.query["isComplete"] == "false"
        assert request.query["dueBefore"] == "2026-11-23T00:00:00+01:00"


@pytest.mark.parametrize("time", ["2026-11-23 10:15", "a+b c:d/e~f%g&h=é", ""])
def test_a_query_is_signed_as_it_is_sent(api: FakeApi, there: FanOut, time: str) -> None:
    list(there.tasks({"dueBefore": time}))
    assert api.requests[0].is_signed
    assert api.requests[0].query["dueBefore"] == time


# -- links -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(client, "BLOCK", 1000)
    return 1000


def link(api: FakeApi, key: str = "k") -> client.Link:
    return lambda: api.link(key)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 4500])
def test_a_download_is_the_same_bytes(
    api: FakeApi, there: FanOut, tmp_path: Path, size: int, small_blocks: int
) -> None:
    api.objects["k"] = os.urandom(size)
    there.download(link(api), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == api.objects["k"]
    assert list(tmp_path.iterdir()) == [tmp_path / "copy"]


def test_a_download_goes_on_after_breaks(api: FakeApi, there: FanOut, tmp_path: Path, small_blocks: int) -> None:
    api.objects["k"] = os.urandom(4500)
    api.faults = [None, HALF, BREAK, None, (500, b"", {})]
    there.download(link(api), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == api.objects["k"]
    # Only the blocks that broke off are asked for again.
    assert len(api.requests) == 5 + 3


def test_a_link_that_expires_half_way_is_renewed(api: FakeApi, there: FanOut, small_blocks: int) -> None:
    api.objects["k"] = os.urandom(2500)
    blocks = there.blocks(link(api))
    content = next(blocks)
    api.expired = api.links
    assert content + b"".join(blocks) == api.objects["k"]
    assert api.links == 2
    assert [request.headers.get("If-Match") is None for request in api.requests] == [
        True,
        False,
        False,
        False,
    ]


def test_a_fresh_link_that_is_refused_is_said_to_be(api: FakeApi, there: FanOut) -> None:
    api.expired = 99
    with pytest.raises(TransferError, match="HTTP 403"):
        list(there.blocks(link(api)))


def test_a_file_that_changes_is_not_pieced_together(api: FakeApi, there: FanOut, small_blocks: int) -> None:
    api.objects["k"] = b"a" * 2000
    blocks = there.blocks(link(api))
    next(blocks)
    api.objects["k"] = b"b" * 2000
    with pytest.raises(TransferError, match="changed while"):
        next(blocks)


def test_a_failed_download_leaves_the_file_as_it_was(
    api: FakeApi, there: FanOut, tmp_path: Path, small_blocks: int
) -> None:
    path = tmp_path / "copy"
    path.write_text("before")
    api.objects["k"] = os.urandom(2500)
    api.faults = [None, (403, b"", {}), (403, b"", {})]
    with pytest.raises(TransferError):
        there.download(link(api), path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_gone_is_said_to_be_gone(api: FakeApi, there: FanOut, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="no longer kept"):
        there.download(link(api, "gone"), tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(api: FakeApi, there: FanOut, tmp_path: Path) -> None:
    api.objects["k"] = b"x"
    with pytest.raises(OSError, match="nowhere/copy"):
        there.download(link(api), tmp_path / "nowhere" / "copy")


def test_a_download_to_a_pipe_is_written_through(api: FakeApi, there: FanOut, tmp_path: Path) -> None:
    api.objects["k"] = b"x" * 100
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    there.download(link(api), tmp_path / "pipe")
    reader.join()
    assert read == [b"x" * 100]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_lines_come_whole_at_any_size_of_block(
    api: FakeApi, there: FanOut, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BLOCK", block)
    api.objects["k"] = "ein\nzweites, längeres\n\nletztes".encode()
    assert list(there.lines(link(api))) == [b"ein", "zweites, längeres".encode(), b"", b"letztes"]


@contextlib.contextmanager
def csv(tmp_path: Path, content: bytes) -> Iterator[Any]:
    path = tmp_path / "tasks.csv"
    path.write_bytes(content)
    with path.open("rb") as file:
        yield file


# The last sizes are above the fake's limit for one PUT, and above 100 parts.
@pytest.mark.parametrize("size", [0, 1, 5000, 5001, 7000, 100_500])
def test_an_upload_is_the_same_bytes(api: FakeApi, there: FanOut, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    with csv(tmp_path, content) as file:
        assert there.upload(file) == {"csv": "uploads/u.csv"}
    assert api.objects["uploads/u.csv"] == content


@pytest.mark.parametrize("size", [4000, 7500])
def test_an_upload_goes_on_after_breaks(api: FakeApi, there: FanOut, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    api.faults = [None, BREAK, (503, b"", {}), BREAK, (500, b"", {})]
    with csv(tmp_path, content) as file:
        there.upload(file)
    assert api.objects["uploads/u.csv"] == content


@pytest.mark.parametrize("size", [4000, 7500])
def test_an_expired_upload_link_is_renewed(api: FakeApi, there: FanOut, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    api.expired = -(-size // 1000) if size > 5000 else 1
    with csv(tmp_path, content) as file:
        there.upload(file)
    assert api.objects["uploads/u.csv"] == content
    assert len(api.named("POST", "/v1/uploads/u%2F1%2B/parts")) == (8 if size > 5000 else 0)


def test_an_upload_of_a_pipe_says_its_size(api: FakeApi, there: FanOut) -> None:
    reading, writing = os.pipe()
    content = os.urandom(7000)

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as pipe:
        there.upload(pipe)
    writer.join()
    assert api.named("POST", "/v1/uploads")[0].document == {"bytes": 7000}
    assert api.objects["uploads/u.csv"] == content


def test_an_upload_begins_where_the_file_stands(api: FakeApi, there: FanOut, tmp_path: Path) -> None:
    with csv(tmp_path, b"0123456789") as file:
        os.lseek(file.fileno(), 4, os.SEEK_SET)
        there.upload(file)
    assert api.objects["uploads/u.csv"] == b"456789"


def test_a_refused_part_ends_the_upload(api: FakeApi, there: FanOut, tmp_path: Path) -> None:
    with csv(tmp_path, b"x" * 7000) as file:
        api.expired = 10_000
        with pytest.raises(TransferError, match="HTTP 403"):
            there.upload(file)
    assert api.named("POST", ".*/complete") == []


def test_a_file_that_shrinks_meanwhile_is_refused(
    there: FanOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with csv(tmp_path, b"x" * 7000) as file:
        monkeypatch.setattr("os.pread", lambda *_: b"")
        with pytest.raises(TransferError, match="became shorter"):
            there.upload(file)


# -- the gateway, credentials, addresses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "document", "kind", "error", "said"),
    [
        (
            403,
            {"message": "The security token included in the request is expired"},
            "",
            AccessError,
            "sign in again",
        ),
        (
            403,
            {"message": "The security token included in the request is invalid."},
            "UnrecognizedClientException",
            AccessError,
            "sign in again",
        ),
        (
            403,
            {"Message": "User: arn:aws:iam::1:user/x is not authorized to perform: execute-api:Invoke"},
            "AccessDeniedException",
            AccessError,
            "they need execute-api:Invoke",
        ),
        (
            403,
            problem(403, "ForbiddenError", "The security token included in the request is expired")[1],
            "ExpiredTokenException",
            AccessError,
            "sign in again",
        ),
        (403, problem(403, "ForbiddenError", MISSING)[1], "", NotUpError, "with its stage"),
        (
            403,
            problem(403, "ForbiddenError", "Forbidden")[1],
            "",
            AccessError,
            "they need execute-api:Invoke",
        ),
        (403, {"message": "Signature expired: 2026 is now earlier than 2027"}, "", AccessError, "this clock"),
        (403, {"message": MISSING}, "MissingAuthenticationTokenException", NotUpError, "with its stage"),
        (404, {"message": "Not Found"}, "", NotUpError, "with its stage"),
        (200, b"<html>a login page</html>", "", NotUpError, "not the address"),
    ],
)
def test_what_the_gateway_says_becomes_what_to_do(
    api: FakeApi, there: FanOut, status: int, document: Any, kind: str, error: type[Exception], said: str
) -> None:
    api.faults = [(status, document, {"x-amzn-ErrorType": kind} if kind else {})]
    with pytest.raises(error, match=said):
        there.record("j")


def test_a_local_server_that_is_gone_says_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1/"
    gone = FanOut(Deployment(api_url=url, region="us-east-1", keys=("test", "test")))
    asks: list[Callable[[], Any]] = [
        lambda: gone.record("j"),
        lambda: next(gone.tasks({})),
        lambda: next(gone.follow("j")),
    ]
    for ask in asks:
        with pytest.raises(UnreachableError, match="fanout up"):
            ask()


@pytest.fixture
def own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOWN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.mark.usefixtures("own_keys")
def test_a_stack_is_asked_with_the_callers_credentials(api: FakeApi) -> None:
    api.jobs["j"] = [record_of()]
    FanOut(Deployment.of_url(api.url, "eu-west-1")).record("j")
    headers = api.requests[0].headers
    assert "Credential=AKIDOWN/" in headers["Authorization"]
    assert "/eu-west-1/execute-api/" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == "a-token"


@pytest.mark.usefixtures("own_keys")
def test_an_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RETRIES", client.RETRIES.new(connect=0))
    nowhere = FanOut(Deployment.of_url("https://api.invalid/v1", "us-east-1"))
    with pytest.raises(UnreachableError, match=r"There is no host api\.invalid"):
        nowhere.record("j")


@pytest.mark.usefixtures("own_keys")
def test_the_embedded_aws_never_sees_the_callers_own(
    api: FakeApi, there: FanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "there-is-no-such-profile")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    api.jobs["j"] = [record_of()]
    there.record("j")
    assert "Credential=test/" in api.requests[0].headers["Authorization"]


@pytest.mark.usefixtures("own_keys")
def test_a_proxy_of_the_environment_is_used(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", api.url.removesuffix("/v1/"))
    api.faults = [(200, record_of(), {})]
    assert FanOut(Deployment.of_url("http://api.invalid/v1/", "us-east-1")).record("j") == record_of()


@pytest.mark.parametrize(
    ("url", "region", "found"),
    [
        ("https://abc.execute-api.eu-north-1.amazonaws.com/v1/", None, "eu-north-1"),
        ("https://abc.execute-api.eu-north-1.amazonaws.com/v1/", "us-east-1", "us-east-1"),
        ("https://jobs.example.com/", None, "ap-south-1"),
    ],
)
def test_an_address_names_its_region(url: str, region: str | None, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert Deployment.of_url(url, region).region == found


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(NotUpError, match="'FanOut' is no address"):
        Deployment.of_url("FanOut")


def test_a_home_without_a_deployment_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotUpError, match="fanout up"):
        Deployment.of_home(tmp_path / "none")
    (tmp_path / "local.json").write_text("{}")
    with pytest.raises(NotUpError, match="fanout down"):
        Deployment.of_home(tmp_path)


@pytest.fixture
def account(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator in place of the developer's AWS account."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


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
    found = Deployment.of_stack(stack(emulator, {"ApiUrl": "https://x", "BucketName": "b"}))
    assert found == Deployment(region="us-east-1", api_url="https://x")


@pytest.mark.usefixtures("account")
def test_a_stack_that_is_no_fan_out_is_said_to_be_none(emulator: Emulator) -> None:
    with pytest.raises(NotUpError, match="no output ApiUrl"):
        Deployment.of_stack(stack(emulator, {"BucketName": "b"}))
    with pytest.raises(NotUpError, match="There is no stack Nope in us-east-1"):
        Deployment.of_stack("Nope")


def test_missing_credentials_and_region_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "ACCESS_KEY_ID",
        "SECRET_ACCESS_KEY",
        "SESSION_TOKEN",
        "PROFILE",
        "REGION",
        "DEFAULT_REGION",
    ):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessError, match="--region"):
        Deployment.of_stack("FanOut")
    with pytest.raises(AccessError, match="--region"):
        Deployment.of_url("https://jobs.example.com")
    with pytest.raises(AccessError, match="credentials"):
        Deployment.of_stack("FanOut", "eu-west-1")
    with pytest.raises(AccessError, match="credentials"):
        FanOut(Deployment.of_url("https://jobs.example.com", "eu-west-1")).record("j")
