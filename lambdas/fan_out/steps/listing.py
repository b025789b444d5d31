"""Listing: batches of a source, cut into shards, and committed step by step.

A *step* is what one call of the lister does. Its shards are written first, under keys made of their content;
one last object, the step's *part*, names them. Only what a part names belongs to the job, so a step that died
leaves nothing that counts, and a step that is repeated finds its part and answers what it answered before.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace

from fan_out.aws.storage import JobStore
from fan_out.errors import AccountingError, RetryableError
from fan_out.model.documents import digest, encode
from fan_out.model.plan import Plan
from fan_out.model.shard import Manifest, Part, Shard
from fan_out.sources import csv, failed, tasks

SOURCES = {"tasks": tasks.batches, "csv": csv.batches, "failedIn": failed.batches}
# A worker reads its whole shard into memory, and a failed one is written out again: keep it small.
SHARD_BYTES = 4 << 20
# Shards that are written at a time, while the next page is listed: more would not be faster, as a write takes less time
# than a page. In memory are these, the shard that is being cut, and two pages.
WRITERS = 4


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
) -> Part:
    """List one segment from a cursor until its end or until it is late; commit and answer the step's part.

    A step that was committed before is answered as it was, without listing again. At least one batch is
    read, so that every step moves on; another only if there is time for one as long as the longest so far, and for
    what is left to do of the one at hand: the next batch is read while the lines of this one are cut and written.
    """
    name = part_name(segment, step)
    if (committed := store.find(name, Part)) is not None:
        return committed
    skipped = 0

    def lines() -> Iterator[bytes]:
        nonlocal cursor, skipped
        # protection: source-of-a-step
        batches = SOURCES[plan.source.type](store.bucket, plan, segment, cursor, list_function)
        start, ahead = now(), reader.submit(next, batches, None)
        longest, is_first = 0.0, True
        while True:
            try:
                batch = ahead.result()
            except RetryableError:
                # What is listed so far is kept: repeated from its start, a long step would hardly ever get to its end.
                # protection: listed-so-far-is-kept
                if is_first:
                    raise
                return
            if batch is None:
                return
            skipped += batch.skipped
            cursor = batch.cursor
            is_first = False
            longest = max(longest, now() - start)
            # Decided before the next batch is asked for, so that none is read for nothing.
            # protection: cursor-near-the-deadline
            if cursor is None or is_late(2 * longest):
                yield from batch.lines
                return
            asked, ahead = now(), reader.submit(next, batches, None)
            yield from batch.lines
            longest, start = max(longest, now() - start), asked

    shards: list[Shard] = []
    writing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(WRITERS) as writers:
        for index, body in enumerate(cut(lines(), plan.shard_size)):
            # The content is in the key: an attempt that listed something else cannot change a committed shard.
            # protection: content-in-the-key
            key = store.key(f"shards/{segment:04d}-{step:06d}-{index:06d}-{digest(body)}.jsonl")
            # protection: few-shards-in-flight
            if len(writing) == WRITERS:
                writing.popleft().result()
            writing.append(writers.submit(store.bucket.put, key, body))
            shards.append(Shard(index, key, body.count(b"\n"), len(body)))
        # protection: a-part-after-its-shards
        for each in writing:
            each.result()
    return store.put_once(name, asdict(Part(shards, skipped, cursor)), Part)


def cut(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut lines into the bodies of shards of at most `size` tasks and SHARD_BYTES, in listing order."""
    body, count = bytearray(), 0
    for line in lines:
        if count and (count == size or len(body) + len(line) >= SHARD_BYTES):
            yield bytes(body)
            body, count = bytearray(), 0
        body += line
        body += b"\n"
        count += 1
    if count:
        yield bytes(body)


def join_parts(store: JobStore, plan: Plan, steps: dict[int, int]) -> Manifest:
    """Join the parts of every segment into `manifest.jsonl`, one line a shard; the sums.

    `steps` says how many steps each segment took; parts are read by their names, so a stray object is never
    taken in. Raises AccountingError if a segment or a part is missing, a segment did not come to its end, or a
    retry lists another number of tasks than the earlier job's record says.
    """
    if sorted(steps) != list(range(plan.segments)):
        raise AccountingError(
            f"The listing has the segments {sorted(steps)}, but the plan has {plan.segments} of them."
        )
    shards = listed = skipped = 0

    def lines() -> Iterator[bytes]:
        nonlocal shards, listed, skipped
        for segment in range(plan.segments):
            # protection: parts-by-name
            for number in range(steps[segment]):
                # protection: parts-are-counted
                part = store.require(part_name(segment, number), Part)
                if (part.cursor is None) != (number == steps[segment] - 1):
                    raise AccountingError(f"Step {number} of segment {segment} is not where the listing ended.")
                skipped += part.skipped
                for shard in part.shards:
                    # ASCII, as keys are: not every reader of JSON lines agrees on what else ends a line.
                    yield encode(asdict(replace(shard, index=shards)))
                    shards += 1
                    listed += shard.count

    digest_of_lines = store.put_lines("manifest.jsonl", lines())
    # protection: expected-count-of-a-retry
    if plan.expected_count is not None and listed + skipped != plan.expected_count:
        raise AccountingError(
            f"{plan.expected_count} tasks of an earlier job are to be retried, but {listed + skipped} are listed."
        )
    return Manifest(shards, listed, skipped, digest_of_lines)
