"""Memory and time of the reduction, by tasks and by shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from bench import store
from bench.run import Run, Table, ratio
from fan_out.aws.storage import BLOCK
from fan_out.model.documents import encode, seal
from fan_out.model.shard import Manifest, Node
from fan_out.steps.reduction import FAN_IN, Cursor, Reduction
from kinds.daily_plan import GROUPS, KIND

JOB = "bench-reducer"
# So many shards name the same object of lines. A merge cannot tell, and it is not the writing that is measured.
SHARING = 10
SHARDS, TASKS = 100, 100_000


def tables(run: Run) -> Iterator[Table]:
    by_tasks = run.size(smoke=[500], quick=[10_000, 100_000], full=[10_000, 100_000, 1_000_000, 2_000_000])
    by_shards = run.size(smoke=[5], quick=[10, 200], full=[10, 1_000, 10_000])
    tasks = run.size(smoke=500, quick=20_000, full=TASKS)
    with store.emulator() as emulator:
        sizes = [(count, SHARDS) for count in by_tasks]
        yield _table(run, emulator, f"reducer, by tasks ({SHARDS} shards)", sizes)
        sizes = [(tasks, count) for count in by_shards]
        yield _table(run, emulator, f"reducer, by shards ({tasks:,} tasks)", sizes)


def _table(run: Run, emulator: store.Emulator, title: str, sizes: list[tuple[int, int]]) -> Table:
    head = (
        "tasks",
        "shards",
        "MiB of lines",
        "S3 requests",
        "seconds",
        "CPU µs/task",
        "MiB in blocks",
        "peak MiB",
        "to first",
    )
    table = Table(title, head)
    first = 0.0
    with run.bounded(table):
        for tasks, shards in sizes:
            run.say(f"reducer: {tasks:,} tasks in {shards:,} shards")
            run.left()
            size = _fill(emulator, tasks, shards)
            argument = {"tasks": tasks, "shards": shards}
            found = run.in_fresh_process("reducer", argument, emulator.environment())
            emulator.empty()
            first = first or found["peak"]
            table.add(
                tasks,
                shards,
                size / (1 << 20),
                found["requests"],
                found["seconds"],
                found["cpu"] / tasks * 1e6,
                _in_blocks(size, shards) / (1 << 20),
                found["peak"],
                ratio(found["peak"], first),
            )
    return table


def _in_blocks(size: int, shards: int) -> float:
    """The bytes that the widest merge of a job holds in blocks: of each of its streams, one block or all it has."""
    most, streams = 0.0, shards
    while True:
        most = max(most, min(streams, FAN_IN) * min(BLOCK, size / streams))
        if streams <= FAN_IN:
            return most
        streams = -(-streams // FAN_IN)


def _fill(emulator: store.Emulator, tasks: int, shards: int) -> int:
    """Write what workers leave: the manifest and the partials; the bytes of all lines that will be merged."""
    each, more = divmod(tasks, shards)
    counts = [each + (index < more) for index in range(shards)]
    size = 0
    manifest = []
    partials: list[tuple[str, bytes]] = []
    shared: dict[int, tuple[str, int]] = {}
    for index, count in enumerate(counts):
        if index % SHARING == 0:
            shared.clear()
        if count not in shared:
            # Every shard spans the whole order, so that a merge holds all its streams open to the end.
            body = _lines(index, count, shards)
            name = f"partials/{index:08d}-{count}.lines"
            emulator.put(f"work/{JOB}/{name}", body)
            shared[count] = name, len(body)
        name, length = shared[count]
        size += length
        entry = {
            "index": index,
            "key": f"work/{JOB}/shards/{index}.jsonl",
            "count": count,
            "bytes": count * 200,
        }
        manifest.append(entry)
        key = f"work/{JOB}/partials/{index:08d}.json"
        partials.append((key, seal(key, _partial(index, count, name))))
    emulator.put(f"work/{JOB}/manifest.jsonl", store.in_lines(manifest))
    emulator.put_all(partials)
    return size


def _lines(index: int, count: int, shards: int) -> bytes:
    lines = []
    for number in range(count):
        task = store.task(number * shards + index)
        group = GROUPS[-1] if "dueAt" not in task else GROUPS[number % 4]
        document = {"group": group, "id": task["id"], "title": task["title"]}
        moment = task["createdAt"]
        if "dueAt" in task:
            moment = document["dueAt"] = task["dueAt"]
        lines.append(f"{GROUPS.index(group)} {moment} {task['id']}\t".encode() + encode(document))
    return b"\n".join(sorted(lines)) + b"\n"


def _partial(index: int, count: int, lines: str) -> dict[str, Any]:
    value = KIND.zero()
    value["counts"][GROUPS[0]] = count
    for group in GROUPS:
        for number in range(5):
            task = store.task(index * 5 + number)
            entry = {"id": task["id"], "title": task["title"]}
            value["mostUrgent"][group].append(entry | {"dueAt": None, "createdAt": task["createdAt"]})
    succeeded = {"succeeded": count, "failed": 0, "quarantined": 0, "unprocessed": 0}
    return {"counts": succeeded, "value": value, "digest": [], "lines": lines, "failures": None}


def prepare(argument: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    tasks, shards = argument["tasks"], argument["shards"]
    job = store.job_store(JOB)
    plan = store.plan(JOB, KIND.name, "tasks")
    reduction = Reduction(job, plan, Manifest(shards, tasks, 0))
    sent = store.counted_requests()

    def work() -> dict[str, Any]:
        root = reduction.run(Cursor(), lambda _: False)
        if not isinstance(root, Node) or root.problems or root.counts.succeeded != tasks:
            raise RuntimeError(f"the account is off: {json.dumps(str(root))[:1000]}")
        return {"requests": sent.total()}

    return work
