"""The reduction: partials fold to one, level by level, each node of at most FAN_IN children.

A node is committed by one object, so a reducer that ran out of time, or died, goes on where it was. The memory of a
node depends on neither the number of tasks nor of shards: values are small by a kind's contract, lines and failures
are streamed. A node's files have names made of its children's content, and the first commit of a node counts, so
racing reducers agree.

In a large job the state machine has several Mergers make the nodes of a level at the same time, each a span of them.
That is a speed-up alone: the reducer makes whatever is missing afterwards.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from typing import Any, TypeVar

from fan_out.aws.storage import FAILURES, JobStore
from fan_out.errors import AccountingError
from fan_out.model.documents import decode, digest, encode
from fan_out.model.outcomes import Digest, Group, failure
from fan_out.model.plan import Plan
from fan_out.model.shard import Manifest, Node, Partial, Progress, Shard
from fan_out.steps.folding import make_partial
from fan_out.steps.kind_merger import KindMerger

# protection: fan-in
FAN_IN = 64
# Objects that are read at the same time.
READERS = 16
# Bytes: more than FAN_IN lines of a manifest have.
MANIFEST_BLOCK = 32 << 10
# The most problems that a record names.
PROBLEMS = 20
# The node over all shards.
ROOT = "root.json"
# Calls that may end at one step before the reduction goes on without the kind's code. A crash of another reason counts
# here too, and so does a call that a duplicate finds at work. The state machine retries a reducer more often.
DEADLY = 5
# Nodes on the first level from which on Mergers share each level. At the usual sizes of shards a node takes about a
# second: a row of fewer is over before Mergers that start cold have gained what their state transitions cost.
WIDE = 16
# Spans of a level: three for each Merger that runs at a time, so that they end at about the same time. All retries of
# so many fit into the execution's history of 25,000 events, on as many levels as a job can have.
SPANS = 24

T = TypeVar("T")
F = TypeVar("F", Partial, Progress)


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring nodes of a level, `last` not among them; on level 0, where the lines of their shards begin."""

    level: int
    first: int
    last: int
    offset: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next node to make: its level, its number there, and on level 0 where its shards' lines begin.

    With `spans`, the whole level is given to Mergers first; a level is given to them once.
    """

    level: int = 0
    node: int = 0
    offset: int = 0
    spans: list[Span] | None = None


class Reduction:
    """The reduction of one job."""

    def __init__(self, store: JobStore, plan: Plan, manifest: Manifest, *, deadly: int = DEADLY, is_alone: bool = True):
        self._store = store
        self._manifest = manifest
        self._merger = KindMerger(store, plan, deadly, is_alone=is_alone)

    def width(self, level: int) -> int:
        """How many nodes a level has."""
        nodes = self._manifest.shards
        for _ in range(level + 1):
            nodes = -(-nodes // FAN_IN)
        return nodes

    def run(self, cursor: Cursor, is_late: Callable[[float], bool], *, is_shared: bool = False) -> Cursor | Node:
        """Make nodes from the cursor on; the job's root, or a cursor when it is late. Makes one node at least.

        With `is_shared`, also a cursor with spans where a level of a large job begins.
        Raises AccountingError if an object is lost without which there is no tally.
        """
        if (root := self._store.find(ROOT, Node)) is not None:
            return root
        # Its lines are read in pieces later on: this one look at all of them sees whether they are the job's.
        offsets = self._offsets() if cursor == Cursor() else []
        while True:
            level, width = cursor.level, self.width(cursor.level)
            # protection: a-level-is-shared-once
            if is_shared and cursor.spans is None and cursor.node == 0 and self.width(0) >= WIDE:
                return Cursor(level, spans=self._spans(level, offsets))
            # protection: what-mergers-left
            if not (cursor.spans and self._is_made(level)):
                left = self.make(Span(level, cursor.node, width, cursor.offset), is_late)
                if left is not None:
                    return Cursor(level, left.first, left.offset)
            if width <= FAN_IN:
                return self._root(level, width)
            cursor = Cursor(level + 1)

    def make(self, span: Span, is_late: Callable[[float], bool]) -> Span | None:
        """Make the span's nodes, one after another; what is left of it when it is late. Makes one node at least."""
        longest = 0.0
        while span.first < span.last:
            begun = time.monotonic()
            offset = self._node(span.level, span.first, span.offset)
            span = replace(span, first=span.first + 1, offset=offset)
            longest = max(longest, time.monotonic() - begun)
            # protection: reducer-cursor
            if is_late(longest):
                # protection: reducer-goes-on-there
                return span
        return None

    def _step(self, level: int) -> int:
        """How many nodes a span of this level has; the last one may have fewer."""
        return max(1, -(-self.width(level) // SPANS))

    def _offsets(self) -> list[int]:
        """Where the lines of each span of level 0 begin in the manifest, which is checked on the way."""
        lines = self._store.lines("manifest.jsonl", digest=self._manifest.digest)
        shards = self._step(0) * FAN_IN
        return [0, *(line.end for number, line in enumerate(lines, 1) if number % shards == 0)]

    def _spans(self, level: int, offsets: list[int]) -> list[Span]:
        step, width = self._step(level), self.width(level)
        return [
            Span(level, first, min(first + step, width), offsets[first // step] if level == 0 else 0)
            for first in range(0, width, step)
        ]

    def _is_made(self, level: int) -> bool:
        """Whether every node of the level is committed."""

        def is_made(number: int) -> bool:
            return self._store.find(self._name(level, number), Node) is not None

        return all(_read_all(is_made, range(self.width(level))))

    def _name(self, level: int, number: int) -> str:
        return f"reduce/{level}-{number:07d}.json"

    def _node(self, level: int, number: int, offset: int) -> int:
        """Commit a node unless it is there; on level 0 the offset behind its shards in the manifest."""
        first = number * FAN_IN
        children = range(first, min(first + FAN_IN, self.width(level - 1)))
        shards: list[Shard] = []
        if level == 0:
            shards, offset = self._shards(children, offset)
        if self._store.find(self._name(level, number), Node) is None:
            nodes = _read_all(self._shard, shards) if level == 0 else self._nodes(level - 1, children)
            self._commit(level, number, nodes)
        return offset

    def _shards(self, numbers: range, offset: int) -> tuple[list[Shard], int]:
        """The shards of these numbers, whose lines of the manifest begin at the offset, and the offset behind them."""
        key = self._store.key("manifest.jsonl")
        entries = list(islice(self._store.bucket.lines(key, offset, step=MANIFEST_BLOCK), FAN_IN))
        try:
            shards: list[Shard] = [decode(line.text, Shard) for line in entries]
        except ValueError as error:
            raise AccountingError(f"The object {key} cannot be read: {error}.") from error
        if [shard.index for shard in shards] != list(numbers):
            raise AccountingError(f"The manifest's lines from {numbers.start} on are not the job's shards.")
        return shards, entries[-1].end

    def _shard(self, shard: Shard) -> Node:
        """One shard's partial as a node; a shard without one counts as far as its checkpoint tells."""
        problems: list[str] = []
        found = self._read(problems, shard, self._find, shard.partial, Partial)
        if found is not None:
            return Node(**vars(found), done=1)
        progress = self._read(problems, shard, self._find, shard.checkpoint, Progress) or Progress()
        tasks = self._read(problems, shard, self._store.bucket.tasks)
        # protection: what-is-left
        left = shard.count - progress.next
        progress.counts.unprocessed += left
        # protection: what-must-be-there
        for task in (tasks or [])[progress.next :]:
            message = "No worker finished this task before the job ended."
            progress.failures.append(
                failure(task.to_json(), "unprocessed", "UnprocessedError", message, shard=shard.index, attempts=0)
            )
        made = make_partial(self._store, shard, progress)
        if tasks is None and left:
            message = "The shard is lost, and with it the names of its tasks."
            made.digest.append(
                Group(outcome="unprocessed", error=AccountingError.__name__, message=message, count=left, samples=[])
            )
        return Node(**vars(made), failed=1, problems=problems)

    def _read(self, problems: list[str], shard: Shard, read: Callable[..., Any], *arguments: Any) -> Any:
        """What is read of a shard; None, and a problem that names the object, if it is lost."""
        try:
            return read(shard, *arguments)
        except AccountingError as lost:
            # protection: a-lost-object-is-named
            problems.append(f"Shard {shard.index} is lost: {lost}")
            return None

    def _find(self, shard: Shard, name: str, shape: type[F]) -> F | None:
        """The shard's partial or checkpoint. Raises AccountingError if it is lost or cannot be of this shard."""
        found = self._store.get(name, shape)
        # protection: counts-of-an-object
        if found is not None and not found.fits(shard):
            raise AccountingError(
                f"The object {self._store.key(name)} has {found.counts.total} of {shard.count} tasks."
            )
        return found

    def _nodes(self, level: int, numbers: Iterable[int]) -> list[Node]:
        return _read_all(lambda number: self._store.require(self._name(level, number), Node), numbers)

    def _commit(self, level: int, number: int, children: list[Node]) -> None:
        node = _add_up(children)
        identity = digest(encode([asdict(child) for child in children]))
        # Its digest is of what went into it: a dot, not a hyphen, as the names of contents have.
        prefix = f"reduce/{level}-{number:07d}.{identity}"
        if any(child.lines for child in children):
            node.lines = f"{prefix}.lines"
            node.digests[node.lines] = self._store.put_lines(node.lines, self._merged_lines(children))
        if any(child.failures for child in children):
            node.failures = f"{prefix}.failures"
            node.digests[node.failures] = self._store.put_lines(node.failures, self._failures(children))
        name = self._name(level, number)
        with self._merger.step(name):
            node.value, node.fault = self._merger.merge(children)
            # protection: first-node-counts
            self._store.put_once(name, asdict(node), Node)

    def _merged_lines(self, children: list[Node]) -> Iterator[bytes]:
        # protection: lines-are-streamed
        streams = [self._texts(child, child.lines) for child in children if child.lines is not None]
        # A merge asks its streams for their first line one after another: have those read by then.
        firsts = _read_all(lambda stream: next(stream, None), streams)
        started = zip(firsts, streams, strict=True)
        return heapq.merge(*(chain([first], stream) for first, stream in started if first is not None))

    def _failures(self, children: list[Node]) -> Iterator[bytes]:
        for child in children:
            if child.failures is not None:
                yield from self._texts(child, child.failures)

    def _texts(self, node: Node, name: str) -> Iterator[bytes]:
        return (line.text for line in self._store.lines(name, digest=node.digests.get(name)))

    def _root(self, level: int, width: int) -> Node:
        """Fold the last level and write the job's files. The same nodes give the same bytes, however often."""
        children = self._nodes(level, range(width))
        root = _add_up(children)
        # Every listed task has one outcome, and every shard is in the tally.
        if (root.counts.total, root.done + root.failed) != (self._manifest.listed, self._manifest.shards):
            raise AccountingError(
                f"{self._manifest.listed} tasks in {self._manifest.shards} shards were listed, but the tally has "
                f"{root.counts.total} tasks in {root.done + root.failed} shards."
            )
        with self._merger.step("root"):
            root.summary, root.fault = self._merger.merge(children, is_root=True)
        self._merger.forget()
        if self._merger.lines_file is not None:
            root.lines = self._merger.lines_file
            plain = (line.partition(b"\t")[2] for line in self._merged_lines(children))
            self._store.put_lines(root.lines, plain)
        if root.counts.not_succeeded:
            root.failures = FAILURES
            self._store.put_lines(FAILURES, self._failures(children))
            written = self._store.bucket.head(self._store.key(FAILURES))
            root.failures_etag = written.etag if written is not None else None
            self._store.put("digest.json", root.digest)
        if root.summary is not None:
            self._store.put("result.json", root.summary)
        return self._store.put_once(ROOT, asdict(root), Node)


def _read_all(read: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """What is read for each item, READERS at the same time."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, items))


def _add_up(children: list[Node]) -> Node:
    """The children's sums; neither values nor files."""
    node = Node()
    for child in children:
        node.counts += child.counts
        node.done += child.done
        node.failed += child.failed
        node.problems = (node.problems + child.problems)[:PROBLEMS]
    node.digest = Digest(group for child in children for group in child.digest).to_json()
    return node
