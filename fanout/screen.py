"""What the terminal shows: text made safe, tables, progress, JSON documents."""

import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO
from zoneinfo import ZoneInfo

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from fanout.client import JobRecord, ProblemError

# What a terminal could take for a command, or what reorders the text around it: control characters of both
# ranges, line separators, bidirectional controls, the byte order mark, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_STYLES = {"SUCCEEDED": "green", "PARTIAL": "yellow", "FAILED": "red", "STOPPED": "red"}

# The groups of a daily plan, in order, and how they are called here.
GROUPS = {"overdue": "Overdue", "today": "Today", "thisWeek": "This week", "later": "Later", "undated": "No date"}
_BAR = 30
# Plain progress lines come no faster.
_LINE_SECONDS = 3.0
# Cells of a line where nothing limits it: in a pipe or a file.
_UNLIMITED = 100_000
# The columns of tables that give way where a terminal is narrow.
_FLEXIBLE = {"KIND", "TITLE", "MESSAGE"}
# A result of so many characters at most is shown on one line.
_SHORT = 76
# Tasks whose columns are aligned together; more are not held in memory.
_TASKS_TOGETHER = 1000


def safe(text: str) -> str:
    """The text with every character that could act on a terminal written out, such as \\x1b or \\n."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def document(value: Any, *, indent: int | None = 2) -> str:
    """JSON text that a terminal shows as it is: unsafe characters, all of them in strings, are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def count(number: int, one: str) -> str:
    """1 task; 1,234 tasks."""
    return f"{number:,} {one if number == 1 else one + 's'}"


