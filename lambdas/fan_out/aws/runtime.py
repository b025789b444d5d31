"""What every handler of a state shares: the deadline, the job's objects, and the log of how a call ended."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from aws_lambda_powertools import Logger

from common.environment import variable
from fan_out.aws.storage import Bucket, JobStore
from fan_out.errors import FanOutError

logger = Logger()

# A call ends itself this long before Lambda would: milliseconds, or a share of its time.
RESERVE_MS = 30_000
RESERVE_SHARE = 0.2


def deadline(context: Any) -> Callable[[float], bool]:
    """A function that says whether so many seconds from now there would be no time left but the reserve."""
    reserve = min(RESERVE_MS, context.get_remaining_time_in_millis() * RESERVE_SHARE)
    return lambda seconds: context.get_remaining_time_in_millis() - seconds * 1000 <= reserve


def job_store(job_id: str) -> JobStore:
    return JobStore(Bucket(variable("BUCKET_NAME")), job_id)


Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


def state(handler: Handler) -> Handler:
    """Log how a state's call ended, with the job it belongs to; the error goes on to the state machine."""

    @wraps(handler)
    def logged(event: dict[str, Any], context: Any) -> dict[str, Any]:
        logger.append_keys(job_id=event.get("jobId"))
        try:
            return handler(event, context)
        except FanOutError as error:
            logger.warning("%s: %s", type(error).__name__, error)
            raise
        except Exception:
            logger.exception("the call failed")
            raise

    return logged
