"""What a function of the Task Service is told by its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass


class SettingsError(Exception):
    """An environment variable that the stack must set is missing: a fault of the deployment, not of a request."""


@dataclass(frozen=True)
class Settings:
    """`page_token_secret_arn` is empty for the function that issues no page tokens."""

    task_table_name: str
    page_token_secret_arn: str = ""


def load(*, page_tokens: bool) -> Settings:
    """The function's settings. Raises SettingsError that names what is missing."""
    return Settings(
        task_table_name=_required("TASK_TABLE_NAME"),
        page_token_secret_arn=_required("PAGE_TOKEN_SECRET_ARN") if page_tokens else "",
    )


def _required(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise SettingsError(f"The environment variable {name} is missing.")
    return value
