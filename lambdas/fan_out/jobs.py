"""Jobs as the API has them: start, look at, stop and retry them."""

import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from botocore.exceptions import ClientError, ParamValidationError

from common.errors import Fault, InvalidRequestError
from common.timestamps import written
from fan_out import uploads
from fan_out.aws import clients as aws
from fan_out.aws.storage import RECORD, Bucket, JobStore
from fan_out.errors import (
    JobExistsError,
    JobNotEndedError,
    JobNotFoundError,
    ResultNotFoundError,
    RetryableError,
    ThrottledError,
)
from fan_out.model.job_input import UPLOADED, check_id, is_upload, new_id, refusal
from fan_out.model.outcomes import Group
from fan_out.model.plan import Plan
from fan_out.model.record import JobRecord, running_record
from fan_out.model.shard import Manifest
from fan_out.steps.finalizing import ENDED_EARLY, SWEPT, status_change
from fan_out.steps.planning import not_ended_error, plan_job

# Seconds. DescribeMapRun and ListMapRuns refill at one call a second for the whole AWS account.
PROGRESS_SECONDS: Final = 2.0
# How long the event of a job's end is waited for, and then how often its record is asked for, in seconds.
EVENT_DELAY: Final = timedelta(seconds=10)
FINALIZING_SECONDS: Final = 60.0
# Jobs whose progress is cached per warm function.
CACHED_JOBS: Final = 100
# Records that a listing of jobs reads at the same time.
READERS: Final = 16
# Bytes of a result that GET /jobs/{id}/result repeats; Lambda answers at most 6 MB.
LARGEST_RESULT: Final = 4_000_000
STATUSES: Final = ("RUNNING", "SUCCEEDED", "PARTIAL", "FAILED", "STOPPED")
_STATUS: Final = {"ABORTED": "STOPPED", "TIMED_OUT": "FAILED", "PENDING_REDRIVE": "RUNNING"}


