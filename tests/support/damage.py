"""The table of damaged objects: which object of a job, how it is damaged, when, and what must become of the job.

It has two runners: one in this process, and one on the embedded AWS, whose functions import this file as `damage`.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

COUNT = 5
# The kind of the tests that counts tasks and writes a line for each; the second one fails.
DOCUMENT: dict[str, Any] = {
    "kind": "hostile",
    "params": {"acts": [{"method": "process", "deed": "nothing said", "tasks": [1, 101]}]},
    "shardSize": 2,
    "maxConcurrency": 1,
    "toleratedFailurePercentage": 100,
}
# What the job comes to without damage.
WHOLE = {"listed": 5, "succeeded": 4, "failed": 1, "quarantined": 0, "unprocessed": 0}
NUMBERS = {"count", "listed", "shards", "skipped", "succeeded", "failed", "next", "done", "deaths", "shardSize"}


class Objects(Protocol):
    """The objects of jobs, wherever they are."""

    def names(self, job_id: str) -> list[str]: ...

    def read(self, job_id: str, name: str) -> bytes: ...

    def write(self, job_id: str, name: str, body: bytes | None) -> None: ...


def with_numbers(body: bytes, change: Callable[[int], int]) -> bytes:
    """The same document, or lines of documents, with other counts."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            name: change(each) if name in NUMBERS and isinstance(each, int) else walk(each)
            for name, each in value.items()
        }

    try:
        lines = [walk(json.loads(line)) for line in body.splitlines()]
    except ValueError:
        # Lines of a kind's file have a key before their JSON.
        return body.replace(b'"id"', b'"di"')
    return b"\n".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() for line in lines)


