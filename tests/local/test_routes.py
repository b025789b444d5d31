"""Every route over signed HTTP on the embedded AWS: each success and each documented error."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from common.rest import type_of
from tests.support.deployment import ROOT, Deployment, deployed
from tests.support.machine import make_tasks

CSV = {"Content-Type": "text/csv"}
MIB = 1 << 20


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Case:
    """A request of a route and what it is answered. `{NAME}` in the path is one of the fixture's names.

    Of a success, `keys` are among its body's; of an error, `problem` is the title and `fault` the field to blame.
    """

    route: str
    path: str
    status: int
    body: str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    problem: str = ""
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.route} {self.status} {self.problem} {self.fault}".strip()


def ok(route: str, status: int, *keys: str, path: str = "", **request: Any) -> Case:
    return Case(route, path or route.partition(" ")[2], status, keys=frozenset(keys), **request)


def bad(route: str, status: int, problem: str, fault: str = "", path: str = "", **request: Any) -> Case:
    return Case(route, path or route.partition(" ")[2], status, problem=problem, fault=fault, **request)


TASK = ("id", "title", "isComplete", "createdAt", "updatedAt", "version")
STARTED = ("jobId", "executionArn", "status")
INVALID, REQUEST = "InvalidJobError", "InvalidRequestError"
CASES = (
    # tasks
    ok("POST /tasks", 201, *TASK, body='{"title": "A"}'),
    bad("POST /tasks", 400, "InvalidTaskError", "title", body='{"title": ""}'),
    bad("POST /tasks", 400, "InvalidTaskError", "colour", body='{"title": "A", "colour": 1}'),
    bad("POST /tasks", 400, REQUEST, "body", body="{"),
    bad("POST /tasks", 413, "PayloadTooLargeError", "body", body=json.dumps({"title": "x" * 300_000})),
    bad("POST /tasks", 415, "UnsupportedMediaTypeError", "Content-Type", body="a", headers=CSV),
    ok("GET /tasks", 200, "tasks", "nextPageToken", path="/tasks?limit=1&isComplete=false"),
    ok("GET /tasks", 200, "tasks", path="/tasks?limit=10000&dueBefore=2026-11-23T09%3A00%3A00%2B01%3A00"),
    bad("GET /tasks", 400, REQUEST, "limit", path="/tasks?limit=0"),
    bad("GET /tasks", 400, REQUEST, "limit", path="/tasks?limit=1&limit=2"),
    bad("GET /tasks", 400, REQUEST, "dueAfter", path="/tasks?dueAfter=soon"),
    bad("GET /tasks", 400, "InvalidPageTokenError", "pageToken", path="/tasks?pageToken=x"),
    ok("GET /tasks/{id}", 200, *TASK, path="/tasks/{task}"),
    bad("GET /tasks/{id}", 400, REQUEST, "id", path="/tasks/a.b"),
    bad("GET /tasks/{id}", 404, "TaskNotFoundError", path="/tasks/none"),
    ok("PUT /tasks/{id}", 200, *TASK, path="/tasks/{changed}", body='{"title": "B", "version": 1}'),
    bad("PUT /tasks/{id}", 400, "InvalidTaskError", "version", path="/tasks/{task}", body='{"title": "B"}'),
    bad("PUT /tasks/{id}", 404, "TaskNotFoundError", path="/tasks/none", body='{"title": "B", "version": 1}'),
    bad(
        "PUT /tasks/{id}",
        409,
        "VersionConflictError",
        path="/tasks/{task}",
        body='{"title": "B", "version": 9}',
    ),
    ok("DELETE /tasks/{id}", 204, path="/tasks/{deleted}"),
    bad("DELETE /tasks/{id}", 400, REQUEST, "id", path="/tasks/a.b"),
    bad("DELETE /tasks/{id}", 404, "TaskNotFoundError", path="/tasks/none"),
    # uploads
    ok("POST /tasks/upload", 202, *STARTED, body="title\nA\n", headers=CSV),
    ok("POST /tasks/upload", 201, "uploadUrl", "method", "expiresIn", "source", body="{}"),
    ok("POST /tasks/upload", 202, *STARTED, body='{"source": {"csv": "{csv}"}}'),
    bad("POST /tasks/upload", 400, INVALID, "source.csv", body='{"source": {"csv": "uploads/"}}'),
    bad("POST /tasks/upload", 400, INVALID, "source.csv", body='{"source": {"csv": "uploads/a\\nb"}}'),
    bad("POST /tasks/upload", 400, "SourceNotFoundError", "source.csv", body='{"source":{"csv":"uploads/x"}}'),
    bad("POST /tasks/upload", 400, REQUEST, "body", body='{"csv": "uploads/x"}'),
    bad("POST /tasks/upload", 413, "PayloadTooLargeError", "body", body=b"x" * 4_000_001, headers=CSV),
    bad(
        "POST /tasks/upload",
        415,
        "UnsupportedMediaTypeError",
        "Content-Type",
        body="a",
        headers={"Content-Type": "text/plain"},
    ),
    ok("POST /uploads", 201, "source", "url", "method", "expiresIn", body="{}"),
    ok(
        "POST /uploads",
        201,
        "source",
        "uploadId",
        "partBytes",
        "parts",
        "urls",
        body=f'{{"bytes": {65 * MIB}}}',
    ),
    bad("POST /uploads", 400, REQUEST, "bytes", body='{"bytes": -1}'),
    bad("POST /uploads", 400, REQUEST, "size", body='{"size": 1}'),
    bad("POST /uploads", 400, REQUEST, "body", body="[]"),
    ok(
        "POST /uploads/{id}/parts",
        200,
        "urls",
        "expiresIn",
        path="/uploads/{upload}/parts",
        body='{"from": 101}',
    ),
    bad("POST /uploads/{id}/parts", 400, REQUEST, "from", path="/uploads/{upload}/parts", body="{}"),
    bad("POST /uploads/{id}/parts", 404, "UploadNotFoundError", path="/uploads/none/parts", body='{"from": 1}'),
    ok(
        "POST /uploads/{id}/complete",
        200,
        "source",
        path="/uploads/{completed}/complete",
        body='{"etags": ["any"]}',
    ),
    bad("POST /uploads/{id}/complete", 400, REQUEST, "etags", path="/uploads/{upload}/complete", body="{}"),
    bad(
        "POST /uploads/{id}/complete",
        400,
        REQUEST,
        "etags",
        path="/uploads/{upload}/complete",
        body='{"etags": ["0123456789abcdef0123456789abcdef"]}',
    ),
    bad(
        "POST /uploads/{id}/complete",
        404,
        "UploadNotFoundError",
        path="/uploads/none/complete",
        body='{"etags": ["a"]}',
    ),
    # jobs
    ok("POST /jobs", 202, *STARTED, body='{"filter": {"isComplete": false}, "Comment": "any"}'),
    ok("POST /jobs", 202, *STARTED, body='{"jobId": "ended"}'),
    bad("POST /jobs", 400, INVALID, "shardSize", body='{"shardSize": 0}'),
    bad("POST /jobs", 400, INVALID, "params.top", body='{"params": {"top": 99}}'),
    bad("POST /jobs", 400, INVALID, "source", body='{"source": {"csv": "uploads/"}}'),
    bad("POST /jobs", 400, INVALID, "source", body='{"source": {"failedIn": "a\\nb"}}'),
    bad("POST /jobs", 400, INVALID, "unheardOf", body='{"unheardOf": 1}'),
    bad("POST /jobs", 400, INVALID, "jobId", body='{"jobId": "a/b"}'),
    bad(
        "POST /jobs",
        400,
        "SourceNotFoundError",
        "source.csv",
        body='{"kind": "import-tasks", "source": {"csv": "uploads/x"}}',
    ),
    bad("POST /jobs", 400, "SourceNotFoundError", body='{"source": {"failedIn": "none"}}'),
    bad("POST /jobs", 400, REQUEST, "body", body="no"),
    bad("POST /jobs", 409, "JobExistsError", body='{"jobId": "ended", "shardSize": 7}'),
    bad("POST /jobs", 413, "PayloadTooLargeError", "body", body=json.dumps({"Comment": "x" * 200_000})),
    ok("GET /jobs", 200, "jobs", "nextPageToken", path="/jobs?limit=1"),
    ok("GET /jobs", 200, "jobs", path="/jobs?status=PARTIAL&limit=100"),
    bad("GET /jobs", 400, REQUEST, "limit", path="/jobs?limit=101"),
    bad("GET /jobs", 400, REQUEST, "status", path="/jobs?status=failed"),
    bad("GET /jobs", 400, REQUEST, "pageToken", path="/jobs?pageToken=nonsense"),
    ok(
        "GET /jobs/{id}",
        200,
        "jobId",
        "status",
        "counts",
        "shards",
        "result",
        "resultUrl",
        path="/jobs/ended",
    ),
    ok("GET /jobs/{id}", 200, "jobId", "status", "counts", "shards", "phase", path="/jobs/running"),
    ok("GET /jobs/{id}", 200, "jobId", "status", "counts", "error", path="/jobs/refused"),
    bad("GET /jobs/{id}", 400, INVALID, "jobId", path="/jobs/a.b"),
    bad("GET /jobs/{id}", 404, "JobNotFoundError", path="/jobs/none"),
    ok(
        "GET /jobs/{id}/result",
        200,
        "jobId",
        "result",
        "resultUrl",
        "contentLength",
        "fileName",
        path="/jobs/ended/result",
    ),
    bad("GET /jobs/{id}/result", 400, INVALID, "jobId", path="/jobs/a.b/result"),
    bad("GET /jobs/{id}/result", 404, "JobNotFoundError", path="/jobs/none/result"),
    bad("GET /jobs/{id}/result", 404, "ResultNotFoundError", path="/jobs/refused/result"),
    bad("GET /jobs/{id}/result", 409, "JobNotEndedError", path="/jobs/running/result"),
    ok(
        "GET /jobs/{id}/failures",
        200,
        "jobId",
        "status",
        "counts",
        "digest",
        "failuresUrl",
        "retryRequest",
        "retryCommand",
        path="/jobs/partial/failures",
    ),
    bad("GET /jobs/{id}/failures", 400, INVALID, "jobId", path="/jobs/a.b/failures"),
    bad("GET /jobs/{id}/failures", 404, "JobNotFoundError", path="/jobs/none/failures"),
    ok("POST /jobs/{id}/retry", 202, *STARTED, "origin", path="/jobs/partial/retry", body='{"shardSize": 5}'),
    bad(
        "POST /jobs/{id}/retry",
        400,
        INVALID,
        "shardSize",
        path="/jobs/partial/retry",
        body='{"shardSize": 0}',
    ),
    bad(
        "POST /jobs/{id}/retry",
        400,
        INVALID,
        "source",
        path="/jobs/partial/retry",
        body='{"source": "tasks"}',
    ),
    bad("POST /jobs/{id}/retry", 400, INVALID, "source.failedIn", path="/jobs/ended/retry"),
    bad("POST /jobs/{id}/retry", 400, INVALID, "source.failedIn", path="/jobs/running/retry"),
    bad("POST /jobs/{id}/retry", 400, INVALID, "jobId", path="/jobs/a.b/retry"),
    bad("POST /jobs/{id}/retry", 404, "JobNotFoundError", path="/jobs/none/retry"),
    bad("POST /jobs/{id}/retry", 409, "JobExistsError", path="/jobs/partial/retry", body='{"jobId": "ended"}'),
    ok("DELETE /jobs/{id}", 202, "jobId", "status", path="/jobs/stopped"),
    ok("DELETE /jobs/{id}", 202, "jobId", "status", path="/jobs/ended"),
    bad("DELETE /jobs/{id}", 400, INVALID, "jobId", path="/jobs/a.b"),
    bad("DELETE /jobs/{id}", 404, "JobNotFoundError", path="/jobs/none"),
    # what no route has
    bad("ANY /{proxy+}", 404, "RouteNotFoundError", path="/nothing"),
    bad("ANY /{proxy+}", 404, "RouteNotFoundError", path="/jobs/a/b/c"),
)
ROUTES = sorted({case.route for case in CASES} - {"ANY /{proxy+}"})


@dataclass
class Api:
    """The REST API of a deployment, as any HTTP client reaches it."""

    aws: Deployment
    names: dict[str, str] = field(default_factory=dict)

    def send(
        self,
        method: str,
        path: str,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        is_signed: bool = True,
        credentials: Credentials | None = None,
    ) -> Answer:
        data = body.encode() if isinstance(body, str) else body or b""
        request = AWSRequest(
            method,
            self.aws.at.api_url.rstrip("/") + path,
            data=data,
            headers=dict(headers or {"Content-Type": "application/json"}),
        )
        if is_signed:
            keys = credentials or self.aws.credentials()
            SigV4Auth(keys, "execute-api", self.aws.at.region).add_auth(request)
        url = urlsplit(str(request.url))
        self.aws.spent["requests"] += 1
        connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = connect(url.netloc, timeout=60)
        try:
            connection.request(method, url.path + (f"?{url.query}" if url.query else ""), data, dict(request.headers))
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return Answer(answer.status, dict(answer.getheaders()), json.loads(text) if text else None)

    def filled(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def case(self, case: Case) -> Answer:
        method = case.route.partition(" ")[0].replace("ANY", "PATCH")
        body = self.filled(case.body) if isinstance(case.body, str) else case.body
        return self.send(method, self.filled(case.path), body, case.headers)

    def task(self) -> str:
        return str(self.send("POST", "/tasks", '{"title": "A"}').body["id"])

    def record(self, job_id: str) -> Any:
        """The record of the job once it is written."""
        # The first job on AWS waits for every function to start.
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            record = self.send("GET", f"/jobs/{job_id}").body
            if "endedAt" in record:
                return record
            time.sleep(0.1)
        raise AssertionError(f"{job_id} has no record")

    def put_parts(self, urls: list[str], parts: list[bytes]) -> list[str]:
        """The ETags of the parts, each sent to its link."""
        etags = []
        for url, part in zip(urls, parts, strict=True):
            with urllib.request.urlopen(urllib.request.Request(url, part, method="PUT")) as answer:
                etags.append(answer.headers["ETag"])
        return etags


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Tasks in every role, an upload open and one completed, and jobs that run, ended, ended in part, were refused."""
    with deployed(tmp_path_factory.mktemp("routes")) as aws:
        api = Api(aws)
        aws.put_tasks(make_tasks(20, complete=0))
        api.names = {role: api.task() for role in ("task", "changed", "deleted")}
        link = api.send("POST", "/uploads", "{}").body
        api.put_parts([link["url"]], [b"title\nA\n"])
        api.names["csv"] = link["source"]["csv"]
        for role in ("upload", "completed"):
            opened = api.send("POST", "/uploads", f'{{"bytes": {65 * MIB}}}').body
            api.names[role] = opened["uploadId"]
        etags = api.put_parts(opened["urls"][:1], [b"title\nA\n"])
        api.send("POST", f"/uploads/{opened['uploadId']}/complete", json.dumps({"etags": etags}))
        # A worker ends with its job once a task is done.
        slow = {"kind": "probe", "params": {"seconds": 60}}
        bad_rows = {
            "kind": "import-tasks",
            "source": {"csv": "uploads/bad.csv"},
            "toleratedFailurePercentage": 100,
        }
        bucket = aws.at.bucket_name
        aws.client("s3").put_object(Bucket=bucket, Key="uploads/bad.csv", Body=b"title\nA\n,\n")
        aws.start({"shardSize": 0}, "refused")
        for job_id, document in (("ended", {}), ("partial", bad_rows), ("running", slow), ("stopped", slow)):
            answer = api.send("POST", "/jobs", json.dumps(document | {"jobId": job_id}))
            assert answer.status == 202, answer
        for job_id in ("ended", "partial", "refused"):
            api.record(job_id)
        yield api
        api.send("DELETE", "/jobs/running")


