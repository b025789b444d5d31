"""What a REST request says: its body and its query, parsed into typed values or refused in plain words."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from task_service import filters
from task_service.errors import (
    MISSING,
    Fault,
    InvalidRequestError,
    PayloadTooLargeError,
    UnknownField,
    UnsupportedMediaTypeError,
)
from task_service.filters import TaskFilter
from task_service.task import ID_ALLOWED, is_id

LARGEST_BODY: Final = 256 * 1024
"""Bytes. A task has at most some 13 KB, however it is escaped."""

LARGEST_LIMIT: Final = 1_000
DEFAULT_LIMIT: Final = 100
_QUERY: Final = ("isComplete", "dueBefore", "dueAfter", "limit", "pageToken")
_BODY_ALLOWED: Final = "a JSON object"


@dataclass(frozen=True)
class ListQuery:
    filter: TaskFilter
    limit: int = DEFAULT_LIMIT
    page_token: str | None = None


def body(raw: str | None, *, is_base64: bool, content_type: str | None) -> dict[str, Any]:
    """The JSON object that a request's body holds.

    Raises UnsupportedMediaTypeError, PayloadTooLargeError, InvalidRequestError. No content type stands for
    JSON.
    """
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaTypeError([Fault("Content-Type", content_type, "application/json")])
    text = raw or ""
    # Base64 has four characters for three bytes; what is far too long is not even decoded.
    if len(text) > LARGEST_BODY * 2:
        _too_large(len(text) * 3 // 4 if is_base64 else len(text))
    try:
        data = base64.b64decode(text, validate=True) if is_base64 else text.encode("utf-8", "surrogatepass")
        if len(data) > LARGEST_BODY:
            _too_large(len(data))
        parsed = json.loads(data.decode("utf-8-sig"), parse_constant=_not_json)
    except (ValueError, RecursionError):
        raise InvalidRequestError([Fault("body", _unparsed(text), f"{_BODY_ALLOWED} in UTF-8")]) from None
    if not isinstance(parsed, dict):
        raise InvalidRequestError([Fault("body", parsed, _BODY_ALLOWED)])
    return parsed


def _unparsed(text: str) -> object:
    return text if text.strip() else MISSING


def _too_large(size: int) -> NoReturn:
    raise PayloadTooLargeError([Fault("body", f"{size} bytes", f"at most {LARGEST_BODY} bytes long")])


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def task_id(text: str) -> str:
    """The id in a path. Raises InvalidRequestError."""
    if not is_id(text):
        raise InvalidRequestError([Fault("id", text, ID_ALLOWED)])
    return text


def list_query(given: Mapping[str, Sequence[str]] | None) -> ListQuery:
    """The query of `GET /tasks`. Raises InvalidRequestError with every fault."""
    query = given or {}
    faults: list[Fault] = [
        UnknownField(name, ", ".join(values), ", ".join(_QUERY))
        for name, values in query.items()
        if name not in _QUERY
    ]
    values: dict[str, str] = {}
    for name in _QUERY:
        all_given = query.get(name, ())
        if len(all_given) > 1:
            faults.append(Fault(name, ", ".join(all_given), "given once"))
        elif all_given:
            values[name] = all_given[0]
    wanted: dict[str, Any] = {name: values[name] for name in filters.FIELDS if name in values}
    if "isComplete" in wanted:
        wanted["isComplete"] = {"true": True, "false": False}.get(wanted["isComplete"], wanted["isComplete"])
    parsed = filters.EVERYTHING
    try:
        parsed = filters.parse(wanted, prefix="")
    except InvalidRequestError as error:
        faults.extend(error.faults)
    limit = values.get("limit", str(DEFAULT_LIMIT))
    # No int() of just anything: it reads " 5 ", "1_0" and "٣" too.
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 9 and 1 <= int(limit) <= LARGEST_LIMIT):
        faults.append(Fault("limit", limit, f"a whole number from 1 to {LARGEST_LIMIT}"))
    if faults:
        raise InvalidRequestError(faults)
    return ListQuery(parsed, int(limit), values.get("pageToken"))
