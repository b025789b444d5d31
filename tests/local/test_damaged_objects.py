"""Every object of a job, damaged in every way between the states of a job on the embedded AWS, or after its end."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import damage
from tests.support.damage import AFTERWARDS, COUNT, DAMAGES, DOCUMENT, TARGETS, WHOLE
from tests.support.deployment import ROOT, Deployment, deployed
from tests.support.factories import task

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800), pytest.mark.xdist_group("damaged")]

AT_ONCE = 6
# Ways behind which a retry is tried, too.
RETRIED = ("missing", "truncated", "another byte")
ENDED = {"SUCCEEDED", "PARTIAL", "FAILED", "STOPPED"}


def damaging(staged: Path) -> None:
    """Have the functions of this deployment damage what the ids of their jobs say."""
    (staged / "damage.py").write_text((ROOT / "tests/support/damage.py").read_text())
    (calls := staged.parent / "calls").mkdir()
    with (staged / "fan_out/__init__.py").open("a") as module:
        module.write(f"\nimport damage\n\ndamage.install({str(calls)!r})\n")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """With an undamaged job, and one of other tasks, of every sort that the table needs."""
    with deployed(tmp_path_factory.mktemp("damaged"), change=damaging) as deployment:
        sources = {target.source for target in TARGETS.values()}
        deployment.put_tasks([task(number) for number in range(100, 100 + COUNT - 1)])
        every(lambda source: ended(deployment, f"other-{source}"), sources)
        deployment.empty()
        deployment.put_tasks([task(number) for number in range(COUNT)])
        for _, record in every(lambda source: ended(deployment, f"whole-{source}"), sources):
            assert record["counts"] == WHOLE
        yield deployment


def every(check: Callable[[Any], Any], cases: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(check, cases))


def objects(aws: Deployment) -> damage.Bucket:
    return damage.Bucket(lambda: aws.client("s3"), aws.at.bucket_name)


def ended(aws: Deployment, job_id: str, document: Any = DOCUMENT) -> tuple[Any, Any]:
    """The execution's end, and the job's record, which the finalizer may write later."""
    execution = aws.wait(aws.start(document, job_id), 300)
    deadline = time.monotonic() + 60
    while "record.json" not in objects(aws).names(job_id):
        assert time.monotonic() < deadline, f"{job_id} has no record"
        time.sleep(0.2)
    return {"error": None, "cause": None} | execution, json.loads(aws.stored(job_id, "record.json"))


def problems(check: Callable[[Any], None], cases: Iterable[Any]) -> list[str]:
    """What was wrong in which case."""

    def problem(case: Any) -> str | None:
        try:
            check(case)
        except Exception as error:
            said = f"{case}: {type(error).__name__}: {str(error)[:800]}"
            # At once: a soak that is cut short has said what it found.
            print(said, flush=True)  # noqa: T201
            return said
        return None

    return [found for found in every(problem, cases) if found is not None]


def check_next(aws: Deployment, job_id: str) -> None:
    """The next job on the same warm processes is as if nothing had happened."""
    execution, record = ended(aws, job_id)
    assert (record["counts"], record["status"], execution["error"]) == (WHOLE, "PARTIAL", None)
    assert record["result"] == {"partial": {"tasks": WHOLE["succeeded"]}}


def test_an_object_damaged_between_states_is_named(aws: Deployment) -> None:
    """All targets and ways as jobs on the same warm processes."""

    def check(case: tuple[str, str]) -> None:
        target, way = case
        job_id = damage.job_of(target, way)
        execution, record = ended(aws, job_id)
        name = (aws.home.parent / "calls" / f"{job_id}-damaged").read_text()
        damage.check_record(record, execution, job_id, name, way, TARGETS[target])
        check_shown(aws, job_id, record)
        if way in RETRIED:
            check_retry(aws, job_id, record, way)

    assert not problems(check, itertools.product(TARGETS, DAMAGES))
    assert not problems(lambda number: check_next(aws, f"between-{number}"), range(AT_ONCE))


def check_shown(aws: Deployment, job_id: str, record: Any) -> None:
    status, shown = aws.http("GET", f"/jobs/{job_id}")
    assert (status, shown["status"], shown["counts"]) == (200, record["status"], record["counts"])
    assert shown.get("error") == record.get("error")


def check_retry(aws: Deployment, job_id: str, record: Any, way: str) -> None:
    """A retry is refused with its reason, or does all that is left."""
    again = f"again-{job_id}"
    status, answer = aws.http("POST", f"/jobs/{job_id}/retry", json.dumps({"jobId": again}).encode())
    if status == 400:
        assert "job.json can be read" in answer["detail"], answer
        return
    assert status == 202, answer
    execution, after = ended_later(aws, again)
    damage.check_retry(execution, [record, after], way)


def ended_later(aws: Deployment, job_id: str) -> tuple[Any, Any]:
    arn = aws.at.state_machine_arn.replace(":stateMachine:", ":execution:", 1)
    execution = aws.wait(f"{arn}:{job_id}", 300)
    return {"error": None, "cause": None} | execution, json.loads(aws.stored(job_id, "record.json"))


def test_an_object_damaged_after_its_job_is_told(aws: Deployment) -> None:
    """One job for each object, which is damaged in one way after the other."""

    def check(name: str) -> None:
        job_id = f"ended-{re.sub('[^a-z]', '-', name)}"
        _, record = ended(aws, job_id)
        bucket = objects(aws)
        whole, other = bucket.read(job_id, name), bucket.read("other-any", name)
        for number, way in enumerate(DAMAGES):
            bucket.write(job_id, name, DAMAGES[way](whole, other))
            try:
                check_told(aws, job_id, record, name, way)
                if way in RETRIED:
                    check_retry_afterwards(aws, job_id, f"again-{number}-{job_id}", name)
            except AssertionError as error:
                raise AssertionError(f"{way}: {error}") from error
        bucket.write(job_id, name, whole)

    assert not problems(check, AFTERWARDS)
    assert not problems(lambda number: check_next(aws, f"after-{number}"), range(AT_ONCE))


def check_told(aws: Deployment, job_id: str, record: Any, name: str, way: str) -> None:
    """The job is still one that has ended, and what cannot be shown of it is refused with a sentence."""
    status, shown = aws.http("GET", f"/jobs/{job_id}")
    assert (status, shown["jobId"], shown["status"] in ENDED) == (200, job_id, True), shown
    # The execution's output says it, too; a readable text for people is taken as it is.
    if (name, way) != ("record.json", "another byte"):
        assert (shown["counts"], shown["status"]) == (record["counts"], record["status"])
    for path in ("failures", "result"):
        status, answer = aws.http("GET", f"/jobs/{job_id}/{path}")
        assert status in (200, 404, 409), (path, answer)
        assert status == 200 or answer["detail"], answer


def check_retry_afterwards(aws: Deployment, job_id: str, again: str, name: str) -> None:
    status, answer = aws.http("POST", f"/jobs/{job_id}/retry", json.dumps({"jobId": again}).encode())
    if status != 202:
        assert (status, name in ("job.json", "record.json")) == (400, True), answer
        assert "job.json can be read" in answer["detail"] or "has its record" in answer["detail"], answer
        return
    _, after = ended_later(aws, again)
    assert after["status"] == "SUCCEEDED", after
    assert after["counts"]["succeeded"] in (COUNT, COUNT - WHOLE["succeeded"]), after
