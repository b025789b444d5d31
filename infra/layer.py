"""The functions' dependencies, laid out as a Lambda layer without Docker."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

REPO = Path(__file__).resolve().parent.parent

PYTHON = "3.13"
PLATFORM = "aarch64-manylinux2014"
# The Lambda runtime brings botocore (15 MB); aws-xray-sdk names it as a dependency.
_IN_THE_RUNTIME = ("botocore",)
# What an installer writes about itself: it names local paths, and nothing reads it at run time.
_DROPPINGS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def lay_out(out: Path) -> None:
    """Put the locked dependency group `functions`, for Python 3.13 on arm64, into `out`/python.

    The same uv.lock gives the same files, byte for byte, on any machine, so that the hash of the asset
    changes only with the lock. Every package is a wheel with the hash that the lock names. Wheels that uv has
    in its cache are not asked for again: a first time needs the network, later ones a fifth of a second.
    Raises RuntimeError with uv's words if it cannot export or install.
    """
    out.mkdir(parents=True, exist_ok=True)
    # This format names the address and hash of each wheel, so that uv has no index to ask.
    lock = out / "pylock.toml"
    lock.write_text(
        _uv(
            "export", "--frozen", "--project", str(REPO), "--only-group", "functions", "--no-emit-project",
            "--format", "pylock.toml", *(f"--prune={name}" for name in _IN_THE_RUNTIME),
        ),
        encoding="utf-8",
    )  # fmt: skip
    packages = out / "python"
    _uv(
        "pip", "install", "--preview-features", "pylock", "--requirement", str(lock), "--no-deps",
        "--python", sys.executable, "--python-version", PYTHON, "--python-platform", PLATFORM,
        "--only-binary", ":all:", "--no-compile-bytecode", "--link-mode", "copy", "--target", str(packages),
    )  # fmt: skip
    lock.unlink()
    # Scripts start with the path of the interpreter that installed them, and a function runs none.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    (packages / ".lock").unlink(missing_ok=True)
    for info in packages.glob("*.dist-info"):
        for name in _DROPPINGS:
            (info / name).unlink(missing_ok=True)
    for path in packages.rglob("*"):
        # Lambda runs as another user than the files' owner, whatever this machine's umask was.
        path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)


def _uv(*arguments: str) -> str:
    # uv would take an active environment for the one to work on.
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")}
    done = subprocess.run(
        [find_uv_bin(), "--quiet", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"uv {arguments[0]} could not lay out the functions' layer:\n{done.stderr.strip()}"
        )
    return done.stdout
