"""Retry: MaxDelaySeconds, JitterStrategy FULL, delays beyond a minute, and waits that a stop interrupts."""

import random
import threading
from collections.abc import Callable

from ministack.services import stepfunctions as sf

from . import replace
from .execution_history import Data, HaltedError, current


def sleep(seconds: float) -> None:
    """Wait as a Wait state or a retrier does; raises HaltedError as soon as the execution ends."""
    control = current.get()
    halted = control.halted if control else threading.Event()
    if halted.wait(max(0.0, seconds * sf._SFN_WAIT_SCALE)):
        raise HaltedError


def pick_retrier(
    original: Callable[..., tuple[Data | None, int]], retriers: list[Data], name: str, counts: dict[int, int]
) -> tuple[Data | None, int]:
    """Find the retrier and wait as it says: IntervalSeconds x BackoffRate^n, at most MaxDelaySeconds, and with
    JitterStrategy FULL a random part of that. The caller is left with nothing to wait for."""
    control = current.get()
    if control is not None and control.halted.is_set():
        raise HaltedError
    retrier, index = original(retriers, name, counts)
    if retrier is None:
        return None, index
    sleep(retry_delay(retrier, counts.get(index, 0)))
    return {**retrier, "IntervalSeconds": 0}, index


def retry_delay(retrier: Data, count: int) -> float:
    """Seconds before retry number `count`, from 0."""
    delay = float(retrier.get("IntervalSeconds", 1)) * float(retrier.get("BackoffRate", 2.0)) ** count
    delay = min(delay, float(retrier.get("MaxDelaySeconds", delay)))
    if retrier.get("JitterStrategy") == "FULL":
        # Spreads load; not a secret.
        delay = random.uniform(0, delay)  # noqa: S311
    return delay


def close() -> None:
    replace(sf, "_find_matching_retrier", pick_retrier, wraps=True)
    replace(sf, "_scaled_sleep", sleep)
