import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fanout.client import JobRecord, Progress
from fanout.screen import Screen, ShownError, document, duration, fit, is_retryable, outcomes, safe
from tests.unit.cli.conftest import record_of

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def screen(
    *, is_json: bool = False, options: tuple[str, ...] = ()
) -> tuple[Screen, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Screen(is_json=is_json, options=options, stdout=out, stderr=err), out, err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202etxt", "abc\\u202etxt"),
        ("\ud800", "\\ud800"),
        ("👩\u200d💻 naïve 東京", "👩\u200d💻 naïve 東京"),
    ],
)
def test_characters_that_act_on_a_terminal_are_written_out_and_others_stay(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(ANY_TEXT)
def test_safe_text_can_be_written_and_has_no_control_character(text: str) -> None:
    shown = safe(text)
    shown.encode()
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in shown)
    assert safe(shown) == shown


@given(ANY_TEXT, st.integers(1, 60))
def test_fitted_text_is_never_wider_than_the_cells_it_has(text: str, cells: int) -> None:
    assert cell_len(fit(text, cells)) <= cells


def test_a_wide_character_is_not_cut_in_half() -> None:
    assert fit("東京都", 4) == "東…"
    assert fit("東京", 4) == "東京"


@given(
    st.recursive(
        ANY_TEXT | st.integers() | st.none(), lambda some: st.lists(some) | st.dictionaries(ANY_TEXT, some)
    )
)
def test_a_document_says_the_same_as_the_value_without_any_unsafe_character(value: Any) -> None:
    for indent in (2, None):
        text = document(value, indent=indent)
        assert json.loads(text) == json.loads(json.dumps(value))
        assert safe(text.replace("\n", "")) == text.replace("\n", "")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0 s"), (59, "59 s"), (65, "1 min 05 s"), (7620, "2 h 07 min")]
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_outcomes_leave_out_what_no_task_had() -> None:
    assert outcomes(record_of("j")["counts"]) == "all succeeded"
    assert outcomes(record_of("j", failed=3)["counts"]) == "997 succeeded, 3 failed"


def test_a_list_is_one_document_even_if_it_breaks_off() -> None:
    def entries() -> Any:
        yield {"id": 1}
        raise ValueError("gone")

    shown, out, _ = screen(is_json=True)
    with pytest.raises(ShownError) as caught:
        shown.json_list("tasks", entries())
    assert isinstance(caught.value.cause, ValueError)
    assert json.loads(out.getvalue()) == {
        "tasks": [{"id": 1}],
        "error": {"name": "ValueError", "message": "gone"},
    }


def test_an_empty_list_is_a_document() -> None:
    shown, out, _ = screen(is_json=True)
    shown.json_list("tasks", [], {"more": 1})
    assert json.loads(out.getvalue()) == {"tasks": [], "more": 1}


def test_nothing_for_people_reaches_standard_output_beside_a_document() -> None:
    shown, out, _ = screen(is_json=True)
    record: JobRecord = record_of("j", "PARTIAL", failed=2)  # type: ignore[assignment]
    shown.record(record)
    shown.result(record)
    assert out.getvalue() == ""


def test_commands_repeat_the_stack_and_quote_what_a_shell_would_split() -> None:
    shown, _, _ = screen(options=("--stack", "Fan Out"))
    assert shown.command("retry", "j") == "fanout retry --stack 'Fan Out' j"


PLAN = {
    "asOf": "2026-11-23T09:15:00Z",
    "timeZone": "Asia/Tokyo",
    "today": "2026-11-23",
    "counts": {"overdue": 2100, "today": 1, "thisWeek": 0, "later": 700, "undated": 3, "total": 2804},
    "mostUrgent": {
        "overdue": [{"id": "a", "title": "Pay \x1b]0;owned\x07 rent", "dueAt": "2026-11-20T23:30:00Z"}],
        "today": [],
        "thisWeek": [],
        "later": [],
        "undated": [{"id": "b", "title": "いつか"}],
    },
    "planKey": "jobs/j/plan.jsonl",
}


