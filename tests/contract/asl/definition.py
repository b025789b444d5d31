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
    """The text of a definition in its form.

    Members share a line up to WIDTH. A comment, a state, and what does not fit into a line begin one; a retrier
    is always one line.
    """
    return _layout(None, fields, "") + "\n"


def _layout(name: str | None, node: Any, indent: str) -> str:
    """A list or an object over several lines; `name` is the member that it is."""
    members = [(None, each) for each in node] if isinstance(node, list) else list(node.items())
    lines: list[str] = []
    is_open = False
    for number, (member, value) in enumerate(members):
        key = "" if member is None else f"{json.dumps(member)}: "
        comma = "" if number + 1 == len(members) else ","
        text = f"{indent}  {key}{json.dumps(value, ensure_ascii=False)}{comma}"
        is_large = member in ("States", "Retry") or (len(text) > WIDTH and name != "Retry")
        is_apart = member == "Comment" or name in ("States", "Retry")
        if isinstance(value, dict | list) and is_large:
            text = f"{indent}  {key}{_layout(member, value, indent + '  ')}{comma}"
            is_apart = True
        shared = f"{lines[-1]} {text.lstrip()}" if is_open else ""
        if is_open and not is_apart and len(shared) <= WIDTH:
            lines[-1] = shared
        else:
            lines.append(text)
            is_open = not is_apart
    start, end = "[]" if isinstance(node, list) else "{}"
    return "\n".join([start, *lines, indent + end])


if __name__ == "__main__":
    FILE.write_text(write(read(FILE.read_text()).fields))
