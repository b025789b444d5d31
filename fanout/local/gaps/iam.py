"""IAM: root's signatures are verified, a request about a map run is about that map run, plain HTTP is secure here,
the account's settings have their action, a missing object is forbidden to who may not list the bucket, and a batch of
statements is allowed statement by statement."""

import json
import operator
import re
from collections.abc import Awaitable, Callable
from typing import Any

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import s3

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


@replaces(iam_actions, "_lambda_action", wraps=True)
def lambda_action(original: Callable[[str, str], str | None], method: str, path: str) -> str | None:
    """The action of a request to Lambda; ministack knows none for the account's settings, and lets everybody read."""
    if method == "GET" and path.rstrip("/").endswith("/account-settings"):
        return "GetAccountSettings"
    return original(method, path)


@replaces(s3, "handle_request", wraps=True)
async def answer_of_s3(
    original: Callable[..., Awaitable[tuple[int, Any, Any]]],
    method: str,
    path: str,
    headers: Any,
    body: bytes,
    query: Any,
    *rest: Any,
    **options: Any,
) -> tuple[int, Any, Any]:
    """Who may not list a bucket is told 403 of an object that is missing there, not 404:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html (Permissions)"""
    answer = await original(method, path, headers, body, query, *rest, **options)
    bucket, key = s3._parse_bucket_key(path, headers)
    if answer[0] != 404 or method not in ("GET", "HEAD") or not key:
        return answer
    where = f"arn:aws:s3:::{bucket}"
    denied = app._enforce_data_plane("s3", "s3:ListBucket", headers, query, s3.new_uuid(), resource_arn=where)
    if denied is None:
        return answer
    return denied if method == "GET" else (denied[0], denied[1], b"")


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
