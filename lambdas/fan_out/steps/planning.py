"""Planning: a job's input completed into its plan, against the objects that its source names."""

from typing import Any

from common.errors import Fault
from fan_out.aws import clients as aws
from fan_out.aws import task_service
from fan_out.aws.storage import FAILURES, RECORD, Bucket, JobStore
from fan_out.errors import AccountingError, FanOutError, InvalidJobError, SourceNotFoundError
from fan_out.model.job_input import UPLOADED, CsvSource, FailedSource, Source, TasksSource, read_input, refusal
from fan_out.model.plan import SEGMENTS, Plan, RetrySource, make_plan
from fan_out.model.record import JobRecord
from fan_out.model.shard import Node
from fan_out.steps.process_guard import ProcessGuard
from fan_out.steps.reduction import ROOT


def plan_job(bucket: Bucket, job_id: str, started_at: str, document: Any) -> Plan:
    """The plan of a job with this input, which is not written yet. Raises InvalidJobError, SourceNotFoundError."""
    asked = read_input(document)
    retried = _find_retry_source(bucket, asked.source)
    if isinstance(asked.source, CsvSource):
        key = asked.source.key
        if (found := bucket.head(key)) is None:
            sentence = f'source.csv is "{key}", but the job bucket has no such object.'
            raise SourceNotFoundError(sentence, Fault("source.csv", key, UPLOADED))
        asked = asked.model_copy(update={"source": asked.source.model_copy(update={"etag": found.etag})})
    # The kind is loaded, and its filter asked.
    # protection: a-damaged-planner-ends
    with ProcessGuard():
        return make_plan(job_id, started_at, asked, retried)


def divide(plan: Plan, list_function: str) -> Plan:
    """The plan with as many segments as fit the table's size now; with the least if that cannot be told."""
    if not isinstance(plan.source, TasksSource):
        return plan
    # protection: a-size-is-a-hint
    try:
        return plan.in_segments(*task_service.read_size(list_function))
    except FanOutError:
        return plan


def listers(plan: Plan) -> int:
    """How many of the plan's segments are listed at a time."""
    # Few segments are not worth the question.
    return plan.listers(aws.read_concurrency()) if plan.segments > SEGMENTS else plan.segments


def _find_retry_source(bucket: Bucket, source: Source) -> RetrySource | None:
    """The job whose failures are the source; None for another source.

    Raises SourceNotFoundError if there is no such job, InvalidJobError if it has nothing to retry, cannot be retried,
    or has not ended yet.
    """
    if not isinstance(source, FailedSource):
        return None
    job_id = source.job_id
    earlier = JobStore(bucket, job_id)
    record = earlier.find(RECORD, JobRecord)
    # An object is lost without which there is no tally.
    is_off = record is not None and record.get("error", {}).get("name") == AccountingError.__name__
    was_planned = is_off or (record is not None and record["kind"] is not None)
    plan = _read_plan(earlier, was_planned=was_planned)
    if plan is None and record is None:
        raise SourceNotFoundError(f'source.failedIn is "{job_id}", but there is no such job.')
    if plan is None:
        raise _refuse(job_id, "a job whose own input was accepted; this one can be started as it was")
    if record is None:
        raise not_ended_error(job_id)
    counts = record["counts"]
    others = counts["listed"] - counts["succeeded"]
    # protection: a-retry-goes-by-the-record
    is_listed = counts["listed"] > 0 or "resultUrl" in record
    if is_listed and not others:
        raise _refuse(job_id, "a job with failed, quarantined or unprocessed tasks")
    # protection: a-lost-list-is-not-used
    if is_listed and not is_off and _has_failures(earlier):
        return RetrySource(plan, counts["listed"], expected_count=others)
    return RetrySource(_with_source_that_exists(bucket, plan), counts["listed"], expected_count=None)


def _read_plan(store: JobStore, *, was_planned: bool = False) -> Plan | None:
    """The job's plan, None if it was not planned. Raises InvalidJobError if the plan is lost."""
    try:
        return store.require("job.json", Plan) if was_planned else store.get("job.json", Plan)
    except AccountingError:
        lost = "a job whose job.json can be read; this one can only be started again with its input"
        raise _refuse(store.job_id, lost) from None


def _has_failures(store: JobStore) -> bool:
    """Whether the job's list of failures is the one that its reducer wrote."""
    root = store.find(ROOT, Node)
    found = store.bucket.head(store.key(FAILURES))
    # protection: version-of-the-failures
    return root is not None and found is not None and root.failures_etag == found.etag


def _with_source_that_exists(bucket: Bucket, plan: Plan) -> Plan:
    """The plan, with the source of the job before it if it is itself a retry of failures that are lost."""
    source, count = plan.source, plan.expected_count
    while isinstance(source, FailedSource) and not _has_failures(before := JobStore(bucket, source.job_id)):
        if (earlier := _read_plan(before)) is None:
            raise _refuse(plan.job_id, f"a job whose source is still there; job {source.job_id} is gone")
        source, count = earlier.source, earlier.expected_count
    return plan.model_copy(update={"source": source, "expected_count": count})


def not_ended_error(job_id: str) -> InvalidJobError:
    return _refuse(job_id, "a job that has ended and has its record")


def _refuse(job_id: str, allowed: str) -> InvalidJobError:
    return refusal("source.failedIn", job_id, allowed)
