"""Internal writes: many creates and conditional updates in one call, an outcome for each, safe to repeat.

A write carries the idempotency key of its effect, and the task keeps it: a write that meets its own key has
taken effect before. Writes go as transactions with a condition on every item, because a plain batch has no
conditions and would overwrite what a user has edited since.
"""

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from common import timestamps
from common.errors import MISSING, Fault, Faults, InvalidRequestError, ServiceError, printable
from common.task import ID_ALLOWED, Task, is_id
from task_service import validation
from task_service.errors import (
    InvalidTaskError,
    TaskExistsError,
    TaskNotFoundError,
    ThrottledError,
    VersionConflictError,
)
from task_service.store import MOST_ITEMS, Create, Refusal, Stored, TaskStore, Update

MOST_WRITES: Final = 100
LONGEST_KEY: Final = 256
_CREATE_FIELDS: Final = ("op", "id", "key", "createdAt", "task")
_UPDATE_FIELDS: Final = ("op", "id", "key", "version", "changes")
_KEY: Final = re.compile(rf"[!-~]{{1,{LONGEST_KEY}}}")
_KEY_ALLOWED: Final = f"a text of 1 to {LONGEST_KEY} characters out of ASCII, from ! to ~"


_DONE: Final = {Create: "created", Update: "updated"}


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


