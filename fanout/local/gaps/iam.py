"""IAM: root's signatures are verified, a request about a map run is about that map run, plain HTTP is secure here.

And a batch of statements is allowed statement by statement.
"""

import json
import operator
import re
from collections.abc import Callable
from typing import Any

from ministack import app
from ministack.core import iam_actions, iam_evaluator

from . import rebound, replaces

_STATEMENT = re.compile(r'\s*(\w+).*?(?<=INTO|FROM|DATE)\s+"([^"]+)"', re.DOTALL)

# ministack verifies every signature but root's; here nobody is root but who names no key.
replaces(app, "pin_signed_request")(rebound(app.pin_signed_request, _is_root_key=operator.not_))


@replaces(iam_evaluator, "enforce", wraps=True)
def enforce(original: Callable[..., Any], access_key_id: str, action: str, *rest: Any, **options: Any) -> Any:
    """A request to a REST API must be signed for the service execute-api."""
    request = iam_evaluator._signed_request.get()
    authorization = request.headers.get("authorization", "") if request else ""
    if action == "execute-api:Invoke" and authorization and "/execute-api/aws4_request" not in authorization:
        message = "Credential should be scoped to correct service: 'execute-api'. "
        return iam_evaluator.AuthError("SignatureDoesNotMatch", message)
    return original(access_key_id, action, *rest, **options)


# Its callers import it at each request, so that this one place is enough.
@replaces(iam_actions, "extract_resource_arn", wraps=True)
def resource_arn(
    original: Callable[..., str], service: str, method: str, path: str, headers: Any, body: bytes, *rest: Any
) -> str:
    """The resource of a request; ministack takes one about a map run to be about everything."""
    arn = original(service, method, path, headers, body, *rest)
    if service == "states" and arn == "*":
        return str(iam_actions._safe_json_field(body, "mapRunArn") or arn)
    return arn


@replaces(iam_actions, "dynamodb_transaction_checks", wraps=True)
def statement_checks(
    original: Callable[..., list[tuple[str, str]]], action: str, body: bytes, region: str, account: str
) -> list[tuple[str, str]]:
    """The actions and resources of a batch; a statement that cannot be read is left to ministack, which allows none."""
    if action != "dynamodb:BatchExecuteStatement":
        return original(action, body, region, account)
    found = [_STATEMENT.match(str(each.get("Statement"))) for each in json.loads(body).get("Statements", ())]
    if not all(found):
        return []
    statements = {(match[1].capitalize(), match[2]) for match in found if match}
    return [
        (f"dynamodb:PartiQL{verb}", iam_actions._dynamodb_table_arn(table, region, account))
        for verb, table in statements
    ]


@replaces(app, "pin_request_origin", wraps=True)
def pin(original: Callable[[str, bool], None], source_ip: str, secure: bool) -> None:
    """On the loopback interface plain HTTP counts as secure, or a bucket's TLS-only policy would refuse everything."""
    original(source_ip, True)
