"""Speed and memory of a lister's step over a CSV object, by the object's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bench import store
from bench.run import Run, Table, ratio
from fan_out.steps.listing import list_step

JOB = "bench-listing"


def tables(run: Run) -> Iterator[Table]:
    counts = run.size(smoke=[1_000], quick=[10_000, 50_000], full=[10_000, 100_000, 1_000_000])
    head = ("rows", "MiB", "shards", "seconds", "rows/s", "MiB/s", "peak MiB", "to first")
    table = Table("listing, a CSV object in shards of 500", head)
    first = 0.0
    with store.emulator() as emulator, run.bounded(table):
        for count in counts:
            run.say(f"listing: {count:,} rows")
            body = _csv(count)
            emulator.put("uploads/tasks.csv", body)
            found = run.in_fresh_process("listing", {"rows": count}, emulator.environment())
            emulator.empty()
            first = first or found["peak"]
            table.add(
                count,
                len(body) / (1 << 20),
                found["shards"],
                found["seconds"],
                count / found["seconds"],
                len(body) / found["seconds"] / (1 << 20),
                found["peak"],
                ratio(found["peak"], first),
            )
    yield table


def _csv(rows: int) -> bytes:
    lines = ["title,detail,dueAt,isComplete\n"]
    for number in range(rows):
        task = store.task(number)
        detail = '"first, then ""second"""' if number % 3 == 0 else ""
        lines.append(f"{task['title']},{detail},{task.get('dueAt', '')},false\n")
    return "".join(lines).encode()


def prepare(argument: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    job = store.job_store(JOB)
    plan = store.plan(JOB, "import-tasks", {"csv": "uploads/tasks.csv"})

    def work() -> dict[str, Any]:
        step = list_step(job, plan, segment=0, step=0, cursor=None, list_function="", is_late=lambda _: False)
        listed = sum(shard.count for shard in step.shards)
        if listed != argument["rows"] or step.cursor is not None:
            raise RuntimeError(f"{listed} of {argument['rows']} rows were listed")
        return {"shards": len(step.shards)}

    return work
