"""probe: a kind of the tests. Each call of it lasts a while and notes when it ran."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from fan_out import JSON, Examples, Job, Kind, Params, Task


class ProbeParams(Params):
    seconds: float = Field(0.0, description="a number of seconds")


class Probe(Kind[ProbeParams, Task]):
    name = "probe"
    params = ProbeParams
    lines_file = "spans.jsonl"
    examples = Examples(results=[{"begun": 1.5, "ended": 2.5}])

    def process(self, task: Task, job: Job[ProbeParams]) -> JSON:
        begun = time.time()
        time.sleep(job.params.seconds)
        return {"begun": begun, "ended": time.time()}

    def zero(self) -> JSON:
        return 0

    def fold(self, partial: JSON, task: Task, result: JSON, job: Job[ProbeParams]) -> JSON:
        return partial + 1

    def merge(self, left: JSON, right: JSON, job: Job[ProbeParams]) -> JSON:
        return left + right

    def line(self, task: Task, result: JSON, job: Job[ProbeParams]) -> tuple[str, JSON]:
        return task.id, result

    def summary(self, partial: JSON, job: Job[ProbeParams]) -> dict[str, Any]:
        return {"tasks": partial}


KIND = Probe()
