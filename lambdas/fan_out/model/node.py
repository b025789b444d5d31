"""What shards fold to: the partial of one, a node of the reduction over many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fan_out.model.outcomes import Count, Counts, Group


@dataclass
class Partial:
    """What one shard folds to. `lines` and `failures` name objects of the job, or are None."""

    counts: Counts = field(default_factory=Counts)
    value: Any = None
    digest: list[Group] = field(default_factory=list)
    lines: str | None = None
    failures: str | None = None


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
