from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.chaos import scenarios
from tests.support.machine import Machine


@pytest.fixture(scope="module")
def _deployment() -> Iterator[Machine]:
    with scenarios.deployed() as machine:
        yield machine


@pytest.fixture
def machine(_deployment: Machine) -> Iterator[Machine]:
    """A machine without any objects, tasks or faults. Deployed once a module: making clients takes time."""
    logging.disable(logging.CRITICAL)
    scenarios.undisturbed(_deployment)
    _deployment.wipe()
    yield _deployment
    scenarios.undisturbed(_deployment)
    logging.disable(logging.NOTSET)
