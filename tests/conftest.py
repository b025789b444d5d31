import signal
from collections.abc import Iterator

import pytest

from fanout.local import server
from tests.support.emulator import Emulator

# The waits of state machines, as a part of what they say: enough to measure, and tests stay fast.
WAIT_SCALE = 0.1

# A shell that starts the tests in the background has them ignore it, and so every program that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A started embedded AWS with nothing deployed on it. It ends with the tests, even if they are killed."""
    home = tmp_path_factory.mktemp("emulator")
    running = server.start(home, tied=True, wait_scale=WAIT_SCALE)
    try:
        yield Emulator(home, running)
    finally:
        server.stop(home)
