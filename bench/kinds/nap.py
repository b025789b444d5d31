"""nap: a kind of the benchmark. Every call of it lasts a while and uses no CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from fan_out.model.kind import JSON, Failure, Job, Kind, Params
from fan_out.model.task import Task


class NapParams(Params):
    seconds: float = Field(0.0, ge=0, description="a number of seconds for each call")


class Nap(Kind[NapParams, Task]):
    name = "nap"
    params = NapParams
    batch = 10_000

    def process_many(self, tasks: Sequence[Task], job: Job[NapParams]) -> list[JSON | Failure]:
        """One for each task, after a nap for all of them."""
        time.sleep(job.params.seconds)
        return [1] * len(tasks)

    def zero(self) -> JSON:
        return 0

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[NapParams]) -> JSON:
        return partial + result

    def merge(self, left: JSON, right: JSON, job: Job[NapParams]) -> JSON:
        return left + right

    def summary(self, partial: JSON, job: Job[NapParams]) -> dict[str, Any]:
        return {"tasks": partial}


KIND = Nap()
