"""The client of Fan Out: start a job, follow it, read its account. The same on AWS and on the embedded AWS.

Everything that the terminal does happens here. What a user can mend is raised as a FanOutClientError whose
text is a sentence that says how.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast
from urllib.parse import urlencode

import boto3
import botocore.session
from boto3.s3.transfer import TransferConfig
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

JobInput = Mapping[str, Any]
Status = Literal["RUNNING", "SUCCEEDED", "PARTIAL", "FAILED", "STOPPED"]

JOB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")

# A listing of the Task Service's REST API has at most so many tasks a page.
_PAGE = 1000
# DescribeMapRun refills at one call a second per account; more often would starve everybody else.
_MAP_RUN_SECONDS = 1.0
# One ranged GET. A long body that nobody reads from — a pager, say — is closed by S3; a block is not.
_BLOCK = 4 << 20


class FanOutClientError(Exception):
    """Base of what this client raises on purpose. Its text is a sentence that says what to do."""


class NotUpError(FanOutClientError):
    """There is no such deployment: nothing is up here, or no stack has this name."""


class UnreachableError(FanOutClientError):
    """The deployment does not answer."""


class AccessError(FanOutClientError):
    """Credentials or a region are missing, expired, or not allowed to do this."""


class JobNotFoundError(FanOutClientError):
    """No job has this id."""


class JobExistsError(FanOutClientError):
    """Another job, with another input, has this id."""


class JobStateError(FanOutClientError):
    """The job is not in a state in which this can be done."""


class RefusedError(FanOutClientError):
    """AWS or the API refused the request; the text is its own sentence."""


class Counts(TypedDict):
    """What became of the job's tasks: `listed` is the sum of the other four once the job has ended."""

    listed: int
    succeeded: int
    failed: int
    quarantined: int
    unprocessed: int


class Shards(TypedDict):
    planned: int
    done: int
    failed: int


class JobError(TypedDict):
    name: str
    message: str


class JobRecord(TypedDict):
    """The account of a job, as the execution's output and GET /jobs/{id} have it."""

    jobId: str
    # None for a job that was refused before its kind was known.
    kind: str | None
    status: Status
    counts: Counts
    shards: Shards
    startedAt: str
    endedAt: NotRequired[str]
    result: NotRequired[dict[str, Any]]
    # A retry's tasks that no longer exist.
    skipped: NotRequired[int]
    # Where the result as a whole is: s3://BUCKET/KEY.
    resultUrl: NotRequired[str]
    failuresUrl: NotRequired[str]
    error: NotRequired[JobError]
    origin: NotRequired[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where a Fan Out is: its stack's outputs, and the endpoint of an embedded AWS (None: AWS itself)."""

    region: str
    api_url: str
    state_machine_arn: str
    bucket_name: str
    task_table_name: str
    endpoint_url: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """The deployment under the names of `local.json`."""
        return {
            "endpointUrl": self.endpoint_url,
            "region": self.region,
            "apiUrl": self.api_url,
            "stateMachineArn": self.state_machine_arn,
            "bucketName": self.bucket_name,
            "taskTableName": self.task_table_name,
        }

    @classmethod
    def of_home(cls, home: Path) -> Deployment:
        """The embedded AWS that `fanout up` left in `home`. Raises NotUpError."""
        path = home / "local.json"
        try:
            local = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                region=local["region"],
                api_url=local["apiUrl"],
                state_machine_arn=local["stateMachineArn"],
                bucket_name=local["bucketName"],
                task_table_name=local["taskTableName"],
                endpoint_url=local["endpointUrl"],
            )
        except (FileNotFoundError, NotADirectoryError):
            raise NotUpError(
                f"Nothing is up in {home}: start it with `fanout up`, or name a deployed stack with --stack."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise NotUpError(
                f"{path} is not what `fanout up` writes: run `fanout down`, then `fanout up`."
            ) from None

    @classmethod
    def of_stack(cls, name: str, region: str | None = None) -> Deployment:
        """A deployed stack, by its outputs, with the developer's own credentials.

        Raises NotUpError, AccessError.
        """
        with _explained(None):
            # Of the two variables boto3 reads only AWS_DEFAULT_REGION, the other tools of AWS both.
            session = boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)
            client = session.client("cloudformation", config=_config(None))
            try:
                stack = client.describe_stacks(StackName=name)["Stacks"][0]
            except ClientError as error:
                if "does not exist" in str(error):
                    raise NotUpError(
                        f"There is no stack {name} in {client.meta.region_name}: `make deploy` makes one."
                    ) from None
                raise
        outputs = {o.get("OutputKey", ""): o.get("OutputValue", "") for o in stack.get("Outputs", [])}
        try:
            return cls(
                region=client.meta.region_name,
                api_url=outputs["ApiUrl"],
                state_machine_arn=outputs["StateMachineArn"],
                bucket_name=outputs["BucketName"],
                task_table_name=outputs["TaskTableName"],
            )
        except KeyError as missing:
            raise NotUpError(
                f"The stack {name} has no output {missing.args[0]}: it is not a Fan Out, or not deployed yet."
            ) from None


