"""Scan: a page costs what it reads; ministack sorts the whole table for each page.

The keys of a scanned table are kept in order, for the table and for each of its segments. Every write of a key goes
through the functions of ministack that are wrapped here. A page is still made by ministack's own function: it is
given a table that holds the items of this page only.
"""

import functools
import hashlib
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ministack.services import _dynamodb_keywords, dynamodb

from . import rebound, replaces

SORTED_KEYS = "_fanout_sorted_keys"

Table = dict[str, Any]
Key = tuple[str, str]

# A filter's grammar is checked once, not again for each item.
replaces(dynamodb, "_condition_syntax_error")(functools.lru_cache(dynamodb._condition_syntax_error))
# The statements of a batch are the same text, and ministack reads each twice.
replaces(_dynamodb_keywords, "_tokenize")(functools.lru_cache(_dynamodb_keywords._tokenize))


class SortedKeys:
    """The keys of a table in the order of a Scan, by number of segments and segment."""

    def __init__(self, items: dict[str, dict[str, Any]]) -> None:
        self.items = items
        self.segments: dict[int, defaultdict[int, list[Key]]] = {}

    def of(self, segment: int, total: int) -> list[Key]:
        if total not in self.segments:
            keys = self.segments[total] = defaultdict(list)
            for pk in sorted(self.items):
                keys[_segment(pk, total)] += [(pk, sk) for sk in sorted(self.items[pk])]
        return self.segments[total][segment]

    def add(self, key: Key) -> None:
        for total, keys in self.segments.items():
            insort(keys[_segment(key[0], total)], key)

    def remove(self, key: Key) -> None:
        for total, keys in self.segments.items():
            segment = keys[_segment(key[0], total)]
            del segment[bisect_left(segment, key)]


def _segment(pk: str, total: int) -> int:
    """The segment of a partition key, by ministack's own rule."""
    return int.from_bytes(hashlib.sha1(pk.encode()).digest()[:4], "big") % total if total > 1 else 0  # noqa: S324


@replaces(dynamodb, "_set_item", wraps=True)
def set_item(original: Callable[..., Any], table: Table, pk: str, sk: str, item: Any) -> Any:
    old = original(table, pk, sk, item)
    if old is None and SORTED_KEYS in table:
        table[SORTED_KEYS].add((pk, sk))
    return old


@replaces(dynamodb, "_remove_item", wraps=True)
def remove_item(original: Callable[..., Any], table: Table, pk: str, sk: str) -> Any:
    old = original(table, pk, sk)
    if old is not None and SORTED_KEYS in table:
        table[SORTED_KEYS].remove((pk, sk))
    return old


@replaces(dynamodb, "_scan", wraps=True)
def scan(original: Callable[..., Any], data: dict[str, Any]) -> Any:
    """One page of a Scan. An index, or segments that are refused, are left to ministack altogether."""
    name = dynamodb._normalize_table_name(data.get("TableName"))
    table = dynamodb._tables.get(name)
    segment, total = data.get("Segment", 0), data.get("TotalSegments", 1)
    valid = isinstance(segment, int) and isinstance(total, int) and 0 <= segment < total <= 1_000_000
    if not table or data.get("IndexName") or not valid:
        return original(data)
    # The items are another dictionary after a restored backup or a failed transaction.
    if SORTED_KEYS not in table or table[SORTED_KEYS].items is not table["items"]:
        table[SORTED_KEYS] = SortedKeys(table["items"])
    keys = table[SORTED_KEYS].of(segment, total)
    page: dict[str, dict[str, Any]] = defaultdict(dict)
    size = count = 0
    for index in range(_start(keys, table, data.get("ExclusiveStartKey")), len(keys)):
        pk, sk = keys[index]
        item = page[pk][sk] = table["items"][pk][sk]
        size, count = size + dynamodb._item_size_bytes(item), count + 1
        # One item more than fits shows that there is a next page.
        if size > dynamodb._DDB_PAGE_SIZE_BYTES or count == data.get("Limit"):
            break
    return rebound(original, _tables={name: {**table, "items": page}})(data)


def _start(keys: list[Key], table: Table, after: dict[str, Any] | None) -> int:
    if not after:
        return 0
    pk, sk = (dynamodb._extract_key_val(after.get(name, {})) for name in (table["pk_name"], table["sk_name"]))
    # Without a sort key: before the next partition key that can be.
    return bisect_right(keys, (pk, sk)) if table["sk_name"] else bisect_left(keys, (pk + "\0", ""))
