from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fan_out.aws.storage import JobStore
from fan_out.model import kind
from fan_out.model.job_input import read_input
from fan_out.model.plan import make_plan
from fan_out.model.task import Task
from tests.support import plan as plain
from tests.support.factories import task
from tests.support.machine import STARTED_AT, Machine, make_tasks, put_tasks, stored
from tests.unit.fan_out.conftest import reset

# Whole and half hours, both hemispheres, a day line, and zones in which days begin at a change of clocks.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Kiritimati",
    "Pacific/Pago_Pago", "Australia/Lord_Howe", "America/Sao_Paulo", "America/Havana", "Africa/Cairo", "Asia/Beirut",
]  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.integers(0, 366 * 86400).map(lambda seconds: START + timedelta(seconds=seconds))
zones = st.sampled_from(ZONES)


def stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def answer(tasks: list[dict[str, Any]], as_of: str, zone: str, top: int) -> tuple[list[Any], Any]:
    """The kind's lines and summary, without any service around it."""
    found = kind.find("daily-plan")
    params = {"asOf": as_of, "timeZone": zone, "top": top}
    job = make_plan("job-1", STARTED_AT, read_input({"params": params})).job()
    value, lines = found.zero(), []
    for each in map(Task.from_json, tasks):
        (result,) = found.process_many([each], job)
        value = found.fold(value, each, result, job)
        line = found.line(each, result, job)
        assert line is not None
        lines.append(line)
    return [line for _, line in sorted(lines, key=lambda line: line[0])], found.summary(value, job)


@given(
    as_of=moments,
    offset=st.integers(-14 * 60, 14 * 60),
    zone=zones,
    seconds=st.lists(st.none() | st.integers(-3 * 86400, 15 * 86400), max_size=15),
    top=st.integers(0, 10),
)
@example(START, 0, "UTC", [], 5)
@example(START, 0, "UTC", [0], 0)
# Sundays and Mondays in New York and Berlin, on either side of a change of clocks and of midnight.
@example(datetime(2026, 3, 8, 4, 59, 59, tzinfo=UTC), 0, "America/New_York", [0, 1, 86399, 86400], 5)
@example(datetime(2026, 3, 29, 0, 30, tzinfo=UTC), 60, "Europe/Berlin", [79199, 79200, 81000, 86400], 5)
@example(datetime(2026, 10, 25, 0, 30, tzinfo=UTC), 120, "Europe/Berlin", [81000, 84600, 84599, 88200], 5)
def test_the_plan_is_what_a_plain_computation_says(
    as_of: datetime, offset: int, zone: str, seconds: list[int | None], top: int
) -> None:
    tasks = [
        task(number, createdAt=stamp(START - timedelta(seconds=number % 3)))
        | ({} if due is None else {"dueAt": stamp(as_of + timedelta(seconds=due))})
        for number, due in enumerate(seconds)
    ]
    text = as_of.astimezone(timezone(timedelta(minutes=offset))).isoformat()
    expected = plain.plan(tasks, text, zone, top=top)
    lines, summary = answer(tasks, text, zone, top)
    assert lines == expected.lines
    assert summary["counts"] == expected.counts
    assert summary["mostUrgent"] == expected.most_urgent
    assert summary["asOf"] == stamp(as_of)
    assert summary["timeZone"] == zone


