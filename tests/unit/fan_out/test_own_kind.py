"""A kind of one's own is one file: the gate stays green with it, and never calls its `process`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.machine import ROOT

# It needs a parameter, and its `process` has an effect that no test of this project may cause.
WEBHOOK = """
from pathlib import Path

from fan_out import Examples, Job, Kind, Params, Task


class WebhookParams(Params):
    url: str


class Webhook(Kind[WebhookParams, Task]):
    name = "webhook"
    params = WebhookParams
    lines_file = "sent.jsonl"
    examples = Examples(results=[200, 201], params=[{"url": "https://example.com"}])

    def process(self, task: Task, job: Job[WebhookParams]) -> int:
        Path("POSTED").touch()
        raise ConnectionError("the service is down")

    def zero(self) -> int:
        return 0

    def fold(self, partial: int, task: Task, result: int, job: Job[WebhookParams]) -> int:
        return partial + 1

    def merge(self, left: int, right: int, job: Job[WebhookParams]) -> int:
        return left + right

    def line(self, task: Task, result: int, job: Job[WebhookParams]) -> tuple[str, int]:
        return task.id, result

    def summary(self, partial: int, job: Job[WebhookParams]) -> dict[str, int]:
        return {"sent": partial}


KIND = Webhook()
"""


def test_the_gate_is_green_with_a_further_kind(tmp_path: Path) -> None:
    for name in ("lambdas", "fanout", "infra", "statemachines", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "uv.lock", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "lambdas/kinds/webhook.py").write_text(WEBHOOK)
    (tmp_path / "lambdas/kinds/plain.py").write_text(
        WEBHOOK.replace("webhook", "plain").replace("    examples", "    # examples")
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    tests = ["tests/unit/fan_out/test_kinds.py", "tests/unit/test_documents.py"]
    chosen = "webhook or plain or documented"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "-vv", "-k", chosen, *tests],
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{tmp_path / 'lambdas'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("laws_of_fold_and_merge[webhook]", "can_be_loaded[webhook]", "can_be_loaded[plain]"):
        assert f"{name} PASSED" in done.stdout
    assert "laws_of_fold_and_merge[plain]" not in done.stdout
    assert not list(tmp_path.rglob("POSTED"))
