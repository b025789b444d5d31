"""One run of the benchmark: its time, its tables, and fresh processes to measure in."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

ROOT = Path(__file__).resolve().parent.parent

# `smoke` only shows that a section works; the gate runs it.
Scale = Literal["smoke", "quick", "full"]
T = TypeVar("T")


class OutOfTimeError(Exception):
    """The run's time is over before all was measured."""


@dataclass(frozen=True)
class Run:
    """`ends` is when the run must be over, by the monotonic clock."""

    scale: Scale
    ends: float

    def size(self, *, smoke: T, quick: T, full: T) -> T:
        """The size that is measured at the run's scale."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.scale]

    def left(self) -> float:
        """Seconds that are left. Raises OutOfTimeError if there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise OutOfTimeError("as the time is over")
        return left

    def say(self, text: str) -> None:
        """Tell who waits what is being measured."""
        print(f"… {text}", file=sys.stderr, flush=True)

    @contextmanager
    def bounded(self, table: Table) -> Iterator[None]:
        """Say in the table what is missing if the time is over before all its rows are measured."""
        try:
            yield
        except OutOfTimeError as error:
            table.notes.append(f"The rest is not measured, {error}.")

    def in_fresh_process(self, module: str, argument: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
        """What `prepare(argument)()` of a module of this package measured in a process of its own: its answer,
        with `seconds`, `cpu` (seconds of CPU) and `peak` (MiB above what it had when prepared).

        The process is ended with the run, and when this one is interrupted.
        """
        command = [sys.executable, "-m", "bench.child", module, json.dumps(argument)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=self.left(),
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise OutOfTimeError(f"as {json.dumps(argument)} took the rest of the time") from None
        return json.loads(done.stdout)


@dataclass
class Table:
    """A table of plain text: numbers to the right, a ratio as a multiple."""

    title: str
    head: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: int | float | str) -> None:
        self.rows.append([shown(cell) for cell in cells])

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in [list(self.head), ["-" * width for width in widths], *self.rows]
        ]
        return "\n".join([self.title, *lines, *self.notes])


def shown(cell: int | float | str) -> str:
    match cell:
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return cell


def ratio(value: float, first: float) -> str:
    return f"{value / first:.2f}x" if first else "-"
