"""Calls to AWS: clients bounded in time and retries, and AWS's errors turned into the service's own, once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config

import common.aws
from task_service.errors import ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

CONNECT_SECONDS: Final = 2
READ_SECONDS: Final = 5
ATTEMPTS: Final = 3

LONGEST_CALL_SECONDS: Final = 25
"""One call at its worst: three attempts of 2 + 5 seconds, and the SDK's pauses of up to 1 and 2 seconds."""

LONGEST_ATTEMPT_SECONDS: Final = CONNECT_SECONDS + READ_SECONDS

_CONFIG: Final = Config(
    connect_timeout=CONNECT_SECONDS,
    read_timeout=READ_SECONDS,
    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
)


@cache
def dynamodb() -> "DynamoDBClient":
    """The process's one DynamoDB client, made at its first use."""
    return boto3.client("dynamodb", config=_CONFIG)


@cache
def dynamodb_without_retries() -> "DynamoDBClient":
    """A client for callers that retry by themselves: the SDK's pauses would hide a throttle from them."""
    # The SDK's own check of the parameters takes a seventh of a write, and what is sent has been validated as a task.
    single = Config(retries={"mode": "standard", "total_max_attempts": 1}, parameter_validation=False)
    return boto3.client("dynamodb", config=_CONFIG.merge(single))


@cache
def secrets_manager() -> "SecretsManagerClient":
    """The process's one Secrets Manager client, made at its first use."""
    return boto3.client("secretsmanager", config=_CONFIG)


def translated() -> AbstractContextManager[None]:
    """Raise ThrottledError where a retry can succeed; let every other error of AWS through as it is."""
    return common.aws.translated(throttled=ThrottledError, unavailable=ThrottledError)


def seconds_before_last_attempt(context: Any) -> Callable[[], float]:
    """How many seconds the function has beside those that a last attempt can take at its worst."""
    return lambda: context.get_remaining_time_in_millis() / 1_000 - LONGEST_ATTEMPT_SECONDS


def time_for_one_more_call(context: Any) -> Callable[[], bool]:
    """Whether the function still has the time that a call can take at its worst."""
    return lambda: context.get_remaining_time_in_millis() >= LONGEST_CALL_SECONDS * 1_000
