"""Names of tests can be read in a list of failures."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LONGEST = 60


def test_names_of_tests_have_at_most_60_characters() -> None:
    long = [
        f"{path.relative_to(TESTS)}:{node.lineno} {len(node.name)} {node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > LONGEST
    ]
    assert not long, "\n".join([f"{len(long)} names are too long:", *long])
