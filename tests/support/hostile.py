"""The catalogue of hostile kinds: which method does what, and what must become of its job."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.kinds import hostile as script
from tests.support.kinds.hostile import METHODS, OF_A_TASK, Deed

# The kind that jobs find is this module, too.
sys.modules["kinds.hostile"] = script

# Tasks of a job, and the numbers of those at which a method of one task acts.
COUNT = 6
BAD = frozenset({1})

# What becomes of a job: nothing; its bad tasks fail, or are quarantined; it has no result; no shard can be finished; it
# is refused with a sentence; its planner dies and nothing is listed.
USUAL, FAIL, QUARANTINED, NO_RESULT, UNPROCESSED, REFUSED, NOT_PLANNED = (
    "usual",
    "fail",
    "quarantined",
    "no result",
    "unprocessed",
    "refused",
    "not planned",
)
BY_FAULT = dict.fromkeys(OF_A_TASK, FAIL) | {
    "merge": NO_RESULT,
    "summary": NO_RESULT,
    "reduction": NO_RESULT,
    "zero": UNPROCESSED,
    "filter": REFUSED,
}
BY_DEATH = BY_FAULT | dict.fromkeys(OF_A_TASK, QUARANTINED) | {"filter": NOT_PLANNED}


@dataclass(frozen=True)
class Case:
    """One way: a method's deed, and what becomes of its job; None if only the tally is sure."""

    method: str
    deed: str
    outcome: str | None

    def __str__(self) -> str:
        return f"{self.method}: {self.deed}"

    @property
    def act(self) -> dict[str, Any]:
        return {"method": self.method, "deed": self.deed, "tasks": sorted(BAD) if self.method in OF_A_TASK else []}


def _cases(
    deeds: Mapping[str, Deed], outcomes: Mapping[str, str] | str | None, *methods: str, without: str = ""
) -> Iterable[Case]:
    for method in methods or METHODS:
        for deed in deeds:
            if f"{method}: {deed}" not in without.split("\n"):
                outcome = outcomes[method] if isinstance(outcomes, Mapping) else outcomes
                yield Case(method, deed, outcome)


def _every_case() -> Iterable[Case]:
    yield from _cases(script.RAISES, BY_FAULT)
    yield from _cases(script.INTERRUPTS, BY_DEATH | dict.fromkeys((*OF_A_TASK, "filter"), FAIL) | {"filter": REFUSED})
    yield from _cases(script.ODDITIES, BY_DEATH)
    yield from _cases(script.PLAIN, USUAL, "process", "fold", "merge", "zero", "reduction")
    yield from _cases(script.PLAIN, FAIL, "process_many", "line", without="process_many: a list of lists\nline: None")
    yield Case("line", "None", USUAL)
    yield from _cases(script.PLAIN, NO_RESULT, "summary", without="summary: an empty object")
    yield from _cases(script.PLAIN, REFUSED, "filter", without="filter: an empty object")
    yield from _cases(
        script.ODD_VALUES,
        BY_FAULT,
        *("process", "process_many", "fold", "line", "merge", "summary", "zero", "filter"),
        without="line: a generator\nmerge: keys of numbers\nsummary: keys of numbers",
    )
    yield from _cases(script.FAILURES, FAIL, "process", "fold", "line")
    yield from _cases(script.ANSWERS, FAIL, "process_many")
    yield from _cases(script.GOOD_ANSWERS, USUAL, "process_many")
    yield from _cases(script.LINES, FAIL, "line")
    yield from _cases(script.GOOD_LINES, USUAL, "line")
    yield from _cases(script.RESULTS, USUAL, "summary")
    yield from _cases(script.FILTERS, REFUSED, "filter")
    yield from _cases(script.CHANGES, USUAL, *OF_A_TASK, "merge", "summary")
    yield from _cases(script.FROZEN, QUARANTINED, *OF_A_TASK)
    yield from (Case(method, "change the job", USUAL) for method in ("merge", "summary"))
    yield from _cases(script.OF_LISTS, USUAL, "process_many")
    yield Case("fold", "spoil the partial", FAIL)
    yield Case("merge", "spoil the partial", NO_RESULT)
    yield Case("fold", "keep the partial", USUAL)
    yield Case("zero", "keep the partial", USUAL)
    yield from _cases(script.DAMAGES, BY_DEATH)
    yield from _cases(script.PRANKS, USUAL)
    yield from _cases(script.KILLS, BY_DEATH)


CASES = list(_every_case())
# Those that would harm the tests' own process.
HARMS = [
    *_cases(script.HARMS, None, "process", "fold", "merge", "summary", "filter"),
]


def document(*acts: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """The input of a job of the kind with these acts."""
    return {
        "kind": "hostile",
        "params": {"acts": list(acts)},
        "shardSize": 3,
        "toleratedFailurePercentage": 100,
        **fields,
    }


def check_tally(record: Mapping[str, Any], failures: Iterable[Mapping[str, Any]], count: int = COUNT) -> None:
    """Every listed task has one outcome, each that did not succeed is named once, and what is missing is explained."""
    counts = record["counts"]
    assert counts["listed"] == sum(counts.values()) - counts["listed"], counts
    assert min(counts.values()) >= 0
    assert counts["listed"] in (0, count)
    failures = list(failures)
    outcomes = Counter(line["outcome"] for line in failures)
    assert {name: counts[name] for name in ("failed", "quarantined", "unprocessed")} == {
        name: outcomes[name] for name in ("failed", "quarantined", "unprocessed")
    }
    assert len({line["task"]["id"] for line in failures}) == len(failures)
    assert all(line["error"]["name"] and line["error"]["message"] for line in failures)
    error = record.get("error")
    assert (record["status"] == "FAILED") == (error is not None), record
    assert record["status"] == "FAILED" or (record["status"] == "PARTIAL") == bool(failures)
    assert error is None or (error["name"] and error["message"])


def check_outcome(
    case: Case, record: Mapping[str, Any], failures: Iterable[Mapping[str, Any]], bad: int = 1, count: int = COUNT
) -> None:
    """The job came to what the catalogue says."""
    failures = list(failures)
    check_tally(record, failures, count)
    counts = {name: number for name, number in record["counts"].items() if number and name != "listed"}
    said = (record["status"], counts, record.get("error", {}).get("name"))
    match case.outcome:
        case "usual":
            assert said == ("SUCCEEDED", {"succeeded": count}, None), record
        case "fail":
            assert said == ("PARTIAL", {"succeeded": count - bad, "failed": bad}, None), (record, failures)
        case "quarantined":
            assert said == ("PARTIAL", {"succeeded": count - bad, "quarantined": bad}, None), (record, failures)
        case "no result":
            assert said == ("FAILED", {"succeeded": count}, "KindFailedError"), record
            assert "result" not in record
        case "unprocessed":
            assert said == ("FAILED", {"unprocessed": count}, "ShardStuckError"), record
        case "refused":
            assert said == ("FAILED", {}, "InvalidJobError"), record
            assert "kind" in record["error"]["message"]
        case "not planned":
            assert said == ("FAILED", {}, "Runtime.ExitError"), record


Restore = Callable[[], None]


def parse_lines(body: bytes) -> list[Any]:
    return [json.loads(line) for line in body.splitlines()]
