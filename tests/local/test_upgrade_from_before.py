"""The stack of this commit over that of an earlier one: tasks and jobs stay, and new jobs run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fanout.local import server
from fanout.local.deploy import Assembly, deploy
from fanout.project import synthesize, without_color
from tests.local.test_two_stacks import deployment
from tests.support.deployment import ROOT
from tests.support.machine import make_tasks

# Whatever changes here changes the template: it names the hash of the code, and holds the definition.
DEPLOYED = ("lambdas", "statemachines")
# Another one, to try an upgrade from further back by hand.
BASE = "FANOUT_UPGRADE_FROM"
ROWS = b"title\nA\n,\nB\n"


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"The stack of an earlier commit is needed, but there is no history of it here ({done.stderr.strip()}): "
        "run this test in a clone that is not shallow."
    )
    return done.stdout.strip()


def base() -> str:
    """The last commit that would be deployed otherwise than what is here: HEAD, if the work tree differs from it,
    else the one before the last that changed something."""
    if named := os.environ.get(BASE):
        return git("rev-parse", "--verify", f"{named}^{{commit}}")
    if git("status", "--porcelain", "--", *DEPLOYED):
        return git("rev-parse", "HEAD")
    changed = git("log", "-1", "--first-parent", "--format=%H", "--", *DEPLOYED)
    return git("rev-parse", "--verify", f"{changed}^1")


def synthesized(commit: str, folder: Path) -> Path:
    """The cloud assembly of that commit, made by its own app with the packages of this environment."""
    archive = subprocess.run(["git", "archive", commit, *DEPLOYED, "infra"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder / "base", filter="data")
    out = folder / "assembly"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "infra.app", "--out", str(out)],
        cwd=folder,
        env=without_color(os.environ | {"PYTHONPATH": str(folder / "base")}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.soak
def test_tasks_and_jobs_outlive_an_upgrade(tmp_path: Path) -> None:
    commit = base()
    home = tmp_path / "home"
    running = server.start(home, tied=True, wait_scale=0.05)
    try:
        folder = synthesized(commit, tmp_path)
        before = deployment(home, running, folder)
        old_template = Assembly.read(folder).template
        tasks = make_tasks(60, complete=0.2)
        before.put_tasks(tasks)
        before.run({"shardSize": 5, "params": {"asOf": "2026-11-23T09:00:00Z"}}, "plan")
        # Two rows of three become tasks, the other can be retried.
        bucket = {"Bucket": before.at.bucket_name, "Key": "uploads/rows.csv"}
        before.client("s3").put_object(**bucket, Body=ROWS)
        rows = {"kind": "import-tasks", "source": {"csv": bucket["Key"]}, "toleratedFailurePercentage": 100}
        assert before.run(rows, "import")["status"] == "PARTIAL"

        def kept() -> Any:
            answers = [before.http("GET", f"/jobs/{job}") for job in ("plan", "import")]
            answers += [before.http("GET", "/jobs/plan/result")]
            # The links are signed anew each time.
            for _, body in answers:
                for name in ("resultUrl", "failuresUrl"):
                    body.pop(name, None)
            failures = before.http("GET", "/jobs/import/failures")[1]["digest"]
            lines = before.lines("plan", "plan.jsonl")
            return answers, failures, lines, sorted(map(str, before.tasks()))

        was = kept()
        assert len(was[-1]) == 62
        # The current stack, over it, on the same embedded AWS.
        assembly = Assembly.read(synthesize(tmp_path / "current"))
        assert assembly.template != old_template, f"{commit} would be deployed as what is here: nothing is upgraded"
        deploy(assembly, running.endpoint_url)
        assert kept() == was
        status, started = before.http("POST", "/jobs/import/retry", b"{}")
        assert (status, started["origin"]) == (202, "import")
        retried = json.loads(before.wait(started["executionArn"])["output"])
        assert (retried["counts"]["listed"], retried["counts"]["failed"]) == (1, 1)
        again = before.run({"shardSize": 5, "params": {"asOf": "2026-11-23T09:00:00Z"}}, "new")
        assert again["counts"]["listed"] == was[0][0][1]["counts"]["listed"] + 2
        assert {job["jobId"] for job in before.http("GET", "/jobs")[1]["jobs"]} >= {"plan", "import", "new"}
    finally:
        server.stop(home)
