"""Listing: batches of a source, cut into shards, and committed step by step.

A *step* is what one call of the lister does. Its shards are written first, under keys made of their content;
one last object, the step's *part*, names them. Only what a part names belongs to the job, so a step that died
leaves nothing that counts, and a step that is repeated finds its part and answers what it answered before.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

from fan_out import sources
from fan_out.aws.storage import JobStore
from fan_out.errors import AccountingError, RetryableError
from fan_out.model.documents import digest, encode
from fan_out.model.plan import Plan
from fan_out.model.shard import Manifest, Part, Shard

# A worker reads its whole shard into memory, and a failed one is written out again: keep it small.
SHARD_BYTES = 4 << 20


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
    read, so that every step moves on; another only if there is time for one as long as the longest so far.
    """
    name = part_name(segment, step)
    if (committed := store.find(name, Part)) is not None:
        return committed
    cutter = _Cutter(store, f"shards/{segment:04d}-{step:06d}", plan.shard_size)
    skipped = 0
    start, longest = now(), 0.0
    count = 0
    # protection: source-of-a-step
    batches = sources.batches(store.bucket, plan, segment, cursor, list_function)
    while True:
        try:
            batch = next(batches, None)
        except RetryableError:
            # What is listed so far is kept: repeated from its start, a long step would hardly ever get to its end.
            # protection: listed-so-far-is-kept
            if not count:
                raise
            break
        if batch is None:
            break
        for line in batch.lines:
            cutter.add(line)
        skipped += batch.skipped
        cursor = batch.cursor
        count += 1
        longest, start = max(longest, now() - start), now()
        # protection: cursor-near-the-deadline
        if cursor is not None and is_late(longest):
            break
    cutter.cut()
    return store.put_once(name, asdict(Part(cutter.shards, skipped, cursor)), Part)


@dataclass
class _Cutter:
    """Cuts lines into shards of at most `size` tasks and SHARD_BYTES, in listing order, and writes them."""

    store: JobStore
    prefix: str
    size: int
    shards: list[Shard] = field(default_factory=list)
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
        index = len(self.shards)
        # The content is in the key: an attempt that listed something else cannot change a committed shard.
        # protection: content-in-the-key
        key = self.store.key(f"{self.prefix}-{index:06d}-{digest(body)}.jsonl")
        self.store.bucket.put(key, body)
        self.shards.append(Shard(index, key, len(self._lines), len(body)))
        self._lines, self._bytes = [], 0


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
                if part.is_last != (number == steps[segment] - 1):
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
