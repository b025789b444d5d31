"""The input and output of a state or a task: at most 256 KiB."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replace
from .execution_history import error

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
    limited(data, resource)
    result = original(resource, data)
    limited(result, resource)
    return result


def close() -> None:
    replace(sf, "_invoke_resource", invoke_resource, wraps=True)
