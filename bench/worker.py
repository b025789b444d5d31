"""Speed and requests of the worker, by the size of a shard, in good times and after a death."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench import store
from bench.run import Run, Table, ratio
from fan_out.model.shard import Shard
from fan_out.steps.shard_runner import ShardRunner
from kinds.daily_plan import KIND

JOB = "bench-worker"
# The call after a death ends once the shard has moved on; another one does the rest.
MOST_CALLS = 4


def tables(run: Run) -> Iterator[Table]:
    sizes = run.size(smoke=[20], quick=[100, 2_000], full=[100, 1_000, 3_000, 10_000])
    head = ("tasks/shard", "MiB", "ms/shard", "tasks/s", "to first", "requests", "which")
    with store.emulator() as emulator:
        for title, attempt, most in (("healthy", 0, 10), ("after a death", 1, 3)):
            table = Table(f"worker, {title}", head)
            first = 0.0
            with run.bounded(table):
                for size in sizes:
                    run.say(f"worker: shards of {size:,}, {title}")
                    body = store.in_lines(store.task(number) for number in range(size))
                    key = f"work/{JOB}-{attempt}/shards/{size}.jsonl"
                    emulator.put(key, body)
                    argument = {
                        "key": key,
                        "size": size,
                        "bytes": len(body),
                        "repeats": max(3, min(most, 10_000 // size)),
                        "attempt": attempt,
                    }
                    found = run.in_fresh_process("worker", argument, emulator.environment())
                    speed = size / found["median"]
                    first = first or speed
                    table.add(
                        size,
                        len(body) / (1 << 20),
                        found["median"] * 1000,
                        speed,
                        ratio(speed, first),
                        found["requests"],
                        found["which"],
                    )
            yield table


def prepare(argument: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    size, attempt = argument["size"], argument["attempt"]
    job = store.job_store(f"{JOB}-{attempt}")
    plan = store.plan(job.job_id, KIND.name, "tasks")
    sent = store.counted_requests()

    def call(index: int) -> float:
        """Work on one shard to its end; seconds. A worker that dies at its first attempt leaves nothing behind."""
        begun = time.perf_counter()
        shard = Shard(index, argument["key"], size, argument["bytes"])
        committed, tries = None, attempt
        for is_resumed in (False, *[True] * MOST_CALLS):
            runner = ShardRunner(job, plan, shard, workers=1, write=None, is_late=lambda seconds: False)
            if (committed := runner.run(attempt=tries, is_resumed=is_resumed)) is not None:
                break
            tries = 0
        if committed is None or committed.counts.succeeded != size:
            raise RuntimeError(f"shard {index} is not done: {committed}")
        return time.perf_counter() - begun

    def work() -> dict[str, Any]:
        # An index of its own for each call and size: a shard is committed once.
        numbers = range(size * 100, size * 100 + argument["repeats"])
        median = statistics.median(map(call, numbers))
        calls = len(numbers)
        if any(count % calls for count in sent.values()):
            raise RuntimeError(f"equal shards took different requests: {dict(sent)} in {calls} calls")
        which = ", ".join(f"{count // calls} {name}" for name, count in sorted(sent.items()))
        return {"median": median, "requests": sent.total() // calls, "which": which}

    return work
