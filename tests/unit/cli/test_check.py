from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fanout import cli, local
from fanout.check import KindError, check_kinds

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lambdas(tmp_path: Path) -> Path:
    """A copy of the functions' folder."""
    return Path(shutil.copytree(ROOT / "lambdas", tmp_path / "lambdas", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_shipped_and_the_demos_kinds_can_be_imported(lambdas: Path) -> None:
    for kind in (ROOT / "fanout/demo_kinds").glob("*.py"):
        shutil.copy(kind, lambdas / "kinds/reminders.py")
        check_kinds(lambdas)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\ndef f(:\n", "mine.py, line 2: SyntaxError"),
        (
            "import os\n\nimport no_such_module\n",
            "mine.py, line 3: ModuleNotFoundError: No module named 'no_such",
        ),
        ("import sys\nsys.exit('bye')\n", "mine.py, line 2: SystemExit: bye"),
        (
            "KIND = 1\n",
            'mine.py: InvalidJobError: kind is "mine", but in kinds/mine.py KIND must be an object',
        ),
        (
            "print('{}')\nimport os\nos._exit(3)\n",
            "mine.py cannot be imported: the import ended its process (exit",
        ),
        ("print('hello', flush=True)\nraise KeyError('k')\n", "mine.py, line 2: KeyError: 'k'"),
    ],
)
def test_a_kind_that_cannot_be_imported_is_named(code: str, said: str, lambdas: Path) -> None:
    (lambdas / "kinds/mine.py").write_text(code)
    with pytest.raises(KindError, match=re.escape(said)) as caught:
        check_kinds(lambdas)
    assert str(lambdas / "kinds/mine.py") in str(caught.value)


def test_a_kind_that_never_ends_its_import_is_named(lambdas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.check.SECONDS", 3)
    (lambdas / "kinds/a.py").write_text("while True:\n    pass\n")
    with pytest.raises(KindError, match=r"kinds/a\.py cannot be imported: the import was not done after 3 s"):
        check_kinds(lambdas)


def test_up_refuses_a_broken_kind_before_it_starts_anything(
    lambdas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path / "home"))
    (lambdas / "kinds/mine.py").write_text("def f(:\n")
    assert cli.main(["up", "--lambdas", str(lambdas)]) == 1
    assert "kinds/mine.py, line 1: SyntaxError: invalid syntax" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
    assert cli.main(["up", "--lambdas", str(lambdas), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["name"] == "KindError"


def test_up_deploys_the_given_kinds_beside_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path / "home"))
    staged: list[Path] = []

    def up(home: Path, *, lambdas: Path, **_: Any) -> Any:
        staged.append(lambdas)
        return SimpleNamespace(endpoint_url="http://127.0.0.1:1")

    monkeypatch.setattr(local, "up", up)
    shipped = {path.name for path in (ROOT / "lambdas/kinds").glob("*.py")}
    mine, other = tmp_path / "mine.py", tmp_path / "other.py"
    for kind in (mine, other):
        code = (ROOT / "fanout/demo_kinds/reminders_fixed.py").read_text()
        kind.write_text(code.replace('name = "reminders"', f'name = "{kind.stem}"'))
    for kinds in ([mine, other], [mine]):
        assert cli.main(["up", *(word for kind in kinds for word in ("--kind", str(kind)))]) == 0
        assert {path.name for path in (staged[-1] / "kinds").glob("*.py")} == shipped | {kind.name for kind in kinds}
    assert (staged[-1] / "fan_out/worker.py").is_file()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_up_names_a_broken_kind_by_the_file_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path / "home"))
    kind = tmp_path / "mine.py"
    kind.write_text("x = 1\ndef f(:\n")
    assert cli.main(["up", "--kind", str(kind)]) == 1
    assert f"{kind}, line 2: SyntaxError" in capsys.readouterr().err
    assert not (tmp_path / "home/server.json").exists()
