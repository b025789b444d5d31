"""AWS's limits on a simulated clock: the real definition and handlers, whose children run side by side.

Each child execution has a thread, of which one runs at a time: a pause, or the time that a call takes, hands over to
the thread whose moment comes next. So nothing waits for real, and a run is the same at every run.

What it leaves out: the time that code itself takes, cold starts, and the SDK's own quota of retries, which one client
would share among all. The segments of a listing are listed one after the other, and so are the writes of one call of
WriteTasks and the reads of a reducer: each takes a share of its time, as if THREADS of them ran at once.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import botocore.endpoint
import botocore.retries.quota
from ministack.services import stepfunctions as interpreter

from fan_out.aws import clients as aws
from fan_out.steps import kind_runner, shard_runner
from fanout.local.gaps.retries import retry_delay
from infra.functions import FUNCTIONS
from task_service import rate_limiter, write_tasks
from tests.chaos.scenarios import finalize
from tests.support import machine as machines
from tests.support import statements
from tests.support.context import Context
from tests.support.machine import Boundary, CallError, Ended, Machine, response

# Seconds that a call takes, and what may run at once in one function.
LATENCY = {"s3": 0.02, "dynamodb": 0.005, "lambda": 0.01, "states": 0.03}
THREADS = {"WriteTasks": 8, "Merger": 16, "Reducer": 16}
# Seconds of a batch of 25 statements, of which a call has at most four at once.
BATCH_LATENCY = 0.02
# Seconds of throttling after which an on-demand table has split its partitions: it takes twice as much.
SPLIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Limits:
    """What AWS takes in a second, or at once; by default that of a new on-demand table and of an account."""

    writes: float = 4000
    reads: float = 12_000
    concurrency: float = 1000
    starts: float = 100
    puts: float = 3500
    # The share of EventBridge's events that are lost.
    dropped: float = 0.01


# The writer of a new environment of WriteTasks: each finds its own rate.
new_writer = write_tasks.writer.__wrapped__

NO_LIMITS = Limits(math.inf, math.inf, math.inf, math.inf, math.inf, dropped=0)


@dataclass
class TokenBucket:
    """Units that refill at a rate, of which a second's worth is kept. `splits`: it grows under lasting throttling."""

    rate: float
    splits: bool = False
    throttled: int = 0
    taken: float = 0.0
    _level: float = math.inf
    _at: float = 0.0
    _short_since: float | None = None

    @property
    def least_seconds(self) -> float:
        """The time that this limit alone asks for what was taken."""
        return max(0.0, self.taken / self.rate - 1)

    def take(self, units: float, now: float) -> bool:
        """Whether there is anything left; the last call may take more, which the next ones wait for."""
        self._level = min(self.rate, self._level + self.rate * (now - self._at)) if self.rate < math.inf else math.inf
        self._at = now
        if self._level < min(units, self.rate):
            self.throttled += 1
            since = self._short_since = now if self._short_since is None else self._short_since
            if self.splits and now - since > SPLIT_SECONDS:
                self.rate, self._short_since = self.rate * 2, None
            return False
        self._level -= units
        self.taken += units
        return True


class Clock:
    """Simulated time, and whose turn it is: threads that sleep, by the moment at which they go on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._own = threading.local()
        self._waiting: list[tuple[float, int, threading.Semaphore]] = []
        self._numbers = itertools.count()

    def sleep(self, seconds: float) -> None:
        turn = threading.Semaphore(0)
        self._enter(turn, seconds)
        self._hand_over()
        turn.acquire()

    def run(self, functions: list[Callable[[], None]]) -> None:
        """Run the functions side by side, to the end of all; raises what one of them raised."""
        turn, left, errors = threading.Semaphore(0), [len(functions)], []

        def lane(function: Callable[[], None], own: threading.Semaphore) -> None:
            own.acquire()
            try:
                function()
            except BaseException as error:
                errors.append(error)
            left[0] -= 1
            if not left[0]:
                self._enter(turn, 0)
            self._hand_over()

        for function in functions:
            own = threading.Semaphore(0)
            threading.Thread(target=lane, args=(function, own), daemon=True).start()
            self._enter(own, 0)
        self._hand_over()
        turn.acquire()
        if errors:
            raise errors[0]

    def _enter(self, turn: threading.Semaphore, seconds: float) -> None:
        heapq.heappush(self._waiting, (self.now + max(0.0, seconds), next(self._numbers), turn))

    def _hand_over(self) -> None:
        self.now, _, turn = heapq.heappop(self._waiting)
        turn.release()


class OfThread(threading.local):
    """What a thread's functions are: those that run in it, and the writer of its WriteTasks."""

    def __init__(self) -> None:
        self.running: list[Any] = []
        self.writer: Any = None


