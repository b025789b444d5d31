"""The demo's story on the embedded AWS: the terminal, the REST API, its links and the state machine together."""

from __future__ import annotations

import re
from datetime import date

import pytest

from fanout import demo

# The first tasks of the sample of a day; so many are due on it, fail, and kill their worker.
DAY, TASKS, DUE, FAILING, KILLING = date(2026, 11, 23), 2000, 138, 4, 1


def test_the_demo_ends_as_its_story_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(TASKS, DAY) == 0
    out = capsys.readouterr().out
    assert f"Imported {TASKS:,} rows, rejected none." in out
    done = DUE - FAILING - KILLING
    assert f"{DUE} tasks in " in out
    assert f"{done} succeeded, {FAILING} failed, {KILLING} quarantined" in out
    assert re.search(rf"^ +{FAILING}  failed +ValueError  ", out, re.MULTILINE)
    assert re.search(rf"^ +{KILLING}  quarantined  QuarantinedError  ", out, re.MULTILINE)
    assert f"{done} reminders + {DUE - done} by the retry = {DUE}, of {DUE} tasks due." in out
