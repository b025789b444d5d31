"""Jobs from outside: start, look at, stop and retry them, and upload what they import."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from fan_out.aws import clients as aws
from fan_out.aws.storage import RECORD, Bucket, JobStore
from fan_out.errors import InvalidJobError, JobExistsError, JobNotFoundError, ThrottledError
from fan_out.model.job_input import UPLOADS, check_id, read_input
from fan_out.model.manifest import Manifest
from fan_out.model.outcomes import Group
from fan_out.model.plan import Plan, make_plan
from fan_out.model.record import JobRecord, running_record
from fan_out.model.task import utc
from fan_out.steps.retry_source import find_retry_source, not_ended_error

# How long a link to a result or for an upload is good for.
LINK_SECONDS = 3600
# DescribeMapRun and ListMapRuns refill at one call a second for the whole account: never one per viewer.
PROGRESS_SECONDS = 2.0
# Of so many jobs a warm function remembers it.
WATCHED = 100
# Records that a listing of jobs reads at the same time.
READERS = 16
_STATUS = {"ABORTED": "STOPPED", "TIMED_OUT": "FAILED", "FAILED": "FAILED", "PENDING_REDRIVE": "RUNNING"}


# The key of an upload that was named here, and so the id of the job that imports it.
_NAMED = re.compile(rf"{UPLOADS}(\d{{8}}-\d{{6}}-[0-9a-f]{{6}})\.csv")


def new_id() -> str:
    """A job id that sorts by the time of its making."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass
