"""Jobs over what did not succeed in an earlier one: after failures, after a stop, and one after another."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fan_out.errors import AccountingError
from fan_out.model.plan import SEGMENTS
from kinds import fragile  # type: ignore[attr-defined]
from tests.chaos.scenarios import (
    ONE_OR_ALL,
    Answer,
    Scenario,
    baseline,
    check_made_good,
    check_tally,
    disturb,
    finalize,
    read,
    undisturbed,
)
from tests.support import machine as machines
from tests.support.machine import STARTED_AT, Boundary, Ended, Machine, StoppedError, make_tasks, put_tasks


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    fragile.UNREACHABLE.clear()
    fragile.BROKEN.clear()
    fragile.SEEN.clear()
    yield
    fragile.UNREACHABLE.clear()
    fragile.BROKEN.clear()


def retry(machine: Machine, origin: str, job_id: str, **changes: Any) -> Answer:
    fragile.SEEN.clear()
    ended = machine.run({"source": {"failedIn": origin}} | changes, job_id)
    assert ended.status == "SUCCEEDED", (ended.error, ended.cause)
    answer = read(ended, job_id)
    check_tally(machine, answer, job_id)
    assert answer.record["origin"] == origin
    return answer


def test_a_chain_of_retries_applies_every_effect_once(machine: Machine) -> None:
    tasks = make_tasks(30)
    put_tasks(tasks)
    ids = [task["id"] for task in tasks]
    fragile.UNREACHABLE.update(ids[:6])
    fragile.BROKEN.update(ids[4:10])
    machine_input = {"kind": "fragile", "shardSize": 4, "toleratedFailurePercentage": 100}
    first = read(machine.run(machine_input))
    check_tally(machine, first)
    assert first.record["counts"]["failed"] == 10

    fragile.UNREACHABLE.intersection_update(ids[:2])
    fragile.BROKEN.clear()
    second = retry(machine, "job-1", "job-2")
    assert sorted(fragile.SEEN) == sorted(ids[:10])
    assert second.record["counts"] == {
        "listed": 10,
        "succeeded": 8,
        "failed": 2,
        "quarantined": 0,
        "unprocessed": 0,
    }
    # What its input does not say is as it was in the first job.
    assert second.record["status"] == "PARTIAL"

    fragile.UNREACHABLE.clear()
    third = retry(machine, "job-2", "job-3", shardSize=1)
    assert sorted(fragile.SEEN) == sorted(ids[:2])
    assert third.record["status"] == "SUCCEEDED"
    after = machines.tasks()
    assert {task["version"] for task in after.values()} == {2}
    assert {task["effectKey"] for task in after.values()} == {f"job-1@{STARTED_AT}/{task_id}" for task_id in ids}

    nothing_left = machine.run({"source": {"failedIn": "job-3"}}, "job-4")
    assert nothing_left.error == "InvalidJobError"


def test_failures_retried_twice_are_applied_once(machine: Machine) -> None:
    tasks = make_tasks(12)
    put_tasks(tasks)
    fragile.BROKEN.update(task["id"] for task in tasks[:5])
    machine.run({"kind": "fragile", "shardSize": 4, "toleratedFailurePercentage": 100})
    fragile.BROKEN.clear()
    retry(machine, "job-1", "job-2")
    retry(machine, "job-1", "job-3")
    assert {task["version"] for task in machines.tasks().values()} == {2}


def test_a_retry_skips_tasks_that_are_gone_or_do_not_match(machine: Machine) -> None:
    tasks = [task | {"isComplete": False} for task in make_tasks(8)]
    put_tasks(tasks)
    fragile.UNREACHABLE.update(task["id"] for task in tasks[:4])
    document = {"kind": "fragile", "shardSize": 4, "toleratedFailurePercentage": 100}
    machine.run(document | {"filter": {"isComplete": False}})
    fragile.UNREACHABLE.clear()
    import task_service.aws

    task_service.aws.dynamodb().delete_item(TableName=machines.TABLE, Key={"id": {"S": tasks[0]["id"]}})
    put_tasks([tasks[1] | {"isComplete": True, "version": 2}, tasks[2] | {"title": "Anew", "version": 2}])
    again = retry(machine, "job-1", "job-2")
    assert again.record["counts"]["listed"] == 2
    assert again.record["skipped"] == 2
    assert again.record["counts"]["succeeded"] == 2


def stop_at(number: int) -> Callable[[Boundary, Callable[[], Any]], Any]:
    """Stop the execution at its call of this number; the function that it calls there is not stopped with it."""
    seen = [0]

    def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
        if boundary.service != "states":
            return cross()
        seen[0] += 1
        if seen[0] - 1 == number:
            raise StoppedError
        return cross()

    return around


@pytest.mark.parametrize("kind", ONE_OR_ALL)
def test_a_job_stopped_anywhere_is_completed_by_a_retry(machine: Machine, kind: str) -> None:
    scenario = Scenario(kind, 12, shard_size=3)
    expected = baseline(machine, scenario)
    calls = sum(boundary.service == "states" for boundary in disturb(machine, scenario).boundaries)
    assert calls >= 6
    for number in range(calls):
        machine.wipe()
        scenario.lay_out()
        machine.around = stop_at(number)
        ended = machine.run(scenario.document())
        undisturbed(machine)
        assert ended.status == "ABORTED"
        finalize(machine, status="ABORTED")
        answer = read(Ended("ABORTED", None, "States.Aborted"))
        assert answer.record["status"] == "STOPPED"
        assert answer.record["error"]["name"] == "JobStoppedError"
        check_tally(machine, answer)
        check_made_good(machine, scenario, answer, expected)


@pytest.mark.parametrize("kind", ONE_OR_ALL)
@pytest.mark.parametrize("is_before", [True, False], ids=["before the account", "after the account"])
def test_a_function_that_outlives_its_job_spoils_nothing(machine: Machine, kind: str, is_before: bool) -> None:
    """StopExecution ends no function that is already running."""
    scenario = Scenario(kind, 12, shard_size=3)
    expected = baseline(machine, scenario)
    stopped = [boundary for boundary in disturb(machine, scenario).boundaries if boundary.service == "states"]
    for number in range(len(stopped)):
        machine.wipe()
        scenario.lay_out()
        late: list[Callable[[], Any]] = []
        stop = stop_at(number)

        def around(
            boundary: Boundary,
            cross: Callable[[], Any],
            stop: Any = stop,
            late: list[Callable[[], Any]] = late,
        ) -> Any:
            try:
                return stop(boundary, cross)
            except StoppedError:
                late.append(functools.partial(machine.call, boundary.function, boundary.event))
                raise

        machine.around = around
        machine.run(scenario.document())
        undisturbed(machine)
        if is_before:
            late[0]()
            finalize(machine, status="ABORTED")
        else:
            finalize(machine, status="ABORTED")
            account = machines.stored("record.json")
            try:
                late[0]()
            except Exception:
                # It may well find its job closed.
                assert stopped[number].function != "Worker"
            assert machines.stored("record.json") == account
        answer = read(Ended("ABORTED", None, "States.Aborted"))
        check_tally(machine, answer)
        if stopped[number].function == "Planner" and not is_before:
            assert answer.record["counts"]["listed"] == 0
        check_made_good(machine, scenario, answer, expected)


@pytest.mark.parametrize("kind", ONE_OR_ALL)
def test_a_lister_that_outlives_its_map_is_harmless(machine: Machine, kind: str) -> None:
    """A failed iteration ends the Map at once: the Reducer starts while other Listers still commit their parts."""
    scenario = Scenario(kind, 12, shard_size=3)
    expected = baseline(machine, scenario)

    def failing_listing(late_at: int) -> list[Boundary]:
        """Run with a first Lister that fails, and the others at the crossing `late_at` of the Reducer."""
        machine.wipe()
        scenario.lay_out()
        crossed: list[Boundary] = []
        others: list[dict[str, Any]] = []

        def around(boundary: Boundary, cross: Callable[[], Any]) -> Any:
            if boundary.function == "Lister" and not others:
                others.extend({**boundary.event, "segment": segment} for segment in range(1, SEGMENTS))
                raise AccountingError("The part cannot be read.")
            if boundary.function == "Reducer":
                crossed.append(boundary)
                if len(crossed) == late_at:
                    for event in others:
                        machine.call("Lister", event)
            return cross()

        machine.around = around
        answer = read(machine.run(scenario.document()))
        undisturbed(machine)
        assert (answer.record["status"], answer.record["counts"]["listed"]) == ("FAILED", 0)
        check_tally(machine, answer)
        check_made_good(machine, scenario, answer, expected)
        return crossed

    crossings = len(failing_listing(late_at=0))
    assert crossings >= 4
    for number in range(crossings):
        failing_listing(number + 1)


@pytest.mark.parametrize("kind", ONE_OR_ALL)
def test_a_finalizer_that_races_the_reducer_agrees_with_it(machine: Machine, kind: str) -> None:
    """Whoever comes first writes the account, and both answer that one."""
    scenario = Scenario(kind, 9, shard_size=3)
    expected = baseline(machine, scenario)
    run = disturb(machine, scenario)
    numbers = [each.number for each in run.boundaries if each.function == "Reducer"]
    for number in numbers:
        machine.wipe()
        scenario.lay_out()
        closed: list[str] = []

        def around(
            boundary: Boundary, cross: Callable[[], Any], closed: list[str] = closed, number: int = number
        ) -> Any:
            if boundary.number == number and not closed:
                closed.append("")
                closed[0] = finalize(machine, status="ABORTED")
            return cross()

        machine.around = around
        ended = machine.run(scenario.document())
        undisturbed(machine)
        answer = read(ended)
        if answer.record["status"] == "STOPPED":
            # The finalizer came first. The execution, had it not been stopped, would say so too.
            assert ended.error == "JobStoppedError"
            assert json.loads(str(ended.cause))["counts"] == answer.record["counts"]
        else:
            assert ended.output == answer.record
        assert closed == [answer.record["status"]]
        assert answer.record["counts"] == expected.record["counts"]
        assert answer.result == expected.result
        assert answer.plan == expected.plan
        assert answer.failed == expected.failed


@pytest.mark.parametrize("kind", ONE_OR_ALL)
@pytest.mark.parametrize("is_whole", [False, True], ids=["but its account", "all of it"])
def test_the_same_job_run_twice_at_once_is_one_job(machine: Machine, kind: str, is_whole: bool) -> None:
    """In the middle of the one run there is all of the other, or all that comes before its account."""
    scenario = Scenario(kind, 9, shard_size=3)
    expected = baseline(machine, scenario)
    crossed = disturb(machine, scenario).boundaries
    numbers = random.Random(kind).sample([each.number for each in crossed], 8)
    # Where the one has begun to list what the other then changes.
    numbers += [each.number for each in crossed if each.operation == "Scan"][:1]
    for number in numbers:
        machine.wipe()
        scenario.lay_out()
        inner: list[Ended] = []

        def around(
            boundary: Boundary,
            cross: Callable[[], Any],
            number: int = number,
            inner: list[Ended] = inner,
        ) -> Any:
            if boundary.number == number and not inner:
                inner.append(Ended("RUNNING", None))
                inner.append(machine.run(scenario.document()))
            is_inner = len(inner) == 1
            if is_inner and not is_whole and (boundary.service, boundary.function) == ("states", "Reducer"):
                raise StoppedError
            return cross()

        machine.around = around
        ended = machine.run(scenario.document())
        undisturbed(machine)
        answer = read(ended)
        assert ended.output == answer.record
        assert inner[1].output == (answer.record if is_whole else None)
        assert answer.record["counts"] == expected.record["counts"]
        assert answer.result == expected.result
        assert answer.plan == expected.plan
        assert answer.tasks == expected.tasks
