"""Stand-ins for threads and time: what runs in them is the same at every run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class OneAfterAnother:
    """A pool of threads that has none."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __enter__(self) -> OneAfterAnother:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shutdown(self, wait: bool) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, items)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class PassingTime:
    """A module `time` whose seconds pass by sleeping alone; `naps` are the sleeps."""

    passed: float = 0.0
    naps: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.naps.append(seconds)
        self.passed += seconds

    def remaining(self, seconds: float) -> Callable[[], int]:
        """The milliseconds that are left of so many seconds from now on, as Lambda's context says it."""
        end = self.passed + seconds
        return lambda: int((end - self.passed) * 1_000)