class Jobs:
    """The jobs of one deployment."""

    bucket: Bucket
    state_machine_arn: str
    # The options with which the terminal's commands reach this deployment.
    options: tuple[str, ...] = ()
    _progress: OrderedDict[str, tuple[float, dict[str, int]]] = field(default_factory=OrderedDict)

    def start(self, document: Any) -> dict[str, Any]:
        """Start a job from its input, which may say the new job's `jobId`.

        Starting the same job twice starts it once. Raises InvalidJobError, JobExistsError.
        """
        job_id = new_id()
        if isinstance(document, dict) and "jobId" in document:
            job_id = self._free(check_id(document["jobId"]))
            document = {name: value for name, value in document.items() if name != "jobId"}
        asked = read_input(document)
        retried = find_retry_source(self.bucket, asked.source)
        # Made only to refuse here what the planner would refuse.
        make_plan(job_id, utc("2000-01-01T00:00:00Z"), asked, retried)
        text = json.dumps(document, ensure_ascii=False)
        arn = self._arn(job_id)
        try:
            with aws.translated():
                aws.step_functions().start_execution(
                    stateMachineArn=self.state_machine_arn, name=job_id, input=text
                )
        except ClientError as error:
            if aws.error_code(error) != "ExecutionAlreadyExists":
                raise
            if json.loads(self._describe(job_id)["input"]) != document:
                raise JobExistsError(f'There is a job "{job_id}" with another input.') from error
            # It may have ended since.
            return {"jobId": job_id, "executionArn": arn, "status": self.get(job_id)["status"]}
        return {"jobId": job_id, "executionArn": arn, "status": "RUNNING"}

    def get(self, job_id: str) -> dict[str, Any]:
        """The job record, with links for whoever may read the job. Raises JobNotFoundError."""
        store = JobStore(self.bucket, check_id(job_id))
        if (committed := store.find(RECORD, JobRecord)) is not None:
            return self._linked({**committed})
        execution = self._describe(job_id)
        if execution["status"] == "SUCCEEDED":
            # It ended a moment ago, or its objects have expired.
            return self._linked(json.loads(execution["output"]))
        started_at = utc(execution["startDate"].isoformat())
        found = running_record(job_id, started_at, store.find("job.json", Plan))
        found["status"] = _STATUS.get(execution["status"], "RUNNING")
        if found["status"] != "RUNNING":
            found["error"] = {
                "name": "AccountPendingError",
                "message": "The execution has ended; the closing account is being written.",
            }
        if (manifest := store.find("manifest.json", Manifest)) is not None:
            found["counts"]["listed"] = manifest.listed
            found["shards"] |= {"planned": manifest.shards} | self._shards(execution["executionArn"])
        return found

    def list(self, limit: int, page_token: str | None = None) -> dict[str, Any]:
        """A page of jobs, the newest first: `{jobs, nextPageToken?}`, each with its id, status and times.

        Raises InvalidJobError if the token is none of ours.
        """
        where: dict[str, Any] = {} if page_token is None else {"nextToken": page_token}
        rule = "the nextPageToken of an answer"
        unknown = InvalidJobError(
            f"pageToken is not {rule}.", field="pageToken", value=page_token, allowed=rule
        )
        try:
            with aws.translated():
                answer = aws.step_functions().list_executions(
                    stateMachineArn=self.state_machine_arn, maxResults=limit, **where
                )
        except ClientError as error:
            if aws.error_code(error) in {"InvalidToken", "ValidationException"} and page_token is not None:
                raise unknown from None
            raise
        except ParamValidationError:
            # The SDK knows that a token is not empty.
            raise unknown from None
        with ThreadPoolExecutor(READERS) as pool:
            page: dict[str, Any] = {"jobs": list(pool.map(self._listed, answer["executions"]))}
        if "nextToken" in answer:
            page["nextPageToken"] = answer["nextToken"]
        return page

    def _listed(self, execution: Any) -> dict[str, Any]:
        job = {
            "jobId": execution["name"],
            "status": _STATUS.get(execution["status"], execution["status"]),
            "startedAt": utc(execution["startDate"].isoformat()),
        }
        if "stopDate" in execution:
            job["endedAt"] = utc(execution["stopDate"].isoformat())
        # Whether all of its tasks succeeded or just enough of them, only the record says, and it may be a moment ahead.
        if job["status"] != "RUNNING":
            committed = JobStore(self.bucket, execution["name"]).find(RECORD, JobRecord)
            job["status"] = committed["status"] if committed is not None else job["status"]
        return job

    def failures(self, job_id: str) -> dict[str, Any]:
        """What did not succeed, grouped, with the way to retry it. Raises JobNotFoundError."""
        found = self.get(job_id)
        digest = JobStore(self.bucket, job_id).find("digest.json", list[Group]) or []
        answer: dict[str, Any] = {
            "jobId": job_id,
            "status": found["status"],
            "counts": found["counts"],
            "digest": digest,
        }
        if _is_retryable(found):
            answer["retryCommand"] = " ".join(("fanout", "retry", *self.options, job_id))
            answer["retryRequest"] = f"POST /jobs/{job_id}/retry"
        if "failuresUrl" in found:
            answer["failuresUrl"] = found["failuresUrl"]
        return answer

    def retry(self, job_id: str, changes: Any) -> dict[str, Any]:
        """Start a job over what did not succeed in this one; `changes` to its input, if any, apply to the new job.

        Raises JobNotFoundError, and InvalidJobError if there is nothing to retry, or not yet.
        """
        # A record outlives its execution, which AWS forgets after 90 days.
        if JobStore(self.bucket, check_id(job_id)).find(RECORD, JobRecord) is None:
            self._describe(job_id)
            raise not_ended_error(job_id)
        asked = changes if isinstance(changes, dict) else {}
        return self.start(asked | {"source": {"failedIn": job_id}}) | {"origin": job_id}

    def stop(self, job_id: str) -> dict[str, Any]:
        """Stop a job: no new work is begun, and its closing account is written. A job that has ended stays as it is."""
        execution = self._describe(check_id(job_id))
        if execution["status"] == "RUNNING":
            with aws.translated():
                aws.step_functions().stop_execution(
                    executionArn=execution["executionArn"],
                    error="JobStoppedError",
                    cause="The job was stopped.",
                )
            return {"jobId": job_id, "status": "STOPPED"}
        return {"jobId": job_id, "status": self.get(job_id)["status"]}

    def import_csv(self, body: bytes) -> dict[str, Any]:
        """Store a CSV and start the job that imports it."""
        job_id = new_id()
        key = f"{UPLOADS}{job_id}.csv"
        self.bucket.put(key, body)
        return self.import_object(key, job_id)

    def import_object(self, key: Any, job_id: str | None = None) -> dict[str, Any]:
        """Start the job that imports a CSV that was uploaded before. Bad rows never keep out the good ones.

        An upload that this service has named is imported by the job of that name: asked for twice, it is imported
        once.
        """
        # What is no key of an upload is not even looked for; S3's keys have at most 1,024 bytes.
        is_upload = isinstance(key, str) and key.startswith(UPLOADS) and len(key.encode()) <= 1024
        if not is_upload or not self.bucket.has(key):
            raise InvalidJobError(
                f"source.csv is {json.dumps(key)[:100]}, but must be the key of an uploaded object.",
                field="source.csv",
                value=key,
                allowed="the key of an uploaded object",
            )
        if job_id is None and (named := _NAMED.fullmatch(key)) is not None:
            job_id = named[1]
        return self.start(
            {
                "jobId": job_id or new_id(),
                "kind": "import-tasks",
                "source": {"csv": key},
                "toleratedFailurePercentage": 100,
            }
        )

    def upload_link(self) -> dict[str, Any]:
        """Where to PUT a CSV that is too large for a request, and the source to import it from."""
        key = f"{UPLOADS}{new_id()}.csv"
        url = aws.s3().generate_presigned_url(
            "put_object", Params={"Bucket": self.bucket.name, "Key": key}, ExpiresIn=LINK_SECONDS
        )
        return {"uploadUrl": url, "method": "PUT", "expiresIn": LINK_SECONDS, "source": {"csv": key}}

    def _free(self, job_id: str) -> str:
        """The id, if no job has left objects under it whose execution AWS has forgotten. Raises JobExistsError."""
        store = JobStore(self.bucket, job_id)
        if store.has("job.json") or store.has(RECORD):
            try:
                self._describe(job_id)
            except JobNotFoundError:
                raise JobExistsError(f'There was a job "{job_id}"; its objects are still kept.') from None
        return job_id

    def _arn(self, job_id: str) -> str:
        return f"{self.state_machine_arn.replace(':stateMachine:', ':execution:', 1)}:{job_id}"

    def _describe(self, job_id: str) -> Any:
        try:
            with aws.translated():
                return aws.step_functions().describe_execution(executionArn=self._arn(job_id))
        except ClientError as error:
            if aws.error_code(error) in {"ExecutionDoesNotExist", "InvalidArn"}:
                raise JobNotFoundError(f'There is no job "{job_id}".') from None
            raise

    def _shards(self, execution_arn: str) -> dict[str, int]:
        """How many shards are done and failed by now, asked at most every PROGRESS_SECONDS.

        Where AWS asks to slow down, what was known before has to do.
        """
        asked_at, shards = self._progress.get(execution_arn, (-PROGRESS_SECONDS, {}))
        if time.monotonic() - asked_at >= PROGRESS_SECONDS:
            with suppress(ThrottledError):
                shards = self._counted(execution_arn)
            self._progress[execution_arn] = (time.monotonic(), shards)
            if len(self._progress) > WATCHED:
                self._progress.popitem(last=False)
        return shards

    def _counted(self, execution_arn: str) -> dict[str, int]:
        shards = {"done": 0, "failed": 0}
        with aws.translated():
            client = aws.step_functions()
            for run in client.list_map_runs(executionArn=execution_arn)["mapRuns"]:
                counts = client.describe_map_run(mapRunArn=run["mapRunArn"])["itemCounts"]
                shards["done"] += counts["succeeded"]
                shards["failed"] += counts["failed"] + counts["timedOut"] + counts["aborted"]
        return shards

    def _linked(self, found: dict[str, Any]) -> dict[str, Any]:
        """The record with its `s3://` addresses made into links that work for a while."""
        for name in ("resultUrl", "failuresUrl"):
            if name in found:
                key = found[name].removeprefix(f"s3://{self.bucket.name}/")
                found[name] = aws.s3().generate_presigned_url(
                    "get_object", Params={"Bucket": self.bucket.name, "Key": key}, ExpiresIn=LINK_SECONDS
                )
        return found


def _is_retryable(found: dict[str, Any]) -> bool:
    """Whether there is anything of an ended job to retry: a job whose input was refused has no kind."""
    counts = found["counts"]
    is_over = found["status"] in ("PARTIAL", "FAILED", "STOPPED") and "endedAt" in found
    return is_over and found["kind"] is not None and not 0 < counts["listed"] == counts["succeeded"]