@contextmanager
def environment(api: Api, function: str, **changes: str) -> Iterator[None]:
    """The function with other values in its environment."""
    client = api.aws.client("lambda")
    found = client.get_function_configuration(FunctionName=api.aws.function(function))
    variables = found["Environment"]["Variables"]

    def update(values: dict[str, str]) -> None:
        client.update_function_configuration(FunctionName=found["FunctionName"], Environment={"Variables": values})

    update(variables | changes)
    try:
        yield
    finally:
        update(variables)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_route_answers_as_documented(api: Api, case: Case) -> None:
    answer = api.case(case)
    assert answer.status == case.status, answer
    if not case.problem:
        assert case.keys <= (answer.body or {}).keys()
        assert answer.headers["Content-Type"] == "application/json"
        return
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.body
    assert (problem["title"], problem["status"]) == (case.problem, case.status)
    assert problem["type"] == type_of(case.problem)
    assert problem["detail"].endswith(".")
    assert problem["instance"] == api.filled(case.path).partition("?")[0]
    assert [each["field"] for each in problem.get("errors", [])] == ([case.fault] if case.fault else [])


def test_every_deployed_route_is_tried(api: Api) -> None:
    client, api_id = api.aws.client("apigateway"), api.aws.resource("AWS::ApiGateway::RestApi")
    resources = client.get_resources(restApiId=api_id, limit=500)["items"]
    deployed_routes = {
        f"{method} {resource['path']}" for resource in resources for method in resource.get("resourceMethods", {})
    }
    assert deployed_routes == {case.route for case in CASES}
    succeeded = {case.route for case in CASES if not case.problem}
    assert succeeded == set(ROUTES)


