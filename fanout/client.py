"""A client of Fan Out's REST API, on AWS and on the embedded AWS.

It sends signed requests to the API, and plain ones to the links that the API gives, and asks nothing else; to find a
stack's API it reads the stack's outputs. What a user can put right is raised as a FanOutClientError, whose text is a
sentence that says how.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from threading import Event
from typing import IO, Any, cast
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError
from botocore.httpsession import get_cert_path
from botocore.session import Session
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError
from urllib3.response import BaseHTTPResponse

# A job's record as GET /jobs/{id} gives it; README.md says what is in it.
JobRecord = dict[str, Any]
# Gives the presigned URL of an object; called again when one has expired.
Link = Callable[[], str]

# The largest pages of the API.
TASKS_PER_PAGE, JOBS_PER_PAGE = 10_000, 100
# Bytes of one ranged GET. S3 closes a long answer that is read slowly, by a pager for instance; a block it does not.
BLOCK = 8 << 20
# Parts of an upload that are sent at the same time, and bytes of a part that are sent at a time: urllib3 gives each of
# these sends the time of a connect, which a slow line must not exceed.
SENDERS, SEND = 4, 16 << 10
# Every request is repeatable: a start or a retry names the new job's id, an upload that was asked for twice is
# another upload. A signature is good for five minutes, which the pauses between attempts stay below.
RETRIES = urllib3.Retry(
    total=6,
    redirect=0,
    allowed_methods=None,
    status_forcelist=(429, 502, 503, 504),
    backoff_factor=0.2,
    backoff_jitter=0.2,
    backoff_max=10,
    retry_after_max=20,
    raise_on_status=False,
)
# S3 asks for its 500 to be retried; the API's own means a fault that another attempt meets again.
LINK_RETRIES = RETRIES.new(status_forcelist=(429, 500, 502, 503, 504))
TIMEOUT = urllib3.Timeout(connect=5, read=60)


class FanOutClientError(Exception):
    """Base of what this client raises on purpose. Its text is a sentence that says what to do."""


class NotUpError(FanOutClientError):
    """There is no such deployment: nothing is up here, or no stack has this name."""


class UnreachableError(FanOutClientError):
    """The deployment does not answer."""


class AccessError(FanOutClientError):
    """Credentials or a region are missing, expired, or not allowed to do this."""


class JobStateError(FanOutClientError):
    """The job is not in a state in which this can be done."""


class TransferError(FanOutClientError):
    """A file could not be uploaded or downloaded as a whole."""


class ProblemError(FanOutClientError):
    """The API refused the request; `name`, the text and `errors` are those of its problem details (RFC 9457)."""

    def __init__(self, status: int, name: str, sentence: str, errors: list[dict[str, Any]] | None = None):
        super().__init__(sentence)
        self.status, self.name, self.errors = status, name, errors or []


_SIGN_IN = "sign in again, then repeat the command."
# What to do about a refusal, where the API's sentence cannot know how the request was made.
_ADVICE = {
    "JobNotEndedError": "`fanout status --follow` waits for the job's end.",
    "JobNotFoundError": "`fanout jobs` lists the jobs there are.",
    "JobExistsError": "Choose another --job-id.",
    "RouteNotFoundError": "Is it the whole address of the API, with its stage?",
}
# What a status of S3 says about a file that was there.
_LOST = {
    404: "The file is no longer kept: a job's files are deleted after a time.",
    412: "The file changed while it was downloaded: repeat the command.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The address of a Fan Out's API. `keys` are the credentials of an embedded AWS; None: the caller's own."""

    api_url: str
    region: str
    keys: tuple[str, str] | None = None

    @classmethod
    def of_home(cls, home: Path) -> Deployment:
        """The embedded AWS that `fanout up` left in `home`. Raises NotUpError."""
        path = home / "local.json"
        try:
            at = json.loads(path.read_text(encoding="utf-8"))
            return cls(api_url=at["apiUrl"], region=at["region"], keys=(at["accessKeyId"], at["secretAccessKey"]))
        except (FileNotFoundError, NotADirectoryError):
            raise NotUpError(
                f"Nothing is up in {home}: start it with `fanout up`, or name a deployed stack with --stack."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise NotUpError(f"{path} is not what `fanout up` writes: run `fanout down`, then `fanout up`.") from None

    @classmethod
    def of_url(cls, url: str, region: str | None = None) -> Deployment:
        """The API at this address, which includes the stage. Raises NotUpError, AccessError."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise NotUpError(f"{url!r} is no address: give the stack's output ApiUrl, https://….")
        if region is None and (named := re.search(r"\.execute-api\.([a-z0-9-]+)\.", parts.hostname)):
            region = named[1]
        with _explained():
            found = _session(region).get_config_variable("region")
            if found is None:
                raise NoRegionError
        return cls(api_url=url, region=found)

    @classmethod
    def of_stack(cls, name: str, region: str | None = None) -> Deployment:
        """A deployed stack, by its output ApiUrl. Raises NotUpError, AccessError, UnreachableError."""
        with _explained():
            client: Any = _session(region).create_client("cloudformation")
            region = client.meta.region_name
            try:
                (stack,) = client.describe_stacks(StackName=name)["Stacks"]
            except ClientError as error:
                if "does not exist" not in str(error):
                    raise
                raise NotUpError(f"There is no stack {name} in {region}: `make deploy` makes one.") from None
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}
        if "ApiUrl" not in outputs:
            raise NotUpError(f"The stack {name} has no output ApiUrl: it is not a Fan Out, or not deployed yet.")
        return cls(api_url=outputs["ApiUrl"], region=region)


def new_job_id(now: datetime | None = None) -> str:
    """A fresh job id that sorts by its start in UTC: 20261123-101502-ab12cd."""
    return f"{now or datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class FanOut:
    """Jobs and tasks of one deployment.

    `poll` is the pause in seconds between two looks at a job, `patience` the seconds for which the record of an ended
    job is waited for, `outage` those for which following a job outlives a lost connection.
    """

    def __init__(
        self, deployment: Deployment, *, poll: float | None = None, patience: float = 60.0, outage: float | None = None
    ):
        self.deployment = deployment
        self._is_local = deployment.keys is not None
        self._poll = poll if poll is not None else 0.25 if self._is_local else 1.0
        self._patience = patience
        # A laptop that wakes up has no network for a while; a local server that is gone stays gone.
        self._outage = outage if outage is not None else 0.0 if self._is_local else 900.0
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._session = _session(deployment.region)
        if deployment.keys is not None:
            self._session.set_credentials(*deployment.keys)

    # -- jobs --------------------------------------------------------------------------------------------

    def start(self, job: Mapping[str, Any], job_id: str) -> dict[str, Any]:
        """Start a job: `{jobId, executionArn, status}`. The same id with the same input starts it once."""
        return self._call("POST", "/jobs", {**job, "jobId": job_id})

    def retry(self, job_id: str, changes: Mapping[str, Any], new_id: str) -> dict[str, Any]:
        """Start the job `new_id` over what did not succeed in an ended job, with these changes to its input."""
        return self._call("POST", f"/jobs/{job_id}/retry", {**changes, "jobId": new_id})

    def record(self, job_id: str) -> JobRecord:
        """The job's record: the final one if the job has ended, else what is known so far."""
        return self._call("GET", f"/jobs/{job_id}")

    def follow(
        self, job_id: str, lost: Callable[[str], None] = lambda _: None, *, is_new: bool = False
    ) -> Iterator[JobRecord]:
        """Yield the job's record again and again until it is final; the last one is, unless patience ended.

        `lost` gets a sentence when the connection is lost; following goes on as soon as there is one again. A job that
        `is_new` may be unknown for a moment, because Step Functions is eventually consistent.
        """
        began, lost_at, ended_at = time.monotonic(), None, None
        while True:
            try:
                record = self.record(job_id)
            except (UnreachableError, ProblemError) as error:
                now = time.monotonic()
                if isinstance(error, ProblemError) and error.status < 500 and error.status != 429:
                    if error.status != 404 or not is_new or now - began >= self._patience:
                        raise
                elif lost_at is None and self._outage:
                    lost_at = now
                    lost(str(error))
                elif lost_at is None or now - lost_at >= self._outage:
                    raise
            else:
                yield record
                now, lost_at, is_new = time.monotonic(), None, False
                if record["status"] != "RUNNING":
                    ended_at = ended_at or now
                    # The record is written a moment after the end.
                    is_pending = record.get("error", {}).get("name") == "RecordPendingError"
                    if not is_pending or now - ended_at >= self._patience:
                        return
            time.sleep(self._poll)

    def jobs(self, limit: int, status: str | None = None) -> Iterator[dict[str, Any]]:
        """The newest `limit` jobs, newest first, of one status or of all: `{jobId, kind, status, startedAt, …}`."""
        query = {} if status is None else {"status": status}
        # Most of a page may be of another status: the largest pages are the fewest requests.
        size = JOBS_PER_PAGE if status else min(limit, JOBS_PER_PAGE)
        return islice(self._pages("/jobs", "jobs", query, size), limit)

    def stop(self, job_id: str) -> JobRecord:
        """Stop a running job, or leave it stopped; its final record. Raises JobStateError if it ended otherwise."""
        self._call("DELETE", f"/jobs/{job_id}")
        *_, record = self.follow(job_id)
        if record["status"] != "STOPPED":
            raise JobStateError(f"Job {job_id} had ended before it could be stopped: {record['status']}.")
        return record

    def result(self, job_id: str) -> dict[str, Any]:
        """`{jobId, result, resultUrl?, contentLength?, fileName?}`. Raises ProblemError if there is none (yet)."""
        return self._call("GET", f"/jobs/{job_id}/result")

    def link(self, found: Mapping[str, Any], name: str, again: Callable[[str], Mapping[str, Any]]) -> Link:
        """The link `name` of an answer of `again`, which gives a new one when it has expired. Raises JobStateError."""
        if name not in found:
            raise JobStateError(f"Job {found['jobId']} has no such file.")
        first = iter([found])
        return lambda: str((next(first, None) or again(found["jobId"]))[name])

    def failures(self, job_id: str) -> dict[str, Any]:
        """`{jobId, status, counts, digest, failuresUrl?, retryRequest?, retryCommand?}`."""
        return self._call("GET", f"/jobs/{job_id}/failures")

    # -- tasks -------------------------------------------------------------------------------------------

    def tasks(self, matching: Mapping[str, Any], limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The tasks that match a job's filter (isComplete, dueBefore, dueAfter): all, or the first `limit`."""
        query = {name: json.dumps(v) if isinstance(v, bool) else str(v) for name, v in matching.items()}
        return islice(self._pages("/tasks", "tasks", query, min(limit or TASKS_PER_PAGE, TASKS_PER_PAGE)), limit)

    # -- links -------------------------------------------------------------------------------------------

    def upload(self, file: IO[bytes]) -> dict[str, str]:
        """Upload a CSV of any size, from a file or a pipe; the source for a job's input. Raises TransferError."""
        with _whole(file) as whole:
            upload = self._call("POST", "/uploads", {"bytes": whole.size})
            if "uploadId" in upload:
                upload = self._put_parts(whole, upload)
            else:
                answer = self._put(whole, upload["url"])
                if answer.status == 403:
                    # The link is too old: this machine slept meanwhile.
                    upload = self._call("POST", "/uploads", {"bytes": whole.size})
                    answer = self._put(whole, upload["url"])
                _check(answer)
        return cast("dict[str, str]", upload["source"])

    def download(self, link: Link, to: Path) -> None:
        """Write what is behind a link to a file, whole or not at all. Raises TransferError, OSError naming the file."""
        try:
            if to.exists() and not to.is_file():
                # A device or a pipe is written to; it cannot be replaced.
                with to.open("wb") as file:
                    file.writelines(self.blocks(link))
                return
            draft = to.with_name(f".{to.name}.{secrets.token_hex(4)}.part")
            try:
                with draft.open("xb") as file:
                    file.writelines(self.blocks(link))
                draft.replace(to)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(to)) from error

    def lines(self, link: Link) -> Iterator[bytes]:
        """The lines of what is behind a link, without their ends, one block in memory at a time."""
        rest = b""
        for block in self.blocks(link):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def blocks(self, link: Link) -> Iterator[bytes]:
        """The bytes behind a link, by ranged requests, each repeated if its answer breaks off. Raises TransferError."""
        url, etag, position, size = link(), "", 0, 1
        is_fresh = True
        while position < size:
            headers = {"Range": f"bytes={position}-{position + BLOCK - 1}", "Accept-Encoding": "identity"}
            if etag:
                headers["If-Match"] = etag
            answer = self._send("GET", url, headers=headers, retries=LINK_RETRIES)
            if answer.status == 403 and not is_fresh:
                url, is_fresh = link(), True
                continue
            if answer.status == 416 and not position:
                return  # an empty object has no first byte
            if answer.status == 200:
                yield answer.data  # no ranges here
                return
            _check(answer)
            etag, is_fresh = answer.headers["ETag"], False
            size = int(answer.headers["Content-Range"].rpartition("/")[2])
            position += len(answer.data)
            yield answer.data

    def _put(self, part: _Slice, url: str) -> BaseHTTPResponse:
        return self._send("PUT", url, body=part, headers={"Content-Length": str(part.size)}, retries=LINK_RETRIES)

    def _put_parts(self, whole: _Slice, upload: Mapping[str, Any]) -> dict[str, Any]:
        """Send the parts of a large upload, some at a time, and complete it."""
        path, each = f"/uploads/{quote(upload['uploadId'], safe='')}", upload["partBytes"]

        def links(first: int) -> list[str]:
            return cast("list[str]", self._call("POST", f"{path}/parts", {"from": first})["urls"])

        def put(number: int, url: str) -> str:
            offset = (number - 1) * each
            part = replace(whole, start=whole.start + offset, size=min(each, whole.size - offset))
            answer = self._put(part, url)
            if answer.status == 403:
                answer = self._put(part, links(number)[0])
            return _check(answer).headers["ETag"]

        etags: list[str] = []
        with ThreadPoolExecutor(SENDERS) as pool:
            try:
                while len(etags) < upload["parts"]:
                    urls = links(len(etags) + 1) if etags else upload["urls"]
                    etags += pool.map(put, range(len(etags) + 1, upload["parts"] + 1), urls)
            except BaseException:
                whole.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return self._call("POST", f"{path}/complete", {"etags": etags})

    # -- requests ----------------------------------------------------------------------------------------

    def _pages(self, path: str, name: str, query: dict[str, str], size: int) -> Iterator[dict[str, Any]]:
        query = {**query, "limit": str(size)}
        while True:
            page = self._call("GET", f"{path}?{urlencode(query, quote_via=quote, errors='replace')}")
            yield from page[name]
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One signed request of the API and its JSON answer. Raises ProblemError, AccessError, UnreachableError."""
        url = self.deployment.api_url.rstrip("/") + path
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        request = AWSRequest(method, url, headers=headers, data=data)
        with _explained():
            # Asked for each time: those of a session are renewed as they expire. Without any, signing says so.
            found = self._session.get_credentials()
            frozen: Any = found and found.get_frozen_credentials()
            SigV4Auth(frozen, "execute-api", self.deployment.region).add_auth(request)
        answer = self._send(method, url, body=data, headers=dict(request.headers.items()), retries=RETRIES)
        document: Any = None
        with suppress(ValueError):
            document = json.loads(answer.data)
        if answer.status >= 300:
            raise _refusal(answer, document if isinstance(document, dict) else {}, url)
        if not isinstance(document, dict):
            raise NotUpError(f"{url} does not answer in JSON: it is not the address of Fan Out's API.")
        return document

    def _send(
        self, method: str, url: str, *, retries: urllib3.Retry, headers: dict[str, str], body: Any = None
    ) -> BaseHTTPResponse:
        if self._is_local:
            retries = retries.new(connect=0)
        try:
            return self._pool(url).request(method, url, body=body, headers=headers, retries=retries, redirect=False)
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            host, why = urlsplit(url).netloc, type(reason).__name__
            sentence = f"{host} does not answer: {why}."
            if self._is_local:
                sentence = f"The embedded AWS at {host} does not answer ({why}): run `fanout down`, then `fanout up`."
            elif isinstance(reason, NameResolutionError):
                sentence = f"There is no host {host}: check the address, and whether there is a network."
            raise UnreachableError(sentence) from None

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections that lead to this address, through the environment's proxy if it names one."""
        proxies = {} if self._is_local else get_environ_proxies(url)
        proxy = proxies.get(urlsplit(url).scheme)
        if proxy not in self._pools:
            ca_certs = os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True)
            options: dict[str, Any] = {"timeout": TIMEOUT, "maxsize": SENDERS, "ca_certs": ca_certs}
            if proxy is None:
                self._pools[proxy] = urllib3.PoolManager(**options)
            else:
                login = urllib3.make_headers(proxy_basic_auth=urllib3.util.parse_url(proxy).auth or None)
                self._pools[proxy] = urllib3.ProxyManager(proxy, proxy_headers=login, **options)
        return self._pools[proxy]


