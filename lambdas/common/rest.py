"""REST over API Gateway's proxy integration: requests read, answers and problem details (RFC 9457) written.

API Gateway matches the path: an event names its resource, such as `/tasks/{id}`, and a route is found by that.
Powertools' resolver would match the path once more, and its import costs a cold start a tenth of a second.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from common.errors import MISSING, Fault, Faults, FaultyError, InvalidRequestError, ServiceError, printable

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger, Metrics

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = "1"
_OBJECT: Final = "a JSON object in UTF-8"


class UnsupportedMediaTypeError(FaultyError):
    """The body's Content-Type is not one that the route takes."""

    status = 415


class PayloadTooLargeError(FaultyError):
    """The body is larger than the route takes."""

    status = 413


class RouteNotFoundError(ServiceError):
    """The API has no operation of this method and path."""

    status = 404


class InternalError(ServiceError):
    """A request failed for a reason that is for the log alone."""

    def __init__(self) -> None:
        super().__init__("The request failed on our side, and may or may not have taken effect.")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; without a document its body is empty."""

    status: int
    document: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON

    def to_event(self) -> dict[str, Any]:
        headers = dict(self.headers)
        body = ""
        if self.document is not None:
            headers["Content-Type"] = self.content_type
            body = json.dumps(self.document, ensure_ascii=False, separators=(",", ":"))
        return {"statusCode": self.status, "headers": headers, "body": body, "isBase64Encoded": False}


@dataclass(frozen=True)
class Request:
    """A request as API Gateway hands it to a function, and the context of that call."""

    event: Mapping[str, Any]
    context: Any
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> Mapping[str, str]:
        """The values of the path's placeholders."""
        return self.event.get("pathParameters") or {}

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters, in lower case; empty if there is none."""
        headers = self.event.get("headers") or {}
        declared = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
        return str(declared).partition(";")[0].strip().lower()

    def body(self, largest: int, hint: str = "") -> bytes:
        """The body's bytes. Raises PayloadTooLargeError above `largest` bytes, InvalidRequestError."""
        text = self.event.get("body") or ""
        is_base64 = bool(self.event.get("isBase64Encoded"))
        # Base64 has four characters for three bytes; what is far too long is not even decoded.
        size = len(text) * 3 // 4 if is_base64 else len(text)
        if size <= largest + 2:
            try:
                data = base64.b64decode(text, validate=True) if is_base64 else text.encode()
            except ValueError:
                raise InvalidRequestError([Fault("body", text, "valid base64 or UTF-8")]) from None
            size = len(data)
        if size > largest:
            raise PayloadTooLargeError([Fault("body", f"{size} bytes", f"at most {largest} bytes long{hint}")])
        return data

    def json(self, largest: int, *, is_optional: bool = False) -> dict[str, Any]:
        """The JSON object in the body; `{}` for an absent one if it is optional.

        Raises UnsupportedMediaTypeError for a Content-Type that is not JSON, PayloadTooLargeError, InvalidRequestError.
        """
        if not is_optional and self.media_type not in ("", JSON):
            raise UnsupportedMediaTypeError([Fault("Content-Type", self.media_type, JSON)])
        data = self.body(largest)
        try:
            document: Any = _loads(data) if data.strip() else MISSING
        except ValueError:
            document = data.decode("utf-8", "replace")
        if document is MISSING and is_optional:
            return {}
        if not isinstance(document, dict):
            raise InvalidRequestError([Fault("body", document, _OBJECT)])
        return document

    @property
    def path(self) -> str:
        """The path without the stage, or the base path of a custom domain."""
        # The event's own path has the base path, too: count segments from the end.
        resource = str(self.parameters.get("proxy") or self.event.get("resource") or "")
        steps = resource.strip("/").count("/") + 1
        return "/" + "/".join(self._whole_path.split("/")[-steps:])

    def location(self, path: str) -> str:
        """The path of a resource as a client asks for it: with the stage, or the base path of a custom domain."""
        return self._whole_path.removesuffix(self.path) + path

    @property
    def _whole_path(self) -> str:
        return str((self.event.get("requestContext") or {}).get("path") or self.event.get("path") or "/").rstrip("/")


Operation = Callable[[Request], Answer]


class Api:
    """Routes of one function by method and resource, such as `GET /tasks/{id}`."""

    def __init__(self, logger: "Logger", metrics: "Metrics") -> None:
        # Each with the names that its query may have.
        self.routes: dict[str, tuple[Operation, tuple[str, ...]]] = {}
        self._logger = logger
        self._metrics = metrics

    def route(self, name: str, query: tuple[str, ...] = ()) -> Callable[[Operation], Operation]:
        def add(operation: Operation) -> Operation:
            self.routes[name] = operation, query
            return operation

        return add

    def handle(self, event: Any, context: Any) -> dict[str, Any]:
        """Answer one request of API Gateway. Never raises: what went wrong unexpectedly is logged and answered 500."""
        self._count("Requests")
        request = Request(event if isinstance(event, Mapping) else {}, context)
        try:
            method, resource = request.event.get("httpMethod"), request.event.get("resource")
            if (route := self.routes.get(f"{method} {resource}")) is None:
                raise RouteNotFoundError(f"There is no operation {method} {printable(request.path)}.")
            operation, known = route
            return operation(replace(request, query=_query(request.event, known))).to_event()
        except Exception as error:
            if isinstance(error, ServiceError) and (error.status < 500 or error.status == 503):
                self._count("RequestsRefused")
                return problem(error, request).to_event()
            # The log has everything; the answer has nothing that could be another user's.
            self._logger.exception("A request failed unexpectedly.")
            self._count("RequestsFailed")
            return problem(InternalError(), request).to_event()

    def _count(self, name: str) -> None:
        self._metrics.add_metric(name=name, unit="Count", value=1)


def _loads(data: bytes) -> Any:
    """The value of a JSON text (RFC 8259) in UTF-8, with or without a byte order mark.

    Raises ValueError for what is none, and for what neither an execution's input nor an answer could repeat: NaN,
    a number beyond the range of a double, a lone surrogate, objects nested too deep, an integer of thousands of digits.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _query(event: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, str]:
    """The query's values by name. Raises InvalidRequestError for one that is unknown or given twice."""
    given: Mapping[str, list[str]] = event.get("multiValueQueryStringParameters") or {}
    faults = Faults()
    faults.check_names({name: ", ".join(values) for name, values in given.items()}, known)
    for name in known:
        faults.check(len(given.get(name, ())) <= 1, name, ", ".join(given.get(name, ())), "given once")
    faults.raise_any()
    return {name: values[0] for name, values in given.items()}


def problem(error: ServiceError, request: Request) -> Answer:
    """The error as problem details."""
    document: dict[str, Any] = {
        "type": type_of(error.name),
        "title": error.name,
        "status": error.status,
        "detail": str(error),
        "instance": printable(request.path),
    }
    if error.faults:
        document["errors"] = [fault.to_json() for fault in error.faults]
    headers = {"Retry-After": RETRY_AFTER_SECONDS} if error.status in (429, 503) else {}
    return Answer(error.status, document, headers, PROBLEM)


def type_of(name: str) -> str:
    """The `type` of a problem: InvalidJobError is `/errors/invalid-job`."""
    words = re.findall(r"[A-Z][a-z]*", name.removesuffix("Error"))
    return "/errors/" + "-".join(words).lower()