@pytest.mark.embedded
def test_the_guide_names_every_route_and_error() -> None:
    guide = (ROOT / "docs/api.md").read_text(encoding="utf-8").replace("{uploadId}", "{id}")
    assert [route for route in ROUTES if f"`{route}" not in guide] == []
    assert [case.problem for case in CASES if f"`{case.problem}`" not in guide and case.problem] == []


@pytest.mark.parametrize("route", ROUTES)
def test_an_unsigned_request_is_refused(api: Api, route: str) -> None:
    method, _, path = route.partition(" ")
    answer = api.send(method, path.replace("{id}", "a"), "{}", is_signed=False)
    assert (answer.status, answer.body["title"]) == (403, "ForbiddenError")
    assert answer.headers["Content-Type"] == "application/problem+json"


# Who may call what: a pattern of the method and path below the API, and the routes that it lets in.
IDENTITIES: dict[str, tuple[str | None, Callable[[str], bool]]] = {
    "nobody": (None, lambda route: False),
    "a reader": ("*/GET/*", lambda route: route.startswith("GET ")),
    "a starter": ("*/POST/jobs", lambda route: route == "POST /jobs"),
    "another stage's": ("v2/*/*", lambda route: False),
    "everybody": ("*", lambda route: True),
}


@pytest.fixture(scope="module", params=IDENTITIES)
def user(api: Api, request: pytest.FixtureRequest) -> tuple[str, Credentials]:
    """A user with no grant but execute-api:Invoke on its pattern; who it is, and its keys."""
    iam, name = api.aws.client("iam"), f"user-{list(IDENTITIES).index(request.param)}"
    iam.create_user(UserName=name)
    pattern, _ = IDENTITIES[request.param]
    if pattern is not None:
        api_id = api.aws.at.api_url.rstrip("/").split("/")[-2]
        resource = f"arn:aws:execute-api:*:*:{api_id}/{pattern}"
        allow = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": resource}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return request.param, Credentials(key["AccessKeyId"], key["SecretAccessKey"])


