"""hostile: a kind of the tests whose methods raise, return, change, damage or kill what a job's script says.

A script acts in the first job of a chain only, so that a retry of it is a job without faults. The methods of one task
act on the tasks of these numbers, the others at every call; "reduction" is `zero` as the reducer calls it.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import contextlib
import ctypes
import gc
import hashlib
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any, ClassVar, NoReturn

from pydantic import BaseModel

from fan_out import JSON, Failure, Job, Kind, Params, RetryableError, Task, TaskError
from fan_out.errors import AccountingError, JobEndedError, ShardStuckError
from fan_out.model.kind import plain_json

OF_A_TASK = ("process", "process_many", "fold", "line")
OF_A_JOB = ("filter", "zero", "reduction", "merge", "summary")
METHODS = OF_A_TASK + OF_A_JOB


class Act(BaseModel):
    """What one method does, and for the methods of one task, at the tasks of which numbers."""

    method: str
    deed: str
    tasks: frozenset[int] = frozenset()


class Script(Params):
    # `zero` is told nothing of its job; the parameters are read right before it is called.
    latest: ClassVar[tuple[Act, ...]] = ()
    acts: tuple[Act, ...] = ()

    def model_post_init(self, _: Any) -> None:
        Script.latest = self.acts


@dataclass
class Call:
    """A call of a method: its arguments, and its usual answer."""

    arguments: tuple[Any, ...]
    usual: Callable[[], Any]


Deed = Callable[[Call], Any]

# --- raised


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class NoneTextError(Exception):
    __str__ = None  # type: ignore[assignment]


class BareTaskError(TaskError):
    def __init__(self) -> None:
        pass


class NoNameError(TaskError):
    @property
    def name(self) -> str:
        raise ValueError("no name")

    @name.setter
    def name(self, _: str) -> None:
        pass


class NoTextThrottleError(RetryableError):
    __str__ = NoTextError.__str__


class ExitInTextError(Exception):
    def __str__(self) -> str:
        raise SystemExit


class ExitError(SystemExit):
    pass


class CancelledError(asyncio.CancelledError):
    pass


class InterruptError(KeyboardInterrupt):
    pass


class EndOfGeneratorError(GeneratorExit):
    pass


class OddError(BaseException):
    """Neither an Exception nor one of those that end a program."""


class OddGroupError(BaseExceptionGroup[BaseException]):
    pass


# What the in-process machine takes for the end of the process, as Lambda's runtime does.
ODD = (ExitError, CancelledError, InterruptError, EndOfGeneratorError, OddError, OddGroupError)


WITHOUT_TEXT = (NoTextError, NoneTextError, NoTextThrottleError, ExitInTextError)


class NoText:
    def __str__(self) -> str:
        raise NoTextError

    def __bool__(self) -> bool:
        raise NoTextError

    def __eq__(self, other: object) -> bool:
        raise NoTextError

    __hash__ = None  # type: ignore[assignment]


class NoClass:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise NoTextError


class DictOfNoItems(dict[str, Any]):
    def items(self) -> Any:
        raise NoTextError


def recurse() -> None:
    recurse()


def raising(make: Callable[[], BaseException]) -> Deed:
    def deed(_: Call) -> NoReturn:
        raise make()

    return deed


def odd(value: Any) -> Any:
    return value


RAISES: dict[str, Deed] = {
    "nothing said": raising(ValueError),
    "no text": raising(NoTextError),
    "text is None": raising(NoneTextError),
    "text exits": raising(ExitInTextError),
    "bare TaskError": raising(BareTaskError),
    "TaskError without a name": raising(lambda: NoNameError("a", "b")),
    "objects for texts": raising(lambda: TaskError(odd(NoText()), odd(NoText()))),
    "JSON for texts": raising(lambda: TaskError(odd({"a": 1}), odd(["b"]))),
    "lone surrogates": raising(lambda: TaskError("Lone\ud800", "\ud800")),
    "long text": raising(lambda: ValueError("long " * 100_000)),
    "throttle without a text": raising(NoTextThrottleError),
    "memory": raising(MemoryError),
    "recursion": lambda _: recurse(),
    "end of an iterator": raising(StopIteration),
    "cancelled": raising(CancelledError),
    "exit 0": raising(lambda: ExitError(0)),
    "exit with an object": raising(lambda: ExitError(NoText())),
    "group": raising(lambda: ExceptionGroup("many", [NoTextError()])),
    "group of itself": raising(lambda: ExceptionGroup("more", [ExceptionGroup("many", [ValueError()])])),
    "a lost object": raising(lambda: AccountingError("no object is lost")),
    "a stuck shard": raising(lambda: ShardStuckError("no shard is stuck")),
    "an ended job": raising(lambda: JobEndedError("no job has ended")),
}
# An error that ends the process of one function and is caught by another.
INTERRUPTS: dict[str, Deed] = {
    "interrupt": raising(InterruptError),
    "end of a generator": raising(EndOfGeneratorError),
}
ODDITIES: dict[str, Deed] = {
    "odd": raising(OddError),
    "odd group": raising(lambda: OddGroupError("odd", [OddError()])),
}

# --- given back


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


# These come back from JSON as they were.
PLAIN: dict[str, Deed] = {
    "None": lambda _: None,
    "a text": lambda _: "text",
    "a number": lambda _: 7,
    "true": lambda _: True,
    "an empty object": lambda _: {},
    "an empty list": lambda _: [],
    "a list of lists": lambda _: nested(50),
    "a huge text": lambda _: "x" * 300_000,
    "a large number": lambda _: 10**1000,
    "a text of controls": lambda _: "\x00\x01\u2028\r\n",
}
# JSON cannot hold these, or gives them back as others.
ODD_VALUES: dict[str, Deed] = {
    "not a number": lambda _: float("nan"),
    "infinity": lambda _: -float("inf"),
    "too large a number": lambda _: 10**5000,
    "a set": lambda _: {1, 2},
    "bytes": lambda _: b"bytes",
    "an object": lambda _: object(),
    "a class": lambda _: dict,
    "a lone surrogate": lambda _: "\ud800",
    "nested deep": lambda _: nested(900),
    "nested deeper": lambda _: nested(100_000),
    "in itself": lambda _: cyclic(),
    "a generator": lambda _: (each for each in "ab"),
    "keys of numbers": lambda _: {1: 2},
    "keys of objects": lambda _: {(1, 2): 3},
    "a decimal": lambda _: Decimal(1),
    "an exception": lambda _: ValueError("returned"),
    "an object without a text": lambda _: NoText(),
    "an object without a class": lambda _: NoClass(),
    "an object of no items": lambda _: DictOfNoItems(a=1),
}
FAILURES: dict[str, Deed] = {
    "failure of objects": lambda _: Failure(odd(NoText()), odd(NoText())),
    "failure of numbers": lambda _: Failure(odd(1), odd(None)),
    "failure with an object": lambda _: Failure("A", "b", retry=odd(NoText())),
    "failure of surrogates": lambda _: Failure("\ud800", "\udfff"),
}
ANSWERS: dict[str, Deed] = {
    "too few answers": lambda call: call.usual()[:-1],
    "too many answers": lambda call: [*call.usual(), 1],
    "answers in a generator": lambda call: (each for each in call.usual()),
    "answers in a text": lambda call: "x" * len(call.arguments[0]),
    "answers by id": lambda call: {task.id: 1 for task in call.arguments[0]},
}
GOOD_ANSWERS: dict[str, Deed] = {
    "answers in a tuple": lambda call: tuple(call.usual()),
}
LINES: dict[str, Deed] = {
    "a key that is no text": lambda _: (7, {}),
    "a key with a tab": lambda _: ("a\tb", {}),
    "a key with a line break": lambda _: ("a\nb", {}),
    "a key of a surrogate": lambda _: ("\ud800", {}),
    "a line of an object": lambda _: ("a", object()),
    "a line of a set": lambda _: ("a", {1}),
    "a line of NaN": lambda _: ("a", float("nan")),
    "a line of three": lambda _: ("a", "b", "c"),
    "a line of two megabytes": lambda _: ("a", "x" * (2 << 20)),
    "a line nested deeper": lambda _: ("a", nested(100_000)),
}
GOOD_LINES: dict[str, Deed] = {
    "a line's key again": lambda _: ("again", {}),
    "an empty key": lambda _: ("", {}),
    "a line in a list": lambda _: ["listed", {}],
}
RESULTS: dict[str, Deed] = {
    "a large result": lambda _: {"large": "x" * 100_000},
    "a result of number keys": lambda _: {1: 2},
}
FILTERS: dict[str, Deed] = {
    "an unknown field": lambda _: {"colour": "red"},
    "no truth": lambda _: {"isComplete": "perhaps"},
    "no time": lambda _: {"dueBefore": "yesterday"},
    "an odd time": lambda _: {"dueAfter": NoText()},
}

# --- changed


def first(call: Call, kind: type) -> Any:
    return next((each for each in call.arguments if isinstance(each, kind)), None)


def forget_arguments(call: Call) -> Any:
    usual = call.usual()
    for each in call.arguments:
        if isinstance(each, dict | list):
            each.clear()
    return usual


def turn_tasks(call: Call) -> Any:
    usual = call.usual()
    call.arguments[0].reverse()
    return usual


def more_tasks(call: Call) -> Any:
    usual = call.usual()
    call.arguments[0].extend(call.arguments[0] * 3)
    return usual


def spoil_partial(call: Call) -> NoReturn:
    for each in call.arguments:
        if isinstance(each, dict):
            each["tasks"] = object()
    raise ValueError("after a change")


def change_job(call: Call) -> Any:
    usual, job = call.usual(), first(call, Job)
    # Still the first of its chain, as far as acts go.
    for name, value in (("id", "another"), ("effect_scope", "another@now"), ("started_at", ""), ("write", None)):
        object.__setattr__(job, name, value)
    return usual


def change_task(call: Call) -> Any:
    usual, task = call.usual(), first(call, Task) or call.arguments[0][0]
    object.__setattr__(task, "id", "another")
    return usual


def spoil_task(call: Call) -> Any:
    usual, task = call.usual(), first(call, Task) or call.arguments[0][0]
    object.__setattr__(task, "title", [NoText()])
    return usual


def keep_partial(call: Call) -> Any:
    """An answer that is changed later on."""
    KIND.kept.append(call.usual())
    for each in KIND.kept:
        if isinstance(each, dict):
            each["kept"] = len(KIND.kept)
    return KIND.kept[-1]


CHANGES: dict[str, Deed] = {"forget the arguments": forget_arguments}
# What is frozen, so that the process is damaged.
FROZEN: dict[str, Deed] = {"change the job": change_job, "change the task": change_task, "spoil the task": spoil_task}
OF_LISTS: dict[str, Deed] = {"turn the tasks": turn_tasks, "more tasks": more_tasks}

# --- damaged


def damaging(damage: Callable[[], object]) -> Deed:
    def deed(call: Call) -> Any:
        damage()
        return call.usual()

    return deed


def no(*_: Any, **__: Any) -> NoReturn:
    raise OSError("patched")


def close(*streams: int) -> None:
    for stream in streams:
        with contextlib.suppress(OSError):
            os.close(stream)


def put_instead(stream: int) -> None:
    other = os.open(os.devnull, os.O_RDWR)
    os.dup2(other, stream)
    os.close(other)


def start_thread(target: Callable[[], object]) -> None:
    threading.Thread(target=target, daemon=True).start()


def fork(child: Callable[[], object]) -> None:
    if os.fork() == 0:
        child()


def fork_in_c(child: Callable[[], object]) -> None:
    """Without Python's own hooks: the child holds the runtime's channel."""
    if ctypes.CDLL(None).fork() == 0:
        child()


def answer_for_the_runtime() -> None:
    """An answer of no call on every Unix socket of the process."""
    for number in range(3, 256):
        with contextlib.suppress(OSError):
            found = socket.socket(fileno=os.dup(number))
            if found.family == socket.AF_UNIX:
                found.sendall(b'another-id {"result": "stale"}\n')


def sleep_and_exit() -> NoReturn:
    time.sleep(3)
    os._exit(0)


def patch(owner: Any, name: str, value: Any = no) -> None:
    setattr(owner, name, value)


def patch_sdk() -> None:
    from botocore.client import BaseClient

    patch(BaseClient, "_make_api_call")


def patch_transport() -> None:
    from botocore.httpsession import URLLib3Session

    patch(URLLib3Session, "send")


def patch_boto3() -> None:
    import boto3

    patch(boto3, "client")


def forget_modules() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("json", "hashlib", "kinds", "boto3"):
            del sys.modules[name]


def collect_everything() -> None:
    for each in gc.get_objects():
        if type(each).__name__ == "Progress":
            each.counts.succeeded = 1000


# The guard sees these: the process ends itself.
DAMAGES: dict[str, Deed] = {
    "empty the environment": damaging(os.environ.clear),
    "change a variable": damaging(lambda: os.environ.update(AWS_DEFAULT_REGION="nowhere")),
    "patch json.dumps": damaging(lambda: patch(json, "dumps", lambda *_, **__: "{}")),
    "patch json.loads": damaging(lambda: patch(json, "loads", lambda *_, **__: {})),
    "patch the encoder": damaging(lambda: patch(json.JSONEncoder, "default", lambda self, value: str(value))),
    "patch sorted": damaging(lambda: patch(builtins, "sorted", lambda items, **_: list(items))),
    "patch open": damaging(lambda: patch(builtins, "open")),
    "patch sha256": damaging(lambda: patch(hashlib, "sha256", hashlib.sha512)),
    "patch time.time": damaging(lambda: patch(time, "time", lambda: 0.0)),
    "patch time.monotonic": damaging(lambda: patch(time, "monotonic", lambda: 0.0)),
    "patch time.sleep": damaging(lambda: patch(time, "sleep")),
    "no randomness": damaging(lambda: patch(random, "random", lambda: 0.0)),
    "no threads": damaging(lambda: patch(threading, "Thread")),
    "patch boto3.client": damaging(patch_boto3),
    "forget modules": damaging(forget_modules),
    "another json": damaging(lambda: sys.modules.update(json=ModuleType("json"))),
    "lower the recursion limit": damaging(lambda: sys.setrecursionlimit(sys.getrecursionlimit() - 1)),
    "raise the recursion limit": damaging(lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 50)),
}
# They harm nothing that a later call needs.
PRANKS: dict[str, Deed] = {
    "wait": damaging(lambda: time.sleep(0.1)),
    "change the directory": damaging(lambda: os.chdir("/")),
    "add a variable": damaging(lambda: os.environ.update(ADDED_BY_A_KIND="1")),
    "leave a thread": damaging(lambda: start_thread(lambda: time.sleep(0.2))),
    "register an exit": damaging(lambda: atexit.register(str)),
    "ignore signals": damaging(lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)),
    "no garbage collection": damaging(gc.disable),
    "write to stdout": damaging(lambda: print("{}" * 10_000)),  # noqa: T201
    "write to stderr": damaging(lambda: print("\x00\ud7ff", file=sys.stderr)),  # noqa: T201
    "no stdout": damaging(lambda: patch(sys, "stdout", None)),
    "no logging": damaging(lambda: logging.disable(logging.CRITICAL)),
    "seed the random": damaging(lambda: random.seed(1)),
}
# Too much for a process that others need, such as that of tests.
HARMS: dict[str, Deed] = {
    "close stdout": damaging(lambda: close(1)),
    "close the streams": damaging(lambda: close(0, 1, 2)),
    "shut stdout": damaging(lambda: sys.stdout.close()),
    "replace stdout": damaging(lambda: put_instead(1)),
    "close all descriptors": damaging(lambda: os.closerange(3, 1024)),
    "fork and return": damaging(lambda: fork(lambda: None)),
    "fork and sleep": damaging(lambda: fork(sleep_and_exit)),
    "fork and raise": damaging(lambda: fork(no)),
    "fork and exit": damaging(lambda: fork(sys.exit)),
    "fork in C and sleep": damaging(lambda: fork_in_c(sleep_and_exit)),
    "answer for the runtime": damaging(answer_for_the_runtime),
    "patch the SDK": damaging(patch_sdk),
    "patch the SDK's transport": damaging(patch_transport),
    "an alarm": damaging(lambda: signal.alarm(1)),
    "exit in a thread": damaging(lambda: start_thread(sys.exit)),
    "raise in a thread": damaging(lambda: start_thread(no)),
    "hold many descriptors": damaging(lambda: KIND.kept.extend(os.dup(2) for _ in range(200))),
    "count 1000": damaging(collect_everything),
}

# --- killed


def die(way: str) -> NoReturn:
    """End this process. A test in one process exchanges it."""
    if way == "segmentation fault":
        ctypes.string_at(0)
    elif way == "abort":
        os.abort()
    elif way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    os._exit(0 if way == "exit well" else 1)


def dying(way: str) -> Deed:
    return lambda _: die(way)


KILLS: dict[str, Deed] = {
    way: dying(way) for way in ("exit well", "exit", "kill", "terminate", "segmentation fault", "abort")
}

DEEDS: dict[str, Deed] = (
    RAISES
    | INTERRUPTS
    | ODDITIES
    | PLAIN
    | ODD_VALUES
    | FAILURES
    | ANSWERS
    | GOOD_ANSWERS
    | LINES
    | GOOD_LINES
    | FILTERS
    | RESULTS
    | CHANGES
    | FROZEN
    | OF_LISTS
    | {"spoil the partial": spoil_partial, "keep the partial": keep_partial}
    | DAMAGES
    | PRANKS
    | HARMS
    | KILLS
)


def number_of(task: Task) -> int:
    return int(task.id.rpartition("-")[2])


class Hostile(Kind[Script, Task]):
    """Without acts: counts tasks."""

    name = "hostile"
    params = Script
    lines_file = "hostile.jsonl"
    batch = 3

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def filter(self, params: Script, started_at: str) -> Any:
        return self._act("filter", None, (), (params, started_at), dict, params)

    def process_many(self, tasks: Sequence[Task], job: Job[Script]) -> Any:
        def usual() -> Any:
            return super(Hostile, self).process_many(list(tasks), job)

        return self._act("process_many", job, tasks, (tasks, job), usual)

    def process(self, task: Task, job: Job[Script]) -> JSON:
        return self._act("process", job, [task], (task, job), lambda: number_of(task))

    def zero(self) -> JSON:
        caller = sys._getframe(1).f_globals["__name__"]
        method = {"fan_out.steps.kind_merger": "reduction", "fan_out.steps.folding": "zero"}.get(caller, "rules")
        return self._act(method, None, (), (), lambda: {"tasks": 0})

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[Script]) -> JSON:
        def usual() -> Any:
            before = partial
            if not isinstance(partial, dict):
                # An odd answer of an earlier call: such that JSON cannot hold are not folded on.
                plain_json(partial)
                before = {}
            before["tasks"] = _whole(before.get("tasks")) + 1
            if type(result) is not int or result > 10**9:
                before["odd"] = result
            return before

        return self._act("fold", job, [task], (partial, task, result, job), usual)

    def merge(self, left: JSON, right: JSON, job: Job[Script]) -> JSON:
        def usual() -> Any:
            return {"tasks": sum(_whole(each.get("tasks")) for each in (left, right) if isinstance(each, dict))}

        return self._act("merge", job, (), (left, right, job), usual)

    def line(self, task: Task, result: JSON, job: Job[Script]) -> Any:
        return self._act("line", job, [task], (task, result, job), lambda: (task.id, {"id": task.id}))

    def summary(self, partial: JSON, job: Job[Script]) -> Any:
        return self._act("summary", job, (), (partial, job), lambda: {"partial": partial})

    def _act(
        self,
        method: str,
        job: Job[Script] | None,
        tasks: Sequence[Task],
        arguments: tuple[Any, ...],
        usual: Callable[[], Any],
        params: Script | None = None,
    ) -> Any:
        params = params or (job.params if job is not None else None)
        acts = Script.latest if params is None else params.acts
        is_first = job is None or job.effect_scope.startswith(f"{job.id}@")
        for act in acts if is_first else ():
            if act.method == method and (not tasks or any(number_of(each) in act.tasks for each in tasks)):
                return DEEDS[act.deed](Call(arguments, usual))
        return usual()


def _whole(value: Any) -> int:
    return value if type(value) is int else 0


KIND: Hostile = Hostile()
