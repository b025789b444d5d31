"""Faults at the boundaries between this system and AWS, chosen one by one or drawn from a seed.

A boundary is a call of a function by the state machine, or a call of AWS by a function. A fault is what may
happen there, a `Trouble`, at one boundary; it is *stubborn* if it meets every try of the same operation, by the SDK
or by the function that writes tasks, so that their caller gets to feel it.
"""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionClosedError, ConnectTimeoutError, ReadTimeoutError

from fan_out.steps.quarantine import DEADLY
from tests.support.machine import (
    Boundary,
    CallError,
    KilledError,
    Machine,
    TimedOutError,
    function_error,
    response,
)


class Trouble(Enum):
    """What may go wrong at a boundary."""

    ERROR = "an answer that AWS failed, without an effect"
    UNREACHED = "no connection, without an effect"
    LOST = "the call takes effect, its answer is lost"
    THROTTLE = "an answer that asks to slow down, without an effect"
    PARTIAL = "a part of a batch is done or refused, a page is short"
    KILL_BEFORE = "the calling process ends before the call"
    KILL_AFTER = "the calling process ends after the call took effect"
    TIMEOUT_AFTER = "the calling process runs out of time after the call took effect"
    TWICE = "the function is run twice at once, and the caller gets either answer"
    LATE = "the function is run once more, later, when the job has gone on"
    RACE = "another process does the function's whole work in the middle of this one's; either is listened to"


DEATHS = frozenset({Trouble.KILL_BEFORE, Trouble.KILL_AFTER, Trouble.TIMEOUT_AFTER})
# A second process of one attempt may take the first for dead.
DUPLICATES = frozenset({Trouble.TWICE, Trouble.LATE, Trouble.RACE})

_XML = '<?xml version="1.0"?><Error><Code>{}</Code><Message>a fault of the tests</Message></Error>'
_ERRORS = {
    "s3": [(500, "InternalError"), (503, "ServiceUnavailable")],
    "dynamodb": [(500, "InternalServerError"), (503, "ServiceUnavailable")],
    "secrets-manager": [(500, "InternalServiceError")],
    "lambda": [(500, "ServiceException"), (502, "EC2UnexpectedException")],
    "sfn": [(500, "InternalServerError"), (503, "ServiceUnavailable")],
}
_THROTTLES = {
    "s3": [(503, "SlowDown")],
    "dynamodb": [(400, "ProvisionedThroughputExceededException"), (400, "ThrottlingException")],
    "secrets-manager": [(400, "ThrottlingException")],
    "lambda": [(429, "TooManyRequestsException")],
    "sfn": [(400, "ThrottlingException")],
}


def applies(trouble: Trouble, boundary: Boundary) -> bool:
    """Whether this can happen there."""
    if trouble is Trouble.PARTIAL:
        return boundary.operation in {"BatchGetItem", "Scan"}
    if boundary.service == "states":
        return trouble is not Trouble.RACE
    if trouble in (Trouble.TWICE, Trouble.LATE):
        return boundary.service == "lambda"
    return True