@dataclass(frozen=True)
class _Slice:
    """A part of a file as the body of a request, read anew by each attempt; `stop` breaks it off."""

    descriptor: int
    start: int
    size: int
    stop: Event = field(default_factory=Event)

    def __iter__(self) -> Iterator[bytes]:
        position, end = self.start, self.start + self.size
        while position < end:
            if self.stop.is_set():
                raise TransferError("The upload was broken off.")
            data = os.pread(self.descriptor, min(SEND, end - position), position)
            if not data:
                raise TransferError("The file became shorter while it was uploaded.")
            position += len(data)
            yield data


@contextmanager
def _whole(file: IO[bytes]) -> Iterator[_Slice]:
    """The rest of the file; of a temporary copy, if it is a pipe: S3 wants to know the size first."""
    status = os.fstat(file.fileno())
    if S_ISREG(status.st_mode):
        start = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        yield _Slice(file.fileno(), start, max(0, status.st_size - start))
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield _Slice(copy.fileno(), 0, copy.tell())


def _check(answer: BaseHTTPResponse) -> BaseHTTPResponse:
    """The answer of S3, if it is a success. Raises TransferError."""
    if answer.status < 300:
        return answer
    code = (re.findall(rb"<Code>(\w+)</Code>", answer.data) or [b"no reason"])[0].decode()
    refused = f"S3 refused the link with HTTP {answer.status} ({code}): repeat the command."
    raise TransferError(_LOST.get(answer.status, refused))


