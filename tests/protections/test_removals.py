"""Each protection of the reliability guide has tests that fail when it is removed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.protections.cuts import Cut, Entry, JsonCut, tags
from tests.protections.removals import REMOVALS, Removal

ROOT = Path(__file__).parent.parent.parent
# What the tests read; the copy's tests find their tools by this process's own interpreter.
COPIED = (
    "lambdas", "fanout", "infra", "statemachines", "tests", "docs", "bench",
    "README.md", "pyproject.toml", "uv.lock", "cdk.json",
)  # fmt: skip
SECONDS = 120


def rows() -> list[str]:
    """The first cells of the guide's table: what goes wrong."""
    guide = (ROOT / "docs/reliability.md").read_text()
    table = guide.partition("## What goes wrong")[2].partition("\n## ")[0]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def files() -> dict[str, str]:
    """The file of every test function."""
    return {
        name: path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.M)
    }


FILES = files()
ALL = [(row, removal) for row, removals in REMOVALS.items() for removal in removals]
CASES = [
    pytest.param(removal, test, id=f"{row}-{removal.protection}-{test}")
    for row, removal in ALL
    for test in removal.tests
]
each_removal = pytest.mark.parametrize(
    "removal", [removal for _, removal in ALL], ids=[f"{row}-{removal.protection}" for row, removal in ALL]
)


def without(removal: Removal) -> str:
    """The removal's file as it is without the protection."""
    return removal.apply((ROOT / removal.file).read_text())


def test_every_row_of_the_guide_has_its_removals_in_order() -> None:
    assert len(rows()) >= 40
    assert list(REMOVALS) == rows()
    assert all(REMOVALS.values())


@each_removal
def test_the_tests_of_a_removal_exist(removal: Removal) -> None:
    assert set(removal.tests) <= FILES.keys()
    assert len(set(removal.tests)) == len(removal.tests) > 0


@each_removal
def test_a_file_without_a_protection_can_still_be_read(removal: Removal) -> None:
    if removal.file.endswith(".py"):
        compile(without(removal), removal.file, "exec")
    else:
        json.loads(without(removal))


def test_every_tag_is_of_one_place_and_of_a_removal() -> None:
    """And every removal's tag is there, in its own file."""
    tagged = [
        (path.relative_to(ROOT).as_posix(), tag)
        for folder in ("lambdas", "infra", "fanout")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for tag in tags(path.read_text())
    ]
    used = {(removal.file, cut.tag) for _, removal in ALL for cut in removal.cuts if isinstance(cut, Cut)}
    assert len({tag for _, tag in tagged}) == len(tagged)
    assert set(tagged) == used


def test_an_entry_is_found_by_what_it_names() -> None:
    retriers = '[{"ErrorEquals": ["A", "B"], "n": 1}, {"ErrorEquals": ["C"], "n": 2}]'
    path = (Entry("ErrorEquals", "C"), "n")
    assert json.loads(JsonCut(path, 3).apply(retriers))[1]["n"] == 3
    assert "n" not in json.loads(JsonCut((Entry("n", 1), "n")).apply(retriers))[0]
    for missing in ((Entry("ErrorEquals", "D"), "n"), (Entry("ErrorEquals", "C"), "m")):
        with pytest.raises(LookupError):
            JsonCut(missing, 3).apply(retriers)
    with pytest.raises(LookupError):
        JsonCut(path, 2).apply(retriers)


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, to take something away from. One a process: its compiled modules are kept."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@contextmanager
def removed(copy: Path, removal: Removal) -> Iterator[None]:
    """The copy without the protection, and afterwards with it again."""
    file = copy / removal.file
    original = file.read_text()
    # Compiled modules are told by size and whole seconds, which a small change may leave alike.
    compiled = Path(importlib.util.cache_from_source(file))
    try:
        compiled.unlink(missing_ok=True)
        file.write_text(removal.apply(original))
        yield
    finally:
        file.write_text(original)
        compiled.unlink(missing_ok=True)


def run(copy: Path, *arguments: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy, on the copy's own modules: the environment's lead to the original."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=kept | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'lambdas'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def run_tests(copy: Path, *names: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy by their names, with every set of their parameters, up to the first failure."""
    nodes = [f"{FILES[name]}::{name}" for name in names]
    return run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-n0", "-x", *nodes, seconds=seconds)


def test_a_copy_imports_its_own_modules(copy: Path) -> None:
    names = (
        "fan_out.steps.shard_runner",
        "task_service.store",
        "kinds.daily_plan",
        "infra.functions",
        "tests.support.machine",
    )
    paths = "; ".join(f"import {name}; print({name}.__file__)" for name in names)
    done = run(copy, "-c", paths)
    assert len(done.stdout.split()) == len(names), done.stderr
    assert all(Path(path).is_relative_to(copy) for path in done.stdout.split()), done.stdout


# The longest comes first, so that the others run beside it.
@pytest.mark.soak
def test_with_every_protection_in_place_the_same_tests_pass(copy: Path) -> None:
    done = run_tests(copy, *sorted({test for _, removal in ALL for test in removal.tests}), seconds=600)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.parametrize(("removal", "test"), CASES)
def test_without_a_protection_its_test_fails(copy: Path, removal: Removal, test: str) -> None:
    with removed(copy, removal):
        done = run_tests(copy, test)
    said = done.stdout + done.stderr
    *_, summary = done.stdout.splitlines()
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, said
    assert re.match(r"1 failed\b", summary), said
    assert "error" not in summary, said
    # Code that is merely broken proves nothing.
    assert not re.search(r"^E +(\w+\.)*(NameError|UnboundLocalError|ImportError|SyntaxError)", said, flags=re.M)
