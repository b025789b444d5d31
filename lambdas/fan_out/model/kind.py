"""What a kind of job is. A kind is one file in `kinds/`; it holds its idea, this service does the rest."""

import importlib
import json
import math
import pkgutil
import re
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict

import kinds
from common.errors import Fault
from fan_out.errors import InvalidJobError, RetryableError
from fan_out.model.documents import encode_value
from fan_out.model.task import Row, Task

JSON = Any
P = TypeVar("P", bound="Params")
T = TypeVar("T", Task, Row)

# What a kind's code may raise to fail a task. Any other BaseException ends the worker, as a crash does.
FAULTS = (Exception, SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError)
# Characters of what an exception says that go into a refusal.
LONGEST_REASON = 500
# Names that a job's own objects have; a kind's file is beside them.
RESERVED = frozenset(
    {"job.json", "manifest.json", "manifest.jsonl", "failures.jsonl", "digest.json"}
    | {"record.json", "result.json", "excess.json", "root.json"}
)


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
    """What `process_many` answers for a task that failed. `retry` asks for another try after a pause.

    A throttled write is tried again for as long as the job has time; anything else within the retry budget.
    """

    name: str
    message: str
    retry: bool = False
    is_throttled_write: bool = False

    @classmethod
    def of_write(cls, outcome: dict[str, Any], prefix: str = "") -> Self:
        """A write that `job.write` answers as not done; a throttled one is tried again."""
        error = outcome.get("error", {})
        name = error.get("name", outcome["outcome"])
        message = prefix + error.get("message", outcome["outcome"])
        is_throttled = outcome["outcome"] == "throttled"
        return cls(name, message, retry=is_throttled, is_throttled_write=is_throttled)


@dataclass(frozen=True)
class Examples:
    """For the test of the laws, which calls `fold`, `merge`, `line` and `summary`, and never `process`."""

    results: Sequence[JSON] = ()
    params: Sequence[dict[str, JSON]] = ({},)


@dataclass(frozen=True)
class Job(Generic[P]):
    """What a kind may know of the job that it works for. A test makes one of `params` alone."""

    params: P
    id: str = "test"
    # The first job of a chain of retries, and when it started: effects are keyed by it, so that a retry repeats
    # none of them, and its day is the day of all.
    started_at: str = "2026-01-01T00:00:00Z"
    effect_scope: str = "test"
    write: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]] = field(
        default=lambda writes: [{"id": each["id"], "outcome": f"{each['op']}d"} for each in writes], repr=False
    )

    def effect_key(self, task: Task | Row) -> str:
        """The idempotency key of this job's effect on this task: the same in every retry, duplicate and rerun."""
        return f"{self.effect_scope}/{task.id}"


class Kind(Generic[P, T]):
    """One kind of job. Subclass it, set `name` and `params`, and write `process`, `zero`, `fold` and `merge`.

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
    # Whether its workers call `job.write`: they then wait for another function, and fewer of them fit into the account.
    writes: ClassVar[bool] = False
    # Tasks in a shard, unless the job's input says another number.
    shard_size: ClassVar[int] = 500
    # The name of the file that `lines` end in, under the job's prefix; None if the kind writes none.
    lines_file: ClassVar[str | None] = None
    # Rough working time for one task, for the estimate of a job's cost.
    seconds_per_task: ClassVar[float] = 0.001
    examples: ClassVar[Examples] = Examples()

    def filter(self, params: P, started_at: str) -> dict[str, Any]:
        """What the listing must ask of every task: a filter of the Task Service. The job's own narrows it."""
        return {}

    def process(self, task: T, job: Job[P]) -> JSON:
        """Work on one task; its result. Raise TaskError to fail it; any other exception fails it too."""
        raise NotImplementedError

    def process_many(self, tasks: Sequence[T], job: Job[P]) -> list[JSON | Failure]:
        """Work on up to `batch` tasks at once; a result or a Failure for each, in their order."""
        answers: list[JSON | Failure] = []
        for task in tasks:
            try:
                answers.append(self.process(task, job))
            except (TaskError, RetryableError) as error:
                answers.append(failure_of(error))
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


def text_of(value: Any) -> str:
    """What can be said of an object: its text as UTF-8 can hold it. Never raises."""
    try:
        # A lone surrogate could not be written.
        # protection: text-is-utf-8
        return str.encode(str(value), "utf-8", "replace").decode()
    except FAULTS:
        return "an object without a text"


