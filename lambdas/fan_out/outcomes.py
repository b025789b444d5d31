"""Outcomes and their account: counts, failures, and the digest that groups the failures of a job."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# A failure's message is for people; a kind may put anything into it.
LONGEST_MESSAGE = 500
# The digest keeps so many groups apart; whatever comes on top of them is grouped by its error name alone,
# and by its outcome alone once there are as many again.
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
    """Failures grouped by outcome, error name and normalised message: how many, and the first few of each."""

    def __init__(self, groups: list[dict[str, Any]] | None = None):
        self._groups: dict[tuple[str, str, str], dict[str, Any]] = {}
        for group in groups or []:
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

    def merge(self, other: Digest) -> None:
        for group in other.to_json():
            self._put(group)

    def _put(self, group: dict[str, Any]) -> None:
        key = (group["outcome"], group["error"], group["message"])
        if key not in self._groups and len(self._groups) >= GROUPS:
            key = (group["outcome"], group["error"], "…")
            if key not in self._groups and len(self._groups) >= 2 * GROUPS:
                key = (group["outcome"], "…", "…")
        if (known := self._groups.get(key)) is None:
            self._groups[key] = group | {"error": key[1], "message": key[2]}
            return
        samples = sorted(
            [*known["samples"], *group["samples"]], key=lambda sample: (sample["shard"], sample["task"])
        )
        self._groups[key] = known | {"count": known["count"] + group["count"], "samples": samples[:SAMPLES]}

    def to_json(self) -> list[dict[str, Any]]:
        """The groups, the largest first."""
        return sorted(
            self._groups.values(),
            key=lambda group: (-group["count"], group["outcome"], group["error"], group["message"]),
        )