# It makes users of the account, which no stack's removal takes away.
@pytest.mark.embedded
def test_each_user_reaches_what_its_policy_says(api: Api, user: tuple[str, Credentials]) -> None:
    name, credentials = user
    for route in ROUTES:
        method, _, path = route.partition(" ")
        answer = api.send(method, path.replace("{id}", "a") + "?unknown=1", "{}", credentials=credentials)
        is_let_in = IDENTITIES[name][1](route)
        assert answer.status == (400 if is_let_in else 403), (route, answer.body)
    forged = Credentials(credentials.access_key, "x" * 40)
    assert api.send("GET", "/tasks", credentials=forged).status == 403


@pytest.mark.parametrize("route", ROUTES)
def test_an_unknown_query_parameter_is_refused(api: Api, route: str) -> None:
    method, _, path = route.partition(" ")
    answer = api.send(method, path.replace("{id}", "a") + "?unknown=1", "{}")
    assert (answer.status, answer.body["title"]) == (400, "InvalidRequestError")
    assert [each["field"] for each in answer.body["errors"]] == ["unknown"]


@pytest.mark.parametrize("path", ["/tasks", "/jobs"])
def test_a_location_is_the_address_with_the_stage(api: Api, path: str) -> None:
    body = '{"title": "A"}' if path == "/tasks" else "{}"
    answer = api.send("POST", path, body)
    stage = api.aws.at.api_url.rstrip("/").rpartition("/")[2]
    assert answer.headers["Location"].startswith(f"/{stage}{path}/")
    assert api.send("GET", answer.headers["Location"].removeprefix(f"/{stage}")).status == 200


