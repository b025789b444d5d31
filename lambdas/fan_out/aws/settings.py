"""A function's environment, checked before its first event."""

from __future__ import annotations

import os
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Settings(BaseModel):
    """The environment of the Fan Out functions. A function is given only what its role may use."""

    model_config = ConfigDict(frozen=True, str_min_length=1)

    bucket_name: str = Field(alias="BUCKET_NAME")
    list_tasks_arn: str = Field(alias="LIST_TASKS_ARN", default="not configured")
    write_tasks_arn: str = Field(alias="WRITE_TASKS_ARN", default="not configured")
    state_machine_arn: str = Field(alias="STATE_MACHINE_ARN", default="not configured")
    stack_name: str = Field(alias="STACK_NAME", default="FanOut")


@cache
def settings() -> Settings:
    """The checked environment. Raises RuntimeError naming the variables that are missing or empty."""
    try:
        return Settings.model_validate(dict(os.environ))
    except ValidationError as error:
        names = ", ".join(str(problem["loc"][0]) for problem in error.errors())
        raise RuntimeError(f"the function's environment lacks {names}") from None
