from __future__ import annotations

import json
import re

import pytest

from fanout import demo, local
from tests.unit.cli.conftest import record_of, running
from tests.unit.cli.fake_api import FakeApi
from tests.unit.cli.test_screen import PLAN


@pytest.fixture
def story(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The API in place of the embedded AWS, with the jobs that the demo starts."""
    kept = {"apiUrl": api.url, "region": "us-east-1", "accessKeyId": "test", "secretAccessKey": "test"}

    def deploy(self: demo.Demo, kind: str) -> None:
        assert (demo.KINDS / kind).is_file()
        (self.home / "local.json").write_text(json.dumps(kept))

    monkeypatch.setattr(demo.Demo, "deploy", deploy)
    monkeypatch.setattr(local, "down", lambda home: True)
    failed = record_of("today", "PARTIAL", failed=31, kind="reminders", result={})
    retried = record_of(kind="reminders", result={})
    retried["counts"] |= {"listed": 31, "succeeded": 31}
    api.scripts = {
        "daily-plan": [running(), record_of(kind="daily-plan", result=PLAN)],
        "today": [running(), failed | {"failuresUrl": "https://x"}],
        "today-again": [retried],
    }
    api.digests["today"] = [{"outcome": "failed", "error": "E", "message": "m", "count": 31, "samples": []}]
    return api


def test_the_demo_tells_of_a_failure_and_its_retry(story: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(50) == 0
    out = capsys.readouterr().out
    commands = [line.split()[2] for line in out.splitlines() if line.startswith("$ fanout")]
    assert commands == ["tasks", "run", "run", "failures", "retry", "jobs", "down"]
    assert "969 reminders + 31 by the retry = 1,000, of 1,000 tasks due." in out
    assert story.inputs["today-again"] == {"source": {"failedIn": "today"}}


def test_the_demo_advises_nothing_on_what_it_removes(story: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(50)
    told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("$ ")]
    advice = [found for line in told for found in re.findall(r"fanout (\S+)", line)]
    assert advice == ["up,", "--help."]


@pytest.mark.parametrize("job", ["daily-plan", "today-again"])
def test_a_demo_that_goes_wrong_exits_1(job: str, story: FakeApi) -> None:
    story.scripts[job] = [record_of(status="FAILED", result={})]
    assert demo.main(50) == 1
