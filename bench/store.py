"""The job bucket of a benchmark: S3 of an embedded AWS that has nothing deployed on it."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import urllib3
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from fan_out.aws import clients as aws
from fan_out.aws.storage import Bucket, JobStore
from fan_out.model.job_input import read_input
from fan_out.model.plan import Plan, make_plan
from fanout.local import server

BUCKET = "bench"
STARTED_AT = "2026-11-23T09:00:00Z"
WRITERS = 4


@dataclass(frozen=True)
class Emulator:
    """The embedded AWS by signed HTTP: the SDK would take most of the time that it takes to fill it."""

    endpoint_url: str
    _pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=WRITERS))

    def send(self, method: str, path: str, body: bytes, service: str, **headers: str) -> None:
        url = f"{self.endpoint_url}/{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = AWSRequest(method, url, data=body, headers=named)
        keys = Credentials(server.ACCESS_KEY_ID, server.SECRET_ACCESS_KEY)
        (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, server.REGION).add_auth(request)
        answer = self._pool.request(method, url, body=body, headers=dict(request.headers))
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.data[:500]!r}")

    def put(self, key: str, body: bytes) -> None:
        self.send("PUT", f"{BUCKET}/{key}", body, "s3")

    def put_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in pool.map(lambda each: self.put(*each), objects):
                pass

    def empty(self) -> None:
        """Delete every object: what is in the bucket is in the emulator's memory."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=server.REGION,
            aws_access_key_id=server.ACCESS_KEY_ID,
            aws_secret_access_key=server.SECRET_ACCESS_KEY,
        )
        while found := client.list_objects_v2(Bucket=BUCKET).get("Contents"):
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": each["Key"]} for each in found]})

    def environment(self) -> dict[str, str]:
        """What a process must have around it to work on this bucket, and on nothing else."""
        return {
            "PATH": os.defpath,
            "NO_PROXY": "127.0.0.1",
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": server.REGION,
            "AWS_ACCESS_KEY_ID": server.ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": server.SECRET_ACCESS_KEY,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def emulator() -> Iterator[Emulator]:
    """An empty bucket, gone at the end whatever happens."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        home = Path(folder)
        try:
            started = Emulator(server.start(home, tied=True).endpoint_url)
            started.send("PUT", BUCKET, b"", "s3")
            yield started
        finally:
            server.stop(home)


def plan(job_id: str, kind: str, source: str | dict[str, str]) -> Plan:
    """The plan that the planner makes for this input."""
    return make_plan(job_id, STARTED_AT, read_input({"kind": kind, "source": source}))


def job_store(job_id: str) -> JobStore:
    """The job's objects, over a client that is connected already."""
    store = JobStore(Bucket(BUCKET), job_id)
    store.has("nothing")
    return store


def counted_requests() -> Counter[str]:
    """How many requests of which operation this process sends to S3 from now on, the SDK's retries included."""
    sent: Counter[str] = Counter()

    def count(event_name: str, **_: Any) -> None:
        sent[event_name.rpartition(".")[2]] += 1

    aws.s3().meta.events.register("before-send.s3", count)
    return sent


def task(number: int, *, spread: int = 1) -> dict[str, Any]:
    """An open task, as the Task Service lists it; one in eight is undated, the others are due within four weeks.

    `spread` is how far the numbers of neighbours are apart.
    """
    minutes = number * 7919 // spread % (28 * 1440)
    document: dict[str, Any] = {"id": f"{number * 2654435761 % 2**32:08x}-{number:012d}"}
    document["title"] = f"Send the report {number} to the reviewers of the quarter"
    if number % 8:
        day, minute = divmod(minutes, 1440)
        document["dueAt"] = f"2026-{11 + day // 15}-{15 + day % 15:02d}T{minute // 60:02d}:{minute % 60:02d}:00Z"
    return document | {
        "isComplete": False,
        "createdAt": "2026-11-01T08:00:00Z",
        "updatedAt": "2026-11-20T08:00:00Z",
        "version": 1,
    }


def in_lines(documents: Iterable[Any]) -> bytes:
    return b"".join(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for document in documents
    )