@dataclass
class Jobs:
    """The jobs of one deployment."""

    bucket: Bucket
    state_machine_arn: str
    # The options with which the terminal's commands reach this deployment.
    options: tuple[str, ...] = ()
    finalizer_arn: str = ""
    _progress: OrderedDict[str, tuple[float, dict[str, int]]] = field(default_factory=OrderedDict)
    _finalizing: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def start(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Start a job from its input, which may say the new job's `jobId`.

        Starting the same job twice starts it once. Raises InvalidJobError, SourceNotFoundError, JobExistsError.
        """
        job_id = new_id()
        if "jobId" in document:
            job_id = self._unused(check_id(document["jobId"]))
            document = {name: value for name, value in document.items() if name != "jobId"}
        # What the planner would refuse is refused before an execution starts.
        plan_job(self.bucket, job_id, "2000-01-01T00:00:00Z", document)
        text = json.dumps(document, ensure_ascii=False)
        started = {"jobId": job_id, "executionArn": self._arn(job_id)}
        try:
            with aws.translated():
                # protection: one-name-is-one-execution
                aws.step_functions().start_execution(stateMachineArn=self.state_machine_arn, name=job_id, input=text)
        except ClientError as error:
            if aws.error_code(error) != "ExecutionAlreadyExists":
                raise
            if json.loads(self._describe(job_id)["input"]) != document:
                raise JobExistsError(f'There is a job "{job_id}" with another input.') from error
            # It may have ended since.
            return started | {"status": self.get(job_id)["status"]}
        return started | {"status": "RUNNING"}

    def get(self, job_id: str) -> dict[str, Any]:
        """The job record, with presigned links for its `s3://` addresses. Raises JobNotFoundError."""
        store = JobStore(self.bucket, check_id(job_id))
        if (committed := store.find(RECORD, JobRecord)) is not None:
            return self._linked({**committed})
        execution = self._describe(job_id)
        if execution["status"] == "SUCCEEDED":
            # It ended a moment ago, or its objects have expired.
            return self._linked(json.loads(execution["output"]))
        manifest = store.find("manifest.json", Manifest)
        record = running_record(job_id, written(execution["startDate"]), store.find("job.json", Plan), manifest)
        phase = "LISTING"
        if manifest is not None:
            record["counts"]["listed"] = manifest.listed
            shards = record["shards"]
            shards |= {"planned": manifest.shards} | self._shards(execution["executionArn"])
            phase = "WORKING" if shards["done"] + shards["failed"] < shards["planned"] else "REDUCING"
        if (status := _status(execution)) == "RUNNING":
            return record | {"phase": phase}
        self._ask_for_record(execution)
        name, message = "RecordPendingError", "The execution has ended; its job record is being written. Ask again."
        # protection: no-record-is-pending-forever
        if datetime.now(UTC) - execution["stopDate"] > SWEPT:
            name, message = "RecordExpiredError", "The execution has ended; its job record has expired."
        return record | {"status": status, "error": {"name": name, "message": message}}

    def list(self, limit: int, page_token: str | None = None, status: str | None = None) -> dict[str, Any]:
        """A page of jobs, the newest first: `{jobs, nextPageToken?}`.

        Those of another `status` are left out of their page. Raises InvalidRequestError for a foreign token.
        """
        where: dict[str, Any] = {} if page_token is None else {"nextToken": page_token}
        if status == "RUNNING":
            where["statusFilter"] = status
        try:
            with aws.translated():
                answer = aws.step_functions().list_executions(
                    stateMachineArn=self.state_machine_arn, maxResults=limit, **where
                )
        except (ClientError, ParamValidationError) as error:
            # The SDK refuses an empty token, Step Functions any other.
            codes = {"InvalidToken", "ValidationException"}
            if page_token is None or (isinstance(error, ClientError) and aws.error_code(error) not in codes):
                raise
            raise InvalidRequestError([Fault("pageToken", page_token, "the nextPageToken of an answer")]) from None
        with ThreadPoolExecutor(READERS) as pool:
            jobs = pool.map(self._summary, answer["executions"])
        page: dict[str, Any] = {"jobs": [job for job in jobs if status in (None, job["status"])]}
        if "nextToken" in answer:
            page["nextPageToken"] = answer["nextToken"]
        return page

    def _summary(self, execution: Any) -> dict[str, Any]:
        """One job of a listing. How an ended job came out only its record says, if it is there yet."""
        store = JobStore(self.bucket, execution["name"])
        job = {
            "jobId": execution["name"],
            "kind": None,
            "status": _status(execution),
            "startedAt": written(execution["startDate"]),
        }
        if "stopDate" in execution:
            job["endedAt"] = written(execution["stopDate"])
        if job["status"] != "RUNNING" and (record := store.find(RECORD, JobRecord)) is not None:
            job |= {name: record[name] for name in ("kind", "status", "counts")}
        elif (plan := store.find("job.json", Plan)) is not None:
            job["kind"] = plan.kind
        return job

    def result(self, job_id: str) -> dict[str, Any]:
        """The result of an ended job: the document itself up to 4 MB, and a link to what it wrote.

        Raises JobNotFoundError, JobNotEndedError, ResultNotFoundError.
        """
        store = JobStore(self.bucket, check_id(job_id))
        record = store.find(RECORD, JobRecord)
        if record is None:
            self._ask_for_record(self._describe(job_id))
            raise JobNotEndedError(f'The job "{job_id}" has no result yet: its record is not written.')
        if "resultUrl" not in record:
            raise ResultNotFoundError(f'The job "{job_id}" has ended without a result.')
        key = self._key(record["resultUrl"])
        found = self.bucket.head(key)
        if found is None:
            raise ResultNotFoundError(f'The result of the job "{job_id}" has expired.')
        result = record.get("result")
        whole = store.key("result.json")
        if result == {"resultKey": whole}:
            stored = self.bucket.head(whole)
            if stored is not None and 0 < stored.length <= LARGEST_RESULT:
                result = store.require("result.json")
        return {
            "jobId": job_id,
            "result": result,
            "resultUrl": self.bucket.link("get_object", key),
            "contentLength": found.length,
            "fileName": key.rpartition("/")[2],
        }

    def failures(self, job_id: str) -> dict[str, Any]:
        """What did not succeed, grouped, with the way to retry it. Raises JobNotFoundError."""
        found = self.get(job_id)
        answer: dict[str, Any] = {
            "jobId": job_id,
            "status": found["status"],
            "counts": found["counts"],
            "digest": JobStore(self.bucket, job_id).find("digest.json", list[Group]) or [],
        }
        if _is_retryable(found):
            answer["retryCommand"] = " ".join(("fanout", "retry", *self.options, job_id))
            answer["retryRequest"] = f"POST /jobs/{job_id}/retry"
        if "failuresUrl" in found:
            answer["failuresUrl"] = found["failuresUrl"]
        return answer

    def retry(self, job_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Start a job over what did not succeed in this one; `changes` to its input apply to the new job.

        Raises JobNotFoundError, and InvalidJobError if there is nothing to retry, or not yet.
        """
        # A record outlives its execution, which AWS forgets after 90 days.
        if JobStore(self.bucket, check_id(job_id)).find(RECORD, JobRecord) is None:
            self._ask_for_record(self._describe(job_id))
            raise not_ended_error(job_id)
        if "source" in changes:
            rule = "left out: a retry works on what did not succeed in the job"
            raise refusal("source", changes["source"], rule)
        return self.start({**changes, "source": {"failedIn": job_id}}) | {"origin": job_id}

    def stop(self, job_id: str) -> dict[str, Any]:
        """Stop a job: no new work is begun, and its record is written. A job that has ended stays as it is."""
        execution = self._describe(check_id(job_id))
        if execution["status"] != "RUNNING":
            return {"jobId": job_id, "status": self.get(job_id)["status"]}
        with aws.translated():
            aws.step_functions().stop_execution(
                executionArn=execution["executionArn"], error="JobStoppedError", cause="The job was stopped."
            )
        return {"jobId": job_id, "status": "STOPPED"}

    def import_csv(self, body: bytes) -> dict[str, Any]:
        """Store a CSV and start the job that imports it."""
        key = uploads.key_of(new_id())
        self.bucket.put(key, body)
        return self.import_object(key)

    def import_object(self, key: object) -> dict[str, Any]:
        """Start the job that imports a CSV that was uploaded before. Invalid rows never hold up the valid ones.

        An upload that this service has named is imported by the job of that name, and so once.
        """
        if not isinstance(key, str) or not is_upload(key):
            raise refusal("source.csv", key, UPLOADED)
        return self.start(
            {
                "jobId": uploads.named_id(key) or new_id(),
                "kind": "import-tasks",
                "source": {"csv": key},
                "toleratedFailurePercentage": 100,
            }
        )

    def _unused(self, job_id: str) -> str:
        """The id, unless a job whose execution AWS has forgotten left objects under it. Raises JobExistsError."""
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

    def _ask_for_record(self, execution: Any) -> None:
        """Call the Finalizer for a job that ended early: EventBridge delivers events at its best effort only.

        Asked at most once in FINALIZING_SECONDS, and not before the event had its time.
        """
        job_id, now = execution["name"], time.monotonic()
        if (
            execution["status"] not in ENDED_EARLY
            or not EVENT_DELAY < datetime.now(UTC) - execution["stopDate"] <= SWEPT
            or now - self._finalizing.get(job_id, -FINALIZING_SECONDS) < FINALIZING_SECONDS
        ):
            return
        with suppress(RetryableError), aws.translated():
            # protection: a-lost-event-is-made-up-for
            aws.lambda_client().invoke(
                FunctionName=self.finalizer_arn,
                InvocationType="Event",
                Payload=json.dumps(status_change(execution)).encode(),
            )
            _remember(self._finalizing, job_id, now)

    def _shards(self, execution_arn: str) -> dict[str, int]:
        """How many shards are done and failed by now, asked at most every PROGRESS_SECONDS.

        Throttled, the last known numbers are good enough.
        """
        asked_at, shards = self._progress.get(execution_arn, (-PROGRESS_SECONDS, {}))
        if time.monotonic() - asked_at >= PROGRESS_SECONDS:
            with suppress(ThrottledError):
                shards = self._counted(execution_arn)
            _remember(self._progress, execution_arn, (time.monotonic(), shards))
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

    def _linked(self, record: dict[str, Any]) -> dict[str, Any]:
        addresses = {name: record[name] for name in ("resultUrl", "failuresUrl") if name in record}
        return record | {name: self.bucket.link("get_object", self._key(at)) for name, at in addresses.items()}

    def _key(self, address: str) -> str:
        return address.removeprefix(f"s3://{self.bucket.name}/")


def _remember(cache: OrderedDict[str, Any], name: str, value: Any) -> None:
    cache[name] = value
    if len(cache) > CACHED_JOBS:
        cache.popitem(last=False)


def _status(execution: Any) -> str:
    """The status of a job without a record, by that of its execution."""
    return _STATUS.get(execution["status"], str(execution["status"]))


def _is_retryable(record: Mapping[str, Any]) -> bool:
    """Whether an ended job left anything to retry: a job whose input was refused has no kind."""
    counts = record["counts"]
    is_over = record["status"] in ("PARTIAL", "FAILED", "STOPPED") and "endedAt" in record
    return is_over and record["kind"] is not None and not 0 < counts["listed"] == counts["succeeded"]
