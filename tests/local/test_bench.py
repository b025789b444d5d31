"""Each section of the benchmark that needs no deployed stack runs, in its smallest form."""

from __future__ import annotations

import importlib
import time

import pytest

from bench.__main__ import SECTIONS
from bench.run import Run


@pytest.mark.parametrize("section", sorted(SECTIONS.keys() - {"flow"}))
def test_a_section_of_the_benchmark_runs(section: str) -> None:
    tables = list(importlib.import_module(f"bench.{section}").tables(Run("smoke", time.monotonic() + 100)))
    assert tables
    assert [len(table.rows) for table in tables] == [1] * len(tables)
    assert not [note for table in tables for note in table.notes]