def test_jobs_are_listed_by_status(api: Api) -> None:
    for status, job_id in (("RUNNING", "running"), ("PARTIAL", "partial"), ("FAILED", "refused")):
        jobs = {job["jobId"]: job for job in api.send("GET", f"/jobs?status={status}&limit=100").body["jobs"]}
        assert job_id in jobs
        assert {job["status"] for job in jobs.values()} == {status}
    assert jobs["refused"]["kind"] is None


def test_a_result_is_downloaded_by_its_link(api: Api) -> None:
    answer = api.send("GET", "/jobs/ended/result").body
    with urllib.request.urlopen(answer["resultUrl"]) as download:
        body = download.read()
    assert len(body) == answer["contentLength"] > 0
    assert body == api.aws.stored("ended", answer["fileName"])


def test_an_upload_in_parts_is_one_object(api: Api) -> None:
    parts = [b"title\n" + b"A\n" * 2_621_437, b"B\n" * 2_621_440, b"C\n"]
    opened = api.send("POST", "/uploads", f'{{"bytes": {64 * MIB + 1}}}').body
    assert (opened["partBytes"], opened["parts"], len(opened["urls"])) == (16 * MIB, 5, 5)
    again = api.send("POST", f"/uploads/{opened['uploadId']}/parts", '{"from": 3}').body["urls"]
    etags = api.put_parts([*opened["urls"][:2], again[0]], parts)
    complete = f"/uploads/{opened['uploadId']}/complete"
    for _ in range(2):
        answer = api.send("POST", complete, json.dumps({"etags": etags}))
        assert (answer.status, answer.body) == (200, {"source": opened["source"]})
    stored = api.aws.client("s3").get_object(Bucket=api.aws.at.bucket_name, Key=opened["source"]["csv"])
    assert stored["Body"].read() == b"".join(parts)


