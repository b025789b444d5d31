"""Jobs to disturb, what they come to when nothing does, and the checks of what they come to otherwise."""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import moto.s3.models
import pytest

from common import timestamps
from fan_out import finalizer, sources
from fan_out.aws import clients as aws
from fan_out.aws import storage
from fan_out.steps import listing, reduction
from tests.chaos.faults import Drawn, Faults, Trouble, nothing
from tests.support import machine as machines
from tests.support.context import Context
from tests.support.events import execution_ended
from tests.support.machine import BUCKET, STARTED_AT, STATES, Boundary, Ended, Machine

NOW = "2026-11-23T09:30:00Z"
# Nothing that goes from state to state comes near the limit of 256 KiB.
LARGEST_PAYLOAD = 32 * 1024
DUE = "2026-12-01T12:00:00Z"

_HEADER = "title,dueAt,isComplete,detail"
_DAY = {"asOf": STARTED_AT, "timeZone": "Europe/Berlin"}


class ViolationError(AssertionError):
    """A promise was not kept; the text has what is needed to see it again."""


@dataclass(frozen=True)
class Scenario:
    """A kind of job over so many tasks; `seed` makes the tasks."""

    kind: str
    count: int
    seed: int = 1
    shard_size: int = 4

    @property
    def is_import(self) -> bool:
        return self.kind == "import-tasks"

    def document(self, shard_size: int | None = None) -> dict[str, Any]:
        """The job's input."""
        document: dict[str, Any] = {"kind": self.kind, "shardSize": shard_size or self.shard_size}
        if self.is_import:
            # Every import has bad rows in it, which must not keep out the good ones.
            document |= {"source": {"csv": "uploads/rows.csv"}, "toleratedFailurePercentage": 50}
        else:
            document["params"] = _DAY | ({"dueAt": DUE} if self.kind == "reschedule-overdue" else {})
        return document

    def lay_out(self) -> None:
        """Store what the job finds."""
        tasks = machines.make_tasks(self.count, self.seed)
        if not self.is_import:
            machines.put_tasks(tasks)
            return
        rows = [_HEADER]
        for number, task in enumerate(tasks):
            quoted = '"' + task["title"].replace('"', '""') + '"'
            due = "yesterday" if number % 7 == 3 else task.get("dueAt", "")
            rows.append(f"{quoted},{due},{'yes' if task['isComplete'] else ''},")
        aws.s3().put_object(Bucket=BUCKET, Key="uploads/rows.csv", Body="\n".join(rows).encode())


SCENARIOS = ("daily-plan", "reschedule-overdue", "import-tasks")
# A normal run takes the kind with the most that can go wrong where it is long to take them all.
ONE_OR_ALL = (
    "reschedule-overdue",
    pytest.param("daily-plan", marks=pytest.mark.soak),
    pytest.param("import-tasks", marks=pytest.mark.soak),
)


