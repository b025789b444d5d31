"""JobsApi: jobs over REST, and the upload of a CSV to import."""

from __future__ import annotations

import base64
import binascii
import json
import os
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from fan_out.aws.settings import settings
from fan_out.aws.storage import Bucket
from fan_out.errors import (
    FanOutError,
    InvalidJobError,
    JobExistsError,
    JobNotFoundError,
    RetryableError,
    SourceNotFoundError,
)
from fan_out.jobs import Jobs

logger = Logger()
app = APIGatewayRestResolver()

# The body of a request through API Gateway to Lambda is at most 6 MB with all that is around it,
# and a binary one is a third longer: a larger CSV takes the presigned upload.
LARGEST_CSV = 4_000_000
# The input of an execution is at most 256 KiB.
LARGEST_INPUT = 200_000

_STATUS = {
    InvalidJobError: 400,
    SourceNotFoundError: 400,
    JobNotFoundError: 404,
    JobExistsError: 409,
    RetryableError: 503,
}
_BROKEN = {"error": {"name": "InternalError", "message": "The request failed on our side."}}


class PayloadTooLargeError(FanOutError):
    """The request's body is larger than this endpoint takes."""


@cache
def jobs() -> Jobs:
    own = settings()
    # An endpoint of its own is that of an embedded AWS, to which the terminal's commands go unless told otherwise.
    is_embedded = "AWS_ENDPOINT_URL" in os.environ
    stack = () if is_embedded else ("--stack", own.stack_name, "--region", os.environ["AWS_DEFAULT_REGION"])
    return Jobs(Bucket(own.bucket_name), own.state_machine_arn, stack)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """A request of API Gateway → its response."""
    answer: dict[str, Any] = app.resolve(event, context)
    return answer


@app.post("/jobs")
def start() -> Response[str]:
    return _answer(202, jobs().start(_document()))


@app.get("/jobs")
def latest() -> Response[str]:
    query = app.current_event.query_string_parameters or {}
    text = query.get("limit", "20")
    if not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= 100:
        rule = "a whole number from 1 to 100"
        raise InvalidJobError(
            f'limit is "{text[:100]}", but must be {rule}.', field="limit", value=text[:100], allowed=rule
        )
    return _answer(200, jobs().list(int(text), query.get("pageToken")))


@app.get("/jobs/<job_id>")
def get(job_id: str) -> Response[str]:
    return _answer(200, jobs().get(job_id))


@app.get("/jobs/<job_id>/failures")
def failures(job_id: str) -> Response[str]:
    return _answer(200, jobs().failures(job_id))


@app.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> Response[str]:
    return _answer(202, jobs().retry(job_id, _document()))


@app.delete("/jobs/<job_id>")
def stop(job_id: str) -> Response[str]:
    return _answer(202, jobs().stop(job_id))


@app.post("/tasks/upload")
def upload() -> Response[str]:
    kind = (app.current_event.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _answer(202, jobs().import_csv(_body(LARGEST_CSV)))
    if kind != "application/json":
        rule = "text/csv, or application/json to ask for a presigned upload"
        raise InvalidJobError(
            f'Content-Type is "{kind[:100]}", but must be {rule}.',
            field="Content-Type",
            value=kind[:100],
            allowed=rule,
        )
    document = _document()
    match document:
        case {"source": {"csv": key}} if len(document) == len(document["source"]) == 1:
            return _answer(202, jobs().import_object(key))
        case {} if not document:
            return _answer(201, jobs().upload_link())
    rule = '{} to get a presigned upload, or {"source": {"csv": KEY}} to import what was uploaded'
    raise InvalidJobError(
        f"The body is another object, but must be {rule}.", field="body", value=document, allowed=rule
    )


@app.exception_handler(FanOutError)  # type: ignore[untyped-decorator]
def refused(error: FanOutError) -> Response[str]:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    if isinstance(error, PayloadTooLargeError):
        status = 413
    said: dict[str, Any] = {"name": type(error).__name__, "message": str(error)}
    if isinstance(error, InvalidJobError) and error.field is not None:
        said |= {"field": error.field, "value": _short(error.value), "allowed": error.allowed}
    if status == 500:
        logger.exception("a request failed")
        return _answer(500, _BROKEN)
    return _answer(status, {"error": said}, {"Retry-After": "1"} if status == 503 else None)


@app.not_found
def unknown(_: NotFoundError) -> Response[str]:
    return _answer(404, {"error": {"name": "NotFoundError", "message": "There is nothing at this path."}})


@app.exception_handler(Exception)  # type: ignore[untyped-decorator]
def broken(_: Exception) -> Response[str]:
    logger.exception("a request failed")
    return _answer(500, _BROKEN)


def _short(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= 100 else text[:99] + "…"


def _body(largest: int) -> bytes:
    event = app.current_event
    raw = event.body or ""
    try:
        body = (
            base64.b64decode(raw, validate=True)
            if event.is_base64_encoded
            else raw.encode("utf-8", "surrogatepass")
        )
    except binascii.Error:
        raise InvalidJobError("The body is not the base64 that API Gateway sends.") from None
    if len(body) > largest:
        raise PayloadTooLargeError(
            f"The body has {len(body)} bytes, but must have at most {largest}. "
            "A larger CSV goes up by a presigned upload: POST {} as application/json to /tasks/upload."
        )
    return body


def _document() -> Any:
    """The JSON body; an absent one is an empty object."""
    body = _body(LARGEST_INPUT)
    if not body.strip():
        return {}
    try:
        document = json.loads(body, parse_constant=_no_number)
        # Neither a lone surrogate nor 1e999, which Python reads as infinite, is anything that an execution's input
        # or an answer could hold.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise InvalidJobError("The body is not JSON, but must be an object such as {}.") from None
    if not isinstance(document, dict):
        raise InvalidJobError("The body must be a JSON object such as {}.")
    return document


def _no_number(name: str) -> None:
    """Python reads NaN and Infinity, which are no JSON and which Step Functions refuses."""
    raise ValueError(f"{name} is no JSON")


def _answer(
    status: int, document: dict[str, Any], headers: dict[str, str | list[str]] | None = None
) -> Response[str]:
    return Response(
        status_code=status,
        content_type=content_types.APPLICATION_JSON,
        body=json.dumps(document, ensure_ascii=False),
        headers=headers or {},
    )
