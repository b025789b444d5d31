"""What a listing commits: a part for each of its steps, and the manifest that joins them."""

from __future__ import annotations

from dataclasses import dataclass

from fan_out.model.outcomes import Count
from fan_out.model.shard import Shard


@dataclass(frozen=True, slots=True)
class Part:
    """What one step of one segment listed; the indexes of its shards count within the step.

    `skipped` are the tasks of a retry that no longer exist or no longer match the job's filter.
    """

    shards: list[Shard]
    skipped: Count
    cursor: str | None

    @property
    def is_last(self) -> bool:
        return self.cursor is None


@dataclass(frozen=True, slots=True)
class Manifest:
    """How many shards and tasks a job has, and the digest of `manifest.jsonl`, which has a line for each shard."""

    shards: Count
    listed: Count
    skipped: Count
    digest: str | None = None
