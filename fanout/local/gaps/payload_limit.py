"""What goes into and comes out of a state or a task: at most 256 KiB; what lambda:invoke sends and answers."""

import json
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replaces
from .execution_history import TIMEOUT, error

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_PAYLOAD_BYTES = 256 * 1024


def limited(value: object, what: str) -> str:
    """`value` as JSON; raises States.DataLimitExceeded above 256 KiB of UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > MAX_PAYLOAD_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
        cause = f"The state/task '{what}' returned a result with a size exceeding the maximum number of bytes "
        raise error("States.DataLimitExceeded", cause + "service limit.")
    return text


@replaces(sf, "_invoke_resource", wraps=True)
def invoke_resource(original: Callable[[str, Any], Any], resource: str, data: Any) -> Any:
    """Call what a Task names, with the size limit on what goes in and what comes out.

    A text that Parameters give a function as its Payload is JSON, and no Payload is an empty object.
    """
    name = resource.removeprefix("arn:aws:states:::").removesuffix(":invoke")
    limited(data, name)
    is_invoke = name == "lambda"
    if is_invoke:
        data = {**data, "Payload": _payload(data.get("Payload"))}
    result = original(resource, data)
    if is_invoke:
        metadata = {"HttpStatusCode": 200, "HttpHeaders": {}, "AllHttpHeaders": {}}
        result |= {"ExecutedVersion": "$LATEST", "SdkHttpMetadata": metadata, "SdkResponseMetadata": {}}
    limited(result, name)
    return result


def _payload(given: Any) -> Any:
    try:
        return json.loads(given) if isinstance(given, str) else {} if given is None else given
    except ValueError:
        cause = "Could not parse request body into json: the Payload is no JSON. (Service: Lambda, Status Code: 400)"
        raise error("Lambda.InvalidRequestContentException", cause) from None


@replaces(sf, "_invoke_resource_with_timeout", wraps=True)
def invoke_with_timeout(original: Callable[..., Any], resource: str, data: Any, seconds: float) -> Any:
    """A time-out of a Task has no cause."""
    try:
        return original(resource, data, seconds)
    except sf._ExecutionError as failure:
        raise error(failure.error, "" if failure.error == TIMEOUT else failure.cause) from failure