def refuse_write(name: str, _: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a kind of this name that does not say that it writes gets for `job.write`. Raises TaskError."""
    message = f"The kind {name} calls job.write, but does not say so: it must have writes = True."
    raise TaskError("UndeclaredWriteError", message)


def failure_of(error: BaseException) -> Failure:
    """What fails the task whose code raised this; every failure has a name and a text."""
    if not isinstance(error, TaskError):
        # protection: any-exception-has-a-text
        return Failure(type(error).__name__, text_of(error) or "no message", retry=isinstance(error, RetryableError))
    # protection: any-task-error-has-a-name
    try:
        return Failure(text_of(error.name), text_of(error.message) or "no message")
    except FAULTS:
        return Failure(type(error).__name__, text_of(error) or "no message")


def reason_of(error: BaseException) -> str:
    """The name and the text of what a kind's code raised, in at most 1,000 characters."""
    failure = failure_of(error)
    return f"{failure.name}: {failure.message}"[:1000]


def plain_json(value: Any) -> tuple[bytes, Any]:
    """A value of a kind as it is stored, and as it comes back.

    Raises TypeError or ValueError unless it comes back as it was.
    """
    body = encode_value(value)
    read = json.loads(body)
    # protection: a-value-comes-back-as-it-was
    if read != value:
        raise TypeError("the kind folded to a value that JSON gives back as another one")
    return body, read


def names() -> list[str]:
    """The names of all kinds: one for each file in `kinds/`."""
    modules = (module.name for module in pkgutil.iter_modules(kinds.__path__))
    return sorted(module.replace("_", "-") for module in modules if not module.startswith("_"))


@cache
def find(name: str) -> Kind[Any, Any]:
    """The kind of this name: `KIND` in `kinds/<name with underscores>.py`.

    Raises InvalidJobError if there is none, or if its file cannot be imported or breaks a rule of RULES.
    """
    if name not in names():
        raise refusal(name, "must be one of " + ", ".join(names()))
    file = f"kinds/{name.replace('-', '_')}.py"
    try:
        kind = importlib.import_module(file.removesuffix(".py").replace("/", ".")).KIND
        broken = next((rule for rule, holds in RULES.items() if not holds(kind, name)), None)
    except FAULTS as error:
        raise unusable(name, file, error) from None
    # protection: rules-of-a-kind
    if broken is not None:
        raise refusal(name, f"in {file} {broken}")
    return cast(Kind[Any, Any], kind)


# What holds for every kind, checked before a job of it starts.
RULES: dict[str, Callable[[Kind[Any, Any], str], bool]] = {
    "KIND must be an object of a class of Kind": lambda kind, name: isinstance(kind, Kind),
    "name must be the file's, with hyphens": lambda kind, name: kind.name == name,
    "params must be a class of Params": lambda kind, name: issubclass(kind.params, Params),
    'sources must be a set of "tasks", "csv" or both': lambda kind, name: (
        isinstance(kind.sources, set | frozenset) and bool(kind.sources) and kind.sources <= {"tasks", "csv"}
    ),
    "writes must be True or False": lambda kind, name: isinstance(kind.writes, bool),
    "shard_size must be a whole number from 1 to 10,000": lambda kind, name: (
        type(kind.shard_size) is int and 1 <= kind.shard_size <= 10_000
    ),
    "batch must be a whole number from 1": lambda kind, name: type(kind.batch) is int and kind.batch >= 1,
    "lines_file must be a file name of letters, digits, dots, - and _, and none that a job's own file has": (
        lambda kind, name: (
            kind.lines_file is None
            or (bool(re.fullmatch(r"\w[\w.-]{0,99}", kind.lines_file, re.A)) and kind.lines_file not in RESERVED)
        )
    ),
    "seconds_per_task must be a number from 0": lambda kind, name: (
        math.isfinite(kind.seconds_per_task) and kind.seconds_per_task >= 0
    ),
    "examples must be an object of Examples": lambda kind, name: isinstance(kind.examples, Examples),
    "the kind must have process or process_many": lambda kind, name: (
        type(kind).process is not Kind.process or type(kind).process_many is not Kind.process_many
    ),
    "zero must give a value that JSON gives back as it was": lambda kind, name: bool(plain_json(kind.zero())),
}


def unusable(name: str, what: str, error: BaseException) -> InvalidJobError:
    """The refusal of a job whose kind's code raised this before it started."""
    if isinstance(error, InvalidJobError):
        return error
    return refusal(name, f"{what} cannot be used: {reason_of(error)[:LONGEST_REASON]}")


def refusal(name: str, why: str) -> InvalidJobError:
    """The error that names a kind, and why no job of it can start."""
    fault = Fault("kind", name[:100], why.removeprefix("must be "))
    return InvalidJobError(f'kind is "{name[:100]}", but {why}.', fault)
