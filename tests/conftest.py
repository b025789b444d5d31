from collections.abc import Iterator
from pathlib import Path

import pytest

from fanout.local import server
from tests.support.emulator import Emulator

HERE = Path(__file__).parent
# The coverage of lambdas/ is that of the unit tests. Measured, these here would take twice their time: they run whole
# jobs, thousands of times, or run them in other processes.
UNMEASURED = (
    "chaos",
    "contract",
    "infra",
    "local",
    "protections",
    "unit/fan_out/test_damaged_objects.py",
    "unit/fan_out/test_hostile_catalogue.py",
)
# The waits of state machines, as a part of what they say: enough to measure, and tests stay fast.
WAIT_SCALE = 0.1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(HERE).as_posix().startswith(UNMEASURED):
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A started embedded AWS with nothing deployed on it. It ends with the tests, even if they are killed."""
    home = tmp_path_factory.mktemp("emulator")
    running = server.start(home, tied=True, wait_scale=WAIT_SCALE)
    try:
        yield Emulator(home, running)
    finally:
        server.stop(home)
