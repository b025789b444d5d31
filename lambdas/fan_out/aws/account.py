"""What the AWS account lets all of its functions do together."""

import time
from functools import lru_cache

from botocore.exceptions import ClientError

from fan_out.aws import clients as aws

# Seconds for which a warm function keeps an answer.
_KEPT = 60


def read_concurrency() -> int | str:
    """How many executions may run at a time, of functions without reserved concurrency; or the error's code."""
    return _read(int(time.monotonic() // _KEPT))


@lru_cache(maxsize=1)
def _read(_: int) -> int | str:
    # protection: an-unknown-limit-is-no-bound
    try:
        with aws.translated():
            return aws.lambda_client().get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    except ClientError as error:
        return aws.error_code(error)
