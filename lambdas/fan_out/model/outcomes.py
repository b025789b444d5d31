"""Outcomes and their tally: counts, failures, and the digest that groups the failures of a job."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

# A failure's message is for people; a kind may put anything into it.
LONGEST_MESSAGE = 500
# The digest keeps the largest GROUPS groups. The others are merged by error name and, beyond as many again, by outcome.
GROUPS = 200
SAMPLES = 3

_IDS = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b[0-9a-fA-F]{16,}\b")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_NUMBERS = re.compile(r"\d+(?:[.:,_/-]\d+)*")


# A number of tasks or shards, as it is read from an object.
Count = Annotated[int, Field(strict=True, ge=0)]


@dataclass
class Counts:
    """How many tasks had which outcome."""

    succeeded: Count = 0
    failed: Count = 0
    quarantined: Count = 0
    unprocessed: Count = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: count + getattr(other, name) for name, count in vars(self).items()})

    @property
    def not_succeeded(self) -> int:
        return self.failed + self.quarantined + self.unprocessed

    @property
    def total(self) -> int:
        return self.succeeded + self.not_succeeded


def exceeds(count: int, percentage: float, total: int) -> bool:
    """Whether `count` of `total` is more than this percentage. The percentage is decimal: 2.3 is no binary fraction."""
    return count * 100 > Fraction(str(percentage)) * total


def failure(
    task: dict[str, Any], outcome: str, name: str, message: str, *, shard: int, attempts: int
) -> dict[str, Any]:
    """A line of `failures.jsonl`."""
    text = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
    return {
        "task": task,
        "outcome": outcome,
        "error": {"name": name[:100], "message": text},
        "shard": shard,
        "attempts": attempts,
    }


class Sample(TypedDict):
    """One of the failures of a group."""

    task: str
    message: str
    shard: Count


class Group(TypedDict):
    """Failures of one outcome, error name and normalised message: how many, and the first few of them."""

    outcome: str
    error: str
    message: str
    count: Count
    samples: list[Sample]


def normalise(message: str) -> str:
    """A message without what differs from task to task, so that failures of one cause group together."""
    text = _IDS.sub("<id>", message)
    text = _QUOTED.sub("<text>", text)
    return _NUMBERS.sub("<n>", text)[:200]


class Digest:
    """Failures in groups: those of a shard, or the merged groups of a node's children."""

    def __init__(self, groups: Iterable[Group] = ()):
        self._groups: dict[tuple[str, str, str], Group] = {}
        for group in groups:
            self._put(group)

    def add(self, entry: dict[str, Any]) -> None:
        task, name, message = entry["task"], entry["error"]["name"], entry["error"]["message"]
        task_id = f"row-{task['row']}" if "row" in task else task["id"]
        sample = Sample(task=task_id, message=message, shard=entry["shard"])
        self._put(Group(outcome=entry["outcome"], error=name, message=normalise(message), count=1, samples=[sample]))

    def to_json(self) -> list[Group]:
        """The groups, the largest first, at most about 2 * GROUPS."""
        few = self._cut(GROUPS, lambda group: {**group, "message": "…"})
        return few._cut(2 * GROUPS, lambda group: {**group, "message": "…", "error": "…"})._sort()

    def _put(self, group: Group) -> None:
        key = (group["outcome"], group["error"], group["message"])
        if (known := self._groups.get(key)) is None:
            self._groups[key] = group
            return
        samples = sorted([*known["samples"], *group["samples"]], key=lambda sample: (sample["shard"], sample["task"]))
        count = known["count"] + group["count"]
        self._groups[key] = {**known, "count": count, "samples": samples[:SAMPLES]}

    def _cut(self, most: int, coarsen: Callable[[Group], Group]) -> "Digest":
        """The largest groups as they are, the others merged after `coarsen`."""
        groups = self._sort()
        return Digest([*groups[:most], *map(coarsen, groups[most:])])

    def _sort(self) -> list[Group]:
        return sorted(
            self._groups.values(),
            key=lambda group: (-group["count"], group["outcome"], group["error"], group["message"]),
        )
