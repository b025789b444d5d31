"""Ends a process that the code of a kind has damaged, before it can harm the objects of this job or of a later one.

A process serves many jobs. Code that replaces functions of `json`, empties the environment or closes the standard
streams would spoil all of them; ended, the process counts as crashed, and the search for the task that did it begins.
It is a guard against accidents: code that means harm has the worker's role anyway.
"""

import builtins
import hashlib
import json
import os
import sys
from typing import Any, NoReturn

from botocore.client import BaseClient
from botocore.httpsession import URLLib3Session

# What the worker's objects are made and stored with, as it is before any kind is imported.
_OWNERS: tuple[Any, ...] = (
    builtins,
    hashlib,
    json,
    json.encoder,
    json.decoder,
    json.JSONEncoder,
    json.JSONDecoder,
    BaseClient,
    URLLib3Session,
)
_ORIGINALS = [(owner, dict(vars(owner))) for owner in _OWNERS]
_STREAMS = (0, 1, 2)
_exit = os._exit


class ProcessGuard:
    """Knows this process as it was when a call began."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._environment = dict(os.environ)
        self._streams = _streams()
        self._limit = sys.getrecursionlimit()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        """Check, whether the block raised or not."""
        self.check()

    def check(self) -> None:
        """Return if the process is as it was; else end it. Variables and modules may be added."""
        end_fork(self._pid)
        # protection: a-damaged-process-ends
        if (damage := self.damage()) is not None:
            _end(damage)

    def damage(self) -> str | None:
        """What is not as it was, or None."""
        for owner, original in _ORIGINALS:
            now = vars(owner)
            for name, value in original.items():
                if now.get(name) is not value:
                    return f"{owner.__name__}.{name} is replaced"
        environment = os.environ
        for name, value in self._environment.items():
            if environment.get(name) != value:
                return f"the environment variable {name} is changed"
        if _streams() != self._streams:
            return "a standard stream is closed or replaced"
        if sys.getrecursionlimit() != self._limit:
            return "the recursion limit is changed"
        return None


def end_fork(pid: int) -> None:
    """End this process if it is a child that a kind forked and let return: the parent does the work."""
    # protection: a-fork-does-not-return
    if os.getpid() != pid:
        _exit(0)


def _end(damage: str) -> NoReturn:
    os.write(2, f"The kind's code has damaged its process, which ends: {damage}.\n".encode())
    _exit(1)


def _streams() -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for stream in _STREAMS:
        try:
            status = os.fstat(stream)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found
