"""The very command of `make aws-test`, on the embedded AWS through the CDK's own CLI."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import boto3
import pytest

from fanout.local import server
from infra.cdk import main as run_cdk
from tests.aws.account import Account
from tests.support.deployment import ROOT

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
FOLDERS = "fanout-test-*"


@dataclass
class Cloud:
    """An embedded AWS on which `cdk bootstrap` has run; `variables` are those of a program that uses it."""

    variables: dict[str, str]
    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.aws", "--yes", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.variables, "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def left(self, stack: str = "fanout-test-") -> list[str]:
        return Account("", "", server.REGION, stack, boto3.Session()).left()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("aws-test")
    home = folder / "home"
    running = server.start(home, tied=True, wait_scale=0.05)
    variables = {
        "AWS_ENDPOINT_URL": running.endpoint_url,
        "AWS_ACCESS_KEY_ID": server.ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": server.SECRET_ACCESS_KEY,
        "AWS_DEFAULT_REGION": server.REGION,
        "AWS_REGION": server.REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with pytest.MonkeyPatch.context() as monkeypatch, contextlib.chdir(folder):
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                monkeypatch.delenv(name)
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            assert run_cdk(["bootstrap"]) == 0
            yield Cloud(variables, folder)
    finally:
        server.stop(home)


def until(output: IO[str], words: str) -> str:
    """What the command prints up to a line with these words, and that line."""
    said = ""
    for line in output:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def test_it_tries_everything_and_leaves_nothing(cloud: Cloud) -> None:
    with cloud.start() as command:
        said, _ = command.communicate()
    assert command.returncode == 0, said
    assert "All passed" in said
    rows = re.findall(r"^  (passed|differs|FAILED|skipped) +[\d.]+ s  (\w+): ", said, flags=re.M)
    assert {file for _, file in rows} == {"flow", "routes", "assumptions"}
    assert {word for word, _ in rows} == {"passed", "differs"}
    assert len(rows) > 100
    assert float(re.findall(r"\$([\d.]+)  in all", said)[0]) < 0.10
    assert cloud.left() == []
    assert list(cloud.folder.glob(FOLDERS)) == []


@pytest.mark.parametrize(
    ("when", "number"),
    [("Deploying", signal.SIGINT), ("Trying", signal.SIGINT), ("Trying", signal.SIGTERM)],
)
def test_an_interrupted_run_leaves_nothing(cloud: Cloud, when: str, number: signal.Signals) -> None:
    with cloud.start("--only", "the_peak_of_simultaneous") as command:
        assert command.stdout is not None
        said = until(command.stdout, when)
        stack = re.findall(r"fanout-test-\w{8}", said)[0]
        # In the middle: CloudFormation has begun, or jobs run.
        deadline = time.monotonic() + 60
        while not cloud.left(stack) or (when == "Trying" and time.monotonic() < deadline - 56):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        command.send_signal(number)
        time.sleep(0.5)
        # A second one is not the end of the removal.
        command.send_signal(number)
        said += command.communicate()[0]
    assert command.returncode == 1, said
    assert "Interrupted." in said
    assert f"nothing named {stack} is left" in said
    assert cloud.left() == []
    assert list(cloud.folder.glob(FOLDERS)) == []


def test_a_run_without_a_test_is_no_success(cloud: Cloud) -> None:
    with cloud.start("--only", "no_test_has_this_name") as command:
        said, _ = command.communicate()
    assert command.returncode == 1, said
    assert "NOT all passed" in said
    assert cloud.left() == []