def test_an_aborted_upload_is_not_found(api: Api) -> None:
    opened = api.send("POST", "/uploads", f'{{"bytes": {65 * MIB}}}').body
    etags = api.put_parts(opened["urls"][:1], [b"title\nA\n"])
    s3, where = api.aws.client("s3"), {"Bucket": api.aws.at.bucket_name, "Key": opened["source"]["csv"]}
    listed = s3.list_multipart_uploads(Bucket=where["Bucket"])["Uploads"]
    (s3_id,) = [each["UploadId"] for each in listed if each["Key"] == where["Key"]]
    s3.abort_multipart_upload(**where, UploadId=s3_id)
    answer = api.send("POST", f"/uploads/{opened['uploadId']}/complete", json.dumps({"etags": etags}))
    assert (answer.status, answer.body["title"]) == (404, "UploadNotFoundError")


@pytest.mark.embedded
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_starts_reads_and_deletes(api: Api) -> None:
    at = api.aws.at

    def curl(method: str, path: str, body: str = "") -> tuple[int, Any]:
        command = ["curl", "--silent", "--show-error", "--request", method, "--write-out", "\n%{http_code}"]
        command += ["--aws-sigv4", f"aws:amz:{at.region}:execute-api"]
        command += ["--user", f"{at.access_key_id}:{at.secret_access_key}"]
        command += ["--header", "Content-Type: application/json"] + (["--data", body] if body else [])
        done = subprocess.run([*command, at.api_url.rstrip("/") + path], capture_output=True, text=True, check=True)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text) if text else None

    assert curl("POST", "/jobs", '{"jobId": "by-curl"}')[0] == 202
    assert curl("GET", "/jobs/by-curl")[1]["jobId"] == "by-curl"
    task_id = api.task()
    assert curl("DELETE", f"/tasks/{task_id}") == (204, None)
    assert curl("GET", f"/tasks/{task_id}")[0] == 404


