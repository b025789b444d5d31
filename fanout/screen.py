"""How the terminal shows things: text made safe, tables that fit, progress, JSON documents."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, TextIO
from zoneinfo import ZoneInfo

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from fanout.client import Counts, JobRecord
from fanout.client import Progress as JobProgress

# What a terminal could take for a command, or what reorders the text around it: control characters of both
# ranges, line separators, bidirectional controls, the byte order mark, and halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# The groups of a daily plan, in order, and how they are called here.
GROUPS = {
    "overdue": "Overdue",
    "today": "Today",
    "thisWeek": "This week",
    "later": "Later",
    "undated": "No date",
}
_BAR = 30
# Plain progress lines come no faster.
_LINE_SECONDS = 3.0


def safe(text: str) -> str:
    """The text with every character that could act on a terminal written out, such as \\x1b or \\n."""
    return _UNSAFE.sub(lambda found: _NAMES.get(found[0], _escape(found[0])), text)


def fit(text: str, cells: int) -> str:
    """Safe text of at most so many terminal cells; what does not fit ends in an ellipsis."""
    text = safe(text)
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, max(cells - 1, 0)).rstrip() + "…"


def document(value: Any, *, indent: int | None = 2) -> str:
    """JSON text that a terminal shows as it is: unsafe characters, all of them in strings, are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def count(number: int, one: str, many: str | None = None) -> str:
    """1 task; 1,234 tasks."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """12 s; 3 min 05 s; 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


