"""`make aws-test` before it makes anything: it asks, it refuses, and it counts. The rest is in tests/local."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.aws import __main__ as command
from tests.aws import account, cost
from tests.aws.account import CHECK, Account, RefusedError
from tests.aws.report import DEVIATIONS
from tests.support.deployment import ROOT

STACK = "fanout-test-0123abcd"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An account that is known and bootstrapped; the stacks that were tried on it."""
    tried: list[str] = []

    def find(stack: str) -> Account:
        return Account("123456789012", "arn:aws:iam::123456789012:user/a", "eu-west-1", stack, boto3.Session())

    monkeypatch.setattr(Account, "find", find)

    def try_it(throw_away: Account, *_: object) -> int:
        tried.append(throw_away.stack)
        return 0

    monkeypatch.setattr(command, "_try_and_remove", try_it)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    return tried


@pytest.mark.parametrize(("answer", "code"), [("yes\n", 0), ("y\n", 2), ("\n", 2), ("", 2)])
def test_it_says_what_it_does_and_asks(
    known: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert command.main([]) == code
    assert len(known) == (answer == "yes\n")
    said = capsys.readouterr()
    for words in ("123456789012", "eu-west-1", "user/a", "fanout-test-", "minutes", "$0.10", "Type yes to go on"):
        assert words in said.out
    assert ("Nothing was made." in said.err) == (code == 2)


def test_two_runs_have_stacks_of_their_own(known: list[str]) -> None:
    assert command.main(["--yes"]) == command.main(["--yes"]) == 0
    assert len(set(known)) == 2
    # The names of buckets have no capitals.
    assert all(name == name.lower() for name in known)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return subprocess.run(
        [sys.executable, "-m", "tests.aws", *arguments],
        cwd=ROOT,
        env={**kept, **nothing, "AWS_EC2_METADATA_DISABLED": "true", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ((), {}, "there is no terminal. Add --yes."),
        (("--yes",), {}, "No region is set. Set AWS_REGION"),
        (("--yes",), {"AWS_DEFAULT_REGION": "eu-west-1"}, "AWS does not know you (Unable to locate credentials)."),
    ],
)
def test_what_is_missing_is_refused_in_words(arguments: Any, variables: dict[str, str], said: str) -> None:
    done = run(*arguments, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@mock_aws
def test_an_account_without_the_cdk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(RefusedError, match="fanout cdk bootstrap"):
        Account.find(STACK)


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt(), None])
@pytest.mark.parametrize("left", [[], ["table x"]])
def test_it_removes_whatever_happens(
    known: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    failure: BaseException | None,
    left: list[str],
) -> None:
    monkeypatch.undo()
    tried = Account("1", "a", "eu-west-1", STACK, boto3.Session())
    before = [(number, signal.getsignal(number)) for number in command.INTERRUPTS]

    def fail(*_: object) -> bool:
        if failure:
            raise failure
        return True

    monkeypatch.setattr(command, "_try", fail)
    monkeypatch.setattr(Account, "remove", lambda *_: left)
    try:
        assert command._try_and_remove(tried, tmp_path, None) == (0 if failure is None and not left else 1)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    said = capsys.readouterr().out
    assert ("Remove it by hand" in said) == bool(left)
    assert ("nothing named" in said) == (not left)


@mock_aws
def test_only_what_has_the_stacks_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    session = boto3.Session(region_name="us-east-1")
    s3 = session.client("s3")
    for name in (f"{STACK}-jobs", "fanout-test-other-jobs"):
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key="a", Body=b"x")
    throw_away = Account("1", "a", "us-east-1", STACK, session)
    assert throw_away.things("bucket") == [f"{STACK}-jobs"]
    throw_away._delete([f"bucket {STACK}-jobs"])
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["fanout-test-other-jobs"]


def test_a_command_that_is_interrupted_takes_its_children_along(tmp_path: Path) -> None:
    """A program that `run` started is ended with what it started itself, and before `run` returns."""
    code = f"""
import signal, sys, threading, os, time
from pathlib import Path
from tests.aws.account import run
threading.Thread(target=lambda: (time.sleep(1), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    run(["sh", "-c", "sleep 60 & echo $! > {tmp_path}/pid; wait"])
except KeyboardInterrupt:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 7
    child = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{child}/stat")
    # Nobody may have waited for it yet.
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_the_cost_is_counted_from_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = datetime(2026, 11, 23, tzinfo=UTC)
    seconds = timedelta(seconds=1)

    class Steps:
        """A job of two children, one of them stopped, and a check's machine with a child."""

        def can_paginate(self, operation: str) -> bool:
            return False

        def list_executions(self, **of: str) -> Any:
            if "mapRunArn" in of:
                ended = {"status": "SUCCEEDED", "startDate": begun, "stopDate": begun + 3 * seconds}
                stopped = {"status": "ABORTED", "startDate": begun, "stopDate": begun}
                return {"executions": [ended] if CHECK in of["mapRunArn"] else [ended, stopped]}
            return {"executions": [{"executionArn": of["stateMachineArn"]}]}

        def list_map_runs(self, **of: str) -> Any:
            return {"mapRuns": [{"mapRunArn": of["executionArn"]}]}

        def get_execution_history(self, **of: str) -> Any:
            return {
                "events": [
                    {"id": 1, "previousEventId": 0, "type": "TaskStateEntered", "timestamp": begun},
                    {"id": 2, "previousEventId": 1, "type": "TaskStarted", "timestamp": begun},
                    {"id": 3, "previousEventId": 2, "type": "TaskSucceeded", "timestamp": begun + 5 * seconds},
                ]
            }

    monkeypatch.setattr(Account, "client", lambda *_: Steps())
    monkeypatch.setattr(Account, "things", lambda *_: [f"{STACK}-machine", f"{STACK}{CHECK}1"])
    throw_away = Account("1", "a", "eu-west-1", STACK, boto3.Session())
    lines = {line.what: line.number for line in cost.counted(throw_away, {"requests": 10, "writes": 7})}
    # Each job's start and state; four of each child, two of a check's.
    assert lines["state transitions"] == 2 * 2 + 2 * 4 + 2
    assert lines["calls of functions"] == 2 + 2 + 10
    working = 2 * 5 + 3 + cost.STOPPED_CALL_SECONDS
    assert lines["GB-seconds of functions, at most"] == working + 10 * cost.API_GB_SECONDS
    assert lines["DynamoDB write units"] == 7


def test_each_known_deviation_is_of_a_check_and_has_its_reason() -> None:
    checks = (ROOT / "tests/aws/test_assumptions.py").read_text()
    for name, reason in DEVIATIONS.items():
        assert f"def {name}(" in checks
        assert len(reason) > 20
    assert account.BOOTSTRAP.startswith("/cdk-bootstrap/")
