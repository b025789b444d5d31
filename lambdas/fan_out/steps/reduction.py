"""The reduction: partials fold to one, level by level, each node of at most FAN_IN children.

A node is committed by one object, so a reducer that ran out of time, or died, goes on where it was. What a
node holds in memory depends on neither the number of tasks nor of shards: values are small by a kind's
contract, lines and failures are streamed. A node's files have names made of its children's content, and the
first commit of a node counts, so racing reducers agree.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any

from fan_out.aws.storage import FAILURES, JobStore, encode
from fan_out.errors import AccountingError
from fan_out.model import kind as kinds
from fan_out.model.kind import Kind, Params
from fan_out.model.outcomes import Counts, Digest, failure
from fan_out.model.plan import Plan
from fan_out.model.shard import Progress, Shard
from fan_out.steps.folding import make_partial
from fan_out.steps.listing import Manifest

FAN_IN = 64
# Objects that are read at the same time.
READERS = 16
# Some more bytes than FAN_IN lines of a manifest have.
MANIFEST_BLOCK = 32 << 10
# How many faults of the account a record names one by one.
PROBLEMS = 20


@dataclass
class Node:
    """What some shards fold to. `lines` and `failures` name objects of the job, or are None."""

    counts: Counts = field(default_factory=Counts)
    value: Any = None
    digest: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    failed: int = 0
    # Faults of the account, each naming its shard; any of them fails the job.
    problems: list[str] = field(default_factory=list)
    # Why the kind's code could not make a value of these shards; the account does not need it.
    fault: str | None = None
    lines: str | None = None
    failures: str | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Node:
        return cls(**(document | {"counts": Counts(**document["counts"])}))


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next node to make: its level, its number there, and on level 0 where its shards' lines begin."""

    level: int = 0
    node: int = 0
    offset: int = 0


