"""Internal writes: many creates and conditional updates in one call, an outcome for each, safe to repeat.

A write carries the idempotency key of its effect, and the task keeps it: a write that meets its own key has
taken effect before. Creations are tried together, by statements that only ever create. What is not created by them,
and each change, is a request of its own with a condition: DynamoDB's plain batch has no conditions and would overwrite
what a user has edited since, and its transactions cost twice as much.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Final

from botocore.exceptions import ClientError
from pydantic import AfterValidator, Field

from common import timestamps
from common.aws import error_code
from common.errors import MISSING, Fault, FaultyError, InvalidRequestError, ServiceError, printable
from common.models import Sent, parse
from common.task import ID_ALLOWED, ID_PATTERN, Task
from task_service import validation
from task_service.errors import TaskExistsError, TaskNotFoundError, ThrottledError, VersionConflictError
from task_service.rate_limiter import RateLimiter
from task_service.store import MOST_CREATIONS, Create, RefusedError, Stored, TaskStore, Update

MOST_WRITES: Final = 100
THREADS: Final = 8
"""Writes that are under way at once. More would not be faster: a write's time is mostly the SDK's, on one CPU."""

_THROTTLED: Final = {"ProvisionedThroughputExceeded", "RequestLimitExceeded", "ThrottlingError"}
LONGEST_KEY: Final = 256
_KEY_ALLOWED: Final = f"a text of 1 to {LONGEST_KEY} characters out of ASCII, from ! to ~"
_WRITES_ALLOWED: Final = f"a list of at most {MOST_WRITES} writes"


class _Event(Sent):
    writes: Annotated[list[Any], Field(description=_WRITES_ALLOWED)]


class _Write(Sent):
    op: str
    id: Annotated[str, Field(pattern=f"^{ID_PATTERN.pattern}$", description=ID_ALLOWED)]
    key: Annotated[str, Field(pattern=f"^[!-~]{{1,{LONGEST_KEY}}}$", description=_KEY_ALLOWED)]


class _CreateWrite(_Write):
    created_at: Annotated[str, AfterValidator(timestamps.utc), Field(description=timestamps.RULE)]
    task: Any = None


class _UpdateWrite(_Write):
    version: validation.Version
    changes: Any = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one write.

    `outcome` is created, updated, unchanged, invalid, conflict, missing or throttled. `repeated` says of an unchanged
    one that this same write had taken effect before, so that its sender can count it as done by itself.
    """

    task_id: str | None
    outcome: str
    error: ServiceError | None = None
    repeated: bool = False

    def to_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = {"id": self.task_id, "outcome": self.outcome}
        if self.repeated:
            answer["repeated"] = True
        if self.error is not None:
            answer["error"] = {"name": self.error.name, "message": str(self.error)}
        return answer


