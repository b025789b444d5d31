"""The demo: `python -m fanout.demo`, or `make demo`. An embedded AWS, 10,000 tasks, today's plan; then all is gone.

It shows the commands that it runs, so that a newcomer can go on with them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import cast

from fanout import cli, local, sample
from fanout.local.deploy import DeployError
from fanout.screen import Screen

TASKS = 10_000
# 10,000 tasks, of which some 8,750 are open, make 36 shards of this size: enough to see eight work at a time.
SHARD_SIZE, WORKERS = 250, 8


def main() -> int:
    """Run the demo; 0 if every command of it did what it was asked for."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Written to a file or a pipe, commands and their progress must still come in order.
    cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    screen = Screen()
    try:
        with _home() as home:
            return _demo(screen, home)
    except KeyboardInterrupt:
        screen.note("\nInterrupted; the embedded AWS is down.")
        return cli.INTERRUPTED
    except (local.LocalError, local.ServerError, DeployError, OSError) as error:
        screen.note(f"demo: {error}", style="red")
        return cli.FAILURE


def _demo(screen: Screen, home: Path) -> int:
    screen.say("$ fanout up", style="bold cyan")
    # Tied: it ends with this process, even if this process is killed.
    endpoint = local.up(home, tied=True, say=screen.note).endpoint_url
    screen.say(f"Fan Out is up on {endpoint}.")

    file = home / "tasks.csv"
    _shown(screen, "python", "-m", "fanout.sample", str(TASKS), "--output", file.name)
    with file.open("w", encoding="utf-8", newline="") as csv:
        sample.write(csv, sample.rows(TASKS, day=datetime.now(UTC).date()))

    _shown(screen, "fanout", "tasks", "import", file.name)
    code = cli.main(["tasks", "import", str(file)], is_last=False)
    if code:
        return code
    size, workers = str(SHARD_SIZE), str(WORKERS)
    run = ["run", "--shard-size", size, "--max-concurrency", workers]
    _shown(screen, "fanout", *run)
    code = cli.main(run, is_last=False)
    _shown(screen, "fanout", "down")
    local.down(home)
    screen.say("Fan Out is down.")
    screen.say()
    screen.say("Nothing is left running. To go on yourself: .venv/bin/fanout up, or .venv/bin/fanout --help.")
    return code


def _shown(screen: Screen, *command: str) -> None:
    screen.say()
    screen.say(f"$ {shlex.join(command)}", style="bold cyan")


@contextmanager
def _home() -> Iterator[Path]:
    """A home of its own, so that the demo touches nobody's deployment; taken down and removed whatever happens."""
    home = Path(tempfile.mkdtemp(prefix="fanout-demo-"))
    before = os.environ.get("FANOUT_HOME")
    os.environ["FANOUT_HOME"] = str(home)
    try:
        yield home
    finally:
        # An impatient second ctrl-C must not leave a server behind.
        handlers = {
            number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
        }
        local.down(home)
        shutil.rmtree(home, ignore_errors=True)
        if before is None:
            del os.environ["FANOUT_HOME"]
        else:
            os.environ["FANOUT_HOME"] = before
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