def home_folder() -> Path:
    """Where `fanout up` keeps its state: FANOUT_HOME, or .fanout in the current directory."""
    return Path(os.environ.get("FANOUT_HOME") or ".fanout")


def new_job_id(now: datetime | None = None) -> str:
    """A fresh job id that sorts by its start in UTC: 20261123-101502-ab12cd."""
    return f"{now or datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Started:
    """A job that runs now. `is_repeat`: the same job had been started before and was left alone."""

    job_id: str
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `listed` and `shards` are None until the listing is done."""

    job_id: str
    status: Status
    seconds: float
    listed: int | None = None
    shards: int | None = None
    shards_running: int = 0
    shards_done: int = 0
    shards_failed: int = 0

    @property
    def done(self) -> int:
        """About how many tasks are done: shards are of about one size."""
        return self._share(self.shards_done)

    @property
    def failed(self) -> int:
        """About how many tasks are in failed shards."""
        return self._share(self.shards_failed)

    @property
    def phase(self) -> str:
        if self.status != "RUNNING":
            return "ended"
        if self.listed is None:
            return "listing"
        return "working" if self.shards_done + self.shards_failed < (self.shards or 0) else "reducing"

    def _share(self, shards: int) -> int:
        return self.listed * shards // self.shards if self.listed and self.shards else 0


class FanOut:
    """Jobs and tasks of one deployment.

    `poll` is the pause in seconds between two looks at a job; `patience` is how long, after a job's end, its
    account is waited for: a stopped job's is written by a function that runs after it.
    """

    def __init__(self, deployment: Deployment, *, poll: float | None = None, patience: float = 30.0):
        self.deployment = deployment
        self._poll = poll if poll is not None else (0.25 if deployment.endpoint_url else 1.0)
        self._patience = patience
        # A laptop that wakes up has no network for a while; a local server that is gone stays gone.
        self._outage = 0.0 if deployment.endpoint_url else 60.0

    # -- jobs --------------------------------------------------------------------------------------------

    def start(self, job: JobInput, job_id: str | None = None) -> Started:
        """Start a job; at once, whether or not its input is right: its planner decides that.

        The same id with the same input is the same job, started once. Raises JobExistsError for another
        input.
        """
        name = job_id or new_job_id()
        if job_id is not None:
            self._check_free(job_id)
        body = json.dumps(job, ensure_ascii=False, allow_nan=False)
        with self._explained():
            try:
                self._step_functions.start_execution(
                    stateMachineArn=self.deployment.state_machine_arn, name=name, input=body
                )
                return Started(name)
            except ClientError as error:
                if _code(error) != "ExecutionAlreadyExists":
                    raise
            # AWS answers so once the execution has ended, an emulator always, and either may answer our own
            # repeated request: what counts is whether the job is the one that was asked for.
            execution = self._execution(name)
        if execution is None or json.loads(execution.get("input", "null")) != json.loads(body):
            raise JobExistsError(f"Another job has the id {name}: choose a new --job-id.")
        return Started(name, is_repeat=True)

    def _check_free(self, job_id: str) -> None:
        """Raises JobExistsError if a job has left objects under this id and Step Functions has forgotten it."""
        with self._explained():
            is_known = self._execution(job_id) is not None
        if not is_known and any(self._job_document(job_id, name) for name in ("job.json", "record.json")):
            raise JobExistsError(
                f"There was a job {job_id}, and its objects are kept: choose a new --job-id."
            )

    def follow(self, job_id: str) -> Iterator[Progress]:
        """Yield how far the job is, again and again, until it has ended; the last one has the end's status.

        Raises JobNotFoundError.
        """
        watch = _Watch(self, job_id)
        unreachable_since: float | None = None
        while True:
            try:
                progress = watch.look()
                unreachable_since = None
                yield progress
                if progress.status != "RUNNING":
                    return
            except UnreachableError:
                now = time.monotonic()
                unreachable_since = unreachable_since or now
                if now - unreachable_since >= self._outage:
                    raise
            time.sleep(self._poll)

    def record(self, job_id: str, *, wait: bool = False) -> JobRecord:
        """The job's account: the final one if the job has ended, else what is known so far.

        `wait` gives an account that is still being written some time to appear; without it, or past that
        time, the execution's own error stands in. Raises JobNotFoundError.
        """
        with self._explained():
            execution = self._execution(job_id)
        if execution is None:
            # Step Functions forgets an execution 90 days after its end; the account is kept.
            record = self._job_document(job_id, "record.json")
            if record is None:
                raise JobNotFoundError(f"There is no job {job_id}: `fanout jobs` lists those there are.")
            return cast(JobRecord, record)
        status = execution["status"]
        if status == "SUCCEEDED":
            return cast(JobRecord, json.loads(execution["output"]))
        if status in {"RUNNING", "PENDING_REDRIVE"}:
            return self._sketch(job_id, execution)
        until = time.monotonic() + (self._patience if wait else 0.0)
        while True:
            record = self._job_document(job_id, "record.json")
            if record is not None:
                return cast(JobRecord, record)
            if time.monotonic() >= until:
                return self._sketch(job_id, execution)
            time.sleep(self._poll)

    def jobs(self, limit: int) -> Iterator[JobRecord]:
        """The records of the newest `limit` jobs of the last 90 days, newest first.

        What a running job has done so far is not looked up: its counts are zero.
        """
        left = limit
        token = ""
        while left > 0:
            more: dict[str, Any] = {"nextToken": token} if token else {}
            with self._explained():
                page = self._step_functions.list_executions(
                    stateMachineArn=self.deployment.state_machine_arn, maxResults=min(left, 1000), **more
                )
            for execution in page["executions"][:left]:
                left -= 1
                job_id, status = execution["name"], _status(execution["status"])
                record = None if status == "RUNNING" else self._job_document(job_id, "record.json")
                yield record or _blank(
                    job_id, self._kind(job_id), status, execution["startDate"], execution.get("stopDate")
                )
            token = page.get("nextToken", "")
            if not token:
                return

    def stop(self, job_id: str) -> JobRecord:
        """Stop a running job and give its closing account, or what is known if that is not there in time.

        A job that was stopped before stays so. Raises JobNotFoundError, and JobStateError if the job had ended
        otherwise.
        """
        with self._explained():
            execution = self._execution(job_id)
            if execution is not None and _status(execution["status"]) == "RUNNING":
                self._step_functions.stop_execution(
                    executionArn=execution["executionArn"],
                    error="JobStoppedError",
                    cause="The job was stopped from a terminal.",
                )
        for progress in self.follow(job_id):
            if progress.status != "RUNNING":
                break
        record = self.record(job_id, wait=True)
        if record["status"] != "STOPPED":
            raise JobStateError(f"Job {job_id} had ended before it could be stopped: {record['status']}.")
        return record

    def retry(self, job_id: str, settings: JobInput | None = None, new_id: str | None = None) -> Started:
        """Start a job over the failed, quarantined and unprocessed tasks of an ended one.

        It is of the same kind with the same parameters; `settings` are the fields of a job's input that
        differ, such as shardSize. Raises JobNotFoundError, and JobStateError if there is nothing to retry.
        """
        record = self.record(job_id, wait=True)
        counts = record["counts"]
        if record["status"] == "RUNNING":
            raise JobStateError(f"Job {job_id} still runs: wait for its end, or stop it, then retry it.")
        # A job that ended before its listing did has no counts yet everything to retry: its source is listed anew.
        if record["status"] == "SUCCEEDED" or 0 < counts["listed"] == counts["succeeded"]:
            raise JobStateError(f"Job {job_id} has nothing to retry: all of its tasks succeeded.")
        return self.start({**(settings or {}), "source": {"failedIn": job_id}}, new_id)

    # -- what a job leaves behind ------------------------------------------------------------------------

    def digest(self, record: JobRecord) -> list[dict[str, Any]]:
        """The job's failures in groups, the largest first: outcome, error, message, count, samples.

        Raises JobStateError if they are no longer kept.
        """
        if "failuresUrl" not in record:
            return []
        self._kept(record, f"jobs/{record['jobId']}/digest.json", "digest")
        return self._job_document(record["jobId"], "digest.json") or []

    def failures(self, record: JobRecord) -> Iterator[dict[str, Any]]:
        """Every failed, quarantined or unprocessed task of the job, a block of the file in memory at once.

        Raises JobStateError if they are no longer kept.
        """
        if "failuresUrl" not in record:
            return iter(())
        key = self._kept(record, f"jobs/{record['jobId']}/failures.jsonl", "list of failures")
        return (json.loads(line) for line in self.lines(key))

    def lines(self, key: str) -> Iterator[bytes]:
        """The lines of an object, without their ends, in its order; none if there is no such object."""
        position, rest, size = 0, b"", None
        while size is None or position < size:
            with self._explained():
                try:
                    answer = self._s3.get_object(
                        Bucket=self.deployment.bucket_name,
                        Key=key,
                        Range=f"bytes={position}-{position + _BLOCK - 1}",
                    )
                    block = answer["Body"].read()
                except ClientError as error:
                    # An empty object has no first byte.
                    if _is_missing(error) or _code(error) in {"InvalidRange", "416"}:
                        return
                    raise
            size = int(answer.get("ContentRange", f"/{len(block)}").rpartition("/")[2])
            position += len(block)
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def whole_result(self, record: JobRecord) -> str:
        """The key of the object that holds a job's result as a whole. Raises JobStateError if it has none."""
        prefix = f"s3://{self.deployment.bucket_name}/"
        url = record.get("resultUrl", "")
        if not url.startswith(prefix):
            said = "still runs" if record["status"] == "RUNNING" else f"is {record['status']}"
            raise JobStateError(f"Job {record['jobId']} has no result: it {said}.")
        return self._kept(record, url.removeprefix(prefix), "result")

    def _kept(self, record: JobRecord, key: str, what: str) -> str:
        """The key, if there still is such an object. Raises JobStateError."""
        with self._explained():
            try:
                self._s3.head_object(Bucket=self.deployment.bucket_name, Key=key)
            except ClientError as error:
                if not _is_missing(error):
                    raise
                raise JobStateError(f"The {what} of job {record['jobId']} is no longer kept.") from None
        return key

    def download(self, key: str, to: Path) -> bool:
        """Write an object to a file, which appears whole or not at all; False if there is no such object.

        Raises OSError if the file cannot be written.
        """
        with self._explained():
            try:
                self._s3.download_file(self.deployment.bucket_name, key, str(to))
            except ClientError as error:
                if _is_missing(error):
                    return False
                raise
            except OSError as error:
                # The transfer names a draft of its own beside the file.
                raise OSError(error.errno, error.strerror, str(to)) from error
        return True

    # -- tasks -------------------------------------------------------------------------------------------

    def upload(self, file: IO[bytes], name: str, on_bytes: Callable[[int], None] | None = None) -> str:
        """Upload a CSV, which may be a pipe, to uploads/; the key that a job's source names."""
        key = f"uploads/{name}.csv"
        with self._explained():
            self._s3.upload_fileobj(
                file,
                self.deployment.bucket_name,
                key,
                ExtraArgs={"ContentType": "text/csv; charset=utf-8"},
                Callback=on_bytes,
                Config=TransferConfig(max_concurrency=4),
            )
        return key

    def tasks(self, matching: Mapping[str, Any], limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The tasks that match, all of them or the first `limit`, page by page through the REST API.

        `matching` has the fields of a job's filter: isComplete, dueBefore, dueAfter.
        """
        query = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in matching.items()
        }
        left = limit
        while left is None or left > 0:
            query["limit"] = str(_PAGE if left is None else min(left, _PAGE))
            page = self._get("/tasks", query)
            tasks = page["tasks"] if left is None else page["tasks"][:left]
            yield from tasks
            left = None if left is None else left - len(tasks)
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    # -- inside ------------------------------------------------------------------------------------------

    @cached_property
    def _session(self) -> boto3.Session:
        if self.deployment.endpoint_url is None:
            return boto3.Session(region_name=self.deployment.region)
        # The embedded AWS gets neither the developer's credentials nor their profile, whose mere absence
        # from a file would be an error.
        nothing = (None, None, None, None)
        file = (None, None, os.devnull, None)
        session = botocore.session.Session(
            session_vars={"profile": nothing, "config_file": file, "credentials_file": file}
        )
        session.set_credentials("test", "test")
        return boto3.Session(botocore_session=session, region_name=self.deployment.region)

    @cached_property
    def _step_functions(self) -> SFNClient:
        return self._session.client(
            "stepfunctions",
            endpoint_url=self.deployment.endpoint_url,
            config=_config(self.deployment.endpoint_url),
        )

    @cached_property
    def _s3(self) -> S3Client:
        return self._session.client(
            "s3", endpoint_url=self.deployment.endpoint_url, config=_config(self.deployment.endpoint_url)
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with _explained(self.deployment):
            yield

    def _arn(self, job_id: str) -> str:
        return self.deployment.state_machine_arn.replace(":stateMachine:", ":execution:") + f":{job_id}"

    def _execution(self, job_id: str) -> DescribeExecutionOutputTypeDef | None:
        try:
            return self._step_functions.describe_execution(executionArn=self._arn(job_id))
        except ClientError as error:
            if _code(error) == "ExecutionDoesNotExist":
                return None
            raise

    def _job_document(self, job_id: str, name: str) -> Any | None:
        with self._explained():
            try:
                answer = self._s3.get_object(Bucket=self.deployment.bucket_name, Key=f"jobs/{job_id}/{name}")
                return json.loads(answer["Body"].read())
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise

    def _sketch(self, job_id: str, execution: DescribeExecutionOutputTypeDef) -> JobRecord:
        """A record of what the execution and the manifest say, where no account is written (yet)."""
        status = _status(execution["status"])
        start, stop = execution["startDate"], execution.get("stopDate")
        record = _blank(job_id, self._kind(job_id), status, start, stop)
        progress = _Watch(self, job_id).progress(execution)
        # How many tasks had which outcome is known only once the shards are folded.
        record["counts"]["listed"] = progress.listed or 0
        record["shards"] = {
            "planned": progress.shards or 0,
            "done": progress.shards_done,
            "failed": progress.shards_failed,
        }
        if status != "RUNNING":
            record["error"] = {
                "name": execution.get("error") or f"States.{execution['status'].title().replace('_', '')}",
                "message": execution.get("cause") or "The execution ended without giving a reason.",
            }
        return record

    def _kind(self, job_id: str) -> str | None:
        plan = self._job_document(job_id, "job.json")
        return None if plan is None else str(plan["kind"])

    def _get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Read from the REST API, signed. Raises RefusedError with the API's sentence, or AccessError."""
        url = f"{self.deployment.api_url.rstrip('/')}{path}?{urlencode(query)}"
        is_local = self.deployment.endpoint_url is not None
        http = URLLib3Session(timeout=60, proxies={} if is_local else get_environ_proxies(url))
        tries = 1 if is_local else 5
        for attempt in range(1, tries + 1):
            status, content = 0, b""
            with self._explained():
                request = AWSRequest("GET", url)
                credentials = self._session.get_credentials()
                if credentials is None:
                    raise NoCredentialsError
                SigV4Auth(credentials, "execute-api", self.deployment.region).add_auth(request)
                try:
                    answer = http.send(request.prepare())
                    status, content = answer.status_code, answer.content
                except HTTPClientError:
                    if attempt == tries:
                        raise
            if 200 <= status < 300:
                return cast("dict[str, Any]", json.loads(content))
            if status and (attempt == tries or not (status == 429 or status >= 500)):
                raise _refusal(status, content)
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last try returns or raises")


class _Watch:
    """Looks at one running job; asks for what changes slowly only as often as it must."""

    def __init__(self, client: FanOut, job_id: str):
        self._client = client
        self._job_id = job_id
        self._manifest: dict[str, int] | None = None
        self._map_run: str | None = None
        self._counts: Mapping[str, Any] = {}
        self._next_count = 0.0

    def look(self) -> Progress:
        with self._client._explained():
            execution = self._client._execution(self._job_id)
        if execution is None:
            raise JobNotFoundError(f"There is no job {self._job_id}: `fanout jobs` lists those there are.")
        return self.progress(execution)

    def progress(self, execution: DescribeExecutionOutputTypeDef) -> Progress:
        if self._manifest is None:
            self._manifest = self._client._job_document(self._job_id, "manifest.json")
        if self._manifest is not None and self._manifest.get("shards"):
            self._count(execution)
        end = execution.get("stopDate") or datetime.now(UTC)
        manifest = self._manifest or {}
        counts = self._counts
        return Progress(
            job_id=self._job_id,
            status=_status(execution["status"]),
            seconds=max(0.0, (end - execution["startDate"]).total_seconds()),
            listed=manifest.get("listed"),
            shards=manifest.get("shards"),
            shards_running=counts.get("running", 0),
            shards_done=counts.get("succeeded", 0),
            shards_failed=counts.get("failed", 0) + counts.get("timedOut", 0) + counts.get("aborted", 0),
        )

    def _count(self, execution: DescribeExecutionOutputTypeDef) -> None:
        now = time.monotonic()
        if now < self._next_count:
            return
        self._next_count = now + _MAP_RUN_SECONDS
        client = self._client._step_functions
        try:
            with self._client._explained():
                if self._map_run is None:
                    runs = client.list_map_runs(executionArn=execution["executionArn"])["mapRuns"]
                    if not runs:
                        return
                    self._map_run = runs[0]["mapRunArn"]
                self._counts = client.describe_map_run(mapRunArn=self._map_run)["itemCounts"]
        except (RefusedError, AccessError):
            # Progress is a courtesy; a throttled or forbidden look must not end the following of a job.
            return


_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "403", "Forbidden", "UnauthorizedOperation"})


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_missing(error: ClientError) -> bool:
    return _code(error) in _MISSING


