from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fanout import cli, client
from fanout.client import FanOut
from tests.unit.cli.fake_api import FakeApi, serving

Run = Callable[..., int]


def record_of(job_id: str = "j", status: str = "SUCCEEDED", *, failed: int = 0, **fields: Any) -> dict[str, Any]:
    """The final record of a job of 1,000 tasks in 4 shards."""
    counts = {
        "listed": 1000,
        "succeeded": 1000 - failed,
        "failed": failed,
        "quarantined": 0,
        "unprocessed": 0,
    }
    return {
        "jobId": job_id,
        "kind": "import-tasks",
        "status": status,
        "counts": counts,
        "shards": {"planned": 4, "done": 4, "failed": 0},
        "startedAt": "2026-11-23T10:15:02Z",
        "endedAt": "2026-11-23T10:15:14Z",
        "result": {"imported": 1000 - failed},
        **fields,
    }


def running(phase: str = "WORKING", done: int = 2, job_id: str = "j", **fields: Any) -> dict[str, Any]:
    """The record of a running job of 1,000 tasks in 4 shards."""
    record = record_of(job_id, "RUNNING", phase=phase, **fields)
    del record["endedAt"], record["result"]
    is_listed = phase != "LISTING"
    record["counts"] = dict.fromkeys(record["counts"], 0) | {"listed": 1000 if is_listed else 0}
    record["shards"] = {"planned": 4 if is_listed else 0, "done": done if is_listed else 0, "failed": 0}
    return record


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """The API, whose next job runs and succeeds; pauses between attempts are short."""
    quick = {"backoff_factor": 0.001, "backoff_jitter": 0}
    for name in ("RETRIES", "LINK_RETRIES"):
        retries = getattr(client, name).new()
        for field, value in quick.items():
            setattr(retries, field, value)
        monkeypatch.setattr(client, name, retries)
    with serving() as found:
        found.script = [running("LISTING"), running("WORKING"), record_of()]
        yield found


@pytest.fixture
def there(api: FakeApi) -> FanOut:
    """A client of the API."""
    return FanOut(api.deployment(), poll=0.001, patience=0.5, outage=5)


@pytest.fixture
def fanout(there: FanOut) -> Run:
    """Run a command line against the API; its exit code."""
    return lambda *argv: cli.main(list(argv), connect=lambda _: there)
