"""One fault at every boundary of the functions that no state machine calls again: the two APIs and the Finalizer.

Their callers repeat them or do not. So a request either succeeds with its whole effect, or says that it did
not, with its whole effect or none.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import moto.backends
import pytest

from fan_out import jobs_api
from fan_out.aws import clients as aws
from task_service import resources
from tests.chaos.faults import Faults, Trouble, applies, at
from tests.chaos.scenarios import Scenario, baseline, check_tally, disturb, finalize, read, undisturbed
from tests.support import machine as machines
from tests.support.events import api_event
from tests.support.machine import (
    ACCOUNT,
    REGION,
    Boundary,
    Ended,
    KilledError,
    Machine,
    StoppedError,
    make_tasks,
)

TROUBLES = (
    Trouble.ERROR,
    Trouble.UNREACHED,
    Trouble.LOST,
    Trouble.THROTTLE,
    Trouble.KILL_BEFORE,
    Trouble.KILL_AFTER,
)
# A single one of these is not felt: the SDK tries again.
MENDED = TROUBLES[:4]
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:FanOut"


@dataclass(frozen=True)
class Reply:
    """What a client gets; `status` 0 stands for nothing at all, as API Gateway's 502 does."""

    status: int
    body: Any = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_failure(self) -> bool:
        """The client is told that it may try again, and nothing else."""
        return self.status in (0, 429, 500, 503)


def send(machine: Machine, function: str, method: str, path: str, body: object = None) -> Reply:
    """A request through API Gateway."""
    content_type = "text/csv" if isinstance(body, str) else "application/json"
    sent = body if isinstance(body, str) or body is None else json.dumps(body)
    event = api_event(method, path, sent, content_type=content_type)
    try:
        answer = machine.call(function, event)
    except KilledError:
        return Reply(0)
    return Reply(answer["statusCode"], json.loads(answer["body"]) if answer.get("body") else None)


def each_fault(
    machine: Machine,
    prepare: Callable[[], None],
    act: Callable[[], Any],
    troubles: Iterable[Trouble] = TROUBLES,
) -> Iterator[tuple[Trouble | None, bool, Any]]:
    """What the act answers without faults, and then under each fault at each of its boundaries."""

    def under(chosen: dict[int, tuple[Trouble, bool]]) -> tuple[Any, list[Boundary]]:
        undisturbed(machine)
        machine.wipe()
        prepare()
        machine.boundaries = 0
        faults = Faults(machine, random.Random(0), at(chosen))
        machine.around = faults.around
        try:
            answer = act()
        finally:
            undisturbed(machine)
        return answer, faults.crossed

    answer, crossed = under({})
    assert crossed
    yield None, False, answer
    for boundary in crossed:
        for trouble in troubles:
            for stubborn in (False, True) if trouble in MENDED else (False,):
                if applies(trouble, boundary):
                    yield trouble, stubborn, under({boundary.number: (trouble, stubborn)})[0]


