"""Listing: pages of a source, cut into shards, and committed step by step.

A *step* is what one call of the lister does. Its shards are written first, under keys made of their content;
one last object, the step's *part*, names them. Only what a part names belongs to the job, so a step that died
leaves nothing that counts, and a step that is repeated finds its part and answers what it answered before.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fan_out.aws.storage import JobStore, Line, encode
from fan_out.errors import AccountingError, RetryableError
from fan_out.model import task as tasks
from fan_out.model.plan import CsvSource, FailedSource, Plan, TasksSource
from fan_out.sources import csv as source_csv

# One call of the Task Service's list function returns at most so many tasks.
PAGE = 5000
# A worker reads its whole shard into memory, and a failed one is written out again: keep it small.
SHARD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Some tasks of the source in listing order, and the cursor behind them; None at the end of the segment."""

    lines: list[bytes]
    cursor: str | None
    # Tasks that a retry names and that no longer exist, or no longer match the job's filter.
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What one committed step of one segment did: a part of the manifest."""

    shards: list[dict[str, Any]]
    skipped: int
    cursor: str | None

    @property
    def is_last(self) -> bool:
        return self.cursor is None

    def to_json(self) -> dict[str, Any]:
        return {"shards": self.shards, "skipped": self.skipped, "cursor": self.cursor}


def part_name(segment: int, step: int) -> str:
    return f"parts/{segment:04d}-{step:06d}.json"


def list_step(
    store: JobStore,
    plan: Plan,
    *,
    segment: int,
    step: int,
    cursor: str | None,
    list_function: str,
    is_late: Callable[[float], bool],
    now: Callable[[], float] = time.monotonic,
) -> Step:
    """List one segment from a cursor until its end or until it is late; commit and answer the step.

    A step that was committed before is answered as it was, without listing again. At least one page is
    read, so that every step moves on; another only if there is time for one as long as the longest so far.
    """
    name = part_name(segment, step)
    if (committed := store.get(name)) is not None:
        return Step(**committed)
    cutter = _Cutter(store, f"shards/{segment:04d}-{step:06d}", plan.shard_size)
    skipped = 0
    begun, longest = now(), 0.0
    pages = 0
    batches = _batches(store, plan, segment, cursor, list_function)
    while True:
        try:
            batch = next(batches, None)
        except RetryableError:
            # What is listed so far is kept: repeated from its start, a long step would hardly ever get to its end.
            if not pages:
                raise
            break
        if batch is None:
            break
        for line in batch.lines:
            cutter.add(line)
        skipped += batch.skipped
        cursor = batch.cursor
        pages += 1
        longest, begun = max(longest, now() - begun), now()
        if cursor is not None and is_late(longest):
            break
    cutter.cut()
    return Step(**store.put_once(name, Step(cutter.shards, skipped, cursor).to_json()))


@dataclass
class _Cutter:
    """Cuts lines into shards of at most `size` tasks and SHARD_BYTES, in listing order, and writes them."""

    store: JobStore
    prefix: str
    size: int
    shards: list[dict[str, Any]] = field(default_factory=list)
    _lines: list[bytes] = field(default_factory=list)
    _bytes: int = 0

    def add(self, line: bytes) -> None:
        if self._lines and (len(self._lines) == self.size or self._bytes + len(line) >= SHARD_BYTES):
            self.cut()
        self._lines.append(line)
        self._bytes += len(line) + 1

    def cut(self) -> None:
        if not self._lines:
            return
        body = b"\n".join(self._lines) + b"\n"
        # The content is in the key: an attempt that listed something else cannot change a committed shard.
        digest = hashlib.sha256(body).hexdigest()[:16]
        key = self.store.key(f"{self.prefix}-{len(self.shards):06d}-{digest}.jsonl")
        self.store.bucket.put(key, body)
        self.shards.append({"key": key, "count": len(self._lines), "bytes": len(body)})
        self._lines, self._bytes = [], 0


def _batches(
    store: JobStore, plan: Plan, segment: int, cursor: str | None, list_function: str
) -> Iterator[Batch]:
    match plan.source:
        case TasksSource():
            return _task_batches(plan, segment, cursor, list_function)
        case CsvSource(key=key, etag=etag):
            return _csv_batches(lambda offset: store.bucket.lines(key, offset, etag, is_cut=True), cursor)
        case FailedSource(job_id=origin):
            failures = JobStore(store.bucket, origin)
            return _failed_batches(
                lambda offset: failures.lines("failures.jsonl", offset), plan, cursor, list_function
            )


def _task_batches(plan: Plan, segment: int, cursor: str | None, function: str) -> Iterator[Batch]:
    while True:
        page = tasks.list_page(
            function,
            match=plan.filter.to_json(),
            segment=segment,
            segments=plan.segments,
            cursor=cursor,
            limit=PAGE,
        )
        yield Batch([encode(task) for task in page.tasks], page.cursor)
        if page.cursor is None:
            return
        cursor = page.cursor


def _csv_batches(lines_from: Callable[[int], Iterator[Line]], cursor: str | None) -> Iterator[Batch]:
    position = source_csv.Position()
    if cursor is not None:
        offset, number, *columns = json.loads(cursor)
        position = source_csv.Position(offset, number, tuple(columns))
    rows = source_csv.read(lines_from(position.offset), position)
    lines: list[bytes] = []
    size = 0
    for read in rows:
        lines.append(encode(read.row.to_json()))
        size += len(lines[-1])
        after = read.after
        if len(lines) == PAGE or size >= SHARD_BYTES:
            yield Batch(lines, json.dumps([after.offset, after.number, *after.columns]))
            lines, size = [], 0
    yield Batch(lines, None)


def _failed_batches(
    lines_from: Callable[[int], Iterator[Line]], plan: Plan, cursor: str | None, function: str
) -> Iterator[Batch]:
    """What an earlier job did not succeed with. Tasks are looked up anew: a conflict with a later change is
    one reason to fail, and would come back for ever with the version of that time."""
    named: list[dict[str, Any]] = []
    end = int(cursor) if cursor is not None else 0

    def batch(cursor: str | None) -> Batch:
        if plan.rows:
            return Batch([encode(task) for task in named], cursor)
        found = tasks.list_ids(function, [task["id"] for task in named], match=plan.filter.to_json())
        return Batch([encode(task) for task in found], cursor, skipped=len(named) - len(found))

    for line in lines_from(end):
        named.append(json.loads(line.text)["task"])
        end = line.end
        if len(named) == tasks.IDS_PER_CALL:
            yield batch(str(end))
            named = []
    yield batch(None) if named else Batch([], None)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The job's shards: how many, with how many tasks; `skipped` are a retry's tasks that are no longer there."""

    shards: int
    listed: int
    skipped: int

    def to_json(self) -> dict[str, int]:
        return {"shards": self.shards, "listed": self.listed, "skipped": self.skipped}


