"""What a kind of job is. A kind is one file in `kinds/`; it holds its idea, this service does the rest."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict

import kinds
from fan_out.errors import InvalidJobError, RetryableError
from fan_out.model.task import Row, Task

JSON = Any
P = TypeVar("P", bound="Params")
T = TypeVar("T", Task, Row)


class Params(BaseModel):
    """Base of a kind's parameters. Unknown ones are refused; names are camelCase in the job's input."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class TaskError(Exception):
    """Raise it from `process` to fail one task with a name and a sentence for the job's owner."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name
        self.message = message


@dataclass(frozen=True, slots=True)
class Failure:
    """What `process_many` answers for a task that failed. `retry` asks for another try after a pause."""

    name: str
    message: str
    retry: bool = False


@dataclass(frozen=True)
class Job(Generic[P]):
    """What a kind may know of the job that it works for."""

    id: str
    params: P
    # The first job of a chain of retries, and when it started: effects are keyed by it, so that a retry repeats
    # none of them, and its day is the day of all.
    started_at: str
    effect_scope: str
    write: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]] = field(repr=False)

    def effect_key(self, task: Task | Row) -> str:
        """The idempotency key of this job's effect on this task: the same in every retry, duplicate and rerun."""
        return f"{self.effect_scope}/{task.id}"


class Kind(Generic[P, T]):
    """One kind of job. Subclass it, set `name` and `Params`, and write `process`, `zero`, `fold` and `merge`.

    `fold` and `merge` obey the monoid laws, so that any order, any tree and any retry give the same answer:
    `merge` is associative and commutative, `zero` is its neutral element, and folding two tasks equals
    merging the two partials that each of them gives alone. Partials and results are plain JSON values.
    A partial's size must not grow with the number of its tasks; what does grow goes out as `lines`.
    """

    name: ClassVar[str]
    params: type[P]
    sources: ClassVar[frozenset[str]] = frozenset({"tasks"})
    # How many tasks one call of `process_many` may get.
    batch: ClassVar[int] = 1
    # The name of the file that `lines` end in, under the job's prefix; None if the kind writes none.
    lines_file: ClassVar[str | None] = None
    # Rough working time for one task, for the estimate of a job's cost.
    seconds_per_task: ClassVar[float] = 0.001

    def filter(self, params: P, started_at: str) -> dict[str, Any]:
        """What the listing must ask of every task: a filter of the Task Service. The job's own narrows it."""
        return {}

    def process(self, task: T, job: Job[P]) -> JSON:
        """Work on one task; its result. Raise TaskError to fail it; any other exception fails it too."""
        raise NotImplementedError(f"kind {self.name} has neither process nor process_many")

    def process_many(self, tasks: Sequence[T], job: Job[P]) -> list[JSON | Failure]:
        """Work on up to `batch` tasks at once; a result or a Failure for each, in their order."""
        answers: list[JSON | Failure] = []
        for task in tasks:
            try:
                answers.append(self.process(task, job))
            except TaskError as error:
                answers.append(Failure(error.name, error.message))
            except RetryableError as error:
                answers.append(Failure(type(error).__name__, str(error), retry=True))
        return answers

    def zero(self) -> JSON:
        """The partial of no task."""
        return {}

    def fold(self, partial: JSON, task: T, result: JSON, job: Job[P]) -> JSON:
        """The partial with one more task's result in it; may be `partial` itself, changed.

        If it raises, or what it gives does not come back from JSON as it was, the task fails.
        """
        return partial

    def merge(self, left: JSON, right: JSON, job: Job[P]) -> JSON:
        """The partial of all tasks of both."""
        return left

    def line(self, task: T, result: JSON, job: Job[P]) -> tuple[str, JSON] | None:
        """A line of the kind's file, with the key by which the lines are sorted; keys are unique and printable."""
        return None

    def summary(self, partial: JSON, job: Job[P]) -> dict[str, JSON]:
        """The small result of the job record."""
        return cast(dict[str, JSON], partial)


def _modules() -> Iterator[str]:
    for module in pkgutil.iter_modules(kinds.__path__):
        if not module.name.startswith("_"):
            yield module.name


def names() -> list[str]:
    """The names of all kinds: one for each file in `kinds/`."""
    return sorted(module.replace("_", "-") for module in _modules())


@cache
def find(name: str) -> Kind[Any, Any]:
    """The kind of this name: `KIND` in `kinds/<name with underscores>.py`. Raises InvalidJobError."""
    if name not in names():
        allowed = "one of " + ", ".join(names())
        raise InvalidJobError(
            f'kind is "{name[:100]}", but must be {allowed}.', field="kind", value=name[:100], allowed=allowed
        )
    kind = importlib.import_module(f"kinds.{name.replace('-', '_')}").KIND
    if not isinstance(kind, Kind) or kind.name != name:
        raise RuntimeError(f"kinds/{name.replace('-', '_')}.py must define KIND, a Kind with the name {name}")
    return kind
