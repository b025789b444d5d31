from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings

import kinds
from fan_out.aws.storage import Bucket, JobStore
from fan_out.model import kind
from fan_out.model.documents import digest, encode
from fan_out.model.job_input import read_input
from fan_out.model.manifest import Manifest
from fan_out.model.plan import Plan, make_plan
from fan_out.model.shard import Progress, Shard, partial
from tests.support import machine as machines
from tests.support.machine import BUCKET, STARTED_AT, Machine

# A normal run looks at the same examples every time.
settings.register_profile(
    "fan-out",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fan-out")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Machine]:
    with machines.deployed() as deployed:
        yield deployed


@pytest.fixture
def machine(deployment: Machine) -> Machine:
    """The whole workflow on an empty bucket and table."""
    reset(deployment)
    return deployment


def reset(machine: Machine) -> None:
    """Make of a used machine a new one."""
    machine.wipe()
    fresh = Machine()
    for name in ("contexts", "before", "after", "around", "order", "clock"):
        setattr(machine, name, getattr(fresh, name))


@pytest.fixture
def store(machine: Machine) -> JobStore:
    """The objects of job-1."""
    return JobStore(Bucket(BUCKET), "job-1")


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The kind `trial`, as a user would add it: one file in a folder of kinds."""
    folder = str(Path(__file__).parent / "own_kinds")
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, folder])
    kind.find.cache_clear()
    found: Any = kind.find("trial")
    found.on.clear()
    found.calls.clear()
    found.keys.clear()
    yield found
    kind.find.cache_clear()


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
    store.put_once(shard.partial, partial(store, shard, progress))


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
