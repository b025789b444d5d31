from __future__ import annotations

import io
import json
import os
import pty
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fanout.screen import Screen, ShownError, document, duration, outcomes, phase, safe, worked_on
from tests.unit.cli.conftest import record_of, running

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def screen(
    *, is_json: bool = False, options: tuple[str, ...] = (), advises: bool = True
) -> tuple[Screen, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Screen(is_json=is_json, options=options, advises=advises, stdout=out, stderr=err), out, err


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
def test_characters_that_act_on_a_terminal_are_escaped(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(ANY_TEXT)
def test_safe_text_has_no_control_character(text: str) -> None:
    shown = safe(text)
    shown.encode()
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in shown)
    assert safe(shown) == shown


@given(
    st.recursive(ANY_TEXT | st.integers() | st.none(), lambda some: st.lists(some) | st.dictionaries(ANY_TEXT, some))
)
def test_a_document_has_the_value_without_unsafe_characters(value: Any) -> None:
    for indent in (2, None):
        text = document(value, indent=indent)
        assert json.loads(text) == json.loads(json.dumps(value))
        assert safe(text.replace("\n", "")) == text.replace("\n", "")


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0 s"), (59, "59 s"), (65, "1 min 05 s"), (7620, "2 h 07 min")])
def test_a_duration_is_shown_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_outcomes_leave_out_what_no_task_had() -> None:
    assert outcomes(record_of()["counts"]) == "all succeeded"
    assert outcomes(record_of(failed=3)["counts"]) == "997 succeeded, 3 failed"
    assert outcomes({"listed": 0, "succeeded": 0}) == "nothing to do"


def test_a_list_is_one_document_even_if_it_breaks_off() -> None:
    def entries() -> Any:
        yield {"id": 1}
        raise ValueError("gone")

    shown, out, _ = screen(is_json=True)
    with pytest.raises(ShownError) as caught:
        shown.entries("tasks", entries(), shown.tasks)
    assert isinstance(caught.value.__cause__, ValueError)
    assert json.loads(out.getvalue()) == {
        "tasks": [{"id": 1}],
        "error": {"name": "ValueError", "message": "gone"},
    }


def test_an_empty_list_is_a_document() -> None:
    shown, out, _ = screen(is_json=True)
    shown.entries("tasks", [], shown.tasks, {"more": 1})
    assert json.loads(out.getvalue()) == {"tasks": [], "more": 1}


def test_nothing_for_people_stands_beside_a_document() -> None:
    shown, out, _ = screen(is_json=True)
    shown.record(record_of(status="PARTIAL", failed=2))
    shown.result(record_of())
    shown.jobs([record_of()])
    shown.tasks([])
    assert json.loads(out.getvalue()) == record_of(status="PARTIAL", failed=2)


def test_commands_repeat_the_stack_and_are_quoted() -> None:
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


def test_a_plan_is_shown_in_its_own_time_zone() -> None:
    shown, out, _ = screen()
    shown.result(record_of(kind="daily-plan", result=PLAN))
    lines = out.getvalue().splitlines()
    assert "The plan for Monday, 23 November 2026, as of 18:15 (Asia/Tokyo)" in lines
    assert f"  Overdue         2,100  {'█' * 30}" in lines
    assert f"  Later             700  {'█' * 10}" in lines
    assert "  This week           0" in lines
    assert "  Open tasks      2,804" in lines
    assert "  Overdue  2026-11-21 08:30  Pay \\x1b]0;owned\\x07 rent" in lines
    assert "  No date  -                 いつか" in lines
    assert lines[-1] == "The whole plan, in order: fanout result j --output plan.jsonl"


def test_a_partial_job_names_its_failures_and_the_retry() -> None:
    shown, out, _ = screen()
    shown.record(record_of("j", "PARTIAL", failed=3, failuresUrl="https://x"))
    assert out.getvalue().splitlines() == [
        "Job j (import-tasks): PARTIAL after 12 s",
        "  1,000 tasks in 4 shards: 997 succeeded, 3 failed",
        "  What failed:   fanout failures j",
        "  Retry only it: fanout retry j",
    ]


def test_no_command_is_advised_where_none_is_wanted() -> None:
    shown, out, _ = screen(advises=False)
    shown.record(record_of("j", "PARTIAL", failed=3, failuresUrl="https://x"))
    shown.record(running())
    shown.result(record_of(kind="daily-plan", result=PLAN))
    assert "fanout " not in out.getvalue()


def test_a_small_result_is_one_line_and_a_large_is_indented() -> None:
    shown, out, _ = screen()
    shown.result(record_of(result={"sum": 7}))
    shown.result(record_of(result={str(n): n for n in range(20)}))
    assert out.getvalue().splitlines()[:3] == ['  {"sum": 7}', "  {", '    "0": 0,']


def test_samples_that_say_what_their_group_says_are_only_named() -> None:
    shown, out, _ = screen()
    samples = [{"task": task, "message": "no title", "shard": 0} for task in "ab"]
    group = {"outcome": "failed", "error": "E", "message": "no title", "count": 9, "samples": samples}
    shown.failures({**record_of(failed=9, status="PARTIAL"), "digest": [group]})
    assert "such as a, b" in out.getvalue()
    assert out.getvalue().count("no title") == 1


def test_progress_in_a_pipe_is_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("fanout.screen.time.monotonic", lambda: now)
    steps = {
        0: running("LISTING"),
        1: running(done=0),
        4: running(done=1),
        5: running(done=2),
        9: record_of(),
    }
    steps |= {7: running(done=3), 8: running(done=3)}

    def looks() -> Iterator[dict[str, Any]]:
        nonlocal now
        for now, step in sorted(steps.items()):  # noqa: B007
            yield step

    shown, out, err = screen()
    assert shown.follow(looks()) == record_of()
    assert err.getvalue().splitlines() == [
        "listing",
        "working: 1,000 listed, 250 worked on",
        "working: 1,000 listed, 750 worked on; about 2 s left",
    ]
    assert out.getvalue() == ""


def test_progress_estimates_tasks_from_shards() -> None:
    now = running(done=1)
    now["shards"]["failed"] = 1
    assert (worked_on(now), phase(now)) == (500, "working")
    assert (worked_on(running("LISTING")), phase(record_of())) == (0, "ended")


def in_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, tasks: list[dict[str, Any]]) -> str:
    """What a terminal of so many columns gets of a list of tasks."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        Screen(stdout=terminal, stderr=io.StringIO()).tasks(tasks)
        terminal.flush()
        shown = ""
        while shown.count("\n") < 1 + len(tasks):
            shown += os.read(ours, 100_000).decode()
    os.close(ours)
    return shown


TASK = {"id": "0" * 36, "title": "東京" * 30, "dueAt": "2026-11-23T10:15:00Z", "isComplete": False}


@pytest.mark.parametrize("columns", [80, 200])
def test_a_table_fits_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    text = in_a_terminal(columns, monkeypatch, [TASK]).splitlines()[1]
    assert text.startswith(f"2026-11-23T10:15:00Z  open   {TASK['id']}  東京")
    assert ("…" in text) is (columns == 80)
    assert ("東京" * 30 in text) is (columns == 200)
    assert cell_len(text) <= columns


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "NO_COLOR", "COLUMNS"])
def test_a_table_in_a_pipe_is_never_cut(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "40")
    shown, out, _ = screen()
    shown.tasks([TASK])
    assert f"{TASK['id']}  {TASK['title']}" in out.getvalue()
    assert not any(line.endswith(" ") for line in out.getvalue().splitlines())


def test_colours_are_forced_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown, out, _ = screen()
    shown.record(record_of())
    assert "\x1b[32mJob j" in out.getvalue()


def test_tasks_have_one_heading_however_many_they_are() -> None:
    shown, out, _ = screen()
    shown.tasks(TASK for _ in range(2500))
    lines = out.getvalue().splitlines()
    assert (len(lines), sum(line.startswith("DUE") for line in lines)) == (2501, 1)


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


def test_a_record_says_how_many_workers_it_has_and_why() -> None:
    reason = "At most 4 workers at a time, because the AWS account has few."
    shown, out, _ = screen()
    shown.record(record_of(concurrency={"workers": 4, "reason": reason}))
    assert f"  {reason}\n" in out.getvalue()
