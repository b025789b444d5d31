"""What ministack 1.5.33 lacks or gets wrong, each gap closed in the module that names it.

A module closes its gap by putting functions of this project in the place of ministack's: each says above itself what
it `replaces`. That this is there is checked at the start of the server. `tests/contract/test_emulator_gaps.py` has a
test for each gap, so that an upgrade of ministack tells which ones have closed.
"""

import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, TypeVar

MINISTACK_VERSION = "1.5.33"
# The others are imported by these.
GAPS = "iam lambda_environments map_states retries secret_ref table_scan task_calls"

Make = TypeVar("Make", bound=Callable[..., Any])
_replacements: list[Callable[[], None]] = []


class IncompatibleMinistackError(Exception):
    """The installed ministack is not the one that the gaps were closed for."""


def close_all() -> None:
    """Close every gap; raises IncompatibleMinistackError if ministack is not the one that they were closed for."""
    installed = importlib.metadata.version("ministack")
    if installed != MINISTACK_VERSION:
        raise IncompatibleMinistackError(
            f"ministack {installed} is installed, but fanout/local/gaps is written for {MINISTACK_VERSION}."
        )
    for name in GAPS.split():
        importlib.import_module(f"{__name__}.{name}")
    for put in _replacements:
        put()


def replaces(module: ModuleType, name: str, *, wraps: bool = False) -> Callable[[Make], Make]:
    """The decorated function takes the place of `module.name` when the gaps are closed; see `replace`."""

    def mark(make: Make) -> Make:
        _replacements.append(functools.partial(replace, module, name, make, wraps=wraps))
        return make

    return mark


def replace(module: ModuleType, name: str, make: Callable[..., Any], *, wraps: bool = False) -> None:
    """Put `make` in the place of `module.name`; with `wraps`, `make` gets the original as first argument."""
    if not hasattr(module, name):
        raise IncompatibleMinistackError(
            f"ministack's {module.__name__} has no '{name}', which fanout/local/gaps replaces. "
            f"It is written for ministack {MINISTACK_VERSION}."
        )
    original = getattr(module, name)
    setattr(module, name, functools.partial(make, original) if wraps else make)


def rebound(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """The function, with other values for these names of its module."""
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__)
