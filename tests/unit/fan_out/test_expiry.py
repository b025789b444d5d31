"""What is left of a job once its intermediate objects have expired."""

from __future__ import annotations

import json
from typing import Any

from fan_out.aws import clients as aws
from fan_out.aws.storage import Bucket, JobStore
from fan_out.jobs import Jobs
from tests.support.machine import BUCKET, Machine, forget_processes, make_tasks, put_tasks

JOBS = Jobs(Bucket(BUCKET), "arn:aws:states:eu-central-1:123456789012:stateMachine:FanOut")


def keys(prefix: str) -> list[str]:
    pages = aws.s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def expire(prefix: str) -> None:
    """Delete what the bucket's rule of this prefix deletes."""
    expired = keys(prefix)
    assert expired
    for key in expired:
        aws.s3().delete_object(Bucket=BUCKET, Key=key)
    forget_processes()


def run_and_expire(machine: Machine, trial: Any) -> set[str]:
    """Run job-1, of which seven tasks fail, and let a week pass; their ids."""
    tasks = make_tasks(60, complete=0)
    put_tasks(tasks)
    ids = [task["id"] for task in tasks[:7]]
    trial.on.update(dict.fromkeys(ids, ValueError("no")))
    machine.run({"kind": "trial", "shardSize": 2, "toleratedFailurePercentage": 50})
    expire("work/")
    trial.on.clear()
    return set(ids)


def test_a_job_can_be_looked_at_without_its_intermediates(machine: Machine, store: JobStore, trial: Any) -> None:
    failed = run_and_expire(machine, trial)
    assert JOBS.get("job-1")["status"] == "PARTIAL"
    assert JOBS.result("job-1")["result"]["tasks"] == 53
    assert sum(group["count"] for group in JOBS.failures("job-1")["digest"]) == 7
    lines = [json.loads(line.text)["task"]["id"] for line in store.lines("failures.jsonl")]
    assert set(lines) == failed
    assert len(list(store.lines("trial.jsonl"))) == 53


def test_a_job_can_be_retried_without_its_intermediates(machine: Machine, store: JobStore, trial: Any) -> None:
    failed = run_and_expire(machine, trial)
    trial.calls.clear()
    retried = machine.run({"source": {"failedIn": "job-1"}}, "job-2").output
    assert (retried["status"], retried["counts"]["listed"]) == ("SUCCEEDED", 7)
    assert {each for call in trial.calls for each in call} == failed


def test_a_retry_without_list_and_intermediates_lists_again(machine: Machine, store: JobStore, trial: Any) -> None:
    run_and_expire(machine, trial)
    expire("jobs/job-1/failures.jsonl")
    retried = machine.run({"source": {"failedIn": "job-1"}}, "job-2").output
    assert (retried["status"], retried["counts"]["listed"]) == ("SUCCEEDED", 60)


def test_a_retry_whose_csv_has_expired_too_says_so(machine: Machine, store: JobStore) -> None:
    store.bucket.put("uploads/x.csv", b"title\nA\n,\n")
    job = {"kind": "import-tasks", "source": {"csv": "uploads/x.csv"}, "toleratedFailurePercentage": 100}
    assert machine.run(job).output["counts"]["failed"] == 1
    for prefix in ("work/", "uploads/", "jobs/job-1/failures.jsonl"):
        expire(prefix)
    retried = machine.run({"source": {"failedIn": "job-1"}}, "job-2")
    assert (retried.status, retried.error) == ("FAILED", "AccountingError")
    assert "uploads/x.csv is missing" in str(retried.cause)


def test_only_a_handful_of_objects_stays(machine: Machine, store: JobStore, trial: Any) -> None:
    run_and_expire(machine, trial)
    assert {key.removeprefix("jobs/job-1/") for key in keys("jobs/job-1/")} == {
        "job.json",
        "manifest.json",
        "root.json",
        "record.json",
        "result.json",
        "failures.jsonl",
        "digest.json",
        "trial.jsonl",
    }
