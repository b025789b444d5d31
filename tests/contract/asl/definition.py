"""The state machine's definition: how it is read, written and walked through.

`python -m tests.contract.asl.definition` writes the file in its form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[3] / "statemachines/fan_out.asl.json"
WIDTH = 140

Fields = dict[str, Any]


@dataclass(frozen=True)
class Definition:
    """A state machine. State names are unique over the machine and its maps."""

    fields: Fields

    @property
    def machines(self) -> list[Fields]:
        """The machine and the machine within each map."""
        return list(_machines(self.fields))

    def states(self, *types: str) -> dict[str, Fields]:
        """All states by name, those within maps too; only of these types if any are given."""
        return {
            name: state
            for machine in self.machines
            for name, state in machine["States"].items()
            if not types or state["Type"] in types
        }


def read(text: str) -> Definition:
    """Parse a definition. Raises ValueError for what JSON forbids or a repeated name."""
    return Definition(json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse))


def _unique(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError(f"a name is repeated in {[name for name, _ in pairs]}")
    return fields


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _machines(machine: Fields) -> Iterator[Fields]:
    yield machine
    for state in machine["States"].values():
        if "ItemProcessor" in state:
            yield from _machines(state["ItemProcessor"])


def following(state: Fields) -> list[str]:
    """The states that may come next."""
    ways = [state[name] for name in ("Next", "Default") if name in state]
    return ways + [way["Next"] for way in [*state.get("Choices", []), *state.get("Catch", [])]]


def write(fields: Fields) -> str:
    """The text of a definition in its form: members share a line up to WIDTH, and each of these begins its own:
    a comment, a state, a retrier, and what does not fit into a line.
    """
    return _layout(fields, "") + "\n"


def _layout(node: Any, indent: str, *, is_divided: bool = False) -> str:
    if isinstance(node, list):
        members = [("", each) for each in node]
        start, end = "[", "]"
    else:
        members = [(f"{json.dumps(name)}: ", value) for name, value in node.items()]
        start, end = "{", "}"
    inner = indent + "  "
    lines: list[str] = []
    is_open = False
    for number, (name, value) in enumerate(members):
        comma = "," if number + 1 < len(members) else ""
        one = name + json.dumps(value, ensure_ascii=False) + comma
        is_apart = is_divided or name == '"Comment": '
        is_large = name in ('"Retry": ', '"States": ') or len(inner + one) > WIDTH
        if isinstance(value, dict | list) and is_large and not (is_divided and isinstance(node, list)):
            divides = name in ('"Retry": ', '"States": ')
            lines.append(inner + name + _layout(value, inner, is_divided=divides) + comma)
            is_open = False
        elif is_open and not is_apart and len(f"{lines[-1]} {one}") <= WIDTH:
            lines[-1] += " " + one
        else:
            lines.append(inner + one)
            is_open = not is_apart
    return "\n".join([start, *lines, indent + end])


if __name__ == "__main__":
    FILE.write_text(write(read(FILE.read_text()).fields))
