"""A local HTTP server that speaks the REST API of jobs, tasks and uploads, and S3 behind the API's links.

It notes every request, refuses what is not signed, and fails as a test tells it to: an answer of a test's own,
a connection that breaks off, a link that expires.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from fanout.client import Deployment

Answer = tuple[int, Any, dict[str, str]]
# The connection is closed before an answer, or in the middle of one.
BREAK, HALF = "break", "half"
PART_BYTES, LINKS = 1000, 100
STAGE = "/v1"


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def is_signed(self) -> bool:
        """Whether the signature is that of what was received, by botocore's own reckoning; every secret is `test`."""
        form = r"AWS4-HMAC-SHA256 .*/(.+)/execute-api/aws4_request, SignedHeaders=(\S+), Signature=(\w+)"
        found = re.fullmatch(form, self.headers.get("Authorization", ""))
        if found is None:
            return False
        headers = {name: value for name, value in self.headers.items() if name.lower() in found[2].split(";")}
        url = f"http://{self.headers['Host']}{self.path}"
        received = AWSRequest(self.method, url, headers=headers, data=self.body, params=self.query)
        received.context["timestamp"] = headers["X-Amz-Date"]
        auth = SigV4Auth(Credentials("test", "test"), "execute-api", found[1])
        signature: str = auth.signature(auth.string_to_sign(received, auth.canonical_request(received)), received)
        return signature == found[3]


def problem(status: int, title: str, detail: str, **fields: Any) -> Answer:
    document = {"type": f"/errors/{title}", "title": title, "status": status, "detail": detail, **fields}
    return status, document, {"Content-Type": "application/problem+json"}


