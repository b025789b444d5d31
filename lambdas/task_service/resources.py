"""What a function of the Task Service works with, by the environment that the stack gives it; made at its first use."""

from __future__ import annotations

import os
from functools import cache

from task_service import aws
from task_service.store import TaskStore
from task_service.tokens import PageTokens


class SettingsError(Exception):
    """An environment variable that the stack must set is missing: a fault of the deployment, not of a request."""


@cache
def store() -> TaskStore:
    """Raises SettingsError."""
    return TaskStore(aws.dynamodb(), _required("TASK_TABLE_NAME"))


@cache
def page_tokens() -> PageTokens:
    """Raises SettingsError, ThrottledError."""
    return PageTokens(aws.secret(_required("PAGE_TOKEN_SECRET_ARN")))


def _required(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise SettingsError(f"The environment variable {name} is missing.")
    return value
