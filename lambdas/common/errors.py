"""Errors that a caller of either service may see.

The class alone decides the HTTP status and whether a retry makes sense; its name is a public contract, because
the REST API shows it and Lambda reports it to whoever invoked a function. Every message is a sentence for a user:
which field, which value, what is allowed. Messages never hold stack traces, AWS messages or other users' data.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

SHOWN_CHARACTERS: Final = 100
_SAFE_INTEGER: Final = 2**53
MISSING: Final = object()
"""The value of a field that was not given at all, which differs from null."""


def shown(value: object) -> str:
    """A value as a sentence shows it: JSON of at most 100 characters, always valid UTF-8."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        text = "a value that is nested too deep or too long"
    return printable(text)


def printable(text: str) -> str:
    """A text from outside as an answer may repeat it: at most 100 characters, always valid UTF-8."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request: which field, its value, and what is allowed."""

    field: str
    value: object
    allowed: str
    is_known: bool = True

    @property
    def message(self) -> str:
        given = "missing" if self.value is MISSING else shown(self.value)
        unknown = "" if self.is_known else "there is no such field; a field "
        return f"{printable(self.field)} is {given}, but {unknown}must be {self.allowed}."

    def to_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = {"field": printable(self.field)}
        if self.value is not MISSING:
            answer["value"] = _echo(self.value)
        return answer | {"allowed": self.allowed}


def unknown_field(field: str, value: object, known: Iterable[str]) -> Fault:
    """The fault of a field that does not exist."""
    names = ", ".join(known)
    return Fault(field, value, f"one of {names}" if names else "left out: there are none", is_known=False)


class Faults(list[Fault]):
    """What is wrong with a request, collected to be said at once."""

    def check(self, is_right: bool, field: str, value: object, allowed: str) -> None:
        if not is_right:
            self.append(Fault(field, value, allowed))

    def check_names(self, given: Mapping[Any, object], known: Sequence[str], prefix: str = "") -> None:
        self += [unknown_field(f"{prefix}{name}", given[name], known) for name in given if name not in known]

    def check_whole(self, field: str, value: object, lowest: int, highest: int) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
        self.check(is_whole, field, value, f"a whole number from {lowest:,} to {highest:,}")

    def read_whole(self, field: str, text: str, lowest: int, highest: int) -> int:
        """The number of a text in a query; `lowest` if it is none."""
        # int() alone would read " 5 ", "1_0" and "٣", too.
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else text
        self.check_whole(field, value, lowest, highest)
        return value if isinstance(value, int) else lowest

    def raise_any(self) -> None:
        """Raise InvalidRequestError unless nothing is wrong."""
        if self:
            raise InvalidRequestError(self)


def _echo(value: object) -> object:
    """The value itself where JSON carries it exactly in few bytes, else the text that the sentence shows."""
    if value is None or (isinstance(value, int) and abs(value) < _SAFE_INTEGER):
        return value
    return printable(value) if isinstance(value, str) else shown(value)


class ServiceError(Exception):
    """The root of all errors that a caller may see."""

    status: ClassVar[int] = 500
    faults: tuple[Fault, ...] = ()

    @property
    def name(self) -> str:
        return type(self).__name__


class FaultyError(ServiceError):
    """Some fields of a request are wrong. The message has a sentence for each fault."""

    status = 400

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(" ".join(fault.message for fault in faults))
        self.faults = tuple(faults)


class InvalidRequestError(FaultyError):
    """The request itself is wrong: query, path, event, or a body that is no JSON object."""
