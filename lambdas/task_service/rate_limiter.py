"""Rate limiter of a process's writes, which finds the rate that the table takes at present.

Additive increase and multiplicative decrease, as TCP shares a line: writers that know nothing of each other
come to share the table, whose capacity they do not know either.
"""

import random
import time
from threading import Lock
from typing import Final

FASTEST: Final = 1_000.0
"""Writes a second at first: more than one process sends."""

SLOWEST: Final = 1.0
INCREASE: Final = 20.0
"""Writes a second that a second without a throttle adds."""

DECREASE: Final = 0.5


class RateLimiter:
    """Gives each write the moment at which it may start; safe to share between threads."""

    def __init__(self) -> None:
        self.rate = FASTEST
        self._next = self._slowed_at = 0.0
        self._lock = Lock()

    def wait(self, longest: float) -> float | None:
        """Wait for a write's turn and return that moment; None, at once, if it is more than `longest` seconds away.

        The steps between two turns are drawn at random, so that writers that were throttled together do not come
        back together: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            # protection: no-wait-beyond-the-deadline
            if turn - now > longest:
                return None
            self._next = turn + (0.5 + random.random()) / self.rate  # noqa: S311
        time.sleep(turn - now)
        return turn

    def throttled(self, turn: float) -> None:
        """Slow down after the write of this turn was throttled."""
        with self._lock:
            # Writes that were under way at the same time meet the same shortage: it counts once.
            if turn >= self._slowed_at:
                # protection: a-throttle-slows-down
                self.rate = max(SLOWEST, self.rate * DECREASE)
                self._slowed_at = self._next

    def succeeded(self) -> None:
        """Speed up a little: by INCREASE in a second, however many writes it has."""
        with self._lock:
            # protection: a-success-speeds-up
            self.rate = min(FASTEST, self.rate + INCREASE / self.rate)
