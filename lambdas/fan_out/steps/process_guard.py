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
from collections.abc import Sequence
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
# What others put in its place, too: a test, or a tracer.
_REPLACED = {"excepthook"}
_ORIGINALS: list[tuple[Any, dict[str, Any]]] = [
    (owner, {name: each for name, each in vars(owner).items() if callable(each) and name not in _REPLACED})
    for owner in (*_MODULES, *_CLASSES)
]
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
        for module in _MODULES:
            # protection: imports-find-the-same-modules
            if sys.modules.get(module.__name__) is not module:
                return f"the module {module.__name__} is replaced"
        environment = os.environ
        for name, value in self._environment.items():
            if environment.get(name) != value:
                return f"the environment variable {name} is changed"
        if _streams() != self._streams:
            return "a standard stream is closed or replaced"
        if sys.getrecursionlimit() != self._limit:
            return "the recursion limit is changed"
        return None


def fingerprint(tasks: Sequence[Task | Row], job: Job[Any]) -> list[int] | None:
    """What differs if a kind has changed the tasks or the job that it is given; None if that cannot be told."""
    try:
        return [*(hash(task) for task in tasks if type(task) is Task), *map(id, vars(job).values())]
    except FAULTS:
        return None


def check_given(before: list[int] | None, tasks: Sequence[Task | Row], job: Job[Any]) -> None:
    """End this process if the tasks or the job are changed: failures and the keys of effects are made of them."""
    # protection: what-a-kind-is-given-stays
    if fingerprint(tasks, job) != before:
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