TASK = make_tasks(1)[0]
REQUESTS = {
    "create": ("POST", "/tasks", {"title": "New", "dueAt": "2026-12-01T00:00:00Z"}),
    "replace": ("PUT", f"/tasks/{TASK['id']}", {"title": "Other", "version": 1}),
    "delete": ("DELETE", f"/tasks/{TASK['id']}", None),
    "get": ("GET", f"/tasks/{TASK['id']}", None),
    "list": ("GET", "/tasks", None),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_for_tasks_takes_effect_whole_or_not_at_all(machine: Machine, name: str) -> None:
    def content() -> list[dict[str, Any]]:
        """The table, with new ids put out of the way: they differ from run to run."""
        items = sorted(machines.tasks().values(), key=lambda item: item["id"])
        return [item if item["id"] == TASK["id"] else item | {"id": "new"} for item in items]

    def act() -> tuple[Reply, list[dict[str, Any]]]:
        resources.page_tokens.cache_clear()
        return send(machine, "TaskApi", *REQUESTS[name]), content()

    before = [TASK]
    after: list[dict[str, Any]] = []
    for trouble, stubborn, (reply, found) in each_fault(machine, lambda: machines.put_tasks([TASK]), act):
        if trouble is None:
            assert reply.is_success
            after = found
            continue
        assert reply.is_success or reply.is_failure, (trouble, reply)
        assert found == after if reply.is_success else found in (before, after), (trouble, reply)
        if trouble in MENDED and not stubborn:
            assert reply.is_success, (trouble, reply)


@pytest.fixture
def executions(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of the started executions, of a machine that starts them and leaves them running."""
    backend = moto.backends.get_backend("stepfunctions")[ACCOUNT][REGION]
    if not backend.state_machines:
        boto3.client("stepfunctions").create_state_machine(
            name="FanOut",
            definition='{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}',
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/machine",
        )
    return lambda: [
        execution["name"] for execution in aws.step_functions().list_executions(stateMachineArn=MACHINE)["executions"]
    ]


def forget_executions() -> None:
    for each in moto.backends.get_backend("stepfunctions")[ACCOUNT][REGION].state_machines:
        each.executions.clear()
    jobs_api.jobs.cache_clear()


def test_a_repeated_request_starts_one_job(machine: Machine, executions: Callable[[], list[str]]) -> None:
    def act() -> tuple[Reply, list[str], Reply]:
        document = {"jobId": "mine", "shardSize": 7}
        reply, found = send(machine, "JobsApi", "POST", "/jobs", document), executions()
        return reply, found, send(machine, "JobsApi", "POST", "/jobs", document)

    for trouble, stubborn, (reply, found, again) in each_fault(machine, forget_executions, act):
        assert reply.is_success or reply.is_failure, (trouble, reply)
        assert found == ["mine"] if reply.is_success else found in ([], ["mine"])
        if trouble is None or (trouble in MENDED and not stubborn):
            assert reply.is_success, (trouble, reply)
            assert again.is_success or (trouble is not None and again.is_failure)
        assert executions() in (["mine"], [])


def test_an_acknowledged_upload_has_object_and_job(machine: Machine, executions: Callable[[], list[str]]) -> None:
    def act() -> tuple[Reply, list[str], int]:
        reply = send(machine, "JobsApi", "POST", "/tasks/upload", "title\nA\nB\n")
        listed = aws.s3().list_objects_v2(Bucket=machines.BUCKET, Prefix="uploads/")
        return reply, executions(), listed["KeyCount"]

    for trouble, stubborn, (reply, started, objects) in each_fault(machine, forget_executions, act):
        assert reply.is_success or reply.is_failure, (trouble, reply)
        # Without its object a job is never started.
        assert len(started) <= objects <= 1
        if reply.is_success:
            assert started == [reply.body["jobId"]]
        if trouble is None or (trouble in MENDED and not stubborn):
            assert reply.is_success, (trouble, reply)


@pytest.mark.parametrize(
    "troubles",
    [(Trouble.KILL_AFTER,), pytest.param(TROUBLES, marks=pytest.mark.soak)],
    ids=["a death", "anything"],
)
def test_a_finalizer_that_fails_anywhere_repeats_its_record(machine: Machine, troubles: tuple[Trouble, ...]) -> None:
    scenario = Scenario("import-tasks", 9, shard_size=3)
    expected = baseline(machine, scenario)
    states = [each for each in disturb(machine, scenario).boundaries if each.service == "states"]
    workers = [number for number, each in enumerate(states) if each.function == "Worker"]

    def prepare() -> None:
        scenario.lay_out()
        seen = iter(range(len(states)))

        def stop(boundary: Boundary, cross: Callable[[], Any]) -> Any:
            if boundary.service == "states" and next(seen) == workers[-1]:
                raise StoppedError
            return cross()

        machine.around = stop
        assert machine.run(scenario.document()).status == "ABORTED"
        undisturbed(machine)

    def act() -> None:
        event = {"detail": {"name": "job-1", "status": "ABORTED", "startDate": 1795424400000}}
        # Lambda calls a function that EventBridge has called twice again.
        for _ in range(3):
            try:
                machine.call("Finalizer", event)
                return
            except (Exception, KilledError):
                continue

    accounts = []
    for _ in each_fault(machine, prepare, act, troubles):
        answer = read(Ended("ABORTED", None))
        check_tally(machine, answer)
        assert answer.record is not None
        assert answer.record["status"] == "STOPPED"
        record = {name: value for name, value in answer.record.items() if name != "endedAt"}
        accounts.append((record, answer.result, answer.failures))
        assert accounts[0] == accounts[-1]
    assert len(accounts) > 20
    assert expected.record is not None
    assert expected.record["counts"]["listed"] == accounts[0][0]["counts"]["listed"]
    finalize(machine, status="ABORTED")
