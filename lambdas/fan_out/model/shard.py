"""A shard and what is known of it: how far its tasks have outcomes, and the partial that they fold to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from fan_out.aws.storage import JobStore
from fan_out.model.documents import encode
from fan_out.model.outcomes import Counts, Digest


@dataclass(frozen=True, slots=True)
class Shard:
    """A line of the manifest."""

    index: int
    key: str
    count: int
    bytes: int

    @property
    def partial(self) -> str:
        return f"partials/{self.index:08d}.json"

    @property
    def checkpoint(self) -> str:
        return f"checkpoints/{self.index:08d}.json"

    @property
    def marker(self) -> str:
        return f"checkpoints/{self.index:08d}.marker.json"


@dataclass
class Progress:
    """How far a shard is: every task before `next` has its outcome in here. Saved whole as the checkpoint."""

    next: int = 0
    counts: Counts = field(default_factory=Counts)
    value: Any = None
    # Lines for the kind's file, as `key TAB json`, and lines for failures.jsonl.
    lines: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    # How often the tasks from `next` on have been tried already, by calls that ended before they had an answer.
    tries: int = 0

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Progress:
        return cls(**(document | {"counts": Counts(**document["counts"])}))

    def to_json(self) -> dict[str, Any]:
        return {
            "next": self.next,
            "counts": asdict(self.counts),
            "value": self.value,
            "lines": self.lines,
            "failures": self.failures,
            "tries": self.tries,
        }


def partial(store: JobStore, shard: Shard, progress: Progress) -> dict[str, Any]:
    """A shard's partial, its lines and failures written out beside it under keys made of their content."""

    def written(suffix: str, lines: list[bytes]) -> str | None:
        if not lines:
            return None
        body = b"\n".join(lines) + b"\n"
        name = f"partials/{shard.index:08d}-{hashlib.sha256(body).hexdigest()[:16]}.{suffix}"
        store.bucket.put(store.key(name), body)
        return name

    digest = Digest()
    for entry in progress.failures:
        digest.add(entry)
    return {
        "counts": asdict(progress.counts),
        "value": progress.value,
        "digest": digest.to_json(),
        "lines": written("lines", sorted(line.encode() for line in progress.lines)),
        "failures": written("failures", [encode(entry) for entry in progress.failures]),
    }
