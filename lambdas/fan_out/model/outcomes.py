"""Outcomes and their account: counts, failures, and the digest that groups the failures of a job."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

# A failure's message is for people; a kind may put anything into it.
LONGEST_MESSAGE = 500
# The digest keeps so many groups apart, the largest; the others are grouped by their error name alone, and what is
# beyond as many again by its outcome alone.
GROUPS = 200
SAMPLES = 3

_IDS = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b[0-9a-fA-F]{16,}\b")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_NUMBERS = re.compile(r"\d+(?:[.:,_/-]\d+)*")


@dataclass
class Counts:
    """How many tasks had which outcome."""

    succeeded: int = 0
    failed: int = 0
    quarantined: int = 0
    unprocessed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.quarantined + other.quarantined,
            self.unprocessed + other.unprocessed,
        )

    @property
    def not_succeeded(self) -> int:
        return self.failed + self.quarantined + self.unprocessed

    @property
    def total(self) -> int:
        return self.succeeded + self.not_succeeded


def exceeds(count: int, percentage: float, total: int) -> bool:
    """Whether so many of `total` are more than this percentage, as it is written: 2.3 is no binary fraction."""
    return count * 100 > Fraction(str(percentage)) * total


def failure(
    task: dict[str, Any], outcome: str, name: str, message: str, *, shard: int, attempts: int
) -> dict[str, Any]:
    """A line of `failures.jsonl`."""
    # A kind may give anything for a text, and a lone surrogate could not be written as UTF-8.
    name, text = (str(said).encode("utf-8", "replace").decode() for said in (name, message))
    if len(text) > LONGEST_MESSAGE:
        text = text[: LONGEST_MESSAGE - 1] + "…"
    return {
        "task": task,
        "outcome": outcome,
        "error": {"name": name[:100], "message": text},
        "shard": shard,
        "attempts": attempts,
    }


def normalised(message: str) -> str:
    """A message without what differs from task to task, so that failures of one cause group together."""
    text = _IDS.sub("<id>", message)
    text = _QUOTED.sub("<text>", text)
    return _NUMBERS.sub("<n>", text)[:200]


class Digest:
    """Failures grouped by outcome, error name and normalised message: how many, and the first few of each.

    It holds a group for each that it was given: those of a shard's failures, or of the digests of a node's children.
    """

    def __init__(self, groups: Iterable[dict[str, Any]] = ()):
        self._groups: dict[tuple[str, str, str], dict[str, Any]] = {}
        for group in groups:
            self._put(group)

    def add(self, entry: dict[str, Any]) -> None:
        task = entry["task"]
        self._put(
            {
                "outcome": entry["outcome"],
                "error": entry["error"]["name"],
                "message": normalised(entry["error"]["message"]),
                "count": 1,
                "samples": [
                    {
                        "task": f"row-{task['row']}" if "row" in task else task["id"],
                        "message": entry["error"]["message"],
                        "shard": entry["shard"],
                    }
                ],
            }
        )

    def to_json(self) -> list[dict[str, Any]]:
        """The groups, the largest first, at most about 2 * GROUPS."""
        few = self._cut(GROUPS, lambda group: group | {"message": "…"})
        return few._cut(2 * GROUPS, lambda group: group | {"message": "…", "error": "…"})._sorted()

    def _put(self, group: dict[str, Any]) -> None:
        key = (group["outcome"], group["error"], group["message"])
        if (known := self._groups.get(key)) is None:
            self._groups[key] = group
            return
        samples = sorted(
            [*known["samples"], *group["samples"]], key=lambda sample: (sample["shard"], sample["task"])
        )
        self._groups[key] = known | {"count": known["count"] + group["count"], "samples": samples[:SAMPLES]}

    def _cut(self, most: int, coarser: Callable[[dict[str, Any]], dict[str, Any]]) -> Digest:
        """With the largest groups as they are, and the others put together as they are when made coarser."""
        groups = self._sorted()
        return Digest([*groups[:most], *map(coarser, groups[most:])])

    def _sorted(self) -> list[dict[str, Any]]:
        return sorted(
            self._groups.values(),
            key=lambda group: (-group["count"], group["outcome"], group["error"], group["message"]),
        )
