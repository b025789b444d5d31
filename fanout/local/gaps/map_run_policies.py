"""IAM: a request about a map run is about that map run; ministack takes it to be about everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.core import iam_actions

from . import replace


def resource_arn(
    original: Callable[..., str], service: str, method: str, path: str, headers: Any, body: bytes, *rest: Any
) -> str:
    arn = original(service, method, path, headers, body, *rest)
    if service == "states" and arn == "*":
        return str(iam_actions._safe_json_field(body, "mapRunArn") or arn)
    return arn


def close() -> None:
    # Its callers import it at each request, so that this one place is enough.
    replace(iam_actions, "extract_resource_arn", resource_arn, wraps=True)