@pytest.mark.parametrize(
    ("as_of", "zone", "due", "group"),
    [
        ("2026-11-23T09:00:00Z", "UTC", "2026-11-23T08:59:59Z", "overdue"),
        ("2026-11-23T09:00:00Z", "UTC", "2026-11-23T09:00:00Z", "today"),
        ("2026-11-23T09:00:00Z", "UTC", "2026-11-23T23:59:59Z", "today"),
        ("2026-11-23T09:00:00Z", "UTC", "2026-11-24T00:00:00Z", "thisWeek"),
        ("2026-11-23T09:00:00Z", "UTC", "2026-11-29T23:59:59Z", "thisWeek"),
        ("2026-11-23T09:00:00Z", "UTC", "2026-11-30T00:00:00Z", "later"),
        ("2026-11-29T12:00:00Z", "UTC", "2026-11-29T23:59:59Z", "today"),
        ("2026-11-29T12:00:00Z", "UTC", "2026-11-30T00:00:00Z", "later"),
        # It is Tuesday in Auckland while it is Monday in UTC.
        ("2026-11-23T12:00:00Z", "Pacific/Auckland", "2026-11-24T10:59:59Z", "today"),
        ("2026-11-23T12:00:00Z", "Pacific/Auckland", "2026-11-24T11:00:00Z", "thisWeek"),
        # The day on which Berlin's clocks go forward has 23 hours, and the one on which they go back 25.
        ("2026-03-29T00:00:00+01:00", "Europe/Berlin", "2026-03-29T21:59:59Z", "today"),
        ("2026-03-29T00:00:00+01:00", "Europe/Berlin", "2026-03-29T22:00:00Z", "later"),
        ("2026-10-25T00:00:00+02:00", "Europe/Berlin", "2026-10-25T22:59:59Z", "today"),
        ("2026-10-25T00:00:00+02:00", "Europe/Berlin", "2026-10-25T23:00:00Z", "later"),
        # Cairo's clocks skip midnight: the day begins at one o'clock.
        ("2026-04-23T12:00:00Z", "Africa/Cairo", "2026-04-23T21:59:59Z", "today"),
        ("2026-04-23T12:00:00Z", "Africa/Cairo", "2026-04-23T22:00:00Z", "thisWeek"),
    ],
)
def test_a_task_is_in_the_group_of_its_day_in_the_zone(as_of: str, zone: str, due: str, group: str) -> None:
    lines, summary = answer([task(1, dueAt=due)], as_of, zone, 5)
    assert lines[0]["group"] == group
    assert summary["counts"][group] == 1


def test_without_as_of_the_plan_is_of_the_jobs_start(machine: Machine) -> None:
    result = machine.run(started_at="2026-11-23T23:30:00Z").output["result"]
    assert (result["asOf"], result["today"]) == ("2026-11-23T23:30:00Z", "2026-11-23")
    result = machine.run({"params": {"timeZone": "Asia/Tokyo"}}, "job-2", "2026-11-23T23:30:00Z").output["result"]
    assert (result["asOf"], result["today"]) == ("2026-11-23T23:30:00Z", "2026-11-24")


@pytest.mark.parametrize("count", [0, 1, 60])
def test_any_shards_in_any_order_give_the_same_plan(deployment: Machine, count: int) -> None:
    tasks = make_tasks(count, complete=0.2 if count > 1 else 0)
    expected = plain.plan(tasks, STARTED_AT, "Europe/Berlin", top=5)
    found = []
    for size, order in ((500, list), (7, lambda items: items[::-1]), (1, list)):
        reset(deployment)
        put_tasks(tasks)
        deployment.order = order
        ended = deployment.run({"shardSize": size, "params": {"timeZone": "Europe/Berlin"}})
        assert ended.output["status"] == "SUCCEEDED"
        assert ended.output["counts"]["listed"] == ended.output["counts"]["succeeded"] == expected.counts["total"]
        found.append((ended.output["result"], stored("plan.jsonl")))
    result, lines = found[0]
    assert found == [(result, lines)] * 3
    assert [json.loads(line) for line in lines.splitlines()] == expected.lines
    assert result["counts"] == expected.counts
    assert result["mostUrgent"] == expected.most_urgent


def test_a_record_of_the_longest_titles_stays_small(machine: Machine, store: JobStore) -> None:
    put_tasks([task(number, title="🐛" * 100) for number in range(60)])
    ended = machine.run({"params": {"top": 10}})
    assert len(json.dumps(ended.output)) < 32 * 1024
    assert len(store.require("result.json")["mostUrgent"]["undated"]) == 10