def test_a_plan_shows_its_day_groups_and_most_urgent_tasks_in_its_own_time_zone() -> None:
    shown, out, _ = screen()
    shown.result(record_of("j", kind="daily-plan", result=PLAN))  # type: ignore[arg-type]
    lines = out.getvalue().splitlines()
    assert "The plan for Monday, 23 November 2026, as of 18:15 (Asia/Tokyo)" in lines
    assert f"  Overdue         2,100  {'█' * 30}" in lines
    assert f"  Later             700  {'█' * 10}" in lines
    assert "  This week           0" in lines
    assert "  Open tasks      2,804" in lines
    assert "    2026-11-21 08:30  Pay \\x1b]0;owned\\x07 rent" in lines
    assert "    -                 いつか" in lines
    assert lines[-1] == "The whole plan, in order: fanout result j --output plan.jsonl"


def test_a_job_that_failed_in_part_shows_where_its_failures_are_and_how_to_retry_them() -> None:
    shown, out, _ = screen()
    shown.record(record_of("j", "PARTIAL", failed=3, failuresUrl="s3://b/jobs/j/failures.jsonl"))  # type: ignore[arg-type]
    assert out.getvalue().splitlines() == [
        "Job j (import-tasks): PARTIAL after 12 s",
        "  1,000 tasks in 4 shards: 997 succeeded, 3 failed",
        "  What failed:      fanout failures j",
        "  Try those again:  fanout retry j",
    ]


def step(seconds: float, done: int, **fields: Any) -> Progress:
    return Progress(
        job_id="j", status="RUNNING", seconds=seconds, listed=1000, shards=10, shards_done=done, **fields
    )


def test_without_a_terminal_progress_is_a_plain_line_at_most_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 1.0, 2.0, 4.0, 5.0, 9.0])
    monkeypatch.setattr("fanout.screen.time.monotonic", lambda: next(clock))
    shown, out, err = screen()
    listing = Progress(job_id="j", status="RUNNING", seconds=0)
    shown.follow(iter([listing, step(1, 0), step(2, 1), step(4, 5), step(5, 6), step(9, 6)]))
    assert err.getvalue().splitlines() == [
        "listing",
        "working: 1,000 listed, 500 worked on, 5/10 shards; about 3 s left",
        "working: 1,000 listed, 600 worked on, 6/10 shards; about 5 s left",
    ]
    assert out.getvalue() == ""


def test_progress_estimates_tasks_from_shards_and_names_its_phase() -> None:
    now = step(3, 4, shards_failed=1)
    assert (now.done, now.failed, now.phase) == (400, 100, "working")
    assert step(3, 10).phase == "reducing"
    assert Progress(job_id="j", status="RUNNING", seconds=1).phase == "listing"
    assert Progress(job_id="j", status="SUCCEEDED", seconds=1, listed=0, shards=0).phase == "ended"


@pytest.mark.parametrize(
    ("fields", "is_one"),
    [
        ({"status": "PARTIAL", "failed": 1}, True),
        ({"status": "FAILED", "failed": 1}, True),
        ({"status": "SUCCEEDED"}, False),
        ({"status": "RUNNING", "failed": 1}, False),
        # Its result is broken, not one of its tasks.
        ({"status": "FAILED"}, False),
        ({"status": "FAILED", "failed": 1, "kind": None}, False),
    ],
)
def test_a_retry_is_offered_where_there_is_something_to_retry(fields: dict[str, Any], is_one: bool) -> None:
    assert is_retryable(record_of("j", **fields)) is is_one


def test_a_job_that_ended_before_its_listing_can_be_retried() -> None:
    counts = dict.fromkeys(("listed", "succeeded", "failed", "quarantined", "unprocessed"), 0)
    assert is_retryable(record_of("j", "STOPPED", counts=counts))


@pytest.mark.parametrize(
    ("called", "is_found", "said"),
    [
        (".venv/bin/fanout", False, ".venv/bin/fanout retry j"),
        (".venv/bin/fanout", True, "fanout retry j"),
        ("/project/fanout/demo.py", False, "fanout retry j"),
    ],
)
def test_a_command_is_shown_so_that_it_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, called: str, is_found: bool, said: str
) -> None:
    monkeypatch.setattr("sys.argv", [called, "failures", "j"])
    monkeypatch.setattr("shutil.which", lambda name: "/somewhere/fanout" if is_found else None)
    shown, _, _ = screen()
    assert shown.command("retry", "j") == said
