"""An installed wheel works in an empty folder, whatever surrounds it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from uv import find_uv_bin

from fanout import project

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Surroundings:
    """What a program finds around it. A variable that is None is not set; output always goes into a pipe."""

    variables: dict[str, str | None] = field(default_factory=dict)
    umask: int = 0o022
    folder: str = "empty"


@dataclass(frozen=True)
class Installation:
    """An environment outside the checkout with the wheel and what it depends on, as locked, in it."""

    env: Path

    @property
    def project(self) -> Path:
        (found,) = self.env.glob("lib/python3*/site-packages/fanout/_project")
        return found

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file by path, but for what Python caches."""
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in self.env.rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }

    def run(self, around: Surroundings, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in an empty folder below `folder`, with its home there, too."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        asked = {"FANOUT_HOME": str(folder / "home"), "VIRTUAL_ENV": None, **around.variables}
        empty = folder / around.folder
        empty.mkdir(exist_ok=True)
        return subprocess.run(
            [str(self.env / "bin" / command[0]), *command[1:]],
            cwd=empty,
            env={name: value for name, value in (variables | asked).items() if value is not None},
            umask=around.umask,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )


def uv(*arguments: str | Path) -> str:
    done = subprocess.run(
        [find_uv_bin(), "--color", "never", *map(str, arguments)],
        cwd=REPO,
        env=project.without_color(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("an installation für sich")
    locked, env = folder / "locked.txt", folder / "env"
    uv("build", "--quiet", "--wheel", "--out-dir", folder, REPO)
    uv("export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project", "--output-file", locked)
    uv("venv", "--quiet", "--python", sys.executable, env)
    (wheel,) = folder.glob("*.whl")
    uv("pip", "install", "--quiet", "--python", env, "--requirement", locked, wheel)
    return Installation(env)


def test_the_wheel_installs_the_package_fanout_alone(installation: Installation) -> None:
    (files,) = installation.env.glob("lib/python3*/site-packages/fanout-*.dist-info/RECORD")
    top = {line.partition("/")[0] for line in files.read_text().splitlines()}
    assert {name for name in top if "." not in name} == {"fanout"}
    shipped = {path.name for path in installation.project.iterdir()}
    assert shipped == {"infra", "lambdas", "statemachines"}


def test_an_installed_terminal_runs_a_job(installation: Installation, tmp_path: Path) -> None:
    """In a folder with a blank and an umlaut, without HOME, with colour forced and a umask that hides all files."""
    around = Surroundings(
        {"FORCE_COLOR": "1", "HOME": None, "PYTHONDONTWRITEBYTECODE": "1"}, umask=0o077, folder="ein Ordner ü"
    )
    before = installation.files()
    try:
        up = installation.run(around, tmp_path, "fanout", "up")
        assert up.returncode == 0, up.stdout + up.stderr
        ran = installation.run(around, tmp_path, "fanout", "run", "--json")
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["status"] == "SUCCEEDED"
    finally:
        down = installation.run(around, tmp_path, "fanout", "down")
    assert down.returncode == 0, down.stderr
    assert list((tmp_path / around.folder).iterdir()) == []
    assert installation.files() == before
    assets = [path for path in (tmp_path / "home/cdk.out").glob("asset.*/**/*") if path.is_file()]
    assert assets
    assert [path for path in assets if path.stat().st_mode & 0o044 != 0o044] == [], "Lambda cannot read them"


AROUND = {
    "forced colour": Surroundings({"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "PY_COLORS": "1"}),
    "no colour": Surroundings({"NO_COLOR": "1"}),
    "no home": Surroundings({"HOME": None}),
    "a home that is missing": Surroundings({"HOME": "/nonexistent"}),
    "a private umask": Surroundings(umask=0o077),
    "a folder with blanks": Surroundings(folder="ein Ordner ü"),
    "no bytecode": Surroundings({"PYTHONDONTWRITEBYTECODE": "1"}),
    "safe import path": Surroundings({"PYTHONSAFEPATH": "1"}),
}
CDK = "import sys; from fanout import project; sys.exit(project.cdk(['synth', '--quiet']))"
PROGRAMS = {
    "up": ("fanout", "up"),
    "demo": ("python", "-m", "fanout.demo"),
    "cdk": ("python", "-c", CDK),
}


@pytest.mark.soak
@pytest.mark.xdist_group("installed")
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_every_program_runs_in_any_surroundings(
    installation: Installation, tmp_path: Path, program: tuple[str, ...], around: Surroundings
) -> None:
    before = installation.files()
    try:
        done = installation.run(around, tmp_path, *program)
    finally:
        installation.run(around, tmp_path, "fanout", "down")
    assert done.returncode == 0, done.stdout + done.stderr
    assert installation.files() == before
    assert {path.name for path in (tmp_path / around.folder).iterdir()} <= {"cdk.out"}
