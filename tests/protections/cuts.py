"""Take a protection out of a source file: found by its tag in Python, by its path in a JSON file.

In Python a comment on a line of its own, `# protection: TAG`, stands right above the statement that it names:

    # protection: first-commit-counts
    client.put_object(Bucket=self.name, Key=key, Body=body, IfNoneMatch="*")

A tag is found by its name alone, so that the statement may be renamed, moved or reformatted.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TAG = re.compile(r"^\s*# protection: ([a-z0-9-]+)$")

# The same statement without its protection; several statements if it falls apart.
Change = Callable[[ast.stmt], ast.stmt | list[ast.stmt]]


def delete(_: ast.stmt) -> ast.stmt:
    """Nothing is done instead of the statement."""
    return ast.Pass()


def never(statement: ast.stmt) -> ast.stmt:
    """An `if` or `while` whose condition never holds."""
    return _conditioned(statement, "False")


def always(statement: ast.stmt) -> ast.stmt:
    """An `if` or `while` whose condition always holds."""
    return _conditioned(statement, "True")


def condition(code: str) -> Change:
    """An `if` or `while` with another condition."""
    return lambda statement: _conditioned(statement, code)


def value(code: str) -> Change:
    """An assignment or a `return` of another expression; `VALUE` in it is the original's."""

    def change(statement: ast.stmt) -> ast.stmt:
        if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.Expr):
            raise TypeError(f"a {type(statement).__name__} has no value")
        assert statement.value is not None
        statement.value = ast.parse(code.replace("VALUE", f"({ast.unparse(statement.value)})"), mode="eval").body
        return statement

    return change


def body(statement: ast.stmt) -> list[ast.stmt]:
    """The body of a `with`, without its context."""
    if not isinstance(statement, ast.With):
        raise TypeError(f"a {type(statement).__name__} has no context")
    return statement.body


def replace(code: str) -> Change:
    """Other statements."""
    return lambda _: ast.parse(code).body


def without_keyword(name: str) -> Change:
    """The statement with this keyword argument left out of each of its calls."""

    def change(statement: ast.stmt) -> ast.stmt:
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        if not any(keyword.arg == name for call in calls for keyword in call.keywords):
            raise TypeError(f"no call has the keyword {name}")
        for call in calls:
            call.keywords = [keyword for keyword in call.keywords if keyword.arg != name]
        return statement

    return change


def except_only(names: str) -> Change:
    """A `try` whose first handler catches only these exceptions."""

    def change(statement: ast.stmt) -> ast.stmt:
        if not isinstance(statement, ast.Try):
            raise TypeError(f"a {type(statement).__name__} catches nothing")
        statement.handlers[0].type = ast.parse(names, mode="eval").body
        return statement

    return change


def _conditioned(statement: ast.stmt, code: str) -> ast.stmt:
    if not isinstance(statement, ast.If | ast.While):
        raise TypeError(f"a {type(statement).__name__} has no condition")
    test = ast.parse(code, mode="eval").body
    # Names that the condition binds for the statement's body are still bound.
    if any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement.test)):
        operator = ast.Or() if code == "True" else ast.And()
        test = ast.BoolOp(operator, [statement.test, test])
    statement.test = test
    return statement


@dataclass(frozen=True, slots=True)
class Cut:
    """One change that takes a protection, or a part of it, away: the statement of a tag, changed."""

    tag: str
    change: Change

    def apply(self, text: str) -> str:
        """The file's text after the change. Raises LookupError if the tag is not there exactly once."""
        lines = text.splitlines()
        tagged = [number for number, line in enumerate(lines, 1) if _tag(line) == self.tag]
        if len(tagged) != 1:
            raise LookupError(f"the tag {self.tag} stands {len(tagged)} times in the file")
        (line,) = tagged
        # Tags and comments may stand one above the other.
        while lines[line].strip().startswith("#"):
            line += 1
        statement = _statement_at(ast.parse(text), line + 1)
        indent = " " * statement.col_offset
        assert statement.end_lineno is not None
        original = ast.dump(statement)
        changed = self.change(statement)
        left = changed if isinstance(changed, list) else [changed]
        if [ast.dump(each) for each in left] == [original]:
            raise LookupError(f"the change of {self.tag} changes nothing")
        code = ast.unparse(ast.fix_missing_locations(ast.Module(left, [])))
        # `elif` is an `if` of its own only behind an `else`, which the tag would have to split.
        new = [indent + each if each else each for each in code.splitlines()]
        return "\n".join([*lines[:line], *new, *lines[statement.end_lineno :]]) + "\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """Finds the one entry of a list whose field `name` is, or holds, `value`: wherever it stands."""

    name: str
    value: Any

    def position(self, entries: Any) -> int:
        found = [number for number, entry in enumerate(entries) if self.value in _listed(entry.get(self.name))]
        if len(found) != 1:
            raise LookupError(f"{len(found)} entries have {self.value} in {self.name}")
        return found[0]


@dataclass(frozen=True, slots=True)
class JsonCut:
    """A member of a JSON file, by its path, with another value; without one it is removed.

    A step of the path is a name, a position in a list, or an Entry of one.
    """

    path: tuple[str | int | Entry, ...]
    new: Any = None

    def apply(self, text: str) -> str:
        """The file's text after the change. Raises LookupError if the member is not there."""
        document = json.loads(text)
        owner: Any = document
        *before, last = self.path
        for step in before:
            owner = owner[step.position(owner) if isinstance(step, Entry) else step]
        member = last.position(owner) if isinstance(last, Entry) else last
        if owner[member] == self.new:
            raise LookupError(f"the change of {self.path} changes nothing")
        if self.new is None:
            del owner[member]
        else:
            owner[member] = self.new
        return json.dumps(document, indent=2)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tags(text: str) -> list[str]:
    """The tags of a Python file, in its order."""
    return [tag for line in text.splitlines() if (tag := _tag(line)) is not None]


def _tag(line: str) -> str | None:
    found = _TAG.match(line)
    return found[1] if found else None


def _statement_at(module: ast.Module, line: int) -> ast.stmt:
    for node in ast.walk(module):
        if isinstance(node, ast.stmt) and node.lineno == line:
            return node
    raise LookupError(f"no statement begins on line {line}")