@dataclass
class Screen:
    """Standard output for what was asked for, standard error for progress and errors.

    With `is_json`, standard output gets one JSON document and nothing else. `options` are the global options
    that every command shown to the user must repeat.
    """

    is_json: bool = False
    options: tuple[str, ...] = ()
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)

    def __post_init__(self) -> None:
        self._out, self._err = (
            _Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=True)
            for stream in (self.stdout, self.stderr)
        )

    def command(self, *words: str) -> str:
        """A command of this program as the user would type it."""
        return shlex.join((program(), *words[:1], *self.options, *words[1:]))

    def say(self, text: str = "", style: str = "") -> None:
        """A line for people on standard output; the text must be safe already."""
        if not self.is_json:
            self._out.print(Text(text, style=style))

    def note(self, text: str, style: str = "") -> None:
        """A line on standard error."""
        self._err.print(Text(text, style=style))

    def json(self, value: Any) -> None:
        self.stdout.write(document(value) + "\n")

    def json_list(self, name: str, entries: Iterable[Any], rest: Mapping[str, Any] | None = None) -> None:
        """One JSON object with a list of any length in it, written as it comes."""
        self.stdout.write(f"{{{json.dumps(name)}: [")
        between = "\n"
        problem: Exception | None = None
        try:
            for entry in entries:
                self.stdout.write(between + document(entry, indent=None))
                between = ",\n"
        except Exception as error:
            # What is written must still become a document; the caller says what went wrong.
            problem = error
        extra: dict[str, Any] = dict(rest or {})
        if problem is not None:
            extra["error"] = {"name": type(problem).__name__, "message": str(problem)}
        self.stdout.write("\n]")
        for key, value in extra.items():
            self.stdout.write(f", {json.dumps(key)}: {document(value, indent=None)}")
        self.stdout.write("}\n")
        if problem is not None:
            raise ShownError(problem) from problem

    @property
    def width(self) -> int | None:
        """Cells of a line of standard output; None if it is no terminal and lines may be of any length."""
        return self._out.width if self._out.is_terminal else None

    # -- jobs --------------------------------------------------------------------------------------------

    def follow(self, steps: Iterator[JobProgress]) -> None:
        """Show a job's progress until it ends: a live bar on a terminal, else a plain line now and then."""
        is_live = self._err.is_terminal and not self._err.is_dumb_terminal
        with self._bar() if is_live else self._lines() as show:
            for step in steps:
                show(step)

    @contextmanager
    def _bar(self) -> Iterator[Callable[[JobProgress], None]]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            # Short, so that the numbers fit into 80 cells.
            BarColumn(bar_width=20),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.fields[time]}", style="dim"),
        )
        remaining = _Remaining()
        with Progress(
            *columns, console=self._err, transient=True, redirect_stdout=False, redirect_stderr=False
        ) as bar:
            task = bar.add_task("starting", total=None, counts="", time="")

            def show(step: JobProgress) -> None:
                left = remaining.after(step)
                bar.update(
                    task,
                    description=step.phase,
                    total=step.listed,
                    completed=step.done + step.failed,
                    counts=_tasks_line(step),
                    time=duration(step.seconds) if left is None else f"{duration(left)} left",
                )

            yield show

    @contextmanager
    def _lines(self) -> Iterator[Callable[[JobProgress], None]]:
        remaining = _Remaining()
        last, shown_at = "", 0.0

        def show(step: JobProgress) -> None:
            nonlocal last, shown_at
            left = remaining.after(step)
            shards = f"{step.shards_done + step.shards_failed:,}/{step.shards or 0:,} shards"
            text = f"{step.phase}: {_tasks_line(step)}, {shards}" if step.listed is not None else step.phase
            now = time.monotonic()
            if text == last or (last and now - shown_at < _LINE_SECONDS) or step.phase == "ended":
                return
            last, shown_at = text, now
            self.note(text if left is None else f"{text}; about {duration(left)} left")

        yield show

    def record(self, record: JobRecord, *, is_import: bool = False) -> None:
        """A job's account in a few lines, with the commands that go on from there.

        `is_import`: its refused rows are shown otherwise.
        """
        job_id, status, counts = record["jobId"], record["status"], record["counts"]
        head = f"Job {job_id}" + (f" ({safe(record['kind'])})" if record["kind"] else "")
        took = f" after {duration(seconds)}" if (seconds := _seconds(record)) is not None else ""
        self.say(f"{head}: {status}{took}", style=_STYLES.get(status, ""))
        if origin := record.get("origin"):
            self.say(f"  A retry of job {safe(origin)}.")
        shards = record["shards"]
        tasks, cut = count(counts["listed"], "task"), count(shards["planned"], "shard")
        failed = f", {shards['failed']:,} not finished" if shards["failed"] else ""
        if status == "RUNNING":
            if counts["listed"]:
                self.say(f"  {tasks} in {cut}: {shards['done'] + shards['failed']:,} worked on")
        elif counts["listed"] or status in {"SUCCEEDED", "PARTIAL"}:
            self.say(f"  {tasks} in {cut}{failed}: {outcomes(counts)}")
        if skipped := record.get("skipped"):
            self.say(
                f"  {count(skipped, 'task')} of the earlier job gone, or no longer of the kind that it looks for."
            )
        if error := record.get("error"):
            self.say(f"  {safe(error['name'])}: {safe(error['message'])}", style="red")
        if status == "RUNNING":
            self.say(f"  Follow it: {self.command('status', job_id, '--follow')}")
            self.say(f"  Stop it:   {self.command('stop', job_id)}")
        elif "failuresUrl" in record and not is_import:
            self.say(f"  What failed:      {self.command('failures', job_id)}")
            self.say(f"  Try those again:  {self.command('retry', job_id)}")
        elif is_retryable(record) and not is_import:
            self.say(f"  Try it again:     {self.command('retry', job_id)}")

    def result(self, record: JobRecord) -> None:
        """The result of a job: a daily plan as a plan, anything else as it is."""
        result = record.get("result")
        if result is None:
            return
        if record["kind"] == "daily-plan" and "mostUrgent" in result:
            self._plan(result)
            command = self.command("result", record["jobId"], "--output", "plan.jsonl")
            self.say()
            self.say(f"The whole plan, in order: {command}")
        else:
            for line in document(result).splitlines():
                self.say(f"  {line}")

    def _plan(self, result: Mapping[str, Any]) -> None:
        zone = _zone(result["timeZone"])
        moment = _instant(result["asOf"]).astimezone(zone)
        today = datetime.fromisoformat(result["today"])
        self.say()
        day = f"{today:%A}, {today.day} {today:%B %Y}"
        self.say(f"The plan for {day}, as of {moment:%H:%M} ({safe(result['timeZone'])})", style="bold")
        counts = result["counts"]
        most = max(1, *(counts[group] for group in GROUPS))
        for group, label in GROUPS.items():
            bar = "█" * -(-counts[group] * _BAR // most)
            self.say(f"  {label:<10}{counts[group]:>11,}  {bar}".rstrip())
        self.say(f"  {'Open tasks':<10}{counts['total']:>11,}")
        urgent = {group: result["mostUrgent"].get(group, []) for group in GROUPS}
        if any(urgent.values()):
            self.say()
            self.say("Most urgent", style="bold")
        for group, tasks in urgent.items():
            if tasks:
                self.say(f"  {GROUPS[group]}")
            for task in tasks:
                self.say(f"    {self._task(task, zone, indent=4)}")

    def _task(self, task: Mapping[str, Any], zone: tzinfo, indent: int) -> str:
        due = f"{_instant(task['dueAt']).astimezone(zone):%Y-%m-%d %H:%M}" if task.get("dueAt") else "-"
        return self._fit(f"{due:<16}  {safe(str(task['title']))}", indent)

    def _fit(self, line: str, indent: int = 0) -> str:
        return safe(line) if self.width is None else fit(line, max(20, self.width - indent))

    def jobs(self, records: Iterable[JobRecord]) -> None:
        """A line for each job, under a heading."""
        heading = f"{'JOB':<28}  {'KIND':<20}  {'STATUS':<9}  {'STARTED':<20}  {'TOOK':>12}  {'TASKS':>12}"
        number = 0
        for number, record in enumerate(records, 1):
            if number == 1:
                self.say(self._fit(heading), style="bold")
            seconds = _seconds(record)
            line = (
                f"{record['jobId']:<28}  {safe(record['kind'] or '-'):<20}  {record['status']:<9}"
                f"  {record['startedAt']:<20}  {'' if seconds is None else duration(seconds):>12}"
                f"  {record['counts']['listed']:>12,}"
            )
            self.say(self._fit(line), style=_STYLES.get(record["status"], ""))
        if not number:
            self.say("There are no jobs yet.")

    def digest(self, record: JobRecord, groups: list[dict[str, Any]]) -> None:
        """The failures of a job in groups, the largest first, each with samples; then how to try again."""
        job_id = record["jobId"]
        total = record["counts"]["listed"] - record["counts"]["succeeded"]
        self.say(f"{count(total, 'task')} of job {job_id} did not succeed:", style="bold")
        for group in groups:
            self.say()
            self.say(safe(f"{group['count']:>9,}  {group['outcome']}: {group['error']}: {group['message']}"))
            for sample in group["samples"]:
                self.say(safe(f"{'':11}{sample['task']}: {sample['message']}"))
        self.say()
        self.say(f"Each of them, as JSON lines:  {self.command('failures', job_id, '--all')}")
        self.say(f"Try them again:               {self.command('retry', job_id)}")

    def imported(self, record: JobRecord, refused: list[dict[str, Any]]) -> None:
        """What became of the rows of a CSV: how many were taken, and of the first refused ones why."""
        counts = record["counts"]
        taken, others = counts["succeeded"], counts["listed"] - counts["succeeded"]
        no = f"{others:,}" if others else "none"
        self.say(f"Took {count(taken, 'row')}, refused {no}.", style="bold")
        for failure in refused:
            row = failure["task"].get("row")
            message = str(failure["error"]["message"])
            said = message if row is None or message.startswith(f"Row {row}:") else f"Row {row}: {message}"
            self.say(f"  {safe(said)}")
        if others > len(refused):
            command = self.command("failures", record["jobId"], "--all")
            self.say(f"  … and {others - len(refused):,} more: {command}")
        if others:
            # The same file under a new job is new rows to the Task Service: the good ones would come twice.
            self.say("Mend the refused rows in a file of their own and import that one.")

    def tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """A line for each task: due date, state, id, title."""
        for task in tasks:
            state = "done" if task["isComplete"] else "open"
            line = f"{task.get('dueAt') or '-':<20}  {state}  {task['id']:<36}  {safe(task['title'])}"
            self.say(self._fit(line))

    def json_lines(self, entries: Iterable[Any]) -> None:
        """One JSON text a line, each made safe for a terminal."""
        for entry in entries:
            self.stdout.write(document(entry, indent=None) + "\n")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the caller hear of it, who knows with which code to end."""
        raise BrokenPipeError


class ShownError(Exception):
    """An error that is part of the JSON document already; its cause is what went wrong."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


def program() -> str:
    """This program as the user calls it: by its name if a shell finds that, else by the path that was typed."""
    called = sys.argv[0]
    return called if Path(called).name == "fanout" and shutil.which("fanout") is None else "fanout"


def is_retryable(record: JobRecord) -> bool:
    """Whether there is anything of an ended job to retry: a job whose input was refused has no kind."""
    counts = record["counts"]
    if record["status"] in {"RUNNING", "SUCCEEDED"} or record["kind"] is None:
        return False
    return counts["succeeded"] < counts["listed"] or not counts["listed"]


_STYLES = {"SUCCEEDED": "green", "PARTIAL": "yellow", "FAILED": "red", "STOPPED": "red"}


class _Remaining:
    """How long a job will still take, from how fast it worked since this program has watched it."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def after(self, step: JobProgress) -> float | None:
        """Seconds, or None as long as there is nothing to tell from."""
        if step.phase != "working" or not step.listed:
            return None
        done = step.done + step.failed
        if self._first is None:
            self._first = (step.seconds, done)
        seconds, before = self._first
        if done <= before or step.seconds <= seconds:
            return None
        return (step.listed - done) * (step.seconds - seconds) / (done - before)


def outcomes(counts: Counts) -> str:
    """`all succeeded`, or how many had which outcome, those of none left out."""
    if counts["succeeded"] == counts["listed"]:
        return "all succeeded" if counts["listed"] else "nothing to do"
    names = ("succeeded", "failed", "quarantined", "unprocessed")
    numbers = (counts["succeeded"], counts["failed"], counts["quarantined"], counts["unprocessed"])
    return ", ".join(f"{n:,} {name}" for name, n in zip(names, numbers, strict=True) if n)


def _tasks_line(step: JobProgress) -> str:
    if step.listed is None:
        return ""
    # How many of them failed, only the account at the end says.
    return f"{step.listed:,} listed, {step.done + step.failed:,} worked on"


def _seconds(record: JobRecord) -> float | None:
    if "endedAt" not in record:
        return None
    # A start has milliseconds, an end whole seconds.
    return max(0.0, (_instant(record["endedAt"]) - _instant(record["startedAt"])).total_seconds())


def _instant(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):
        return ZoneInfo("UTC")