@dataclass
class Budget:
    """Bounds the retries of one call under throttling: a number of pauses, and time for one more AWS call.

    Pauses grow from 50 ms to 2 s and are drawn at random below that, so that callers who were throttled
    together do not come back together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    has_time: Callable[[], bool]
    pauses: int = 8
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random
    _taken: int = field(default=0, init=False)

    SHORTEST: Final = 0.05
    LONGEST: Final = 2.0

    def pause(self) -> bool:
        """Wait before one more attempt. False if the budget is used up."""
        if self._taken >= self.pauses or not self.has_time():
            return False
        self.sleep(self.draw() * min(self.LONGEST, self.SHORTEST * 2**self._taken))
        self._taken += 1
        return True


def write(writes: Sequence[object], store: TaskStore, *, now: str, budget: Budget) -> list[Outcome]:
    """The outcome of each write, in the writes' order.

    A write that is wrong in itself, or that the task's state stands against, is an outcome and holds up no
    other. Several writes to one task take effect in their order. What the budget did not suffice for is
    `throttled`: it may have taken effect, and it is safe to send again.
    """
    outcomes: dict[int, Outcome] = {}
    waves: list[dict[int, Create | Update]] = []
    seen: dict[str, int] = {}
    for position, raw in enumerate(writes):
        parsed = parse(raw)
        if isinstance(parsed, Outcome):
            outcomes[position] = parsed
            continue
        # A transaction takes one effect on a task: the next on the same task goes into the next wave.
        wave = seen[parsed.task_id] = seen.get(parsed.task_id, -1) + 1
        if wave == len(waves):
            waves.append({})
        waves[wave][position] = parsed
    decided: dict[str, Outcome] = {}
    for batch in waves:
        # Behind a write that may still take effect its successors wait: tried now, they would find the wrong task.
        ready = [parsed for parsed in batch.values() if not _is_throttled(decided.get(parsed.task_id))]
        decided |= _Wave(ready, store, now=now, budget=budget).run()
        outcomes.update((position, decided[parsed.task_id]) for position, parsed in batch.items())
    return [outcomes[position] for position in range(len(writes))]


def _is_throttled(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.outcome == "throttled"


class _Wave:
    """Writes to different tasks, sent until each is decided or the budget is used up."""

    def __init__(self, writes: Sequence[Create | Update], store: TaskStore, *, now: str, budget: Budget) -> None:
        self._store, self._now, self._budget = store, now, budget
        self._pending: dict[str, Create | Update] = {each.task_id: each for each in writes}
        self._decided: dict[str, Outcome] = {}
        # Updates are read before they are sent, because one that changes nothing is not written at all. Creates are
        # nearly always new: they are read only once they are refused.
        self._unread = {each.task_id for each in writes if isinstance(each, Update)}
        self._has_refused = False
        self._size = MOST_ITEMS

    def run(self) -> dict[str, Outcome]:
        """Outcomes by id."""
        while self._pending and self._budget.has_time():
            # Each round decides a write, or reads what the next round needs, or costs a pause: so the loop ends.
            is_stuck = self._read() if self._unread else self._send()
            if is_stuck and not self._budget.pause():
                break
        for task_id in list(self._pending):
            self._decide(task_id, Outcome(task_id, "throttled", ThrottledError()))
        return self._decided

    def _decide(self, task_id: str, outcome: Outcome) -> None:
        self._decided[task_id] = outcome
        del self._pending[task_id]

    def _read(self) -> bool:
        """Decide what the stored tasks decide; whether a pause is needed before the next round."""
        try:
            found, left = self._store.read(sorted(self._unread))
        except ThrottledError:
            found, left = {}, self._unread
        is_stuck = bool(left)
        for task_id in sorted(self._unread - left):
            outcome = _verdict(self._pending[task_id], found.get(task_id))
            if outcome is not None:
                self._decide(task_id, outcome)
            elif self._has_refused:
                is_stuck = True
        self._unread = left
        return is_stuck

    def _send(self) -> bool:
        """Send a transaction; whether a pause is needed before the next round."""
        group = list(self._pending.values())[: self._size]
        try:
            refusals = self._store.commit(group, self._now)
        except ThrottledError:
            refusals = [Refusal.BUSY] * len(group)
        if not refusals:
            for each in group:
                self._decide(each.task_id, Outcome(each.task_id, _DONE[type(each)]))
            return False
        for each, refusal in zip(group, refusals, strict=True):
            # protection: only-an-invalid-item-is-invalid
            if refusal is Refusal.INVALID:
                fault = Fault("task", {}, "an item that DynamoDB stores")
                self._decide(each.task_id, _invalid(each.task_id, fault))
            elif refusal is Refusal.CONDITION:
                self._unread.add(each.task_id)
        self._has_refused = bool(self._unread)
        # A transaction that is cancelled without a reason is busy too.
        is_stuck = Refusal.BUSY in refusals or set(refusals) == {Refusal.NONE}
        if is_stuck:
            # One busy item cancels the whole transaction: a smaller one has the better chance.
            self._size = max(1, self._size // 2)
        return is_stuck


def _verdict(each: Create | Update, stored: Stored | None) -> Outcome | None:
    """What the stored task says about a write; None if it is to be sent."""
    task_id = each.task_id
    if isinstance(each, Create):
        if stored is None:
            return None
        # Whatever the task's state is now, this write created it.
        # protection: the-key-of-a-creation-is-kept
        if stored.create_key == each.key:
            return Outcome(task_id, "unchanged", repeated=True)
        return Outcome(task_id, "conflict", TaskExistsError(task_id))
    if stored is None:
        return Outcome(task_id, "missing", TaskNotFoundError(task_id))
    # protection: the-key-of-a-change-is-kept
    if stored.effect_key == each.key:
        return Outcome(task_id, "unchanged", repeated=True)
    # protection: a-write-is-for-the-listed-version
    if stored.task.version != each.version:
        error = VersionConflictError(task_id, given=each.version, current=stored.task.version)
        return Outcome(task_id, "conflict", error)
    if stored.task.has(each.fields):
        return Outcome(task_id, "unchanged")
    return None


def parse(raw: object) -> Create | Update | Outcome:
    """One write of the event; an `invalid` outcome that names every fault if it is none."""
    if not isinstance(raw, Mapping):
        return _invalid(None, Fault("write", raw, "an object"))
    task_id = printable(raw["id"]) if isinstance(raw.get("id"), str) else None
    op, key, created_at = (raw.get(name, MISSING) for name in ("op", "key", "createdAt"))
    if op not in ("create", "update"):
        return _invalid(task_id, Fault("op", op, 'one of "create" and "update"'))
    faults = Faults()
    faults.check_names(raw, _CREATE_FIELDS if op == "create" else _UPDATE_FIELDS)
    faults.check(is_id(raw.get("id")), "id", raw.get("id", MISSING), ID_ALLOWED)
    faults.check(isinstance(key, str) and _KEY.fullmatch(key) is not None, "key", key, _KEY_ALLOWED)
    if op == "create":
        try:
            created_at = timestamps.utc(created_at)
        except ValueError:
            faults.check(False, "createdAt", created_at, timestamps.RULE)
    if faults:
        return _invalid(task_id, *faults)
    try:
        if op == "create":
            content = validation.new_task(raw.get("task")).model_dump(by_alias=True)
            return Create(Task.new(raw["id"], content, created_at), raw["key"])
        fields = validation.changes(raw.get("changes")).given()
        return Update(raw["id"], raw["key"], validation.version(raw.get("version")), fields)
    except InvalidTaskError as error:
        return Outcome(task_id, "invalid", error)


def _invalid(task_id: str | None, *faults: Fault) -> Outcome:
    return Outcome(task_id, "invalid", InvalidRequestError(faults))


def parse_event(event: object) -> list[object]:
    """The writes of an event. Raises InvalidRequestError if it has none, or more than one call takes."""
    allowed = f"a list of at most {MOST_WRITES} writes"
    if not isinstance(event, Mapping):
        raise InvalidRequestError([Fault("event", event, f"an object with writes, {allowed}")])
    faults = Faults()
    faults.check_names(event, ("writes",))
    writes = event.get("writes", MISSING)
    if isinstance(writes, list) and len(writes) > MOST_WRITES:
        faults.check(False, "writes", f"a list of {len(writes)}", allowed)
    faults.check(isinstance(writes, list), "writes", writes, allowed)
    faults.raise_any()
    return list(writes)
