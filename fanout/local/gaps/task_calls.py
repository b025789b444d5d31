"""What a Task calls: at most 256 KiB go in and come out, errors have their own names, a time-out has no cause."""

import json
from collections.abc import Callable
from typing import Any

from ministack.services import lambda_svc
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
        given = {} if data.get("Payload") is None else data["Payload"]
        try:
            data = {**data, "Payload": json.loads(given) if isinstance(given, str) else given}
        except ValueError:
            cause = "Could not parse request body into json: no JSON. (Service: Lambda, Status Code: 400)"
            raise error("Lambda.InvalidRequestContentException", cause) from None
    result = original(resource, data)
    if is_invoke:
        metadata = {"HttpStatusCode": 200, "HttpHeaders": {}, "AllHttpHeaders": {}}
        result |= {"ExecutedVersion": "$LATEST", "SdkHttpMetadata": metadata, "SdkResponseMetadata": {}}
    limited(result, name)
    return result


@replaces(sf, "_invoke_resource_with_timeout", wraps=True)
def invoke_with_timeout(original: Callable[..., Any], resource: str, data: Any, seconds: float) -> Any:
    """A time-out of a Task has no cause."""
    try:
        return original(resource, data, seconds)
    except sf._ExecutionError as failure:
        raise error(failure.error, "" if failure.error == TIMEOUT else failure.cause) from failure


@replaces(sf, "_error_matches", wraps=True)
def matches(original: Callable[[list[str], str], bool], error_equals: list[str], name: str) -> bool:
    """States.Runtime is matched by no Retry or Catch, States.ALL included:
    https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html"""
    return name != "States.Runtime" and original(error_equals, name)


@replaces(sf, "_call_lambda")
def call_lambda(reference: str, event: object) -> Any:
    """Invoke a function for a Task; a failure has the error's own name and, as Cause, Lambda's payload. A refused
    invocation is Lambda.TooManyRequestsException."""
    func, config, name = lambda_svc._get_func_record_for_ref(reference)
    if not func or not config:
        arn = f"arn:aws:lambda:{sf.get_region()}:{sf.get_account_id()}:function:{name}"
        cause = f"Function not found: {arn} (Service: Lambda, Status Code: 404, Request ID: {sf.new_uuid()})"
        raise error("Lambda.ResourceNotFoundException", cause)
    record = lambda_svc._execution_record_for_config(func, config)
    outcome = lambda_svc._execute_function_with_config_scope(record, event)
    body = outcome.get("body")
    if outcome.get("throttle"):
        raise error("Lambda.TooManyRequestsException", f"{body['message']} (Service: Lambda, Status Code: 429)")
    if outcome.get("error"):
        raise error(body.get("errorType", "Lambda.Unknown"), json.dumps(body, separators=(",", ":")))
    return body
