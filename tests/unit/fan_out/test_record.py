from __future__ import annotations

import json
from typing import Any

import pytest

from fan_out.model import record
from fan_out.model.documents import encode
from fan_out.model.outcomes import Counts
from fan_out.model.shard import Manifest, Node
from tests.support.factories import plan


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ({"error": None}, None),
        ({"jobId": "job-1"}, None),
        ({"error": {"Error": "E", "Cause": json.dumps({"errorMessage": "said so"})}}, ("E", "said so")),
        ({"Error": "E", "Cause": json.dumps({"errorMessage": "said so"})}, ("E", "said so")),
        ({"Error": "States.Timeout"}, ("States.Timeout", "No reason was given.")),
        ({"Error": "E", "Cause": ""}, ("E", "No reason was given.")),
        ({"Error": "E", "Cause": "no JSON"}, ("E", "no JSON")),
        ({"Error": "E", "Cause": '["a", "list"]'}, ("E", '["a", "list"]')),
        ({"Error": "E", "Cause": '"text"'}, ("E", '"text"')),
        ({"Error": "E", "Cause": "5"}, ("E", "5")),
        ({"Error": "E", "Cause": "{}"}, ("E", "No reason was given.")),
        ({"Error": "E", "Cause": '{"errorMessage": null}'}, ("E", "No reason was given.")),
        ({"Error": "E", "Cause": '{"errorMessage": {"a": 1}}'}, ("E", "{'a': 1}")),
        ({"Error": "E", "Cause": '{"errorMessage": "cut off'}, ("E", '{"errorMessage": "cut off')),
    ],
)
def test_a_caught_error_has_no_stack_trace(state: dict[str, Any], seen: tuple[str, str] | None) -> None:
    found = record.parse_error(state)
    assert found == (None if seen is None else {"name": seen[0], "message": seen[1]})


def test_a_caught_message_can_be_written_and_is_short() -> None:
    found = record.parse_error({"Error": "E", "Cause": json.dumps({"errorMessage": "\ud800" + "x" * 40_000})})
    assert found is not None
    assert len(encode(found)) < 5_000


def final(*, counts: Counts, tolerated: float = 5, **more: Any) -> dict[str, Any]:
    node = Node(
        counts=counts,
        done=more.pop("done", 1),
        problems=more.pop("problems", []),
        summary=more.pop("result", {}),
    )
    return record.final_record(
        plan(toleratedFailurePercentage=tolerated),
        node,
        Manifest(1, counts.total, more.pop("skipped", 0)),
        "2026-11-23T10:00:00Z",
        bucket="jobs-bucket",
        status=more.pop("status", None),
        error=more.pop("error", None),
    )


@pytest.mark.parametrize(
    ("counts", "tolerated", "status"),
    [
        (Counts(100), 0, "SUCCEEDED"),
        (Counts(0), 0, "SUCCEEDED"),
        (Counts(95, 5), 5, "PARTIAL"),
        (Counts(94, 6), 5, "FAILED"),
        (Counts(95, 2, 2, 1), 5, "PARTIAL"),
        (Counts(95, 2, 2, 2), 5, "FAILED"),
        (Counts(0, 100), 100, "PARTIAL"),
        (Counts(99, 1), 0, "FAILED"),
    ],
)
def test_all_that_did_not_succeed_counts_against_the_tolerance(counts: Counts, tolerated: float, status: str) -> None:
    assert final(counts=counts, tolerated=tolerated)["status"] == status


def test_a_tally_that_is_off_fails_the_job() -> None:
    for status in (None, "STOPPED"):
        made = final(counts=Counts(10), tolerated=100, problems=["Shard 1 is lost."], status=status)
        assert made["error"] == {"name": "AccountingError", "message": "Shard 1 is lost."}
    assert final(counts=Counts(10), tolerated=100, problems=["Lost."])["status"] == "FAILED"


def test_a_large_result_stays_out_of_the_record() -> None:
    made = final(counts=Counts(1), result={"text": "x" * record.LARGEST_RESULT})
    assert made["result"] == {"resultKey": "jobs/job-1/result.json"}
    assert final(counts=Counts(1), result={"n": 1})["result"] == {"n": 1}


def test_tasks_that_a_retry_no_longer_found_are_told() -> None:
    assert final(counts=Counts(1), skipped=3)["skipped"] == 3
    assert "skipped" not in final(counts=Counts(1))


def test_a_cause_fits_into_a_fail_state() -> None:
    made = final(counts=Counts(0, 9), result={"text": "x" * 10_000}, problems=["Shard is lost. " * 100] * 20)
    cause = record.fail_cause(made)["cause"]
    assert len(cause) < 32_768
    assert json.loads(cause)["counts"]["failed"] == 9
