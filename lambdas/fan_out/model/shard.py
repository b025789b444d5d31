"""Shards: what a listing commits of them, how far a worker is, and what their tasks fold to."""

from dataclasses import asdict, dataclass, field
from typing import Any

from typing_extensions import TypedDict

from fan_out.model.outcomes import Count, Counts, Group


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


@dataclass(frozen=True, slots=True)
class Part:
    """What one step of one segment listed; the indexes of its shards count within the step.

    `skipped` are the tasks of a retry that no longer exist or no longer match the job's filter. The last step of its
    segment has no `cursor`.
    """

    shards: list[Shard]
    skipped: Count
    cursor: str | None


class Concurrency(TypedDict):
    """How many workers of a job run at a time, and the sentence that says why."""

    workers: Count
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """How many shards and tasks a job has, and the digest of `manifest.jsonl`, which has a line for each shard."""

    shards: Count
    listed: Count
    skipped: Count
    digest: str | None = None
    concurrency: Concurrency | None = None


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

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"counts": asdict(self.counts)}

    def fits(self, shard: Shard) -> bool:
        """Whether it can be of this shard."""
        return self.counts.total == self.next <= shard.count


@dataclass
class Partial:
    """What one shard folds to. `lines` and `failures` name objects of the job, or are None."""

    counts: Counts = field(default_factory=Counts)
    value: Any = None
    digest: list[Group] = field(default_factory=list)
    lines: str | None = None
    failures: str | None = None

    def fits(self, shard: Shard) -> bool:
        """Whether it can be of this shard."""
        return self.counts.total == shard.count


@dataclass
class Node(Partial):
    """What some shards fold to; the root is what all of them do."""

    done: Count = 0
    failed: Count = 0
    # What is wrong with the tally, each naming its shard or object; any of them fails the job.
    problems: list[str] = field(default_factory=list)
    # Why the kind's own code made no value of these shards; the tally does not need it.
    fault: str | None = None
    # The digests of the node's own lines and failures, by their names.
    digests: dict[str, str] = field(default_factory=dict)
    # Of the root: the kind's small result, and the version of the job's list of failures.
    summary: dict[str, Any] | None = None
    failures_etag: str | None = None