class Running:
    """The machine's functions at work, of this thread alone."""

    def __init__(self, own: OfThread):
        self._own = own

    def append(self, process: Any) -> None:
        self._own.running.append(process)

    def pop(self) -> Any:
        return self._own.running.pop()

    def __getitem__(self, position: int) -> Any:
        return self._own.running[position]

    def __bool__(self) -> bool:
        return bool(self._own.running)


@dataclass
class Simulation:
    """A run under limits, and what it came to."""

    machine: Machine
    limits: Limits
    clock: Clock = field(default_factory=Clock)
    # How many calls of each function ran, how many were refused, and the seconds that they ran.
    calls: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    busy: float = 0.0
    peak: int = 0
    # How long the map took.
    map_seconds: float = 0.0
    # The PUTs of the map alone.
    map_puts: float = 0.0
    is_event_lost: bool = False
    _running: int = 0
    _own: OfThread = field(default_factory=OfThread)
    _environments: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writes = TokenBucket(self.limits.writes, splits=True)
        self.reads = TokenBucket(self.limits.reads, splits=True)
        self.puts = TokenBucket(self.limits.puts)

    def run(self, document: dict[str, Any], seed: int = 1) -> Ended:
        random.seed(seed)
        with self._patched():
            ended = self.machine.run(document)
        self.is_event_lost = random.random() < self.limits.dropped
        # The Finalizer hears of executions that ended badly.
        if ended.status != "SUCCEEDED" and not self.is_event_lost:
            finalize(self.machine, status=ended.status)
        return ended

    @contextmanager
    def _patched(self) -> Iterator[None]:
        machine, clock, sleep = self.machine, self.clock, self.clock.sleep
        module = SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
        worker_clock = functools.partial(kind_runner.Clock, now=module.monotonic, sleep=sleep, jitter=random.random)
        pick = interpreter._find_matching_retrier

        def pick_retrier(retriers: Any, name: str, counts: dict[int, int]) -> Any:
            retrier, index = pick(retriers, name, counts)
            if retrier is not None:
                sleep(retry_delay(retrier, counts.get(index, 0)))
            return retrier, index

        with ExitStack() as stack:
            for owner, name, stand_in in [
                (machine, "around", self._around),
                (machine, "_running", Running(self._own)),
                (machine, "contexts", {name: functools.partial(self._context, name) for name in FUNCTIONS}),
                (interpreter, "_find_matching_retrier", pick_retrier),
                (interpreter, "_run_distributed_map", self._map),
                (shard_runner, "Clock", worker_clock),
                (rate_limiter, "time", module),
                (rate_limiter, "random", random),
                (write_tasks, "writer", lambda: self._own.writer),
                (statements, "refuse", lambda: None if self.writes.take(1, clock.now) else "ThrottlingError"),
                (botocore.retries.quota.RetryQuota, "acquire", lambda quota, amount: True),
                (botocore.endpoint, "time", SimpleNamespace(**vars(time) | {"sleep": sleep})),
            ]:
                stack.enter_context(patch.object(owner, name, stand_in))
            yield

    def _context(self, function: str) -> Context:
        end = self.clock.now + FUNCTIONS[function].timeout
        return Context(lambda: int((end - self.clock.now) * 1000))

    def _around(self, boundary: Boundary, cross: Callable[[], Any]) -> Any:
        share = THREADS.get(boundary.function, 1) if boundary.service != "states" else 1
        is_batch = boundary.operation == "BatchExecuteStatement"
        self.clock.sleep(BATCH_LATENCY if is_batch else LATENCY.get(boundary.service, 0.01) / share)
        match boundary.service:
            case "states":
                return self._start(boundary.function, cross, self._refused_start)
            case "lambda":
                url = getattr(boundary.request, "url", "")
                function = "WriteTasks" if "WriteTasks" in url else "ListTasks"
                return self._start(function, cross, lambda: _refusal(boundary, 429, "TooManyRequestsException"))
            case "dynamodb" if boundary.operation == "Scan":
                if not self.reads.take(0, self.clock.now):
                    return _refusal(boundary, 400, "ThrottlingException")
                answer = cross()
                # Eventually consistent: half a unit for 4 KiB.
                self.reads.take(len(answer.content) / 8192, self.clock.now)
                return answer
            case "dynamodb" if is_batch:
                return cross()
            case "dynamodb" if not self.writes.take(1, self.clock.now):
                return _refusal(boundary, 400, "ThrottlingException")
            case "s3" if boundary.operation == "PutObject" and not self.puts.take(1, self.clock.now):
                body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                return response(boundary.request, 503, body)  # type: ignore[arg-type]
        return cross()

    def _start(self, function: str, cross: Callable[[], Any], refuse: Callable[[], Any]) -> Any:
        if self._running >= self.limits.concurrency:
            self.refused[function] += 1
            return refuse()
        self._running += 1
        self.peak = max(self.peak, self._running)
        self.calls[function] += 1
        begun = self.clock.now
        if function == "WriteTasks":
            self._own.writer = self._environments.pop() if self._environments else new_writer()
        try:
            return cross()
        finally:
            if function == "WriteTasks":
                self._environments.append(self._own.writer)
            self._running -= 1
            self.busy += self.clock.now - begun
            assert self.clock.now - begun < FUNCTIONS[function].timeout, f"{function} ran out of time"

    def _refused_start(self) -> Any:
        raise CallError("Lambda.TooManyRequestsException")

    def _map(self, state: Any, raw: Any, effective: Any, iterator: Any, execution: Any, context: Any) -> Any:
        source = interpreter._resolve_params_obj(state["ItemReader"]["Parameters"], effective, context)
        text = aws.s3().get_object(**source)["Body"].read()
        items = list(enumerate(json.loads(line) for line in text.splitlines()))
        tolerated = machines._number(state, "ToleratedFailureCountPath", effective)
        starts = itertools.count()
        begun, failed, puts = self.clock.now, [0], self.puts.taken

        def lane() -> None:
            while items and failed[0] <= tolerated:
                index, item = items.pop(0)
                of_item = context | {"Map": {"Item": {"Index": index, "Value": item}}}
                child = interpreter._resolve_params_obj(state["ItemSelector"], effective, of_item)
                name = f"{context['Execution']['Name']}-child-{index}"
                of_child = context | {"Execution": context["Execution"] | {"Id": name, "Name": name}}
                self.clock.sleep(begun + next(starts) / self.limits.starts - self.clock.now)
                try:
                    interpreter._run_sub_machine(iterator["States"], iterator["StartAt"], child, execution, of_child)
                except interpreter._ExecutionError:
                    failed[0] += 1

        self.clock.run([lane] * machines._number(state, "MaxConcurrencyPath", effective))
        self.map_seconds, self.map_puts = self.clock.now - begun, self.puts.taken - puts
        if failed[0] > tolerated:
            raise interpreter._ExecutionError("States.ExceedToleratedFailureThreshold", "exceeded")
        return interpreter._apply_result_path(state, raw, {}), state["Next"]


def _refusal(boundary: Boundary, status: int, code: str) -> Any:
    headers = {"x-amzn-ErrorType": code}
    return response(boundary.request, status, json.dumps({"__type": code, "message": "slow down"}), headers)  # type: ignore[arg-type]
