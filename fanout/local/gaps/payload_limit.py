"""The input and output of a state or a task: at most 256 KiB."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replace
from .execution_history import TIMEOUT, error

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_PAYLOAD_BYTES = 256 * 1024


def limited(value: object, what: str) -> str:
    """`value` as JSON; raises States.DataLimitExceeded above 256 KiB of UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > MAX_PAYLOAD_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
        raise error(
            "States.DataLimitExceeded",
            f"The state/task '{what}' returned a result with a size exceeding the maximum number of bytes "
            "service limit.",
        )
    return text


def invoke_resource(original: Callable[[str, Any], Any], resource: str, data: Any) -> Any:
    """Call what a Task names, with the size limit on what goes in and what comes out."""
    name = resource.removeprefix("arn:aws:states:::").removesuffix(":invoke")
    limited(data, name)
    result = original(resource, data)
    limited(result, name)
    return result


def invoke_with_timeout(original: Callable[..., Any], resource: str, data: Any, seconds: float) -> Any:
    """A time-out of a Task has no cause."""
    try:
        return original(resource, data, seconds)
    except sf._ExecutionError as failure:
        raise error(failure.error, "" if failure.error == TIMEOUT else failure.cause) from failure


def close() -> None:
    replace(sf, "_invoke_resource", invoke_resource, wraps=True)
    replace(sf, "_invoke_resource_with_timeout", invoke_with_timeout, wraps=True)