def _refusal(answer: BaseHTTPResponse, document: dict[str, Any], url: str) -> FanOutClientError:
    """What an answer means: a problem of the API, or the gateway that does not let the request in."""
    status, title = answer.status, document.get("title")
    name = str(title or answer.headers.get("x-amzn-errortype", "").partition(":")[0])
    text = str(document.get("detail") or document.get("message") or document.get("Message") or "")
    said = f"{name}: {text}".strip(": ") or f"HTTP {status}"
    is_denied = status in {401, 403}
    if (is_denied and re.search("missing ?authentication", said, re.I)) or (status == 404 and not title):
        return NotUpError(f"Nothing answers at {url}: give the whole address of the API, with its stage.")
    if is_denied and re.search("signature", said, re.I):
        return AccessError(f"AWS does not accept the signature ({said}): check the keys and this clock.")
    if is_denied and re.search("expired|invalid|unrecognized", said, re.I):
        return AccessError(f"AWS does not accept the credentials ({said}): {_SIGN_IN}")
    if is_denied:
        return AccessError(f"The credentials may not call {url}: they need execute-api:Invoke on it ({said}).")
    sentence = " ".join(filter(None, (text or f"The API answered HTTP {status}.", _ADVICE.get(name))))
    return ProblemError(status, name or "ProblemError", sentence, document.get("errors"))


def _session(region: str | None) -> Session:
    session = Session()
    # Of the two variables botocore reads only AWS_DEFAULT_REGION, the other tools of AWS both.
    if region := region or os.environ.get("AWS_REGION"):
        session.set_config_variable("region", region)
    return session


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what botocore raises into errors whose text tells a user what to do."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if re.search("Expired|InvalidClientToken|UnrecognizedClient", code):
            raise AccessError(f"AWS does not accept the credentials ({code}): {_SIGN_IN}") from None
        raise AccessError(f"{error.operation_name} was refused: {error} With --api-url it is not needed.") from None
    except NoRegionError:
        raise AccessError("No region is chosen: give --region, or set AWS_REGION.") from None
    except BotoCoreError as error:
        text = f"{str(error).strip().rstrip('.')}."
        if re.search("Endpoint|Connect|HTTPClient|Timeout", type(error).__name__):
            raise UnreachableError(f"AWS could not be reached: {text}") from None
        raise AccessError(f"There are no usable AWS credentials: {text}") from None
