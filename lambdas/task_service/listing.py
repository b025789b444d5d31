"""The internal listing: its three events — a page of a segment, tasks by their ids, the table's size — and answers."""

from collections.abc import Callable
from typing import Any, Final

from common.errors import Fault, Faults, InvalidRequestError
from common.task import is_id
from task_service import filters
from task_service.store import MOST_ITEMS, TaskStore
from task_service.tokens import Listing, PageTokens

LARGEST_LIMIT: Final = 10_000
DEFAULT_LIMIT: Final = 1_000
MOST_SEGMENTS: Final = 1_000_000
_FIELDS: Final = ("filter", "segment", "totalSegments", "cursor", "limit")
_LOOKUP_FIELDS: Final = ("filter", "ids")
_SIZE_FIELDS: Final = ("size",)


def answer(event: object, store: TaskStore, tokens: PageTokens, *, has_time: Callable[[], bool]) -> dict[str, Any]:
    """The answer to an event: tasks by their ids if it has `ids`, the table's size if it has `size`, else a listing,
    whose every field has a default.

    `{lines, cursor}` for a listing, each line a task in compact JSON: it goes into a shard as it is. `{tasks}` for a
    look-up: those that exist and match, in the ids' order. `{count, bytes}` for a size. Parsed without pydantic, which
    would double this function's cold start. Raises InvalidRequestError with every fault, or for a cursor of another
    listing, and ThrottledError.
    """
    faults = Faults()
    if not isinstance(event, dict):
        raise InvalidRequestError([Fault("event", event, f"an object with the fields {', '.join(_FIELDS)}")])
    faults.check_names(event, _SIZE_FIELDS if "size" in event else _LOOKUP_FIELDS if "ids" in event else _FIELDS)
    if "size" in event:
        faults.check(event["size"] is True, "size", event["size"], "true")
        faults.raise_any()
        count, size = store.size()
        return {"count": count, "bytes": size}
    wanted = filters.read(event.get("filter"), faults)
    if "ids" in event:
        ids = event["ids"]
        are_ids = isinstance(ids, list) and len(ids) <= MOST_ITEMS and all(map(is_id, ids))
        faults.check(are_ids, "ids", ids, f"a list of at most {MOST_ITEMS} ids of tasks")
        faults.raise_any()
        found = store.read(ids, has_time=has_time)
        tasks = [found[task_id] for task_id in dict.fromkeys(ids) if task_id in found]
        return {"tasks": [task.to_json() for task in tasks if wanted.matches(task)]}
    segment, total = event.get("segment", 0), event.get("totalSegments", 1)
    limit = event.get("limit", DEFAULT_LIMIT)
    faults.check_whole("totalSegments", total, 1, MOST_SEGMENTS)
    faults.check_whole("limit", limit, 1, LARGEST_LIMIT)
    faults.check_whole("segment", segment, 0, MOST_SEGMENTS - 1)
    if not faults:
        faults.check(segment < total, "segment", segment, f"below totalSegments, which is {total:,}")
    faults.raise_any()
    listed, cursor = Listing(wanted, segment, total), event.get("cursor")
    after = None if cursor is None else tokens.read(cursor, listed, "cursor", InvalidRequestError)
    page = store.page(listed, after=after, limit=limit, has_time=has_time, consistent=True)
    return {
        "lines": page.lines,
        "cursor": None if page.last_id is None else tokens.issue(page.last_id, listed),
    }
