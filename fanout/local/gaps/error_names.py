"""The error names of a Task: the exception's own, Lambda.TooManyRequestsException, and which are never caught."""

import json
from collections.abc import Callable
from typing import Any

from ministack.services import lambda_svc
from ministack.services import stepfunctions as sf

from . import replaces
from .execution_history import error


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
