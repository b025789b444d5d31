"""The project that this installation deploys: CDK app, functions and state machine, and how the CDK is run.

An installed wheel holds them in fanout/_project; in a checkout they are the folders beside this package.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

_PACKAGED = Path(str(resources.files("fanout") / "_project"))
ROOT = _PACKAGED if _PACKAGED.is_dir() else _PACKAGED.parents[1]
LAMBDAS = ROOT / "lambdas"
# What the synthesized stack depends on, besides the functions.
SOURCES = (ROOT / "infra", ROOT / "statemachines")

# Without the caller's folder in the import path: it may have an `infra`, too.
_PYTHON = (sys.executable, "-P")
_COLOR_SWITCHES = ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PY_COLORS", "PYTHON_COLORS")


def with_kinds(home: Path, kinds: Sequence[Path]) -> Path:
    """A new copy of the project's functions in `home`, in place of an old one, with these kinds. Raises OSError."""
    copy = home / "lambdas"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(LAMBDAS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for kind in kinds:
        shutil.copyfile(kind, copy / "kinds" / kind.name)
    return copy


class SynthesisError(RuntimeError):
    """The stack could not be synthesized; the message ends with the app's last words."""


def synthesize(out: Path, *, lambdas: Path = LAMBDAS) -> Path:
    """Write the cloud assembly (manifest.json, FanOut.template.json, assets) into `out`; return that folder.

    `lambdas` is the folder of the functions. The app runs in a separate process, because aws_cdk takes seconds to
    import and keeps a Node process. Nothing else is written but caches. Raises SynthesisError.
    """
    out = out.resolve()
    # `infra` is no installed package; the caller's own path may hold the packages that it imports.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*_PYTHON, "-m", "infra.app", "--out", str(out), "--lambdas", str(lambdas.resolve())],
        env=without_color(os.environ | {"PYTHONPATH": path}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise SynthesisError(f"The stack could not be synthesized:\n{done.stderr.strip()[-4000:]}")
    return out


def cdk(arguments: Sequence[str]) -> int:
    """Run the CDK's command line (infra/cdk.py) in the caller's folder and terminal; its exit code."""
    return subprocess.call([*_PYTHON, str(ROOT / "infra" / "cdk.py"), *arguments])


def without_color(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program whose output is read back: escape codes would become part of it."""
    kept = {name: value for name, value in environment.items() if name not in _COLOR_SWITCHES}
    return kept | {"NO_COLOR": "1"}