def duration(seconds: float) -> str:
    """12 s; 3 min 05 s; 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def outcomes(counts: Mapping[str, int]) -> str:
    """`all succeeded`, or how many had which outcome, those of none left out."""
    if counts["succeeded"] == counts["listed"]:
        return "all succeeded" if counts["listed"] else "nothing to do"
    names = ("succeeded", "failed", "quarantined", "unprocessed")
    return ", ".join(f"{counts[name]:,} {name}" for name in names if counts[name])


def error_document(error: Exception, sentence: str | None = None) -> dict[str, Any]:
    """The JSON document of a command that failed: `{"error": {name, message, errors?}}`."""
    name = error.name if isinstance(error, ProblemError) else type(error).__name__
    found: dict[str, Any] = {"name": name, "message": sentence or str(error)}
    if errors := getattr(error, "errors", None):
        found["errors"] = errors
    return {"error": found}


class ShownError(Exception):
    """An error that is part of the JSON document already; its cause is what went wrong."""


@dataclass
class Screen:
    """Standard output for what was asked for, standard error for progress and errors.

    With `is_json`, standard output gets one JSON document and nothing else. `options` are the global options
    that every command shown to the user must repeat; without `advises` none is shown.
    """

    is_json: bool = False
    options: tuple[str, ...] = ()
    advises: bool = True
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)

    def __post_init__(self) -> None:
        # Forced colours do not make a terminal of a pipe: there, lines stay whole and progress plain.
        self._is_terminal = self.stdout.isatty()
        self._out, self._err = (
            _Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=True)
            for stream in (self.stdout, self.stderr)
        )

    safe = staticmethod(safe)

    def command(self, *words: str) -> str:
        """A command as the user would type it: this program by its name if a shell finds that, else by its path."""
        called = sys.argv[0]
        program = called if Path(called).name == "fanout" and shutil.which("fanout") is None else "fanout"
        return shlex.join((program, *words[:1], *self.options, *words[1:]))

    def say(self, text: str = "", style: str = "") -> None:
        """A line for people on standard output; the text must be safe already."""
        if not self.is_json:
            self._out.print(Text(text, style=style))

    def advise(self, text: str, *words: str) -> None:
        """A line that names the command to go on with."""
        if self.advises:
            self.say(f"{text}{self.command(*words)}")

    def note(self, text: str, style: str = "") -> None:
        """A line on standard error."""
        self._err.print(Text(text, style=style))

    def json(self, value: Any) -> None:
        """The document, if one is asked for."""
        if self.is_json:
            self.stdout.write(document(value) + "\n")

    def json_lines(self, entries: Iterable[Any]) -> None:
        """One JSON text a line, each made safe for a terminal."""
        for entry in entries:
            self.stdout.write(document(entry, indent=None) + "\n")

    def entries(
        self, name: str, entries: Iterable[Any], show: Callable[[Iterable[Any]], None], rest: Any = None
    ) -> None:
        """A list of any length, as `show` shows it; or as it comes in one JSON document. Raises ShownError."""
        if not self.is_json:
            show(entries)
            return
        self.stdout.write(f"{{{json.dumps(name)}: [")
        between, extra = "\n", dict(rest or {})
        problem: Exception | None = None
        try:
            for entry in entries:
                self.stdout.write(between + document(entry, indent=None))
                between = ",\n"
        except BrokenPipeError:
            raise
        except Exception as error:
            # What is written must still become a document; the caller says what went wrong.
            problem = error
            extra |= error_document(error)
        self.stdout.write("\n]")
        for key, value in extra.items():
            self.stdout.write(f", {json.dumps(key)}: {document(value, indent=None)}")
        self.stdout.write("}\n")
        if problem is not None:
            raise ShownError from problem

    def table(
        self, columns: Mapping[str, int | None], rows: Iterable[Sequence[str | Text]], heading: bool = True
    ) -> None:
        """Aligned columns, those with a `>` before their name to the right; of this many cells, if given.

        On a terminal the table fits its width: messages wrap, titles and kinds end in an ellipsis. Elsewhere nothing
        is cut. No line ends in blanks.
        """
        if self.is_json:
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=heading)
        for name, width in columns.items():
            justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
            # What may not wrap as a column gives up its width last.
            table.add_column(name.lstrip(">"), justify=justify, width=width, no_wrap=name not in _FLEXIBLE)
        for row in rows:
            cells = [Text(cell) if isinstance(cell, str) else cell for cell in row]
            for name, cell in zip(columns, cells, strict=True):
                if name != "MESSAGE":
                    cell.no_wrap, cell.overflow = True, "ellipsis"
            table.add_row(*cells)
        options = self._out.options.update(width=self._out.width if self._is_terminal else _UNLIMITED)
        for line in self._out.render_lines(table, options, pad=False):
            ended = cell_len("".join(segment.text for segment in line).rstrip())
            line = Segment.adjust_line_length(line, ended, pad=False)
            self._out.print(Segments([*line, Segment.line()]), end="")

    # -- jobs --------------------------------------------------------------------------------------------

    def follow(self, records: Iterable[JobRecord]) -> JobRecord:
        """Show a job's progress until it ends: a live bar on a terminal, else a plain line now and then."""
        is_live = self.stderr.isatty() and not self._err.is_dumb_terminal
        # The bar is short, so that the numbers fit into 80 cells; nothing else is drawn while it is there.
        columns = (SpinnerColumn(), "{task.description}", BarColumn(bar_width=20), "{task.fields[counts]}")
        remaining = TimeRemainingColumn(elapsed_when_finished=True)
        alone = {"transient": True, "redirect_stdout": False, "redirect_stderr": False, "disable": not is_live}
        bar = Progress(*columns, remaining, console=self._err, get_time=time.monotonic, **alone)
        task = bar.add_task("starting", total=None, counts="")
        shown, shown_at = "", -_LINE_SECONDS
        with bar:
            for record in records:
                listed, done = record["counts"]["listed"], worked_on(record)
                counts = f"{listed:,} listed, {done:,} worked on" if listed else ""
                bar.update(task, description=phase(record), total=listed or None, completed=done, counts=counts)
                line = ": ".join(filter(None, (phase(record), counts)))
                if is_live or record["status"] != "RUNNING" or line == shown:
                    continue
                if time.monotonic() - shown_at >= _LINE_SECONDS:
                    shown, shown_at = line, time.monotonic()
                    left = bar.tasks[0].time_remaining
                    self.note(f"{line}; about {duration(left)} left" if left else line)
        return record

    def record(self, record: JobRecord) -> None:
        """A job's record in a few lines, with the commands that go on from there; of an import, `rejected` rows."""
        self.json(record)
        job_id, status, counts = record["jobId"], record["status"], record["counts"]
        head = f"Job {job_id}" + (f" ({safe(record['kind'])})" if record["kind"] else "")
        took = f" after {duration(seconds(record))}" if "endedAt" in record else ""
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
        if concurrency := record.get("concurrency"):
            self.say(f"  {safe(concurrency['reason'])}")
        if skipped := record.get("skipped"):
            self.say(f"  {count(skipped, 'task')} of the earlier job skipped: deleted, or no longer matching.")
        if error := record.get("error"):
            self.say(f"  {safe(error['name'])}: {safe(error['message'])}", style="red")
        if status == "RUNNING":
            self.advise("  Follow it: ", "status", job_id, "--follow")
            self.advise("  Stop it:   ", "stop", job_id)
        elif status != "SUCCEEDED" and record["kind"] and "rejected" not in record:
            self.advise("  What failed:   ", "failures", job_id)
            if "failuresUrl" in record:
                self.advise("  Retry only it: ", "retry", job_id)

    def result(self, record: JobRecord) -> None:
        """The result of a job: a daily plan as a plan, anything else as it is."""
        result = record.get("result")
        if not result:
            return
        if record["kind"] == "daily-plan" and "mostUrgent" in result:
            self._plan(result)
            if self.advises:
                self.say()
                self.advise("The whole plan, in order: ", "result", record["jobId"], "--output", "plan.jsonl")
        else:
            short = document(result, indent=None)
            for line in [short] if len(short) <= _SHORT else document(result).splitlines():
                self.say(f"  {line}")

    def _plan(self, result: Mapping[str, Any]) -> None:
        try:
            zone = ZoneInfo(result["timeZone"])
        except (ValueError, OSError):
            zone = ZoneInfo("UTC")
        moment = datetime.fromisoformat(result["asOf"]).astimezone(zone)
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
        rows = [
            (f"  {label}" if number == 0 else "", _due(task, zone), safe(str(task["title"])))
            for group, label in GROUPS.items()
            for number, task in enumerate(result["mostUrgent"].get(group, []))
        ]
        if rows:
            self.say()
            self.say("Most urgent", style="bold")
            self.table({"": None, "DUE": None, "TITLE": None}, rows, heading=False)

    def jobs(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        """A table of jobs."""
        rows = []
        for job in jobs:
            took = duration(seconds(job)) if "endedAt" in job else ""
            tasks = f"{job['counts']['listed']:,}" if "counts" in job else ""
            status = Text(job["status"], style=_STYLES.get(job["status"], ""))
            rows.append((job["jobId"], safe(job.get("kind") or "-"), status, job["startedAt"], took, tasks))
        if not rows:
            self.say("There are no such jobs.")
            return
        self.table(dict.fromkeys(("JOB", "KIND", "STATUS", "STARTED", ">TOOK", ">TASKS")), rows)

    def tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """A table of tasks: due date, state, id, title."""
        left, heading = iter(tasks), True
        while some := list(islice(left, _TASKS_TOGETHER)):
            rows = (
                (task.get("dueAt") or "-", "done" if task["isComplete"] else "open", task["id"], safe(task["title"]))
                for task in some
            )
            self.table({"DUE": 20, "STATE": 5, "ID": 36, "TITLE": None}, rows, heading)
            heading = False
        if heading:
            self.say("There are no such tasks.")

    def failures(self, found: Mapping[str, Any]) -> None:
        """A table of a job's failures in groups, the largest first, each with samples; then how to retry them."""
        job_id, counts = found["jobId"], found["counts"]
        rows = []
        for group in found["digest"]:
            message, samples = Text(safe(group["message"])), group["samples"]
            if all(sample["message"] == group["message"] for sample in samples):
                said = ["such as " + ", ".join(str(sample["task"]) for sample in samples)]
            else:
                said = [f"{sample['task']}: {sample['message']}" for sample in samples]
            for line in said:
                message.append(f"\n{safe(line)}", style="dim")
            rows.append((f"{group['count']:,}", group["outcome"], safe(group["error"]), message))
        if rows:
            failed = counts["listed"] - counts["succeeded"]
            self.say(f"{count(failed, 'task')} of job {job_id} did not succeed:", style="bold")
            self.table(dict.fromkeys((">TASKS", "OUTCOME", "ERROR", "MESSAGE")), rows)
            self.advise("Each of them, as JSON lines: ", "failures", job_id, "--all")
        elif found["status"] == "RUNNING":
            self.say(f"Job {job_id} still runs. What failed is known when it has ended.")
        elif "retryRequest" in found:
            self.say(f"Job {job_id} is {found['status']}, and which of its tasks did not succeed is not known.")
        else:
            self.say(f"No failure of job {job_id} is recorded.")
        if "retryRequest" in found:
            self.advise("Retry only these:            " if rows else "Retry all of it: ", "retry", job_id)

    def imported(self, record: JobRecord) -> None:
        """How many rows of a CSV were imported, and why the first `rejected` ones were not."""
        counts, rejected = record["counts"], record["rejected"]
        if not counts["listed"]:
            return
        taken, others = counts["succeeded"], counts["listed"] - counts["succeeded"]
        rejected_rows = f"{others:,}" if others else "none"
        self.say(f"Imported {count(taken, 'row')}, rejected {rejected_rows}.", style="bold")
        for failure in rejected:
            row = failure["task"].get("row")
            message = str(failure["error"]["message"])
            said = message if row is None or message.startswith(f"Row {row}:") else f"Row {row}: {message}"
            self.say(f"  {safe(said)}")
        if others > len(rejected):
            self.advise(f"  … and {others - len(rejected):,} more: ", "failures", record["jobId"], "--all")
        if others:
            # The same file under a new job is new rows to the Task Service: the good ones would come twice.
            self.say("Fix the rejected rows in a separate file and import that file.")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the caller hear of it, who knows with which code to end."""
        raise BrokenPipeError


def phase(record: JobRecord) -> str:
    """What the job does now: listing, working, reducing; or ended."""
    return record.get("phase", "running").lower() if record["status"] == "RUNNING" else "ended"


def worked_on(record: JobRecord) -> int:
    """About how many tasks are worked on: shards are of about one size."""
    shards = record["shards"]
    done = shards["done"] + shards["failed"]
    return record["counts"]["listed"] * done // shards["planned"] if shards["planned"] else 0


def seconds(record: Mapping[str, Any]) -> float:
    """How long the job took, or has taken until now."""
    ended = datetime.fromisoformat(record["endedAt"]) if "endedAt" in record else datetime.now(UTC)
    # A start has milliseconds, an end whole seconds; and this machine's clock may be behind.
    return max(0.0, (ended - datetime.fromisoformat(record["startedAt"])).total_seconds())


def _due(task: Mapping[str, Any], zone: ZoneInfo) -> str:
    return f"{datetime.fromisoformat(task['dueAt']).astimezone(zone):%Y-%m-%d %H:%M}" if task.get("dueAt") else "-"
