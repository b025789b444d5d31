"""Ends a process that the code of a kind has damaged, before it can harm the objects of this job or of a later one.

A process serves many jobs. Code that replaces functions of `json`, empties the environment or closes the standard
streams would spoil all of them; ended, the process counts as crashed, and the search for the task that did it begins.
It is a guard against accidents: code that means harm has the worker's role anyway.
"""

import builtins
import hashlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import boto3
from botocore.client import BaseClient
from botocore.httpsession import URLLib3Session

from fan_out.model.kind import FAULTS, Job
from fan_out.model.task import Row, Task

# What the worker's objects are made and stored with, as it is before any kind is imported.
# protection: modules-are-compared
_MODULES = (builtins, hashlib, json, json.encoder, json.decoder, os, random, threading, time, boto3)
# protection: the-sdk-is-compared
_CLASSES = (json.JSONEncoder, json.JSONDecoder, BaseClient, URLLib3Session)
# A test or a tracer may put its own exception hook there.
_ORIGINALS: list[tuple[str, Mapping[str, Any], dict[str, Any]]] = [
    (each.__name__, vars(each), {name: of for name, of in vars(each).items() if callable(of) and "hook" not in name})
    for each in (*_MODULES, *_CLASSES)
]
# protection: imports-find-the-same-modules
_ORIGINALS.append(("sys.modules", sys.modules, {module.__name__: module for module in _MODULES}))
_STREAMS = (0, 1, 2)
_exit = os._exit


class ProcessGuard:
    """Knows this process as it was when a call began."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._environment = dict(os.environ)
        self._streams = [*map(_stream, _STREAMS)]
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
        for owner, now, original in _ORIGINALS:
            for name, value in original.items():
                if now.get(name) is not value:
                    return f"{owner}.{name} is replaced"
        environment = os.environ
        for name, value in self._environment.items():
            if environment.get(name) != value:
                return f"the environment variable {name} is changed"
        if [*map(_stream, _STREAMS)] != self._streams:
            return "a standard stream is closed or replaced"
        if sys.getrecursionlimit() != self._limit:
            return "the recursion limit is changed"
        return None


def fingerprint(tasks: Sequence[Task | Row], job: Job[Any]) -> list[int]:
    """What differs when a kind has changed the tasks or the job that it is given."""
    return [*(hash(task) for task in tasks if type(task) is Task), *map(id, vars(job).values())]


def check_given(before: list[int], tasks: Sequence[Task | Row], job: Job[Any]) -> None:
    """End this process if they are changed: failures and the keys of effects are made of them."""
    # protection: what-a-kind-is-given-stays
    with suppress(*FAULTS):
        if fingerprint(tasks, job) == before:
            return
    _end("a task or the job that the kind was given is changed")


def end_fork(pid: int) -> None:
    """End this process if it is a child that a kind forked and let return: the parent does the work."""
    # protection: a-fork-does-not-return
    if os.getpid() != pid:
        _exit(0)


def _end(damage: str) -> NoReturn:
    # protection: a-process-without-streams-ends
    try:
        os.write(2, f"The kind's code has damaged its process, which ends: {damage}.\n".encode())
    finally:
        _exit(1)


def _stream(number: int) -> tuple[int, int] | None:
    """What is open there, or None."""
    with suppress(OSError):
        status = os.fstat(number)
        return status.st_dev, status.st_ino
    return None
