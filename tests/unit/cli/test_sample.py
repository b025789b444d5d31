import csv
import io
import unicodedata
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_out.model.task import instant
from fanout import sample

DAY = date(2026, 11, 23)


def text_of(count: int, *, day: date = DAY, seed: int = 1) -> str:
    out = io.StringIO(newline="")
    sample.write(out, sample.rows(count, day=day, seed=seed))
    return out.getvalue()


@given(st.integers(0, 2**32), st.dates(date(2000, 1, 1), date(2100, 1, 1)))
@settings(max_examples=25, deadline=None)
def test_a_seed_and_a_day_give_the_same_valid_rows(seed: int, day: date) -> None:
    text = text_of(60, day=day, seed=seed)
    assert text == text_of(60, day=day, seed=seed)
    header, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert tuple(header) == sample.COLUMNS
    assert len(rows) == 60
    for title, detail, due_at, is_complete in rows:
        assert 1 <= len(title) <= 100
        assert title == title.strip()
        assert len(detail) <= 1000
        assert is_complete in {"true", "false", ""}
        assert not any(unicodedata.category(character) == "Cc" for character in title)
        if due_at:
            distance = instant(due_at).astimezone(UTC).date() - day
            assert timedelta(days=-401) <= distance <= timedelta(days=181)


def test_another_seed_and_another_day_give_other_tasks() -> None:
    assert len({text_of(20), text_of(20, seed=2), text_of(20, day=DAY + timedelta(days=1))}) == 3


def test_the_first_rows_do_not_depend_on_how_many_follow() -> None:
    assert list(islice(sample.rows(10_000_000, day=DAY), 50)) == list(sample.rows(50, day=DAY))


def test_the_tasks_are_due_in_every_group_of_a_daily_plan() -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    groups = dict.fromkeys(("overdue", "today", "thisWeek", "later", "undated"), 0)
    for row in sample.rows(5000, day=DAY):
        if not row.due_at:
            groups["undated"] += 1
            continue
        due = instant(row.due_at)
        if due < now:
            groups["overdue"] += 1
        elif due.date() <= DAY:
            groups["today"] += 1
        elif due.date() < DAY + timedelta(days=7):
            groups["thisWeek"] += 1
        else:
            groups["later"] += 1
    assert min(groups.values()) > 100


@pytest.mark.parametrize("needed", ['""', ",", "\n", "東京", "ה", "م", "α", "🎂", "\u200d", "=SUM("])
def test_the_sample_has_what_breaks_careless_readers(needed: str) -> None:
    assert needed in text_of(3000)


def test_rows_are_made_as_they_are_taken() -> None:
    rows = sample.rows(10**12, day=DAY)
    assert next(rows).title
