"""Retry: MaxDelaySeconds, JitterStrategy FULL, delays beyond a minute, and waits that a stop interrupts."""

import random
import threading
from collections.abc import Callable

from ministack.services import stepfunctions as sf

from . import replaces
from .execution_history import Data, HaltedError, current


@replaces(sf, "_scaled_sleep")
def sleep(seconds: float) -> None:
    """Wait as a Wait state or a retrier does; raises HaltedError as soon as the execution ends."""
    control = current.get()
    halted = control.halted if control else threading.Event()
    if halted.wait(max(0.0, seconds * sf._SFN_WAIT_SCALE)):
        raise HaltedError


@replaces(sf, "_find_matching_retrier", wraps=True)
def pick_retrier(
    original: Callable[..., tuple[Data | None, int]], retriers: list[Data], name: str, counts: dict[int, int]
) -> tuple[Data | None, int]:
    """Find the retrier and wait as it says: IntervalSeconds x BackoffRate^n, at most MaxDelaySeconds, and with
    JitterStrategy FULL a random part of that. The caller is left with nothing to wait for."""
    retrier, index = original(retriers, name, counts)
    if retrier is None:
        return None, index
    sleep(retry_delay(retrier, counts.get(index, 0)))
    return {**retrier, "IntervalSeconds": 0}, index


def retry_delay(retrier: Data, count: int) -> float:
    """Seconds before retry number `count`, from 0."""
    delay = float(retrier.get("IntervalSeconds", 1)) * float(retrier.get("BackoffRate", 2.0)) ** count
    delay = min(delay, float(retrier.get("MaxDelaySeconds", delay)))
    # Spreads load; not a secret.
    return random.uniform(0, delay) if retrier.get("JitterStrategy") == "FULL" else delay  # noqa: S311
