"""The demo: `python -m fanout.demo`, or `make demo`. A day's plan, a job that fails in part, its fix and its retry.

It runs on an embedded AWS in a temporary folder, shows the commands that it runs, and removes everything at the end.
"""

import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from fanout import cli, local, project, sample
from fanout.check import KindError, check_kinds
from fanout.client import Deployment, FanOut
from fanout.local.deploy import DeployError
from fanout.screen import Screen

TASKS = 10_000
# The state machine's pauses before retries, as a part of what they are on AWS: nobody waits for a demo.
WAIT_SCALE = 0.1
KINDS = Path(__file__).parent / "demo_kinds"


def main(tasks: int = TASKS, day: date | None = None) -> int:
    """Run the demo over sample tasks around a day (default: today in UTC); 0 if it went as the story has it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Written to a file or a pipe, commands and their progress must still come in order.
    cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    screen = Screen()
    try:
        with _home() as home:
            return Demo(screen, home).run(tasks, day or datetime.now(UTC).date())
    except KeyboardInterrupt:
        screen.note("\nInterrupted; the embedded AWS is down.")
        return cli.INTERRUPTED
    except (KindError, local.LocalError, local.ServerError, DeployError, OSError) as error:
        screen.note(f"demo: {error}", style="red")
        return cli.FAILURE


class Demo:
    """The story, told by commands that a reader can run."""

    def __init__(self, screen: Screen, home: Path):
        self.screen, self.home = screen, home

    def run(self, tasks: int, day: date) -> int:
        csv = self.home / "tasks.csv"
        self.deploy("reminders_broken.py")
        self.show("python", "-m", "fanout.sample", str(tasks), "--output", csv.name)
        with csv.open("w", encoding="utf-8", newline="") as file:
            sample.write(file, sample.rows(tasks, day=day))
        codes = [
            self.fanout("tasks", "import", str(csv)),
            self.fanout("run", "--shard-size", "250", "--max-concurrency", "8"),
        ]
        self.tell("A new kind of job, reminders.py, writes a reminder for each task that is due today.")
        due = ("--due-after", f"{day}T00:00:00Z", "--due-before", f"{day + timedelta(days=1)}T00:00:00Z")
        how = ("--shard-size", "50", "--tolerated-failure-percentage", "10", "--job-id", "today")
        codes += [self.fanout("run", "--kind", "reminders", *due, *how), self.fanout("failures", "today")]
        self.tell("Some tasks failed, and some killed every worker that tried them. The kind is fixed and deployed:")
        self.deploy("reminders_fixed.py")
        codes += [self.fanout("retry", "today", "--job-id", "today-again"), self.fanout("jobs")]
        first, again = (self.client().record(job)["counts"] for job in ("today", "today-again"))
        done, left = first["succeeded"], again["succeeded"]
        # Both jobs together: each task has its reminder once.
        self.tell(f"{done:,} reminders + {left:,} by the retry = {done + left:,}, of {first['listed']:,} tasks due.")
        self.show("fanout", "down")
        local.down(self.home)
        self.screen.say("Fan Out is down.")
        self.tell("Nothing is left running. To go on: .venv/bin/fanout up, or .venv/bin/fanout --help.")
        expected = [cli.SUCCESS, cli.SUCCESS, cli.PARTIAL, cli.SUCCESS, cli.SUCCESS, cli.SUCCESS]
        return cli.SUCCESS if codes == expected else cli.FAILURE

    def deploy(self, kind: str) -> None:
        """`fanout up` with this file as the kind `reminders`."""
        shutil.copy(KINDS / kind, self.home / "reminders.py")
        self.show("fanout", "up", "--kind", "reminders.py")
        lambdas = project.with_kinds(self.home, [self.home / "reminders.py"])
        check_kinds(lambdas)
        # Tied: it ends with this process, even if this process is killed.
        at = local.up(self.home, lambdas=lambdas, tied=True, wait_scale=WAIT_SCALE, say=self.screen.note)
        self.screen.say(f"Fan Out is up on {at.endpoint_url}.")

    def fanout(self, *words: str) -> int:
        """Run a command; what it would advise is left out, because the story goes on by itself."""
        self.show("fanout", *(word.removeprefix(f"{self.home}/") for word in words))
        return cli.main(words, lambda _: self.client(), is_last=False, advises=False)

    def client(self) -> FanOut:
        return FanOut(Deployment.of_home(self.home))

    def show(self, *command: str) -> None:
        self.screen.say(f"\n$ {shlex.join(command)}", style="bold cyan")

    def tell(self, sentence: str) -> None:
        self.screen.say(f"\n{sentence}", style="italic")


@contextmanager
def _home() -> Iterator[Path]:
    """A temporary home folder; at the end what runs in it is taken down, and it is removed."""
    home = Path(tempfile.mkdtemp(prefix="fanout-demo-"))
    try:
        yield home
    finally:
        # An impatient second ctrl-C must not leave a server behind.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        local.down(home)
        shutil.rmtree(home, ignore_errors=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