def join_parts(store: JobStore, plan: Plan, steps: dict[int, int]) -> Manifest:
    """Join the parts of every segment into `manifest.jsonl`, one line a shard; the sums.

    `steps` says how many steps each segment took; parts are read by their names, so a stray object is never
    taken in. Raises AccountingError if a segment or a part is missing, a segment did not come to its end, or the
    listing of a retry has another number of tasks than its origin names.
    """
    if sorted(steps) != list(range(plan.segments)):
        raise AccountingError(
            f"The listing has the segments {sorted(steps)}, but the plan has {plan.segments} of them."
        )
    shards = listed = skipped = 0

    def lines() -> Iterator[bytes]:
        nonlocal shards, listed, skipped
        for segment in range(plan.segments):
            for number in range(steps[segment]):
                step = Step(**store.require(part_name(segment, number)))
                if step.is_last != (number == steps[segment] - 1):
                    raise AccountingError(
                        f"Step {number} of segment {segment} is not where the listing ended."
                    )
                skipped += step.skipped
                for shard in step.shards:
                    # ASCII: not every reader of JSON lines agrees on what else ends a line.
                    yield json.dumps({"index": shards} | shard).encode()
                    shards += 1
                    listed += shard["count"]

    store.put_lines("manifest.jsonl", lines())
    if plan.named is not None and listed + skipped != plan.named:
        raise AccountingError(
            f"{plan.named} tasks of an earlier job are to be retried, but {listed + skipped} are listed."
        )
    return Manifest(shards, listed, skipped)
