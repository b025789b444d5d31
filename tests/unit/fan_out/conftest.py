from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import kinds
from fan_out.aws.storage import Bucket, JobStore
from fan_out.model import kind
from tests.support import machine as machines
from tests.support.machine import BUCKET, Machine

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
    for name in ("contexts", "before", "after", "around", "order", "clock", "concurrency"):
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
