"""Tasks, plans and the objects of a job, as the functions before would have left them."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

from botocore.exceptions import ClientError

from fan_out.aws.storage import JobStore
from fan_out.model.documents import digest, encode
from fan_out.model.job_input import read_input
from fan_out.model.plan import Plan, make_plan
from fan_out.model.shard import Manifest, Progress, Shard
from fan_out.steps.folding import make_partial
from tests.support.machine import STARTED_AT


def task(number: int, **fields: Any) -> dict[str, Any]:
    """The JSON of an open task."""
    return {
        "id": f"task-{number:05d}",
        "title": f"Task {number}",
        "isComplete": False,
        "createdAt": "2026-11-01T08:00:00Z",
        "updatedAt": "2026-11-01T08:00:00Z",
        "version": 1,
    } | fields


def plan(job_id: str = "job-1", **asked: Any) -> Plan:
    return make_plan(job_id, STARTED_AT, read_input(asked))


def put_plan(store: JobStore, **asked: Any) -> Plan:
    """The plan of a job, stored as the planner does."""
    planned = plan(store.job_id, **asked)
    store.put("job.json", planned.to_json())
    return planned


def put_shard(store: JobStore, index: int, tasks: list[dict[str, Any]]) -> Shard:
    """A shard's object, and its line of the manifest."""
    body = b"".join(encode(each) + b"\n" for each in tasks)
    key = store.key(f"shards/{index:06d}-{digest(body)}.jsonl")
    store.bucket.put(key, body)
    return Shard(index, key, len(tasks), len(body))


def put_manifest(store: JobStore, shards: list[Shard]) -> Manifest:
    written = store.put_lines("manifest.jsonl", [encode(asdict(shard)) for shard in shards])
    manifest = Manifest(len(shards), sum(shard.count for shard in shards), 0, written)
    store.put("manifest.json", asdict(manifest))
    return manifest


def put_partial(store: JobStore, shard: Shard, progress: Progress) -> None:
    store.put_once(shard.partial, asdict(make_partial(store, shard, progress)))


class RangedReads:
    """S3's ranged reads of some objects, without the time and the memory that moto takes for them."""

    def __init__(self, objects: dict[str, bytes]):
        self._objects = objects
        self.requests = 0

    def get_object(self, *, Key: str, Range: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803
        self.requests += 1
        if Key not in self._objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        body = self._objects[Key]
        first, last = (int(number) for number in Range.removeprefix("bytes=").split("-"))
        if first >= len(body):
            raise ClientError({"Error": {"Code": "InvalidRange"}}, "GetObject")
        block = body[first : last + 1]
        return {
            "Body": io.BytesIO(block),
            "ContentRange": f"bytes {first}-{first + len(block) - 1}/{len(body)}",
        }
