"""The rules of a task, as pure functions."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import timestamps
from common.errors import shown
from task_service import validation
from task_service.errors import InvalidTaskError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
offsets = st.integers(-(24 * 60 - 1), 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-12-31"), timezones=offsets)
plain = st.characters(exclude_categories=["Cs", "Cc"])


@given(title=st.text(plain, min_size=1, max_size=100).filter(str.strip), detail=st.text(plain, max_size=1000))
def test_a_task_within_the_rules_is_taken_as_it_is(title: str, detail: str) -> None:
    task = validation.new_task({"title": title, "detail": detail})

    assert (task.title, task.detail, task.due_at, task.is_complete) == (title, detail, None, False)


@given(
    st.dictionaries(
        st.sampled_from(["title", "detail", "dueAt", "isComplete", "version"]) | st.text(st.characters()),
        json_values,
    )
)
def test_any_content_is_valid_or_refused_by_its_fields(
    sent: dict[str, Any],
) -> None:
    task, refusal = None, None
    try:
        task = validation.replacement(sent)
    except InvalidTaskError as error:
        refusal = error
    if refusal is not None:
        errors = [fault.to_json() for fault in refusal.faults]
        text = json.dumps([str(refusal), errors], ensure_ascii=False, allow_nan=False)
        assert len(text.encode()) < 2_000 * len(refusal.faults) + 2_000
        for fault, answered in zip(refusal.faults, errors, strict=True):
            assert fault.message.startswith(answered["field"])
            assert fault.message.endswith(".")
            assert fault.allowed in fault.message
    if task is not None:
        assert 1 <= len(task.title) <= 100
        assert task.title.strip()
        assert task.detail is None or len(task.detail) <= 1_000
        assert task.is_complete in (True, False)
        assert type(task.version) is int


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("title", "", 'title is "", but must be a text of 1 to 100 characters.'),
        ("title", "x" * 101, "but must be a text of 1 to 100 characters."),
        ("title", " \t\n\u3000", "not only white space"),
        ("title", "a\x00b", "without control characters"),
        ("title", "a\x1b[2J", "without control characters"),
        ("title", "a\x9b2J", "without control characters"),
        ("title", "a\ud800", "that is valid Unicode"),
        ("title", None, "title is null, but must be"),
        ("title", 7, "title is 7, but must be"),
        ("title", ["x"], 'title is ["x"], but must be'),
        ("detail", "x" * 1001, "a text of at most 1,000 characters"),
        ("detail", "a\x00", "without control characters"),
        ("detail", {}, "detail is {}, but must be"),
        ("dueAt", "2026-05-17", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "2026-05-17T09:00:00", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "2026-02-30T09:00:00Z", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "2026-05-17T24:00:00Z", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "2026-05-17T09:00:60Z", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "2026-05-17 09:00:00Z", "an ISO 8601 timestamp with a zone"),
        ("dueAt", " 2026-05-17T09:00:00Z", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "٢٠٢٦-05-17T09:00:00Z", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "0001-01-01T00:00:00+14:00", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "9999-12-31T23:59:59-14:00", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "tomorrow", "an ISO 8601 timestamp with a zone"),
        ("dueAt", "", "an ISO 8601 timestamp with a zone"),
        ("dueAt", 1_779_008_400, "an ISO 8601 timestamp with a zone"),
        ("isComplete", "true", 'isComplete is "true", but must be true or false.'),
        ("isComplete", 1, "isComplete is 1, but must be true or false."),
        ("isComplete", None, "isComplete is null, but must be true or false."),
        ("version", True, "version is true, but must be a whole number from 1"),
        ("version", 1.0, "version is 1.0, but must be a whole number from 1"),
        ("version", "1", 'version is "1", but must be a whole number from 1'),
        ("version", 0, "version is 0, but"),
        ("version", -1, "version is -1, but"),
        ("version", 2**53, "version is 9007199254740992, but"),
        ("version", 10**400, "but must be a whole number from 1"),
        (
            "colour",
            "red",
            'colour is "red", but there is no such field; a field must be one of title, detail, dueAt, '
            "isComplete, version.",
        ),
        ("\ud800", "red", "there is no such field"),
        ("x" * 500, "red", '… is "red", but there is no such field'),
    ],
)
def test_a_value_outside_the_rules_is_refused_with_a_sentence(field: str, value: object, says: str) -> None:
    with pytest.raises(InvalidTaskError) as refused:
        validation.replacement({"title": "Good", "version": 1, field: value})

    assert says in str(refused.value)
    assert len(refused.value.faults) == 1
    assert len(str(refused.value)) < 400
    errors = [fault.to_json() for fault in refused.value.faults]
    json.dumps([str(refused.value), errors], ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("field", ["title", "version"])
def test_a_missing_field_is_named_without_a_value(field: str) -> None:
    sent = {"title": "Good", "version": 1}
    del sent[field]

    with pytest.raises(InvalidTaskError, match=f"^{field} is missing, but must be") as refused:
        validation.replacement(sent)

    assert "value" not in refused.value.faults[0].to_json()


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidTaskError) as refused:
        validation.new_task({"title": "", "detail": 1, "dueAt": "soon", "isComplete": 0, "colour": "red"})

    assert [fault.field for fault in refused.value.faults] == [
        "title",
        "detail",
        "dueAt",
        "isComplete",
        "colour",
    ]


def test_tabs_and_line_breaks_may_stay_in_a_text() -> None:
    assert validation.new_task({"title": "one\r\ntwo\tthree"}).title == "one\r\ntwo\tthree"


def test_characters_are_counted_and_not_bytes() -> None:
    assert validation.new_task({"title": "👩🏽‍🚀"[0] * 100}).title == "👩" * 100


def test_null_for_an_optional_field_leaves_it_out() -> None:
    assert validation.new_task({"title": "x", "detail": None, "dueAt": None}) == validation.new_task({"title": "x"})


@pytest.mark.parametrize("sent", [None, [], "x", 1, True])
def test_what_is_no_object_is_no_task(sent: object) -> None:
    with pytest.raises(InvalidTaskError, match="must be an object with title, detail, dueAt, isComplete"):
        validation.new_task(sent)


def test_a_refused_text_is_shown_cut_to_a_hundred_characters() -> None:
    with pytest.raises(InvalidTaskError) as refused:
        validation.new_task({"title": "x" * 5_000})

    assert refused.value.faults[0].to_json()["value"] == "x" * 99 + "…"
    assert "x" * 100 not in str(refused.value)


@given(json_values)
def test_any_value_can_be_shown(value: object) -> None:
    assert len(shown(value)) <= 100
    shown(value).encode()


@given(moments)
def test_a_timestamp_keeps_its_instant_to_the_second(moment: datetime) -> None:
    kept = timestamps.utc(moment.isoformat())

    assert len(kept) == len("2026-05-17T09:00:00Z")
    assert datetime.fromisoformat(kept) == moment.astimezone(UTC).replace(microsecond=0)


@given(moments, moments)
def test_timestamps_compare_as_texts_as_they_do_in_time(one: datetime, other: datetime) -> None:
    one, other = one.replace(microsecond=0), other.replace(microsecond=0)

    assert (timestamps.written(one) < timestamps.written(other)) == (one < other)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2026-05-17T09:00:00Z", "2026-05-17T09:00:00Z"),
        ("2026-05-17T11:00+02:00", "2026-05-17T09:00:00Z"),
        ("2026-05-17T09:00:00.999999999Z", "2026-05-17T09:00:00Z"),
        ("20260517T090000Z", "2026-05-17T09:00:00Z"),
        ("2026-W20-7T09:00:00Z", "2026-05-17T09:00:00Z"),
        ("0099-01-01T00:00:00Z", "0099-01-01T00:00:00Z"),
    ],
)
def test_the_forms_of_iso_8601_are_understood(sent: str, kept: str) -> None:
    assert timestamps.utc(sent) == kept


@given(st.text() | json_values)
def test_any_value_is_a_timestamp_or_a_value_error(value: object) -> None:
    with contextlib.suppress(ValueError):
        timestamps.utc(value)
