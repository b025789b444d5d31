"""Lambda's context of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Context:
    """`remaining` is asked for the milliseconds that are left; without it they are always `remaining_ms`."""

    remaining: Callable[[], int] | None = None
    remaining_ms: int = 900_000
    function_name: str = "function"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-central-1:123456789012:function:function"
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms if self.remaining is None else self.remaining()