def with_another_byte(body: bytes) -> bytes:
    """Of the same length, with another letter or digit in its middle."""
    at = next(position for position in range(len(body) // 2, len(body)) if body[position : position + 1].isalnum())
    return body[:at] + (b"0" if body[at : at + 1] != b"0" else b"1") + body[at + 1 :]


# From the object's bytes and those of the same object of another job.
DAMAGES: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "missing": lambda body, other: None,
    "empty": lambda body, other: b"",
    "truncated": lambda body, other: body[: len(body) // 2],
    "null": lambda body, other: b"null",
    "{}": lambda body, other: b"{}",
    "[]": lambda body, other: b"[]",
    "wrong counts": lambda body, other: with_numbers(body, lambda number: number + 1),
    "another job's": lambda body, other: other,
    "another byte": lambda body, other: with_another_byte(body),
}


@dataclass(frozen=True)
class Target:
    """The first object whose name begins and ends so, at the call of this number of a function.

    `is_made_again` says that the job does not need it; `planted` that it is there before its time; `is_deadly` that
    workers die at their checkpoints and markers, so that there are some; `is_late` that it is damaged behind the call.
    """

    begin: str
    end: str
    function: str
    call: int = 0
    is_made_again: bool = False
    planted: bool = False
    is_deadly: bool = False
    is_late: bool = False

    @property
    def source(self) -> str:
        """What the ids of the undamaged jobs end in that have such an object."""
        return self.end.strip(".").replace(".", "-") if self.is_deadly else "any"

    def find(self, objects: Objects, job_id: str) -> str | None:
        found = [name for name in objects.names(job_id) if name.startswith(self.begin) and name.endswith(self.end)]
        return min(found, default=None)


TARGETS = {
    "plan before listing": Target("job.json", "", "Lister"),
    "plan before working": Target("job.json", "", "Worker"),
    "plan before reducing": Target("job.json", "", "Reducer"),
    "part": Target("parts/", ".json", "Manifest"),
    "planted part": Target("parts/", ".json", "Lister", is_made_again=True, planted=True),
    "sums": Target("manifest.json", ".json", "Reducer"),
    "manifest": Target("manifest.jsonl", "", "Reducer"),
    "manifest before working": Target("manifest.jsonl", "", "Manifest", is_late=True),
    "shard": Target("shards/", ".jsonl", "Worker"),
    "partial": Target("partials/", ".json", "Reducer"),
    "planted partial": Target("partials/", "0.json", "Worker", is_made_again=True, planted=True),
    "lines of a partial": Target("partials/", ".lines", "Reducer"),
    "failures of a partial": Target("partials/", ".failures", "Reducer"),
    "checkpoint": Target("checkpoints/", "0.json", "Worker", 3, is_made_again=True, is_deadly=True),
    "marker": Target("checkpoints/", ".marker.json", "Worker", 2, is_made_again=True, is_deadly=True),
    "node": Target("reduce/0", ".json", "Reducer", 1),
    "planted node": Target("reduce/0", ".json", "Reducer", is_made_again=True, planted=True),
    "lines of a node": Target("reduce/0", ".lines", "Reducer", 1),
    "failures of a node": Target("reduce/0", ".failures", "Reducer", 1),
    "marker of the reduction": Target("reduce/marker", ".json", "Reducer", 1, is_made_again=True),
    "planted root": Target("root", ".json", "Reducer", is_made_again=True, planted=True),
    "planted record": Target("record", ".json", "Reducer", is_made_again=True, planted=True),
}
# Damaged when the job has ended.
AFTERWARDS = (
    *("job.json", "manifest.json", "manifest.jsonl", "root.json", "record.json"),
    *("failures.jsonl", "digest.json", "result.json", "hostile.jsonl"),
)


@dataclass
class Damager:
    """Damages an object of one job, at a call of a function; `calls` counts those of the target's function."""

    objects: Objects
    job_id: str
    target: Target
    way: str | None
    die: Callable[[], Any]
    calls: int = 0
    damaged: str | None = None

    def before(self, function: str, call: int) -> None:
        """What happens before this call of the function."""
        if function == self.target.function:
            self.calls = call + 1
            if call == self.target.call and not self.target.is_late:
                self._damage()
            if self.target.is_deadly and not call:
                self.die()

    def after(self, function: str, call: int) -> None:
        """What happens behind this call of the function."""
        if function == self.target.function and call == self.target.call and self.target.is_late:
            self._damage()

    def saved(self, key: str) -> None:
        """What happens when the function has put this object."""
        # The second call leaves its trace alone.
        is_last = self.calls == 2 or key.endswith(self.target.end)
        if self.target.is_deadly and "/checkpoints/" in key and is_last and self.calls <= self.target.call:
            self.die()

    def _damage(self) -> None:
        if self.way is None:
            return
        source = f"whole-{self.target.source}" if self.target.planted else self.job_id
        other = f"other-{self.target.source}"
        name, theirs = self.target.find(self.objects, source), self.target.find(self.objects, other)
        assert name is not None
        assert theirs is not None
        body = DAMAGES[self.way](self.objects.read(source, name), self.objects.read(other, theirs))
        self.objects.write(self.job_id, name, body)
        self.damaged = name


def check_record(
    record: Mapping[str, Any], ended: Mapping[str, Any], job_id: str, name: str, way: str, target: Target
) -> None:
    """The record is exact, or names the object that is lost; `ended` is the execution's status and error."""
    counts, error = record["counts"], record.get("error")
    assert counts["listed"] == sum(counts.values()) - counts["listed"], (way, counts)
    assert min(counts.values()) >= 0
    assert counts["listed"] in (0, COUNT)
    if target.is_made_again:
        assert (counts, record["status"], ended["status"]) == (WHOLE, "PARTIAL", "SUCCEEDED"), (way, error)
    elif way == "missing" and name.endswith("0.json") and name.startswith("partials/"):
        # No different from a shard that no worker has finished.
        assert (record["status"], counts["unprocessed"], error) == ("PARTIAL", 2, None)
    else:
        assert (record["status"], ended["error"]) == ("FAILED", "AccountingError"), (way, record)
        assert error is not None
        assert key_of(job_id, name) in error["message"], (way, error)


def check_retry(ended: Mapping[str, Any], records: list[Mapping[str, Any]], way: str) -> None:
    """A retry did all that was left, or said why it could not; the records are of the job and of its retry."""
    if ended["error"] == "InvalidJobError":
        assert "job.json can be read" in str(ended["cause"]), way
        return
    before, after = records
    # The kind's faults are those of the first job of a chain.
    assert after["status"] == "SUCCEEDED", (way, ended)
    assert after["counts"]["succeeded"] in (COUNT, COUNT - before["counts"]["succeeded"]), (way, records)


# --- in the functions of the embedded AWS

_JOB = re.compile(r"(damage|whole|other)-(.+?)(?:-(\d))?")


def job_of(target: str, way: str) -> str:
    """The id of the job with this damage."""
    return f"damage-{target.replace(' ', '_')}-{list(DAMAGES).index(way)}"


def key_of(job_id: str, name: str) -> str:
    """The key of a job's object."""
    from fan_out.aws import storage

    return storage.JobStore(storage.Bucket(""), job_id).key(name)


class Bucket:
    """The objects as a client of S3 sees them that may do anything."""

    def __init__(self, client: Callable[[], Any], name: str):
        self._client, self._name = client, name

    def names(self, job_id: str) -> list[str]:
        names = []
        for prefix in (f"jobs/{job_id}/", f"work/{job_id}/"):
            found = self._client().list_objects_v2(Bucket=self._name, Prefix=prefix)
            names += [each["Key"].removeprefix(prefix) for each in found.get("Contents", [])]
        return names

    def read(self, job_id: str, name: str) -> bytes:
        return bytes(self._client().get_object(Bucket=self._name, Key=key_of(job_id, name))["Body"].read())

    def write(self, job_id: str, name: str, body: bytes | None) -> None:
        place = {"Bucket": self._name, "Key": key_of(job_id, name)}
        if body is None:
            self._client().delete_object(**place)
        else:
            self._client().put_object(**place, Body=body)


def install(folder: str) -> None:
    """Have this function's handlers damage what the ids of their jobs say; calls are counted in the folder."""
    from fan_out.aws import runtime, storage
    from fan_out.model import plan
    from fan_out.steps import reduction

    reduction.FAN_IN, plan.SEGMENTS = 2, 1
    state, put = runtime.state, storage.Bucket.put
    now: list[Damager] = []

    def saved(bucket: Any, key: str, body: bytes) -> None:
        put(bucket, key, body)
        for damager in now:
            damager.saved(key)

    def damaging(handler: Any) -> Any:
        function = handler.__module__.rpartition(".")[2].title()
        handled = state(handler)

        @functools.wraps(handler)
        def call(event: dict[str, Any], context: Any) -> Any:
            job_id = event["jobId"]
            if (found := _JOB.fullmatch(job_id)) is None:
                return handled(event, context)
            number = _count(Path(folder) / f"{job_id}-{function}")
            damager = Damager(
                Bucket(_client, os.environ["BUCKET_NAME"]),
                job_id,
                *_of(*found.groups()),
                functools.partial(os._exit, 1),
            )
            now[:] = [damager]
            try:
                damager.before(function, number)
                # A reducer makes one node a call.
                answer = handled(event, _Hurried(context) if function == "Reducer" else context)
                damager.after(function, number)
                return answer
            finally:
                now.clear()
                if damager.damaged is not None:
                    (Path(folder) / f"{job_id}-damaged").write_text(damager.damaged)

        return call

    storage.Bucket.put = saved  # type: ignore[method-assign, assignment]
    runtime.state = damaging


def _of(sort: str, name: str, way: str | None) -> tuple[Target, str | None]:
    if sort == "damage":
        return TARGETS[name.replace("_", " ")], list(DAMAGES)[int(way or 0)]
    return next(target for target in TARGETS.values() if target.source == name), None


def _count(folder: Path) -> int:
    """The number of this call, from 0."""
    folder.mkdir(exist_ok=True)
    number = 0
    while True:
        try:
            (folder / str(number)).touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return number


class _Hurried:
    """A context that has time at first, and then no longer."""

    def __init__(self, context: Any):
        self._context, self._is_asked = context, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def get_remaining_time_in_millis(self) -> int:
        left, self._is_asked = 1 if self._is_asked else 900_000, True
        return left


@functools.cache
def _client() -> Any:
    import boto3

    # The server's own user, not the function's role.
    return boto3.client("s3", aws_access_key_id="test", aws_secret_access_key="test")
