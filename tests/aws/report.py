"""A pytest plugin: a line for each test of `make aws-test` as it ends, with what it saw; known deviations are marked.

Loaded with `-p tests.aws.report -p no:terminal`, in a process with `FANOUT_TEST_DEPLOYMENT`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.deployment import NAMED, named_deployment

# What the embedded AWS does otherwise than is assumed of AWS, and why that is left so. A test of this list that
# passes there is an error, too: the deviation is gone.
DEVIATIONS = {
    "test_a_throttled_write_has_not_taken_effect": "DynamoDB never throttles here",
    "test_cpu_grows_with_memory": "every function has a whole core here, whatever its memory",
}


class Report:
    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []
        self.ran = 0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if not os.environ.get("AWS_ENDPOINT_URL"):
            return
        for item in items:
            if reason := DEVIATIONS.get(item.name):
                item.add_marker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        seen = str(dict(report.user_properties).get("seen", ""))
        known = getattr(report, "wasxfail", "")
        self.ran += report.when == "call"
        if report.failed:
            word = "FAILED"
            self.failures.append((report.nodeid, report.longreprtext))
            told = [line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E ")]
            seen = (told or report.longreprtext.splitlines()[-1:] or [""])[0][:160]
        elif known:
            word, seen = "differs", f"as known of the embedded AWS: {known}"
        else:
            word = "skipped" if report.skipped else "passed"
        file, _, test = report.nodeid.partition("::")
        name = f"{Path(file).stem.removeprefix('test_')}: {test.removeprefix('test_').replace('_', ' ')}"
        sys.stdout.write(f"  {word:8}{report.duration:6.1f} s  {name}{f' -- {seen}' if seen else ''}\n")
        sys.stdout.flush()

    def pytest_sessionfinish(self) -> None:
        # A fixture that fails does so in each of its tests, in the same words.
        for text, name in {text: name for name, text in reversed(self.failures)}.items():
            sys.stdout.write(f"\n{name}\n{text}\n")
        file = Path(os.environ[NAMED])
        spent = {"ran": self.ran, "failed": len(self.failures), **named_deployment(str(file)).spent}
        file.with_name("spent.json").write_text(json.dumps(spent))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Report())