@dataclass
class Faults:
    """Stands in the way of a machine. `choose` decides at each new boundary what happens there, if anything."""

    machine: Machine
    chance: random.Random
    choose: Callable[[Boundary], tuple[Trouble, bool] | None]
    happened: list[str] = field(default_factory=list)
    crossed: list[Boundary] = field(default_factory=list)
    _now: tuple[Trouble, bool] | None = None
    _late: list[Callable[[], Any]] = field(default_factory=list)
    _inner: int = 0
    # The event and the body of the last request of WriteTasks.
    _written: tuple[Any, Any] | None = None
    # What the state machine gets in place of the answer of the call that it has given up.
    _other: Any = None

    def around(self, boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if self._inner:
            return cross()
        if boundary.service == "states":
            self.run_late(0.3)
        is_repeated = boundary.attempt > 1 or self._is_sent_again(boundary)
        if not is_repeated:
            self.crossed.append(boundary)
            self._now = self.choose(boundary)
            if self._now is not None:
                stubborn = ", at every try" if self._now[1] else ""
                where = f"{boundary.number} {boundary.function} {boundary.service}.{boundary.operation}"
                self.happened.append(f"{where}: {self._now[0].name}{stubborn}")
        elif self._now is not None and not self._now[1]:
            self._now = None
        now = self._now
        try:
            if boundary.service == "states":
                return self._heard(cross if now is None else functools.partial(self._on_the_way, now[0], cross))
            if now is None:
                return cross()
            if now[0] is Trouble.RACE:
                return self._raced(boundary, cross)
            return self._at_aws(now[0], boundary, cross)
        finally:
            # The call of a function has crossed further boundaries meanwhile.
            self._now = now

    def _is_sent_again(self, boundary: Boundary) -> bool:
        """Whether WriteTasks itself repeats its last request: it writes without the SDK's tries."""
        if boundary.function != "WriteTasks" or boundary.request is None:
            return False
        last, self._written = self._written, (boundary.event, _body(boundary.request))
        return last is not None and last[0] is boundary.event and last[1] == self._written[1]

    def run_late(self, rate: float = 1.0) -> None:
        """Let the duplicates that are still under way arrive."""
        for run in list(self._late):
            if self.chance.random() < rate:
                self._late.remove(run)
                self._undisturbed(run)

    def _undisturbed(self, run: Callable[[], Any]) -> Any:
        """What another process of a function comes to; nothing of it reaches this one."""
        self._inner += 1
        try:
            return run()
        except (Exception, KilledError):
            return None
        finally:
            self._inner -= 1

    def _heard(self, call: Callable[[], Any]) -> Any:
        """What the state machine hears of a call, if it has not given up the call and heard another's answer."""
        self._other = None
        try:
            answer = call()
        except (Exception, KilledError):
            if self._other is None:
                raise
        return answer if self._other is None else self._other

    def _raced(self, boundary: Boundary, cross: Callable[[], Any]) -> Any:
        first = self.chance.random() < 0.5
        answer = None if first else cross()
        other = self._undisturbed(lambda: self.machine.call(boundary.function, boundary.event))
        if boundary.function in ABSORBED and self.chance.random() < 0.5:
            self._other = other
        return cross() if first else answer

    def _on_the_way(self, trouble: Trouble, cross: Callable[[], Any]) -> Any:
        """A trouble of the state machine's call of a function."""
        if trouble is Trouble.ERROR:
            raise CallError(self.chance.choice(["Lambda.ServiceException", "Lambda.AWSLambdaException"]))
        if trouble is Trouble.UNREACHED:
            raise CallError("Lambda.SdkClientException")
        if trouble is Trouble.THROTTLE:
            raise CallError("Lambda.TooManyRequestsException")
        if trouble is Trouble.KILL_BEFORE:
            raise KilledError
        if trouble is Trouble.TWICE:
            other = self._undisturbed(cross)
            answer = cross()
            return answer if other is None or self.chance.random() < 0.5 else other
        answer = cross()
        if trouble is Trouble.LOST:
            raise CallError(self.chance.choice(["Lambda.SdkClientException", "States.Timeout"]))
        if trouble is Trouble.KILL_AFTER:
            raise KilledError
        if trouble is Trouble.TIMEOUT_AFTER:
            raise TimedOutError
        if trouble is Trouble.LATE:
            self._late.append(cross)
        return answer

    def _at_aws(self, trouble: Trouble, boundary: Boundary, cross: Callable[[], Any]) -> Any:
        """A trouble of a function's call of AWS."""
        request = _request(boundary)
        if trouble is Trouble.ERROR:
            return self._refused(boundary, _ERRORS)
        if trouble is Trouble.THROTTLE:
            return self._refused(boundary, _THROTTLES)
        if trouble is Trouble.UNREACHED:
            raise ConnectTimeoutError(endpoint_url=request.url)
        if trouble is Trouble.KILL_BEFORE:
            raise KilledError
        if trouble is Trouble.PARTIAL:
            return self._in_part(boundary, cross)
        if trouble is Trouble.TWICE:
            self._undisturbed(cross)
        answer = cross()
        if trouble is Trouble.LATE:
            body = _body(request)
            self._late.append(lambda: self.machine.call(_called(boundary), body))
        if trouble is Trouble.KILL_AFTER:
            raise KilledError
        if trouble is Trouble.TIMEOUT_AFTER:
            raise TimedOutError
        if trouble is Trouble.LOST:
            if boundary.service == "lambda" and self.chance.random() < 0.5:
                return function_error(request, "Sandbox.Timedout", "Task timed out after 60.00 seconds")
            lost = self.chance.choice([ReadTimeoutError, ConnectionClosedError])
            raise lost(endpoint_url=request.url)
        return answer

    def _refused(self, boundary: Boundary, refusals: dict[str, list[tuple[int, str]]]) -> Any:
        status, code = self.chance.choice(refusals[boundary.service])
        if boundary.service == "s3":
            body = "" if boundary.operation == "HeadObject" else _XML.format(code)
            return response(_request(boundary), status, body)
        headers = {"x-amzn-ErrorType": code}
        return response(_request(boundary), status, json.dumps({"__type": code, "message": "a fault"}), headers)

    def _in_part(self, boundary: Boundary, cross: Callable[[], Any]) -> Any:
        request = _request(boundary)
        asked = _body(request)
        if boundary.operation == "Scan":
            # DynamoDB ends a page after 1 MB before it filters: pages are short, and even empty.
            request.body = json.dumps(asked | {"Limit": 1}).encode()
            return cross()
        answer = cross()
        found = json.loads(answer.content)
        (table, keys), *_ = asked["RequestItems"].items()
        left = [key for key in keys["Keys"] if self.chance.random() < 0.5] or keys["Keys"][:1]
        ids = [key["id"]["S"] for key in left]
        found["Responses"][table] = [item for item in found["Responses"].get(table, []) if item["id"]["S"] not in ids]
        found["UnprocessedKeys"] = {table: keys | {"Keys": left}}
        return response(request, answer.status_code, json.dumps(found), dict(answer.headers))


def _request(boundary: Boundary) -> AWSPreparedRequest:
    assert boundary.request is not None
    return boundary.request


def _body(request: AWSPreparedRequest) -> Any:
    assert isinstance(request.body, str | bytes)
    return json.loads(request.body)


def _called(boundary: Boundary) -> str:
    """The function that a call of Lambda is for."""
    return _request(boundary).url.partition("/functions/")[2].partition("/")[0].replace("%3A", ":")


def nothing(boundary: Boundary) -> None:
    """No fault anywhere."""


def at(faults: dict[int, tuple[Trouble, bool]]) -> Callable[[Boundary], tuple[Trouble, bool] | None]:
    """These faults, by the numbers of the boundaries."""

    def choose(boundary: Boundary) -> tuple[Trouble, bool] | None:
        fault = faults.get(boundary.number)
        return fault if fault is not None and applies(fault[0], boundary) else None

    return choose


# How many faults the machine's retriers and the functions' own tries absorb at one step of a job: one less
# than the retries that the definition gives to `States.ALL` there, and for a worker than makes it stuck.
ABSORBED = {"Planner": 3, "Lister": 5, "Manifest": 3, "Worker": 5, "Merger": 5, "Reducer": 5}


@dataclass
class Drawn:
    """Faults drawn from a seed at a rate. `is_bounded`: never more at one step than are absorbed there."""

    chance: random.Random
    rate: float
    weights: dict[Trouble, float]
    is_bounded: bool
    stubborn: float = 0.3
    _met: Counter[str] = field(default_factory=Counter)
    _died: Counter[str] = field(default_factory=Counter)
    _spared: dict[str, int] = field(default_factory=dict)
    _step: tuple[str, str] = ("", "")

    def __call__(self, boundary: Boundary) -> tuple[Trouble, bool] | None:
        if boundary.function in ABSORBED:
            self._step = (boundary.function, _step(boundary))
        if self.chance.random() >= self.rate:
            return None
        (trouble,) = self.chance.choices(list(self.weights), list(self.weights.values()))
        if not applies(trouble, boundary):
            return None
        function, step = self._step
        if self.is_bounded:
            if self._met[step] >= ABSORBED[function]:
                return None
            if boundary.function == "Worker" and trouble in DEATHS | DUPLICATES:
                if self._died[step] >= self._spared.get(step, DEADLY - 1):
                    return None
                # DEADLY deaths on one task alone quarantine it, after one more if none has raised suspicion yet.
                if not self._died[step] and not boundary.event["attempt"] and not boundary.event["resume"]:
                    self._spared[step] = DEADLY
                self._died[step] += 1
            self._met[step] += 1
        return trouble, self.chance.random() < self.stubborn


def _step(boundary: Boundary) -> str:
    """What a call works on, whatever its attempt: its budget of faults goes with it."""
    event = boundary.event
    match boundary.function:
        case "Lister":
            return f"Lister {event['segment']}"
        case "Worker":
            return f"Worker {event['shard']['index']}"
        case "Merger":
            return f"Merger {event['span']['level']} {event['span']['last']}"
    return boundary.function