def _config(endpoint_url: str | None) -> Config:
    if endpoint_url is None:
        return Config(retries={"mode": "standard", "max_attempts": 6}, connect_timeout=10, read_timeout=60)
    # A proxy of the environment has no business on the loopback.
    return Config(
        retries={"mode": "standard", "max_attempts": 2},
        connect_timeout=2,
        read_timeout=60,
        proxies={},
        s3={"addressing_style": "path"},
    )


@contextmanager
def _explained(deployment: Deployment | None) -> Iterator[None]:
    """Turn what AWS answers into errors whose text tells a user what to do."""
    try:
        yield
    except ClientError as error:
        code, operation = _code(error), error.operation_name
        message = str(error.response.get("Error", {}).get("Message", "")) or code
        if code in _EXPIRED:
            raise AccessError(
                f"AWS does not accept the credentials ({code}): sign in again, then repeat the command."
            ) from None
        if code in _DENIED:
            raise AccessError(f"The credentials may not do {operation}: {message}") from None
        raise RefusedError(f"{operation} was refused ({code}): {message}") from None
    except (
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        TokenRetrievalError,
        SSOError,
    ) as error:
        raise AccessError(f"There are no usable AWS credentials: {_sentence(error)}") from None
    except CredentialRetrievalError as error:
        raise AccessError(f"The AWS credentials could not be fetched: {_sentence(error)}") from None
    except NoRegionError:
        raise AccessError("No region is chosen: give --region, or set AWS_REGION.") from None
    except ParamValidationError:
        raise  # a fault of this program, not of the world
    except BotoCoreError as error:
        if deployment is not None and deployment.endpoint_url is not None:
            raise UnreachableError(
                f"The embedded AWS at {deployment.endpoint_url} does not answer ({type(error).__name__}): "
                "run `fanout down`, then `fanout up`."
            ) from None
        raise UnreachableError(f"AWS could not be reached: {_sentence(error)}") from None


def _sentence(error: Exception) -> str:
    text = str(error).strip()
    return text if text.endswith(".") else f"{text}."


def _refusal(status: int, content: bytes) -> FanOutClientError:
    try:
        text = str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = ""
    if status in {401, 403} and not text:
        return AccessError(f"The API does not let these credentials in (HTTP {status}).")
    return RefusedError(text or f"The API answered HTTP {status}.")


def _status(execution_status: str) -> Status:
    return cast(
        Status,
        {
            "RUNNING": "RUNNING",
            "PENDING_REDRIVE": "RUNNING",
            "SUCCEEDED": "SUCCEEDED",
            "ABORTED": "STOPPED",
        }.get(execution_status, "FAILED"),
    )


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _blank(
    job_id: str, kind: str | None, status: Status, started: datetime, ended: datetime | None
) -> JobRecord:
    record: JobRecord = {
        "jobId": job_id,
        "kind": kind,
        "status": status,
        "counts": {"listed": 0, "succeeded": 0, "failed": 0, "quarantined": 0, "unprocessed": 0},
        "shards": {"planned": 0, "done": 0, "failed": 0},
        "startedAt": _stamp(started),
    }
    if ended is not None:
        record["endedAt"] = _stamp(ended)
    return record
