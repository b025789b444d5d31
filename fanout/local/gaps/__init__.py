"""What ministack 1.5.33 lacks or gets wrong, each gap closed in the module that names it.

A module closes its gap by putting functions of this project in the place of ministack's: `close()`. That what it
replaces is there is checked at the start of the server. `tests/contract/test_emulator_gaps.py` has a test for each
gap, so that an upgrade of ministack tells which ones have closed.
"""

import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

MINISTACK_VERSION = "1.5.33"

GAPS = (
    "map_states",
    "executions",
    "execution_history",
    "payload_limit",
    "error_names",
    "start_and_stop",
    "retries",
    "paths",
    "lambda_environments",
    "table_scan",
    "iam",
    "secret_ref",
)


class IncompatibleMinistackError(Exception):
    """The installed ministack is not the one that the gaps were closed for."""


def close_all() -> None:
    """Close every gap; raises IncompatibleMinistackError if ministack is not the one that they were closed for."""
    installed = importlib.metadata.version("ministack")
    if installed != MINISTACK_VERSION:
        raise IncompatibleMinistackError(
            f"ministack {installed} is installed, but fanout/local/gaps is written for {MINISTACK_VERSION}."
        )
    for name in GAPS:
        importlib.import_module(f"{__name__}.{name}").close()


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
