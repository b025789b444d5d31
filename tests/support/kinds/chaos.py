"""chaos: changes every task, while its workers crash, are throttled, lose acknowledgements and meet poison.

For runs on real Lambda processes. Every fault is a function of the seed and of the task at which it strikes,
and strikes once: the first process that comes there leaves a file in `scratch`, a folder that all workers
of the emulator share. Poison strikes every time. So the job's result is known beforehand: `expected`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from fan_out import (
    JSON,
    WRITES_PER_CALL,
    Examples,
    Failure,
    Job,
    Kind,
    Params,
    ServiceUnavailableError,
    Task,
    ThrottledError,
)

DETAIL = "worked on by chaos"
# How a poisoned task ends its worker: it exits, it touches memory that is not its own, the kernel ends it for taking
# too much of it, or it goes on for ever, until the function's time is over.
WAYS = ("exit", "segmentation fault", "memory", "hang")


class Rates(Params):
    """`crashes`, `throttles` and `losses` are shares of the calls of the kind, `poison` is a share of the tasks."""

    seed: int = 0
    scratch: str = "/tmp/fan-out-chaos"
    # The process is gone before, or after, the call's tasks are written.
    crashes: float = Field(0, ge=0, le=1)
    throttles: float = Field(0, ge=0, le=1)
    # The tasks are written, and the answer that says so does not come.
    losses: float = Field(0, ge=0, le=1)
    # A poisoned task ends its worker whenever it is worked on, in one of WAYS.
    poison: float = Field(0, ge=0, le=1)


def share(seed: int, what: str, task_id: str) -> float:
    """A number from 0 to 1 that looks drawn at random and is always the same."""
    digest = hashlib.sha256(f"{seed}/{what}/{task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def poison(rates: Rates, task_id: str) -> str | None:
    """How this task ends its worker, one of WAYS; None if it does not."""
    if share(rates.seed, "poison", task_id) >= rates.poison:
        return None
    return WAYS[int(share(rates.seed, "way", task_id) * len(WAYS))]


def expected(rates: Rates, task_ids: Iterable[str]) -> dict[str, Any]:
    """What a job over these tasks comes to: its result, and the ids that are quarantined."""
    quarantined = {task_id for task_id in task_ids if poison(rates, task_id) is not None}
    good = [task_id for task_id in task_ids if task_id not in quarantined]
    return {
        "result": {"changed": len(good), "sum": f"{sum(map(_number, good)) % 2**64:016x}"},
        "quarantined": quarantined,
    }


def die(way: str) -> None:
    """End this process, as such a task does. A test in one process exchanges it."""
    match way:
        case "segmentation fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "memory":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            while True:
                time.sleep(1)
    os._exit(1)


class Chaos(Kind[Rates, Task]):
    name = "chaos"
    params = Rates
    batch = WRITES_PER_CALL
    writes = True
    examples = Examples(results=[1])

    def process_many(self, tasks: Sequence[Task], job: Job[Rates]) -> list[JSON | Failure]:
        rates, first = job.params, tasks[0].id
        for task in tasks:
            if (way := poison(rates, task.id)) is not None:
                die(way)
        if _strikes(job, "crashes", first, rates.crashes / 2):
            die("exit")
        if _strikes(job, "throttles", first, rates.throttles):
            raise ThrottledError("a throttle of the chaos kind")
        writes = [
            {
                "op": "update",
                "id": task.id,
                "key": job.effect_key(task),
                "version": task.version,
                "changes": {"detail": DETAIL},
            }
            for task in tasks
        ]
        outcomes = job.write(writes)
        if _strikes(job, "late crashes", first, rates.crashes / 2):
            die("memory")
        if _strikes(job, "losses", first, rates.losses):
            raise ServiceUnavailableError("an acknowledgement that the chaos kind lost")
        return [_answer(outcome) for outcome in outcomes]

    def zero(self) -> JSON:
        return {"changed": 0, "sum": 0}

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[Rates]) -> JSON:
        return self.merge(partial, {"changed": 1, "sum": _number(task.id)}, job)

    def merge(self, left: JSON, right: JSON, job: Job[Rates]) -> JSON:
        return {
            "changed": left["changed"] + right["changed"],
            "sum": (left["sum"] + right["sum"]) % 2**64,
        }

    def summary(self, partial: JSON, job: Job[Rates]) -> dict[str, JSON]:
        return {"changed": partial["changed"], "sum": f"{partial['sum']:016x}"}


def _answer(outcome: dict[str, Any]) -> JSON | Failure:
    if outcome["outcome"] in ("updated", "unchanged"):
        return 1
    return Failure.of_write(outcome)


def _number(task_id: str) -> int:
    return int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:8], "big")


def _strikes(job: Job[Rates], what: str, task_id: str, rate: float) -> bool:
    """Whether this fault happens now: its share says so, and it has not happened before."""
    if share(job.params.seed, what, task_id) >= rate:
        return False
    folder = Path(job.params.scratch) / job.effect_scope
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / f"{what.replace(' ', '-')}-{task_id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


KIND = Chaos()
