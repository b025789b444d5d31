"""AWS's errors, told apart once: what asks to slow down, what failed on the way, and what no retry will change."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as AwsConnectionError

# Error codes: https://docs.aws.amazon.com/general/latest/gr/api-retries.html
_THROTTLE: Final = re.compile(
    r"(EC2)?Thrott\w+|RequestThrottled(Exception)?|TooManyRequestsException|Slow ?Down|429"
    r"|(RequestLimit|Limit|ProvisionedThroughput)Exceeded(Exception)?|Transaction(Conflict|InProgress)Exception"
)
_FAILURE: Final = re.compile(r"Internal(Failure|(Server|Service)?Error)|RequestTimeout(Exception)?|ServiceUnavailable")


@contextmanager
def translated(*, throttled: Callable[[str], Exception], unavailable: Callable[[str], Exception]) -> Iterator[None]:
    """Raise `throttled` or `unavailable`, made from a sentence, where a retry can succeed.

    The SDK has then used up its own attempts. After a connection broke the call may have taken effect, so callers
    that write must be able to repeat. Other errors (access denied, a wrong parameter) are faults of the deployment
    and pass through.
    """
    try:
        yield
    except (HTTPClientError, AwsConnectionError, IncompleteReadError) as error:
        raise unavailable(f"AWS could not be reached ({type(error).__name__}).") from error
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        call, code = error.operation_name, error_code(error)
        if _THROTTLE.fullmatch(code) or status == 429:
            raise throttled(f"{call} was throttled ({code}).") from error
        if _FAILURE.fullmatch(code) or status >= 500:
            raise unavailable(f"{call} failed on the side of AWS ({code}).") from error
        raise


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