# On AWS a stage takes a while to do as it is told.
@pytest.mark.embedded
def test_the_stage_throttles_with_a_time_to_come_back(api: Api) -> None:
    client = api.aws.client("apigateway")
    (found,) = client.get_rest_apis()["items"]
    settings = client.get_stage(restApiId=found["id"], stageName="v1")["methodSettings"]["*/*"]

    def limit(rate: float, burst: int) -> None:
        values = {"rateLimit": rate, "burstLimit": burst}
        client.update_stage(
            restApiId=found["id"],
            stageName="v1",
            patchOperations=[
                {"op": "replace", "path": f"/*/*/throttling/{name}", "value": str(value)}
                for name, value in values.items()
            ],
        )

    limit(0.1, 1)
    try:
        answers = [api.send("GET", "/jobs/none") for _ in range(5)]
    finally:
        limit(settings["throttlingRateLimit"], settings["throttlingBurstLimit"])
    answer = answers[-1]
    assert (answer.status, answer.body["title"]) == (429, "ThrottledError")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("function", "path", "title"),
    [("TaskApi", "/tasks/a", "ThrottledError"), ("JobsApi", "/jobs/a", "ServiceUnavailableError")],
)
def test_a_service_that_is_down_is_503(api: Api, function: str, path: str, title: str) -> None:
    with environment(api, function, AWS_ENDPOINT_URL="http://127.0.0.1:9"):
        answer = api.send("GET", path)
    assert (answer.status, answer.body["title"]) == (503, title)
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("function", "path", "setting"),
    [("TaskApi", "/tasks/a", "TASK_TABLE_NAME"), ("JobsApi", "/jobs/a", "BUCKET_NAME")],
)
def test_an_unexpected_fault_is_500_without_details(api: Api, function: str, path: str, setting: str) -> None:
    with environment(api, function, **{setting: "not-there"}):
        answer = api.send("GET", path)
    assert (answer.status, answer.body["title"]) == (500, "InternalError")
    assert "not-there" not in json.dumps(answer.body)
