"""The earlier job that a retry goes back to: found, and fit to be retried."""

from __future__ import annotations

from fan_out.aws.storage import FAILURES, RECORD, Bucket, JobStore
from fan_out.errors import AccountingError, InvalidJobError, SourceNotFoundError
from fan_out.model.plan import FailedSource, Origin, Plan, Source


def find(bucket: Bucket, source: Source) -> Origin | None:
    """The job whose failures are the source; None for another source.

    Raises SourceNotFoundError if there is no such job, InvalidJobError if it has nothing to retry, or not yet.
    """
    if not isinstance(source, FailedSource):
        return None
    job_id = source.job_id
    earlier = JobStore(bucket, job_id)
    stored, record = earlier.get("job.json"), earlier.get(RECORD)
    if stored is None and record is None:
        raise SourceNotFoundError(f'source.failedIn is "{job_id}", but there is no such job.')
    if stored is None:
        raise _not_retried(job_id, "a job whose own input was accepted; this one can be started as it was")
    if record is None:
        raise unfinished(job_id)
    plan, counts = Plan.from_json(stored), record["counts"]
    others = counts["listed"] - counts["succeeded"]
    # The record decides: a function that outlived the stop of its job may have written a manifest since.
    is_listed = counts["listed"] > 0 or "resultUrl" in record
    if is_listed and not others:
        raise _not_retried(job_id, "a job with failed, quarantined or unprocessed tasks")
    is_off = record.get("error", {}).get("name") == AccountingError.__name__
    if is_listed and not is_off and earlier.has(FAILURES):
        return Origin(plan, counts["listed"], named=others)
    return Origin(_with_a_source_that_is_there(bucket, plan), counts["listed"], named=None)


def _with_a_source_that_is_there(bucket: Bucket, plan: Plan) -> Plan:
    """The plan, with the source of the job before it if it is itself a retry of failures that are lost."""
    source, named = plan.source, plan.named
    while isinstance(source, FailedSource) and not JobStore(bucket, source.job_id).has(FAILURES):
        before = Plan.from_json(JobStore(bucket, source.job_id).require("job.json"))
        source, named = before.source, before.named
    return plan.model_copy(update={"source": source, "named": named})


def unfinished(job_id: str) -> InvalidJobError:
    return _not_retried(job_id, "a job that has ended and is accounted for")


def _not_retried(job_id: str, allowed: str) -> InvalidJobError:
    return InvalidJobError(
        f'source.failedIn is "{job_id}", but must be {allowed}.',
        field="source.failedIn",
        value=job_id,
        allowed=allowed,
    )
