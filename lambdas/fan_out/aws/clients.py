"""AWS clients of a warm function, the one translation of their errors into ours, and the account's own limit."""

import time
from contextlib import AbstractContextManager
from functools import cache, lru_cache

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import common.aws
from common.aws import error_code as error_code
from fan_out.errors import ServiceUnavailableError, ThrottledError

# A sorted merge reads up to 64 objects at a time (reduction.FAN_IN), a few more calls go on beside it.
_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=80, connect_timeout=5, read_timeout=60
)
# Seconds for which a warm function keeps the account's limit.
_KEPT = 60

# Left alone, the SDK still presigns by version 2 in some regions, and for the host of us-east-1 in all: buckets
# of today refuse the one and redirect the other.
s3 = cache(
    lambda: boto3.client(
        "s3", config=_CONFIG.merge(Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))
    )
)
# A synchronous call lasts as long as the called function, which ends before this time does; a call without any
# answer is sent once more, and what it does is safe to repeat.
lambda_client = cache(
    lambda: boto3.client(
        "lambda", config=_CONFIG.merge(Config(read_timeout=120, retries={"mode": "standard", "total_max_attempts": 2}))
    )
)
step_functions = cache(lambda: boto3.client("stepfunctions", config=_CONFIG))


def translated() -> AbstractContextManager[None]:
    """Turn AWS's errors into ThrottledError or ServiceUnavailableError where a retry makes sense."""
    return common.aws.translated(throttled=ThrottledError, unavailable=ServiceUnavailableError)


def read_concurrency() -> int | str:
    """How many executions may run at a time, of functions without reserved concurrency; or the error's code."""
    return _read_concurrency(int(time.monotonic() // _KEPT))


@lru_cache(maxsize=1)
def _read_concurrency(_: int) -> int | str:
    # protection: an-unknown-limit-is-no-bound
    try:
        with translated():
            return lambda_client().get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    except ClientError as error:
        return error_code(error)
