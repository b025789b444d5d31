"""The earlier job that a retry goes back to: found, and fit to be retried."""

from __future__ import annotations

from fan_out.errors import AccountingError, InvalidJobError, SourceNotFoundError
from fan_out.job import FailedSource, Plan, Source
from fan_out.storage import RECORD, Bucket, JobStore


def find(bucket: Bucket, source: Source) -> tuple[Plan | None, bool]:
    """The plan of the job whose failures are the source, and whether that job's own source is to be listed anew.

    That is so if its account does not name every task that did not succeed: the job ended before its listing
    stood, or objects of it are lost. Raises SourceNotFoundError if there is no such job, InvalidJobError if it
    has nothing to retry, or not yet. Another source has no origin.
    """
    if not isinstance(source, FailedSource):
        return None, False
    job_id = source.job_id
    earlier = JobStore(bucket, job_id)
    stored, record = earlier.get("job.json"), earlier.get(RECORD)
    if stored is None and record is None:
        raise SourceNotFoundError(f'source.failedIn is "{job_id}", but there is no such job.')
    if stored is None:
        raise _not_retried(job_id, "a job whose own input was accepted")
    if record is None:
        raise unfinished(job_id)
    # The record decides: a function that outlived the stop of its job may have written a manifest since.
    is_off = record.get("error", {}).get("name") == AccountingError.__name__
    is_fresh = is_off or "resultUrl" not in record
    if not is_fresh and "failuresUrl" not in record:
        raise _not_retried(job_id, "a job with failed, quarantined or unprocessed tasks")
    return Plan.from_json(stored), is_fresh


def unfinished(job_id: str) -> InvalidJobError:
    return _not_retried(job_id, "a job that has ended and is accounted for")


def _not_retried(job_id: str, allowed: str) -> InvalidJobError:
    return InvalidJobError(
        f'source.failedIn is "{job_id}", but must be {allowed}.',
        field="source.failedIn",
        value=job_id,
        allowed=allowed,
    )
