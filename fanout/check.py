"""Checks the kinds of a folder of functions before it is deployed: each is imported as the functions import it.

`check_kinds` runs this file in a process of its own, by the interpreter that runs the embedded AWS's functions, so
that a kind that ends or changes its process harms nothing else.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

SECONDS = 60


class KindError(Exception):
    """A kind cannot be imported; the message names the file and the line."""


def check_kinds(lambdas: Path, origins: Sequence[Path] = ()) -> None:
    """Import every kind under `lambdas`, which is what its functions do. Raises KindError for the first that fails.

    `origins` are files that were copied there: the error names them.
    """
    script = [sys.executable, "-I", str(Path(__file__).resolve()), str(lambdas.resolve())]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            script, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, env=environment, check=False
        )
        output, ended = done.stdout, f"ended its process (exit code {done.returncode})"
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"was not done after {SECONDS} s"
    lines = [json.loads(line) for line in output.splitlines()]
    if not lines:
        raise KindError(f"The kinds of {lambdas} could not be checked: the check {ended}.")
    last = lines[-1]
    if "file" in last:
        text = last.get("error") or f"{last['file']} cannot be imported: the import {ended}."
        for origin in origins:
            text = text.replace(str(lambdas.resolve() / "kinds" / origin.name), str(origin))
        raise KindError(text)


def _main(lambdas: Path) -> None:
    # What a kind prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(lambdas))

    def say(**answer: str) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    for path in sorted((lambdas / "kinds").glob("*.py")):
        if path.stem.startswith("_"):
            continue
        file = str(path)
        say(file=file)
        try:
            compile(path.read_bytes(), path, "exec")
            find = importlib.import_module("fan_out.model.kind").find
            # First as it is: `find` would say what is wrong, but not in which line.
            importlib.import_module(f"kinds.{path.stem}")
            find(path.stem.replace("_", "-"))
        except BaseException as error:
            say(file=file, error=f"{_where(error, path, lambdas)}: {type(error).__name__}: {error}")
            return
    say(done="")


def _where(error: BaseException, path: Path, lambdas: Path) -> str:
    """The file and the line to put right: of the syntax error, else the innermost of the functions' folder."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(lambdas / "kinds")]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else str(path)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
