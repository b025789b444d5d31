"""A request in the name of the root user needs a right signature too; ministack verifies every signature but root's.

And a request to a REST API must be signed for the service execute-api.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack import app
from ministack.core import iam_evaluator

from . import rebound, replace


def is_unverified(access_key_id: str) -> bool:
    return not access_key_id


def enforce(original: Callable[..., Any], access_key_id: str, action: str, *rest: Any, **options: Any) -> Any:
    request = iam_evaluator._signed_request.get()
    authorization = request.headers.get("authorization", "") if request else ""
    if action == "execute-api:Invoke" and authorization and "/execute-api/aws4_request" not in authorization:
        message = "Credential should be scoped to correct service: 'execute-api'. "
        return iam_evaluator.AuthError("SignatureDoesNotMatch", message)
    return original(access_key_id, action, *rest, **options)


def close() -> None:
    replace(app, "pin_signed_request", rebound(app.pin_signed_request, _is_root_key=is_unverified))
    replace(iam_evaluator, "enforce", enforce, wraps=True)