class Writer:
    """Applies writes at the rate that the table takes, which it remembers from call to call."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._limiter = RateLimiter()

    def write(self, writes: Sequence[object], *, now: str, seconds_left: Callable[[], float]) -> list[Outcome]:
        """The outcome of each write, in the writes' order.

        A write that is wrong in itself, or that the task's state stands against, is an outcome and holds up no
        other. Several writes to one task take effect in their order. What DynamoDB throttles is sent again while there
        are `seconds_left`; then it is `throttled`: it may have taken effect, and it is safe to send again.
        """
        # Each is replaced by its outcome where it stands.
        decided: list[Any] = [parse_write(raw) for raw in writes]
        created: set[str] = set()
        by_task: dict[str, list[int]] = {}
        for position, each in enumerate(decided):
            if not isinstance(each, Outcome):
                by_task.setdefault(each.task_id, []).append(position)

        def apply_in_order(positions: list[int]) -> None:
            is_throttled = False
            if (task_id := decided[positions[0]].task_id) in created:
                decided[positions[0]] = Outcome(task_id, "created")
                positions = positions[1:]
            for position in positions:
                # Behind a write that may still take effect the next ones wait: now they would find the wrong task.
                # protection: nothing-overtakes-a-throttled-write
                if not is_throttled:
                    outcome = self._apply(decided[position], now, seconds_left)
                is_throttled = outcome.outcome == "throttled"
                decided[position] = outcome

        firsts = (decided[positions[0]] for positions in by_task.values())
        creations = [each for each in firsts if isinstance(each, Create)]
        together = [creations[start : start + MOST_CREATIONS] for start in range(0, len(creations), MOST_CREATIONS)]
        with ThreadPoolExecutor(THREADS) as pool:
            for found in pool.map(lambda each: self._create(each, seconds_left), together):
                created |= found
            list(pool.map(apply_in_order, by_task.values()))
        return decided

    def _create(self, creations: Sequence[Create], seconds_left: Callable[[], float]) -> set[str]:
        """Try to create these tasks by one request; the ids of those that are created by it."""
        if len(creations) == 1 or (turn := self._limiter.wait(seconds_left(), len(creations))) is None:
            return set()
        try:
            answers = self._store.create_many(creations)
        except ThrottledError:
            self._limiter.throttled(turn)
            return set()
        # protection: a-throttled-statement-slows-down
        if not _THROTTLED.isdisjoint(answers):
            self._limiter.throttled(turn)
        # protection: what-a-batch-leaves-is-written
        created = {each.task_id for each, answer in zip(creations, answers, strict=True) if answer is None}
        self._limiter.succeeded(len(created))
        return created

    def _apply(self, effect: Create | Update, now: str, seconds_left: Callable[[], float]) -> Outcome:
        task_id = effect.task_id
        while (turn := self._limiter.wait(seconds_left())) is not None:
            try:
                self._store.write(effect, now)
            except ThrottledError:
                self._limiter.throttled(turn)
                # protection: a-throttled-write-is-sent-again
                continue
            except RefusedError as refused:
                outcome = _verdict(effect, refused.stored)
            except ClientError as error:
                # protection: only-an-invalid-item-is-invalid
                if error_code(error) != "ValidationException":
                    raise
                outcome = _invalid(task_id, Fault("task", {}, "an item that DynamoDB stores"))
            else:
                outcome = Outcome(task_id, "created" if isinstance(effect, Create) else "updated")
            self._limiter.succeeded()
            return outcome
        return Outcome(task_id, "throttled", ThrottledError())


def _verdict(effect: Create | Update, stored: Stored | None) -> Outcome:
    """The outcome of an effect whose condition has failed on the stored task."""
    task_id = effect.task_id
    if isinstance(effect, Create):
        # Whatever the task's state is now, this write created it.
        # protection: the-key-of-a-creation-is-kept
        if stored is not None and stored.create_key == effect.key:
            return Outcome(task_id, "unchanged", repeated=True)
        return Outcome(task_id, "conflict", TaskExistsError(task_id))
    if stored is None:
        return Outcome(task_id, "missing", TaskNotFoundError(task_id))
    # protection: the-key-of-a-change-is-kept
    if stored.effect_key == effect.key:
        return Outcome(task_id, "unchanged", repeated=True)
    # protection: a-write-is-for-the-listed-version
    if stored.task.version != effect.version:
        error = VersionConflictError(task_id, given=effect.version, current=stored.task.version)
        return Outcome(task_id, "conflict", error)
    return Outcome(task_id, "unchanged")


def parse_write(raw: object) -> Create | Update | Outcome:
    """One write of the event; an `invalid` outcome that names every fault if it is none."""
    if not isinstance(raw, Mapping):
        return _invalid(None, Fault("write", raw, "an object"))
    task_id = printable(raw["id"]) if isinstance(raw.get("id"), str) else None
    op = raw.get("op", MISSING)
    try:
        if op == "create":
            creation = parse(_CreateWrite, raw, InvalidRequestError)
            content = validation.new_task(creation.task).model_dump(by_alias=True)
            return Create(Task.new(creation.id, content, creation.created_at), creation.key)
        if op == "update":
            update = parse(_UpdateWrite, raw, InvalidRequestError)
            changes = validation.changes(update.changes).model_dump(by_alias=True, exclude_unset=True)
            return Update(update.id, update.version, changes, update.key)
    except FaultyError as error:
        return Outcome(task_id, "invalid", error)
    return _invalid(task_id, Fault("op", op, 'one of "create" and "update"'))


def _invalid(task_id: str | None, fault: Fault) -> Outcome:
    return Outcome(task_id, "invalid", InvalidRequestError([fault]))


def parse_event(event: object) -> list[object]:
    """The writes of an event. Raises InvalidRequestError if it has none, or more than one call takes."""
    writes = parse(_Event, event, InvalidRequestError, whole="event").writes
    if len(writes) > MOST_WRITES:
        raise InvalidRequestError([Fault("writes", f"a list of {len(writes)}", _WRITES_ALLOWED)])
    return writes
