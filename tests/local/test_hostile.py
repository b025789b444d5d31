"""The catalogue of hostile kinds on the embedded AWS: real processes, several jobs at the same time; minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fan_out.model.task import Task
from tests.support import hostile
from tests.support.deployment import Deployment, deployed
from tests.support.factories import task
from tests.support.hostile import CASES, FAIL, HARMS, QUARANTINED, Case, document
from tests.support.kinds import hostile as kind

# One deployment for all: they stay together when the soak is shared out among processes.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600), pytest.mark.xdist_group("hostile")]

COUNT = 36
AT_ONCE = 8


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("hostile")) as deployment:
        deployment.put_tasks([task(number) for number in range(COUNT)])
        yield deployment


def run(aws: Deployment, job_id: str, job: dict[str, Any]) -> tuple[Any, list[Any]]:
    """A job's record, which may be written by the finalizer after its end, and its failures."""
    aws.wait(aws.start(job, job_id), 900)
    s3, deadline = aws.client("s3"), time.monotonic() + 60
    while True:
        found = s3.list_objects_v2(Bucket=aws.at.bucket_name, Prefix=f"jobs/{job_id}/")
        names = {each["Key"].rpartition("/")[2] for each in found["Contents"]}
        if "record.json" in names:
            break
        assert time.monotonic() < deadline, f"{job_id} has no record"
        time.sleep(0.2)
    failures = aws.lines(job_id, "failures.jsonl") if "failures.jsonl" in names else []
    return json.loads(aws.stored(job_id, "record.json")), failures


def check_next(aws: Deployment, job_id: str) -> None:
    """Harmless jobs at the same time as each other, on the workers that the hostile ones left."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for record, failures in pool.map(
            lambda number: run(aws, f"{job_id}-{number}", document(shardSize=9)), range(AT_ONCE)
        ):
            hostile.check_outcome(Case("process", "nothing", hostile.USUAL), record, failures, count=COUNT)
            assert record["result"]["partial"] == {"tasks": COUNT}


def name_of(case: Case) -> str:
    return f"{case.method}-{(CASES + HARMS).index(case)}"


def check_all(aws: Deployment, cases: Sequence[Case], shard_size: int = 18) -> None:
    """A job for each case; what they come to, all together."""

    def check(case: Case) -> str | None:
        try:
            record, failures = run(aws, name_of(case), document(case.act, shardSize=shard_size))
            hostile.check_outcome(case, record, failures, count=COUNT)
            if case.outcome is None and case.method in kind.OF_A_TASK and case.deed != "count 1000":
                assert numbers(failures) <= hostile.BAD, failures
            if failures:
                again = {"source": {"failedIn": name_of(case)}}
                record, failures = run(aws, f"{name_of(case)}-again", again)
                hostile.check_tally(record, failures, record["counts"]["listed"])
        except AssertionError as error:
            # At once: a soak that is cut short has said what it found.
            print(f"{case}: {str(error)[:600]}", flush=True)  # noqa: T201
            return f"{case}: {str(error)[:600]}"
        return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [found for found in pool.map(check, cases) if found is not None]
    assert not wrong, "\n".join(wrong)


def numbers(failures: list[Any]) -> set[int]:
    return {kind.number_of(Task.from_json(line["task"])) for line in failures}


def test_hostile_tasks_on_real_processes_cost_nobody_else(aws: Deployment) -> None:
    """Twelve ways in a job: each has one task, and two are innocent."""
    chunks = [
        (method, cases[first : first + COUNT // 3])
        for method in kind.OF_A_TASK
        for cases in ([case for case in CASES if case.method == method],)
        for first in range(0, len(cases), COUNT // 3)
    ]

    def check(number: int) -> list[str]:
        method, chunk = chunks[number]
        acts = [case.act | {"tasks": [3 * each + 1]} for each, case in enumerate(chunk)]
        record, failures = run(aws, f"{method}-chunk-{number}", document(*acts, shardSize=9))
        hostile.check_tally(record, failures, COUNT)
        outcomes = {kind.number_of(Task.from_json(line["task"])): line["outcome"] for line in failures}
        expected = {FAIL: "failed", QUARANTINED: "quarantined"}
        return [
            f"{case}: {outcomes.get(3 * each + 1)}"
            for each, case in enumerate(chunk)
            if outcomes.pop(3 * each + 1, None) != expected.get(str(case.outcome))
        ] + [f"innocent: {each}" for each in outcomes if each % 3 != 1]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [each for found in pool.map(check, range(len(chunks))) for each in found]
    assert not wrong, "\n".join(wrong)
    check_next(aws, "tasks-next")


def test_hostile_methods_on_real_processes_cost_no_job(aws: Deployment) -> None:
    # A shard whose zero is faulty is tried again a dozen times: few of these, and they come first.
    few = set(list(kind.RAISES)[:2]) | {"a set", "kill", "empty the environment", "patch json.dumps", "seed the random"}
    zeros = [case for case in CASES if case.method == "zero" and case.deed in few]
    check_all(aws, zeros + [case for case in CASES if case.method in kind.OF_A_JOB and case.method != "zero"])
    check_next(aws, "methods-next")


def test_harm_done_to_real_processes_stays_with_its_job(aws: Deployment) -> None:
    check_all(aws, HARMS)
    check_next(aws, "harmed")


def test_a_killed_zygote_costs_a_job_nothing(aws: Deployment) -> None:
    """What ran in its environments was no death: it is tried again, and nothing is quarantined."""
    act = {"method": "process", "deed": "wait", "tasks": list(range(COUNT))}
    execution = aws.start(document(act, shardSize=COUNT), "zygote")
    for _ in range(3):
        time.sleep(1)
        found = ["pgrep", "-P", str(aws.at.pid), "-f", "multiprocessing.forkserver"]
        zygote = subprocess.run(found, capture_output=True, text=True, check=False).stdout.split()
        if zygote:
            os.kill(int(zygote[0]), signal.SIGKILL)
    record = json.loads(aws.wait(execution)["output"])
    hostile.check_outcome(Case("process", "wait", hostile.USUAL), record, [], count=COUNT)
