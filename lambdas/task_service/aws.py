"""Calls to AWS: clients bounded in time and retries, and AWS's errors turned into the service's own, once."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
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
    client = boto3.client("dynamodb", config=_CONFIG)
    client.meta.events.register("before-parse.dynamodb.Scan", _decode_page)
    return client


def _decode_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Decode a page of a Scan as the JSON that it is: botocore's parser walks every attribute by its model, which takes
    ten times as long and comes to the same. Errors, and what is no JSON, are left to that parser and the SDK's retries.
    """
    if response_dict["status_code"] == 200:
        with suppress(ValueError):
            customized_response_dict |= dict(json.loads(response_dict["body"]))
            response_dict["body"] = b"{}"


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
