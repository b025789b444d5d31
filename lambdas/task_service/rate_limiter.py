"""Rate limiter of a process's writes, which finds the rate that the table takes at present.

Additive increase and multiplicative decrease, as TCP shares a line: writers that know nothing of each other
come to share the table, whose capacity they do not know either.
"""

import random
import time
from threading import Lock
from typing import Final

FASTEST: Final = 4_000.0
"""Writes a second at first, which is what a new on-demand table takes:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html"""

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

    def wait(self, longest: float, writes: int = 1) -> float | None:
        """Wait for the turn of so many writes and return that moment; None, at once, if it is more than `longest`
        seconds away.

        The steps between two turns are drawn at random, so that writers that were throttled together do not come
        back together: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            # protection: no-wait-beyond-the-deadline
            if turn - now > longest:
                return None
            self._next = turn + writes * (0.5 + random.random()) / self.rate  # noqa: S311
        time.sleep(turn - now)
        return turn

    def throttled(self, turn: float) -> None:
        """Slow down after a write of this turn was throttled."""
        with self._lock:
            # Writes that were under way at the same time meet the same shortage: it counts once.
            if turn >= self._slowed_at:
                # protection: a-throttle-slows-down
                self.rate = max(SLOWEST, self.rate * DECREASE)
                self._slowed_at = self._next

    def succeeded(self, writes: int = 1) -> None:
        """Speed up a little: by INCREASE in a second, however many writes it has."""
        with self._lock:
            # protection: a-success-speeds-up
            self.rate = min(FASTEST, self.rate + writes * INCREASE / self.rate)