@dataclass
class FakeApi:
    """`jobs` holds, for each job, the records that successive looks at it give; the last one stays."""

    url: str = ""
    s3: str = ""
    requests: list[Request] = field(default_factory=list)
    # What the next requests get instead of an answer: an answer, BREAK, HALF, or None for the usual one.
    faults: list[Answer | str | None] = field(default_factory=list)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    # The records of jobs that are started from here on.
    script: list[dict[str, Any]] = field(default_factory=list)
    # Those of a job of this id or of this kind, in place of the script.
    scripts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    digests: dict[str, list[Any]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    # Links that were given: those up to `expired` get 403.
    links: int = 0
    expired: int = 0
    large: int = 5000
    lock: threading.Lock = field(default_factory=threading.Lock)

    def deployment(self) -> Deployment:
        return Deployment(api_url=self.url, region="us-east-1", keys=("test", "test"))

    def named(self, method: str, path: str) -> list[Request]:
        return [each for each in self.requests if each.method == method and re.fullmatch(path, each.path)]

    def link(self, path: str) -> str:
        self.links += 1
        return f"{self.s3}/{path}?X-Amz-Signature=x&link={self.links}"

    def answer(self, request: Request) -> Answer:
        if request.path.startswith("/s3/"):
            return self._s3(request)
        if not request.is_signed:
            return 403, {"message": "Missing Authentication Token"}, {}
        path = request.path.removeprefix(STAGE)
        for method, pattern, route in ROUTES:
            if request.method == method and (found := re.fullmatch(pattern, path)):
                return route(self, request, *map(unquote, found.groups()))
        return 403, {"message": "Missing Authentication Token"}, {}

    def _start(self, request: Request) -> Answer:
        job = request.document
        job_id = job.pop("jobId")
        if job.get("shardSize") == 0:
            fault = {"field": "shardSize", "value": 0, "allowed": "a whole number from 1 to 10,000"}
            sentence = "shardSize is 0, but must be a whole number from 1 to 10,000."
            return problem(400, "InvalidJobError", sentence, errors=[fault])
        if self.inputs.setdefault(job_id, job) != job:
            return problem(409, "JobExistsError", f'There is a job "{job_id}" with another input.')
        script = self.scripts.get(job_id) or self.scripts.get(job.get("kind", "daily-plan")) or self.script
        self.jobs.setdefault(job_id, [{**each, "jobId": job_id} for each in script])
        return 202, {"jobId": job_id, "executionArn": "arn:x", "status": "RUNNING"}, {}

    def _record(self, request: Request, job_id: str) -> Answer:
        if job_id not in self.jobs:
            return problem(404, "JobNotFoundError", f'There is no job "{job_id}".')
        records = self.jobs[job_id]
        return 200, records.pop(0) if len(records) > 1 else records[0], {}

    def _jobs(self, request: Request) -> Answer:
        first, limit = int(request.query.get("pageToken", "0")), int(request.query["limit"])
        assert 1 <= limit <= 100
        there = [records[-1] for records in self.jobs.values()][::-1]
        some = there[first : first + limit]
        if status := request.query.get("status"):
            some = [record for record in some if record["status"] == status]
        page: dict[str, Any] = {"jobs": some}
        if first + limit < len(there):
            page["nextPageToken"] = str(first + limit)
        return 200, page, {}

    def _result(self, request: Request, job_id: str) -> Answer:
        status, record, _ = self._record(request, job_id)
        if status != 200:
            return status, record, {}
        if "result" not in record:
            return problem(409, "JobNotEndedError", f'The job "{job_id}" has no result yet: it is running.')
        found = {"jobId": job_id, "result": record["result"], "resultUrl": self.link(f"{job_id}/result")}
        return 200, found, {}

    def _failures(self, request: Request, job_id: str) -> Answer:
        status, record, _ = self._record(request, job_id)
        if status != 200:
            return status, record, {}
        found = {
            "digest": self.digests.get(job_id, []),
            **{n: record[n] for n in ("jobId", "status", "counts")},
        }
        if record["status"] in {"PARTIAL", "FAILED", "STOPPED"}:
            found |= {"retryRequest": f"POST /jobs/{job_id}/retry", "retryCommand": f"fanout retry {job_id}"}
        if f"{job_id}/failures" in self.objects:
            found["failuresUrl"] = self.link(f"{job_id}/failures")
        return 200, found, {}

    def _retry(self, request: Request, job_id: str) -> Answer:
        changes = request.document
        new_id = changes.pop("jobId")
        self.inputs[new_id] = {**changes, "source": {"failedIn": job_id}}
        script = self.scripts.get(new_id, self.script)
        self.jobs[new_id] = [{**each, "jobId": new_id, "origin": job_id} for each in script]
        return 202, {"jobId": new_id, "executionArn": "arn:x", "status": "RUNNING", "origin": job_id}, {}

    def _stop(self, request: Request, job_id: str) -> Answer:
        if job_id not in self.jobs:
            return problem(404, "JobNotFoundError", f'There is no job "{job_id}".')
        records = self.jobs[job_id]
        if records[0]["status"] == "RUNNING":
            self.jobs[job_id] = [records[0], {**records[0], "status": "STOPPED"}]
        return 202, {"jobId": job_id, "status": "STOPPED"}, {}

    def _tasks(self, request: Request) -> Answer:
        first, limit = int(request.query.get("pageToken", "0")), int(request.query["limit"])
        assert 1 <= limit <= 10_000
        page: dict[str, Any] = {"tasks": self.tasks[first : first + limit]}
        if first + limit < len(self.tasks):
            page["nextPageToken"] = str(first + limit)
        return 200, page, {}

    def _upload(self, request: Request) -> Answer:
        size = request.document["bytes"]
        found: dict[str, Any] = {"source": {"csv": "uploads/u.csv"}, "expiresIn": 3600}
        if size <= self.large:
            return 201, {**found, "url": self.link("uploads/u.csv"), "method": "PUT"}, {}
        self.parts = {}
        parts = -(-size // PART_BYTES)
        urls = self._part_links(1, parts)
        return 201, {**found, "uploadId": "u/1+", "partBytes": PART_BYTES, "parts": parts, "urls": urls}, {}

    def _part_links(self, first: int, parts: int = 10_000) -> list[str]:
        return [self.link(f"part/{number}") for number in range(first, min(first + LINKS, parts + 1))]

    def _more_parts(self, request: Request, upload: str) -> Answer:
        assert upload == "u/1+"
        return 200, {"urls": self._part_links(request.document["from"]), "expiresIn": 3600}, {}

    def _complete(self, request: Request, upload: str) -> Answer:
        etags = request.document["etags"]
        assert etags == [f'"{number}"' for number in sorted(self.parts)]
        self.objects["uploads/u.csv"] = b"".join(self.parts[number] for number in sorted(self.parts))
        return 200, {"source": {"csv": "uploads/u.csv"}}, {}

    def _s3(self, request: Request) -> Answer:
        """S3 as its links show it: ranges, If-Match, single and multipart PUT; unsigned but for the link."""
        assert "Authorization" not in request.headers
        key = request.path.removeprefix("/s3/")
        if int(request.query["link"]) <= self.expired:
            return 403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", {}
        if request.method == "PUT":
            if len(request.body) != int(request.headers["Content-Length"]):
                # The client broke the upload off.
                return 400, b"<Error><Code>IncompleteBody</Code></Error>", {}
            if key.startswith("part/"):
                number = int(key.removeprefix("part/"))
                self.parts[number] = request.body
                return 200, b"", {"ETag": f'"{number}"'}
            self.objects[key] = request.body
            return 200, b"", {"ETag": '"e"'}
        if key not in self.objects:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
        content = self.objects[key]
        etag = f'"{hash(content)}"'
        if request.headers.get("If-Match", etag) != etag:
            return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["Range"])
        assert found
        first, last = int(found[1]), min(int(found[2]), len(content) - 1)
        if first >= len(content):
            return 416, b"<Error><Code>InvalidRange</Code></Error>", {}
        headers = {"ETag": etag, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return 206, content[first : last + 1], headers


ROUTES = (
    ("POST", "/jobs", FakeApi._start),
    ("GET", "/jobs", FakeApi._jobs),
    ("GET", "/jobs/([^/]+)", FakeApi._record),
    ("DELETE", "/jobs/([^/]+)", FakeApi._stop),
    ("GET", "/jobs/([^/]+)/result", FakeApi._result),
    ("GET", "/jobs/([^/]+)/failures", FakeApi._failures),
    ("POST", "/jobs/([^/]+)/retry", FakeApi._retry),
    ("GET", "/tasks", FakeApi._tasks),
    ("POST", "/uploads", FakeApi._upload),
    ("POST", "/uploads/([^/]+)/parts", FakeApi._more_parts),
    ("POST", "/uploads/([^/]+)/complete", FakeApi._complete),
)


@contextmanager
def serving() -> Iterator[FakeApi]:
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = Request(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query, keep_blank_values=True)),
                dict(self.headers.items()),
                body,
            )
            with api.lock:
                api.requests.append(request)
                fault = api.faults.pop(0) if api.faults else None
                if fault != BREAK:
                    status, content, headers = fault if isinstance(fault, tuple) else api.answer(request)
            if fault == BREAK:
                self.close_connection = True
                return
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if fault == HALF:
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.wfile.write(data)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            # A client that breaks off is what some tests are about.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_port}"
    api.url, api.s3 = f"{address}{STAGE}/", f"{address}/s3"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
