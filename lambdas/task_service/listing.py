"""The internal listing: its event, and the one call that it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from task_service import filters
from task_service.errors import Fault, InvalidPageTokenError, InvalidRequestError, UnknownField
from task_service.store import TaskStore
from task_service.tokens import Listing, PageTokens

LARGEST_LIMIT: Final = 10_000
DEFAULT_LIMIT: Final = 1_000
MOST_SEGMENTS: Final = 1_000_000
_FIELDS: Final = ("filter", "segment", "totalSegments", "cursor", "limit")


@dataclass(frozen=True)
class ListRequest:
    listing: Listing
    cursor: str | None
    limit: int


def parse(event: object) -> ListRequest:
    """The request of an event; every field has a default. Raises InvalidRequestError with every fault."""
    if not isinstance(event, dict):
        raise InvalidRequestError([Fault("event", event, f"an object with the fields {', '.join(_FIELDS)}")])
    faults: list[Fault] = [
        UnknownField(str(name), value, ", ".join(_FIELDS))
        for name, value in event.items()
        if name not in _FIELDS
    ]
    wanted = filters.EVERYTHING
    try:
        wanted = filters.parse(event.get("filter"))
    except InvalidRequestError as error:
        faults.extend(error.faults)
    total = event.get("totalSegments", 1)
    if not _is_whole(total, 1, MOST_SEGMENTS):
        faults.append(Fault("totalSegments", total, f"a whole number from 1 to {MOST_SEGMENTS}"))
        total = MOST_SEGMENTS
    segment = event.get("segment", 0)
    if not _is_whole(segment, 0, total - 1):
        faults.append(Fault("segment", segment, "a whole number from 0 to below totalSegments"))
    limit = event.get("limit", DEFAULT_LIMIT)
    if not _is_whole(limit, 1, LARGEST_LIMIT):
        faults.append(Fault("limit", limit, f"a whole number from 1 to {LARGEST_LIMIT}"))
    if faults:
        raise InvalidRequestError(faults)
    return ListRequest(Listing(wanted, segment, total), event.get("cursor"), limit)


def answer(
    request: ListRequest, store: TaskStore, tokens: PageTokens, *, has_time: Callable[[], bool]
) -> dict[str, Any]:
    """`{tasks, cursor}` for a request.

    Raises InvalidRequestError for a cursor of another listing, and ThrottledError.
    """
    after = None
    if request.cursor is not None:
        try:
            after = tokens.read(request.cursor, request.listing, field="cursor")
        except InvalidPageTokenError as error:
            raise InvalidRequestError(error.faults) from None
    page = store.page(request.listing, after=after, limit=request.limit, has_time=has_time, consistent=True)
    return {
        "tasks": [task.to_json() for task in page.tasks],
        "cursor": None if page.last_id is None else tokens.issue(page.last_id, request.listing),
    }


def _is_whole(value: object, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
