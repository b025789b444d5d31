"""A large job's reduction on the embedded AWS: of a job that is small, by sizes that are smaller yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.deployment import deployed
from tests.support.machine import make_tasks
from tests.support.plan import plan

AS_OF = "2026-11-23T09:00:00Z"


@pytest.mark.timeout(120)
def test_mergers_fold_a_job_of_many_shards(tmp_path: Path) -> None:
    def make_wide(staged: Path) -> None:
        file = staged / "fan_out" / "steps" / "reduction.py"
        text = file.read_text()
        for name, size, small in (("FAN_IN", 64, 2), ("WIDE", 16, 4)):
            assert f"\n{name} = {size}\n" in text
            text = text.replace(f"\n{name} = {size}\n", f"\n{name} = {small}\n")
        file.write_text(text)

    with deployed(tmp_path, make_wide) as aws:
        tasks = make_tasks(24, complete=0)
        aws.put_tasks(tasks)
        execution = aws.start({"params": {"asOf": AS_OF}, "shardSize": 2}, "wide")
        record = json.loads(aws.wait(execution)["output"])
        planned = record["shards"]["planned"]
        expected = plan(tasks, AS_OF, "UTC", top=5)
        assert record["counts"]["succeeded"] == len(expected.lines)
        assert aws.lines("wide", "plan.jsonl") == expected.lines
        entered = [name for _, name, _ in aws.payloads(execution)]
        assert 12 <= planned <= 16
        # The leaves, and one level above them.
        assert entered.count("Merger") >= -(-planned // 2)