@dataclass(frozen=True)
class Sizes:
    """The sizes that bound a step, made so small that a job of a few tasks comes upon each of them."""

    fan_in: int = 64
    wide: int = 16
    page: int = 5000
    block: int = 1 << 20
    part: int = 8 << 20
    shard_bytes: int = 4 << 20

    @contextmanager
    def set(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module, name, value in (
                (reduction, "FAN_IN", self.fan_in),
                (reduction, "WIDE", self.wide),
                (sources, "PAGE", self.page),
                (listing, "SHARD_BYTES", self.shard_bytes),
                (sources, "BATCH_BYTES", self.shard_bytes),
                (storage, "BLOCK", self.block),
                (storage, "PART", self.part),
                (moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1),
            ):
                stack.enter_context(patch.object(module, name, value))
            yield


@contextmanager
def deployed() -> Iterator[Machine]:
    """A machine whose Task Service has a clock that stands still, so that equal effects are equal items."""
    with machines.deployed() as machine, patch.object(timestamps, "now", lambda: NOW):
        yield machine


@dataclass(frozen=True)
class Answer:
    """What a job came to."""

    ended: Ended
    stored_record: dict[str, Any] | None
    result: bytes | None
    plan: bytes | None
    failures: tuple[dict[str, Any], ...]
    tasks: dict[str, dict[str, Any]]

    @property
    def has_record(self) -> bool:
        return self.stored_record is not None

    @property
    def record(self) -> dict[str, Any]:
        assert self.stored_record is not None, "the job has no record"
        return self.stored_record

    @property
    def failed(self) -> list[Any]:
        """What failed and why, apart from where and after how many attempts."""
        return sorted(json.dumps([line["task"], line["outcome"], line["error"]]) for line in self.failures)


def read(ended: Ended, job_id: str = "job-1") -> Answer:
    """What there is of a job."""
    there = set(machines.names(job_id))

    def get(name: str) -> bytes | None:
        return machines.stored(name, job_id) if name in there else None

    record = get("record.json")
    return Answer(
        ended,
        json.loads(record) if record else None,
        get("result.json"),
        get("plan.jsonl"),
        tuple(json.loads(line) for line in (get("failures.jsonl") or b"").splitlines()),
        machines.tasks(),
    )


def undisturbed(machine: Machine) -> None:
    machine.around = lambda boundary, cross: cross()
    machine.contexts.clear()
    machine.order = lambda items: items
    machine.clock.tick = 0.0


_baselines: dict[Scenario, Answer] = {}


def baseline(machine: Machine, scenario: Scenario) -> Answer:
    """What the job comes to without faults; the machine is wiped."""
    if scenario not in _baselines:
        undisturbed(machine)
        machine.wipe()
        scenario.lay_out()
        answer = read(machine.run(scenario.document()))
        check_tally(machine, answer)
        assert answer.record["status"] == ("PARTIAL" if answer.failures else "SUCCEEDED")
        assert not {line["error"]["name"] for line in answer.failures} - {"InvalidTaskError"}
        _baselines[scenario] = answer
    return _baselines[scenario]


def check_tally(machine: Machine, answer: Answer, job_id: str = "job-1") -> None:
    """Every listed task has exactly one outcome, everything that says so agrees, and states stay small."""
    record, ended = answer.record, answer.ended
    counts = record["counts"]
    outcomes = Counter(line["outcome"] for line in answer.failures)
    assert counts["listed"] == sum(counts[name] for name in counts if name != "listed"), counts
    assert {name: counts[name] for name in ("failed", "quarantined", "unprocessed")} == {
        name: outcomes[name] for name in ("failed", "quarantined", "unprocessed")
    }
    named = [json.dumps(line["task"].get("id", line["task"].get("row"))) for line in answer.failures]
    assert len(set(named)) == len(named), "a task has failed twice"
    assert record["shards"]["done"] + record["shards"]["failed"] == record["shards"]["planned"]
    if answer.plan is not None and answer.result is not None:
        listed = [json.loads(line)["id"] for line in answer.plan.splitlines()]
        assert len(set(listed)) == len(listed) == counts["succeeded"]
        assert json.loads(answer.result)["counts"]["total"] == counts["succeeded"]
        assert not set(listed) & {json.loads(name) for name in named}
    if ended.status == "SUCCEEDED":
        assert ended.output == record
        assert record["status"] == ("PARTIAL" if outcomes else "SUCCEEDED")
    elif ended.error != "RecordNotWrittenError" and ended.status != "ABORTED":
        # Where the record was written and the answer of its writer lost for good, it may say better.
        assert record["status"] == "FAILED"
        assert ended.error == record["error"]["name"]
    for name, size in machine.payloads:
        assert name not in STATES or size <= LARGEST_PAYLOAD, (name, size)


def check_same(answer: Answer, expected: Answer) -> None:
    """The job came to what it comes to without faults, to the byte, and every effect took place once."""
    assert answer.ended.status == "SUCCEEDED", (answer.ended.error, answer.ended.cause)
    assert answer.record["status"] == expected.record["status"]
    assert answer.record["counts"] == expected.record["counts"]
    assert answer.record["result"] == expected.record["result"]
    assert answer.result == expected.result
    assert answer.plan == expected.plan
    assert answer.failed == expected.failed
    assert answer.tasks == expected.tasks


def finalize(machine: Machine, job_id: str = "job-1", status: str = "FAILED") -> str:
    """What EventBridge sets off when an execution has ended badly; the status of the record that counts."""
    return str(finalizer.handler(execution_ended(status, job_id), Context())["status"])


def check_made_good(machine: Machine, scenario: Scenario, answer: Answer, expected: Answer) -> None:
    """A retry of a job that did not come to its end brings both together to what there is without faults."""
    if "job.json" not in machines.names():
        # Not even planned: nothing has happened, and the job can be started as it was.
        assert answer.record["counts"]["listed"] == 0
        return
    if "failuresUrl" not in answer.record and "resultUrl" in answer.record:
        assert answer.record["counts"]["succeeded"] == expected.record["counts"]["listed"]
        assert answer.tasks == expected.tasks
        return
    if not answer.record["counts"]["listed"] and "resultUrl" in answer.record:
        assert expected.record["counts"]["listed"] == 0
        return
    ended = machine.run({"source": {"failedIn": "job-1"}, "toleratedFailurePercentage": 100}, "job-2")
    assert ended.status == "SUCCEEDED", (ended.error, ended.cause)
    again = read(ended, "job-2")
    check_tally(machine, again, "job-2")
    assert again.record["origin"] == "job-1"
    assert again.tasks == expected.tasks
    assert again.failed == expected.failed
    gone = again.record.get("skipped", 0)
    succeeded = answer.record["counts"]["succeeded"] + again.record["counts"]["succeeded"] + gone
    assert succeeded == expected.record["counts"]["succeeded"]
    if scenario.kind == "daily-plan":
        lines = (answer.plan or b"").splitlines() + (again.plan or b"").splitlines()
        assert sorted(lines) == sorted((expected.plan or b"").splitlines())


@dataclass
class Run:
    """One disturbed run of a scenario."""

    answer: Answer
    faults: Faults
    boundaries: list[Boundary] = field(default_factory=list)


def disturb(
    machine: Machine,
    scenario: Scenario,
    choose: Callable[[Boundary], tuple[Trouble, bool] | None] = nothing,
    *,
    seed: int = 0,
    shard_size: int | None = None,
) -> Run:
    """Run the scenario on a wiped machine under the chosen faults; duplicates that are late have arrived."""
    machine.wipe()
    scenario.lay_out()
    faults = Faults(machine, random.Random(seed), choose)
    machine.around = faults.around
    try:
        ended = machine.run(scenario.document(shard_size))
    finally:
        undisturbed(machine)
    faults.run_late()
    return Run(read(ended), faults, faults.crossed)


ABSORBABLE: dict[Trouble, float] = {
    Trouble.ERROR: 2,
    Trouble.UNREACHED: 1,
    Trouble.LOST: 3,
    Trouble.THROTTLE: 2,
    Trouble.PARTIAL: 3,
    Trouble.KILL_BEFORE: 1,
    Trouble.KILL_AFTER: 3,
    Trouble.TIMEOUT_AFTER: 1,
    Trouble.TWICE: 2,
    Trouble.LATE: 2,
    Trouble.RACE: 1,
}


def run_seed(machine: Machine, seed: int) -> Counter[str]:
    """One schedule of faults, decided by its seed alone; how often which trouble happened.

    Every other seed keeps to what the system promises to absorb: then the answer must be the same to the
    byte. The others know no bound: then the tally must be exact, and a retry must make good.
    """
    chance = random.Random(seed)
    scenario = Scenario(chance.choice(SCENARIOS), chance.choice([5, 9, 14]), chance.randrange(3))
    is_bounded = seed % 2 == 0
    expected = baseline(machine, scenario)
    sizes = Sizes(
        fan_in=chance.choice([2, 3, 64]),
        wide=chance.choice([2, 16]),
        page=chance.choice([1, 3, 5000]),
        block=chance.choice([500, 1 << 20, 1 << 20]),
        part=chance.choice([200, 8 << 20]),
        shard_bytes=chance.choice([400, 4 << 20, 4 << 20]),
    )
    rate = chance.choice([0.02, 0.05, 0.1, 0.2]) if is_bounded else chance.choice([0.1, 0.3, 0.6])
    choose = Drawn(chance, rate, ABSORBABLE, is_bounded, stubborn=0.3 if is_bounded else 0.8)
    machine.order = lambda items: chance.sample(items, len(items))
    machine.clock.tick = chance.choice([0.0, 0.0, 30.0])
    if chance.random() < 0.5:
        for name in ("Lister", "Worker", "Merger", "Reducer"):
            machine.contexts[name] = functools.partial(short_lived, chance.randrange(1, 4))
    happened: list[str] = []
    try:
        with sizes.set():
            run = disturb(machine, scenario, choose, seed=seed, shard_size=chance.choice([1, 2, 3, 5, 8]))
            happened = run.faults.happened
            answer = run.answer
            if is_bounded:
                check_tally(machine, answer)
                check_same(answer, expected)
            else:
                if not answer.has_record:
                    assert answer.ended.error == "RecordNotWrittenError"
                    finalize(machine)
                    answer = read(answer.ended)
                check_tally(machine, answer)
                check_made_good(machine, scenario, answer, expected)
    except BaseException as error:
        told = "\n  ".join([f"{scenario}, {sizes}, rate {rate}", *happened])
        raise ViolationError(f"FANOUT_CHAOS_SEED={seed} shows it again: {error!r}\n  {told}") from error
    return Counter(line.rpartition(": ")[2].partition(",")[0] for line in happened)


def short_lived(looks: int) -> Context:
    """A context whose time is over when the function has looked at it so often."""
    left = iter([900_000] + [900_000] * looks)
    return Context(lambda: next(left, 0))
