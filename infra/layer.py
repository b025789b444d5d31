"""The functions' dependencies, laid out as a Lambda layer without Docker."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

# `make lock` writes it from uv.lock: the dependency group `functions` without botocore (15 MB), which the Lambda
# runtime brings. It names the address and hash of each wheel, so that uv has no index to ask.
LOCK = Path(__file__).with_name("pylock.toml")
PYTHON = "3.13"
PLATFORM = "aarch64-manylinux2014"
# What an installer writes about itself: it names local paths, and nothing reads it at run time.
_DROPPINGS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def lay_out(out: Path) -> None:
    """Put the packages of infra/pylock.toml, for Python 3.13 on arm64, into `out`/python.

    The same lock gives the same files, byte for byte, on any machine, so that the hash of the asset changes only
    with the lock. Every package is a wheel with the hash that the lock names. Wheels that are in uv's cache are
    not downloaded again: the first time needs the network, later ones take a fifth of a second.
    Raises RuntimeError with uv's words if it cannot install.
    """
    packages = out / "python"
    packages.mkdir(parents=True, exist_ok=True)
    install = (
        find_uv_bin(), "--quiet", "--color", "never", "pip", "install", "--preview-features", "pylock",
        "--requirement", str(LOCK), "--no-deps",
        "--python", sys.executable, "--python-version", PYTHON, "--python-platform", PLATFORM,
        "--only-binary", ":all:", "--no-compile-bytecode", "--link-mode", "copy", "--target", str(packages),
    )  # fmt: skip
    # uv would take an active environment for the one to work on.
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")}
    done = subprocess.run(
        install,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"uv pip could not install the functions' layer:\n{done.stderr.strip()}")
    # Scripts start with the path of the interpreter that installed them, and a function runs none.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    (packages / ".lock").unlink(missing_ok=True)
    for info in packages.glob("*.dist-info"):
        for name in _DROPPINGS:
            (info / name).unlink(missing_ok=True)
    make_readable(packages)


def make_readable(folder: Path) -> None:
    """Let everyone read the files: Lambda runs as another user than their owner, whatever this machine's umask."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)