class Reduction:
    """The reduction of one job."""

    def __init__(self, store: JobStore, plan: Plan, manifest: Manifest):
        self._store = store
        self._manifest = manifest
        self._job: Any = None
        try:
            self._kind = kinds.find(plan.kind)
            self._job = plan.job()
            self._kind.zero()
        except Exception as error:
            self._kind = _Unusable(error)

    def width(self, level: int) -> int:
        """How many nodes a level has."""
        nodes = self._manifest.shards
        for _ in range(level + 1):
            nodes = -(-nodes // FAN_IN)
        return nodes

    def run(self, cursor: Cursor, is_late: Callable[[float], bool]) -> Cursor | Node:
        """Make nodes from the cursor on; the job's root, or a cursor when it is late. Makes one node at least."""
        level, number, offset = cursor.level, cursor.node, cursor.offset
        longest = 0.0
        while True:
            width = self.width(level)
            while number < width:
                begun = time.monotonic()
                offset = self._leaf(number, offset) if level == 0 else self._inner(level, number)
                number += 1
                longest = max(longest, time.monotonic() - begun)
                if is_late(longest):
                    return Cursor(level, number, offset)
            if width <= FAN_IN:
                return self._root(level, width)
            level, number, offset = level + 1, 0, 0

    def _name(self, level: int, number: int) -> str:
        return f"reduce/{level}-{number:07d}.json"

    def _leaf(self, number: int, offset: int) -> int:
        """Commit the node over the next shards of the manifest; the offset behind them."""
        lines = self._store.bucket.lines(self._store.key("manifest.jsonl"), offset, step=MANIFEST_BLOCK)
        entries = list(islice(lines, FAN_IN))
        shards = [Shard(**json.loads(line.text)) for line in entries]
        expected = min(FAN_IN, self._manifest.shards - number * FAN_IN)
        if [shard.index for shard in shards] != list(range(number * FAN_IN, number * FAN_IN + expected)):
            raise AccountingError(f"The manifest's lines from {number * FAN_IN} on are not the job's shards.")
        if not self._store.has(self._name(0, number)):
            with ThreadPoolExecutor(READERS) as pool:
                nodes = list(pool.map(self._shard, shards))
            self._commit(0, number, nodes)
        return entries[-1].end

    def _shard(self, shard: Shard) -> Node:
        """One shard's partial as a node; a shard without one counts as far as its checkpoint tells."""
        stored = self._store.get(shard.partial)
        problems: list[str] = []
        is_done, lost = stored is not None, 0
        if stored is None:
            progress = Progress(value=self._kind.zero())
            if (saved := self._store.get(shard.checkpoint)) is not None:
                progress = Progress.from_json(saved)
            try:
                self._give_up(shard, progress)
            except AccountingError as error:
                problems.append(f"Shard {shard.index} is lost: {error}")
                lost = shard.count - progress.counts.total
                progress.counts.unprocessed += lost
            stored = make_partial(self._store, shard, progress)
        counts = Counts(**stored["counts"])
        if counts.total != shard.count:
            problems.append(
                f"Shard {shard.index} has {shard.count} tasks, but its partial accounts for {counts.total}."
            )
        return Node(
            counts=counts,
            value=stored["value"],
            digest=[*stored["digest"], *([_unnamed(lost)] if lost else [])],
            done=int(is_done),
            failed=int(not is_done),
            problems=problems,
            lines=stored["lines"],
            failures=stored["failures"],
        )

    def _give_up(self, shard: Shard, progress: Progress) -> None:
        """Count what no worker reached as unprocessed, and name it."""
        message = "No worker finished this task before the job ended."
        for position, line in enumerate(self._store.bucket.lines(shard.key)):
            if position >= progress.next:
                task = json.loads(line.text)
                progress.failures.append(
                    failure(task, "unprocessed", "UnprocessedError", message, shard=shard.index, attempts=0)
                )
                progress.counts.unprocessed += 1

    def _inner(self, level: int, number: int) -> int:
        if not self._store.has(self._name(level, number)):
            first = number * FAN_IN
            children = range(first, min(first + FAN_IN, self.width(level - 1)))
            self._commit(level, number, self._nodes(level - 1, children))
        return 0

    def _nodes(self, level: int, numbers: Iterable[int]) -> list[Node]:
        def node(number: int) -> Node:
            return Node.from_json(self._store.require(self._name(level, number)))

        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(node, numbers))

    def _commit(self, level: int, number: int, children: list[Node]) -> None:
        node = self._folded(children)
        identity = hashlib.sha256(encode([asdict(child) for child in children])).hexdigest()[:16]
        if any(child.lines for child in children):
            node.lines = f"reduce/{level}-{number:07d}-{identity}.lines"
            self._store.put_lines(node.lines, self._merged_lines(children))
        if any(child.failures for child in children):
            node.failures = f"reduce/{level}-{number:07d}-{identity}.failures"
            self._store.put_lines(node.failures, self._failures(children))
        self._store.put_once(self._name(level, number), asdict(node))

    def _folded(self, children: list[Node]) -> Node:
        node = Node(fault=next((child.fault for child in children if child.fault is not None), None))
        if node.fault is None:
            try:
                node.value = self._merged([child.value for child in children])
            except (Exception, SystemExit) as error:
                node.fault = _told(error)
        for child in children:
            node.counts += child.counts
            node.done += child.done
            node.failed += child.failed
            node.problems = (node.problems + child.problems)[:PROBLEMS]
        node.digest = Digest(group for child in children for group in child.digest).to_json()
        return node

    def _merged(self, values: list[Any]) -> Any:
        merged = self._kind.zero()
        for value in values:
            merged = self._kind.merge(merged, value, self._job)
        # What cannot be stored is no value.
        encode(merged)
        return merged

    def _merged_lines(self, children: list[Node]) -> Iterator[bytes]:
        streams = [self._texts(child.lines) for child in children if child.lines is not None]
        # A merge asks its streams for their first line one after another: have those read by then.
        with ThreadPoolExecutor(READERS) as pool:
            firsts = list(pool.map(lambda stream: next(stream, None), streams))
        begun = zip(firsts, streams, strict=True)
        return heapq.merge(*(chain([first], stream) for first, stream in begun if first is not None))

    def _failures(self, children: list[Node]) -> Iterator[bytes]:
        for child in children:
            if child.failures is not None:
                yield from self._texts(child.failures)

    def _texts(self, name: str) -> Iterator[bytes]:
        return (line.text for line in self._store.lines(name))

    def _root(self, level: int, width: int) -> Node:
        """Fold the last level and write the job's files. The same nodes give the same bytes, however often."""
        children = self._nodes(level, range(width))
        root = self._folded(children)
        if self._kind.lines_file is not None:
            root.lines = self._kind.lines_file
            plain = (line.partition(b"\t")[2] for line in self._merged_lines(children))
            self._store.put_lines(root.lines, plain)
        if root.counts.not_succeeded:
            root.failures = FAILURES
            self._store.put_lines(root.failures, self._failures(children))
            self._store.put("digest.json", root.digest)
        self._check(root)
        if root.fault is None:
            try:
                summary = self._kind.summary(root.value, self._job)
                encode(summary)
            except (Exception, SystemExit) as error:
                root.fault = _told(error)
            else:
                self._store.put("result.json", summary)
        return root

    def _check(self, root: Node) -> None:
        """Every listed task has one outcome and every shard is in the account, or the job says why not."""
        if root.counts.total != self._manifest.listed:
            root.problems.append(
                f"{self._manifest.listed} tasks were listed, but {root.counts.total} are accounted for."
            )
        if root.done + root.failed != self._manifest.shards:
            root.problems.append(
                f"{self._manifest.shards} shards were planned, but {root.done + root.failed} are accounted for."
            )


class _Unusable(Kind[Params, Any]):
    """In place of a kind that is gone, or cannot even be asked for its zero: the account is made without it."""

    name = "unusable"
    params = Params

    def __init__(self, error: Exception):
        self._error = error

    def merge(self, left: Any, right: Any, job: Any) -> Any:
        raise self._error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _unnamed(count: int) -> dict[str, Any]:
    """The group of the digest for the tasks of a lost shard."""
    return {
        "outcome": "unprocessed",
        "error": AccountingError.__name__,
        "message": "The shard is lost, and with it the names of its tasks.",
        "count": count,
        "samples": [],
    }
