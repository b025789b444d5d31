"""The terminal: `fanout`. Parses the command line, has fanout.client do it, and prints what came of it.

Exit codes: 0 what was asked for happened; 1 it did not, and a sentence says why; 2 the command line is wrong;
3 the job ended PARTIAL: within its tolerance, but not with every task; 130 ctrl-C; 141 the reader of the
output went away.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanout.client import FanOut, JobRecord, Started
    from fanout.screen import Screen

SUCCESS, FAILURE, USAGE, PARTIAL, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141

# How many refused rows an import names one by one.
_ROWS_SHOWN = 5

Connect = Callable[[argparse.Namespace], "FanOut"]


def main(argv: Sequence[str] | None = None, connect: Connect | None = None, *, is_last: bool = True) -> int:
    """Run one command; its exit code.

    `connect` finds the deployment that the options name. If this command is not the `is_last` thing that the
    program does, ctrl-C goes through to the caller.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character must not end a command half-way.
            stream.reconfigure(errors="backslashreplace")
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.run is None:
            parser.print_help(sys.stderr)
            return USAGE
    except SystemExit as end:
        return int(end.code or 0)
    # Imported only now: help and usage errors need not wait for boto3.
    from fanout import client as fanout
    from fanout.screen import Screen, ShownError, safe

    screen = Screen(is_json=arguments.json, options=_global_options(arguments))
    command = _Command(arguments, screen, connect or _connect)
    try:
        code: int = arguments.run(command)
        sys.stdout.flush()
        return code
    except ShownError as error:
        screen.note(safe(f"fanout: {_sentence(error.cause)}"), style="red")
        return FAILURE
    except (fanout.FanOutClientError, OSError, _LocalError) as error:
        if isinstance(error, BrokenPipeError):
            # Nothing more can be written; the interpreter must not try at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        if screen.is_json:
            name = type(error).__name__.removeprefix("_")
            screen.json({"error": {"name": name, "message": _sentence(error)}})
        screen.note(safe(f"fanout: {_sentence(error)}"), style="red")
        return FAILURE
    except _UsageError as error:
        screen.note(safe(f"fanout: {error}"), style="red")
        return USAGE
    except KeyboardInterrupt:
        if not is_last:
            raise
        if command.following is not None:
            job_id = command.following
            if screen.is_json:
                screen.json({"jobId": job_id, "status": "RUNNING"})
            screen.note(f"\nJob {job_id} goes on without this terminal.")
            screen.note(f"Follow it again: {screen.command('status', job_id, '--follow')}")
            screen.note(f"Stop it:         {screen.command('stop', job_id)}")
        else:
            screen.note("\nInterrupted.")
        return INTERRUPTED


class _UsageError(Exception):
    """The command line is wrong in a way that only its content tells."""


class _LocalError(Exception):
    """The embedded AWS could not be started or stopped."""


@contextmanager
def _local_errors() -> Iterator[None]:
    # Importing fanout.local is left to the commands that need it.
    from fanout import local
    from fanout.local.deploy import DeployError

    try:
        yield
    except (local.LocalError, local.ServerError, DeployError) as error:
        raise _LocalError(str(error)) from error


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _connect(arguments: argparse.Namespace) -> FanOut:
    from fanout.client import Deployment, FanOut, home_folder

    if arguments.stack:
        return FanOut(Deployment.of_stack(arguments.stack, arguments.region))
    return FanOut(Deployment.of_home(home_folder()))


def _global_options(arguments: argparse.Namespace) -> tuple[str, ...]:
    options: list[str] = []
    if arguments.stack:
        options += ["--stack", arguments.stack]
        if arguments.region:
            options += ["--region", arguments.region]
    return tuple(options)


# -- commands --------------------------------------------------------------------------------------------


class _Command:
    """One parsed command line; a method for each command, which prints and answers the exit code."""

    def __init__(self, arguments: argparse.Namespace, screen: Screen, connect: Connect):
        self.arguments = arguments
        self.screen = screen
        self._connect = connect
        # The job that goes on if this command is interrupted; set before the request that starts it, which may
        # have arrived although its answer did not.
        self.following: str | None = None

    def up(self) -> int:
        from fanout import local
        from fanout.client import Deployment

        home = self._home()
        was_up = local.read(home) is not None
        with _local_errors():
            local.up(home, port=self.arguments.port, say=self.screen.note)
        deployment = Deployment.of_home(home)
        if self.screen.is_json:
            self.screen.json(deployment.to_json())
        self.screen.say(f"Fan Out {'was' if was_up else 'is'} up on {deployment.endpoint_url}.", "green")
        self.screen.say(f"  Import tasks:  {self.screen.command('tasks', 'import', 'FILE.csv')}")
        self.screen.say(f"  Today's plan:  {self.screen.command('run')}")
        self.screen.say(f"  Stop it:       {self.screen.command('down')}")
        return SUCCESS

    def down(self) -> int:
        from fanout import local

        home = self._home()
        with _local_errors():
            was_up = local.down(home)
        if self.screen.is_json:
            self.screen.json({"wasUp": was_up})
        self.screen.say("Fan Out is down." if was_up else f"Nothing was up in {home}.")
        return SUCCESS

    def tasks_import(self) -> int:
        client = self._connect(self.arguments)
        job_id = self._new_id()
        with self._opened(self.arguments.file) as file:
            key = client.upload(file, job_id)
        job = {"kind": "import-tasks", "source": {"csv": key}, **job_input(self.arguments)}
        self.following = job_id
        started = client.start(job, job_id)
        if self.arguments.detach:
            return self._detached(started)
        record = self._followed(client, started.job_id)
        refused = []
        if "failuresUrl" in record:
            for failure in client.failures(record):
                refused.append(failure)
                if len(refused) == _ROWS_SHOWN:
                    break
        if self.screen.is_json:
            self.screen.json({**record, "refused": refused})
        else:
            self.screen.record(record, is_import=True)
            if record["counts"]["listed"]:
                self.screen.imported(record, refused)
        return _exit_code(record)

    def tasks_list(self) -> int:
        fields = job_input(self.arguments).get("filter", {})
        tasks = self._connect(self.arguments).tasks(fields, self.arguments.limit)
        if self.screen.is_json:
            self.screen.json_list("tasks", tasks)
        else:
            self.screen.tasks(tasks)
        return SUCCESS

    def run(self) -> int:
        given = job_input(self.arguments)
        if self.arguments.input is not None:
            given = _laid_over(self._input_file(), given)
        client = self._connect(self.arguments)
        self.following = self._new_id()
        return self._started(client, client.start(given, self.following))

    def retry(self) -> int:
        client = self._connect(self.arguments)
        self.following = self._new_id()
        started = client.retry(self.arguments.job, job_input(self.arguments), self.following)
        return self._started(client, started)

    def jobs(self) -> int:
        records = self._connect(self.arguments).jobs(self.arguments.limit)
        if self.screen.is_json:
            self.screen.json_list("jobs", records)
        else:
            self.screen.jobs(records)
        return SUCCESS

    def status(self) -> int:
        client = self._connect(self.arguments)
        if self.arguments.follow:
            record = self._followed(client, self.arguments.job)
            self._show(record)
            return _exit_code(record)
        record = client.record(self.arguments.job)
        if self.screen.is_json:
            self.screen.json(record)
        self.screen.record(record)
        return SUCCESS

    def result(self) -> int:
        client = self._connect(self.arguments)
        record = client.record(self.arguments.job)
        key = client.whole_result(record)
        if self.arguments.output is not None:
            client.download(key, self.arguments.output)
            if self.screen.is_json:
                self.screen.json({"jobId": record["jobId"], "output": str(self.arguments.output)})
            self.screen.say(f"Wrote {self.arguments.output}.")
        elif self.arguments.all:
            lines = client.lines(key)
            if self.screen.is_json:
                summary = {"jobId": record["jobId"], "result": record.get("result")}
                self.screen.json_list("lines", (json.loads(line) for line in lines), summary)
            else:
                self.screen.json_lines(json.loads(line) for line in lines)
        elif self.screen.is_json:
            self.screen.json(record.get("result"))
        else:
            self.screen.record(record)
            self.screen.result(record)
        return SUCCESS

    def failures(self) -> int:
        from fanout.screen import is_retryable

        client = self._connect(self.arguments)
        record = client.record(self.arguments.job)
        if self.arguments.all:
            if self.screen.is_json:
                self.screen.json_list("failures", client.failures(record), {"jobId": record["jobId"]})
            else:
                self.screen.json_lines(client.failures(record))
            return SUCCESS
        groups = client.digest(record)
        if self.screen.is_json:
            retry = self.screen.command("retry", record["jobId"]) if is_retryable(record) else None
            self.screen.json({"jobId": record["jobId"], "digest": groups, "retryCommand": retry})
        elif groups:
            self.screen.digest(record, groups)
        else:
            self.screen.record(record)
            if record["status"] == "RUNNING":
                self.screen.say("What failed is known when the job has ended.")
            elif is_retryable(record):
                self.screen.say(
                    "Which of its tasks did not succeed is not known; a retry lists its source anew."
                )
            else:
                self.screen.say("No failure is recorded.")
        return SUCCESS

    def stop(self) -> int:
        record = self._connect(self.arguments).stop(self.arguments.job)
        if self.screen.is_json:
            self.screen.json(record)
        self.screen.record(record)
        return SUCCESS

    # -- what they share ---------------------------------------------------------------------------------

    def _new_id(self) -> str:
        from fanout.client import new_job_id

        return self.arguments.job_id or new_job_id()

    def _started(self, client: FanOut, started: Started) -> int:
        if started.is_repeat:
            self.screen.note("The same job was started before; nothing new is started.")
        if self.arguments.detach:
            return self._detached(started)
        record = self._followed(client, started.job_id)
        self._show(record)
        return _exit_code(record)

    def _detached(self, started: Started) -> int:
        if self.screen.is_json:
            self.screen.json({"jobId": started.job_id, "status": "RUNNING"})
        self.screen.say(f"Started job {started.job_id}.")
        self.screen.say(f"  Follow it: {self.screen.command('status', started.job_id, '--follow')}")
        self.screen.say(f"  Stop it:   {self.screen.command('stop', started.job_id)}")
        return SUCCESS

    def _followed(self, client: FanOut, job_id: str) -> JobRecord:
        self.following = job_id
        self.screen.note(f"Job {job_id}")
        self.screen.follow(client.follow(job_id))
        record = client.record(job_id, wait=True)
        self.following = None
        return record

    def _show(self, record: JobRecord) -> None:
        if self.screen.is_json:
            self.screen.json(record)
            return
        self.screen.record(record)
        self.screen.result(record)

    def _home(self) -> Path:
        from fanout.client import home_folder

        if self.arguments.stack:
            raise _UsageError("--stack names a deployed stack; up and down are about the embedded AWS.")
        return home_folder()

    def _opened(self, file: str) -> IO[bytes]:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb") if file == "-" else Path(file).open("rb")

    def _input_file(self) -> dict[str, Any]:
        path: str = self.arguments.input
        with self._opened(path) as file:
            content = file.read()
        try:
            document = _read_json(content)
        except ValueError as error:
            raise _UsageError(f"{path} is not JSON: {error}.") from None
        if not isinstance(document, dict):
            raise _UsageError(f"{path} must hold a JSON object, the input of a job.")
        return document


def _exit_code(record: JobRecord) -> int:
    return {"SUCCEEDED": SUCCESS, "PARTIAL": PARTIAL}.get(record["status"], FAILURE)


# -- the command line ------------------------------------------------------------------------------------

# Every field of a job's input has an option, whose destination is the field's path.
_TUNING = "how the work is done"
_WHICH = "which tasks"


def job_input(arguments: argparse.Namespace) -> dict[str, Any]:
    """The job input that the options spell: only the fields that were given, as they were given."""
    given: dict[str, Any] = {}
    for path, value in vars(arguments).items():
        owner, _, name = path.rpartition(".")
        if owner == "job":
            given[name] = dict(value) if name == "params" else value
        elif owner == "job.filter":
            given.setdefault("filter", {})[name] = value
    return given


def _laid_over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`base` with the given fields in their place; params and filter one by one."""
    merged = base | given
    for name in ("params", "filter"):
        if isinstance(base.get(name), dict) and name in given:
            merged[name] = base[name] | given[name]
    return merged


def make_parser() -> argparse.ArgumentParser:
    """The whole command line. Each command has a description and examples that run as they stand."""
    parser = argparse.ArgumentParser(
        prog="fanout",
        description="Fan-out jobs over a million tasks, with an exact account of every one.",
        epilog=_examples(
            ("fanout up", "start an embedded AWS with Fan Out deployed to it"),
            ("fanout tasks import tasks.csv", "create tasks from a CSV file"),
            ("fanout run", "today's plan over all open tasks"),
            ("fanout down", "stop the embedded AWS"),
        )
        + "\n\nWithout --stack, commands go to the embedded AWS that `fanout up` started here (its folder is"
        "\n.fanout, or FANOUT_HOME). Exit codes: 0 done, 1 not done, 2 wrong usage, 3 PARTIAL, 130 ctrl-C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fanout {version('fanout')}")
    _add_globals(parser, None, False)
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    up = _command(
        commands,
        "up",
        _Command.up,
        "Start an embedded AWS on this machine and deploy Fan Out to it.",
        "It listens on 127.0.0.1 only and keeps its state until `fanout down`.",
        ("fanout up", "on a free port"),
        ("fanout up --port 4566 --json", "print where everything is, as JSON"),
    )
    up.add_argument("--port", type=_port, help="port to listen on (default: a free one)")

    _command(
        commands,
        "down",
        _Command.down,
        "Stop the embedded AWS and remove its state.",
        "",
        ("fanout down", ""),
    )

    tasks = commands.add_parser(
        "tasks", help="Import and list tasks.", description="Import and list tasks of the Task Service."
    )
    tasks_commands = tasks.add_subparsers(title="commands", metavar="COMMAND", required=True)
    task_import = _command(
        tasks_commands,
        "import",
        _Command.tasks_import,
        "Create a task from each row of a CSV file.",
        "Columns: title, and optionally detail, dueAt, isComplete, in any order, under a header. Good rows are\n"
        "taken whatever is wrong with others; refused rows are named by number (the header is row 1) and reason.\n"
        "Exit code 3 says that some rows were refused.",
        ("fanout tasks import tasks.csv", "upload, import, and say what was refused"),
        ("python -m fanout.sample 1000 | fanout tasks import -", "1,000 sample tasks from a pipe"),
        prog="fanout tasks import",
    )
    task_import.add_argument("file", metavar="FILE.csv", help="the CSV file; - reads standard input")
    _add_tuning(task_import, {"toleratedFailurePercentage": 100})
    _add_start(task_import)

    task_list = _command(
        tasks_commands,
        "list",
        _Command.tasks_list,
        "List tasks, page by page, in no particular order.",
        "A line holds the due date in UTC, open or done, the id and the title.",
        ("fanout tasks list --limit 20", "the first 20"),
        ("fanout tasks list --is-complete false --due-before 2026-12-01T00:00:00Z", "open and due by then"),
        ("fanout tasks list --json > tasks.json", "all of them"),
        prog="fanout tasks list",
    )
    _add_filter(task_list)
    task_list.add_argument("--limit", type=_positive, metavar="N", help="at most N tasks (default: all)")

    run = _command(
        commands,
        "run",
        _Command.run,
        "Start a job, follow it to its end and print its account and its result.",
        "What is not given has the default of the job's input; without any option it is today's plan.\n"
        "Exit code 0: SUCCEEDED. 3: PARTIAL, some tasks failed within the tolerance. 1: FAILED or STOPPED.",
        ("fanout run", "today's plan over all open tasks, in UTC"),
        (
            "fanout run --param timeZone=Europe/Zurich --param top=10",
            "in another time zone, more of the urgent",
        ),
        (
            "fanout run --kind reschedule-overdue --tasks-per-second 100",
            "move what is overdue to today, slowly",
        ),
        ("fanout run --shard-size 250 --max-concurrency 8 --json", "the job record as JSON"),
    )
    what = run.add_argument_group("what is done")
    what.add_argument(
        "--kind",
        dest="job.kind",
        metavar="KIND",
        default=argparse.SUPPRESS,
        help="kind of job (default: daily-plan)",
    )
    what.add_argument(
        "--param",
        dest="job.params",
        metavar="NAME=VALUE",
        type=_param,
        action=_UniquePairs,
        default=argparse.SUPPRESS,
        help="a parameter of the kind; VALUE is JSON if it parses as such, else text. Repeatable",
    )
    source = run.add_argument_group(_WHICH).add_mutually_exclusive_group()
    source.add_argument(
        "--source",
        dest="job.source",
        type=_json_or_text,
        metavar="SOURCE",
        default=argparse.SUPPRESS,
        help="tasks (default): all of the Task Service; or a source as JSON",
    )
    source.add_argument(
        "--csv",
        dest="job.source",
        type=lambda key: {"csv": key},
        metavar="KEY",
        default=argparse.SUPPRESS,
        help="the rows of a CSV object in the bucket, such as uploads/tasks.csv",
    )
    source.add_argument(
        "--failed-in",
        dest="job.source",
        type=lambda job: {"failedIn": _job_id(job)},
        metavar="JOB",
        default=argparse.SUPPRESS,
        help="the tasks that an earlier job did not succeed with",
    )
    _add_filter(run)
    _add_tuning(run)
    _add_start(run)
    run.add_argument(
        "--input",
        metavar="FILE.json",
        help="the job's whole input as JSON (- reads standard input); options beside it replace its fields",
    )

    jobs = _command(
        commands,
        "jobs",
        _Command.jobs,
        "List jobs, newest first.",
        "",
        ("fanout jobs", "the newest 20"),
        ("fanout jobs --limit 500 --json", ""),
    )
    jobs.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most N jobs (default: 20)")

    status = _command(
        commands,
        "status",
        _Command.status,
        "Show a job's account: how far it is, or what became of its tasks.",
        "How many tasks had which outcome is known once the job has ended.",
        ("fanout status 20261123-101502-ab12cd", ""),
        ("fanout status 20261123-101502-ab12cd --follow", "watch it to its end; exit codes as of run"),
    )
    _add_job(status)
    status.add_argument("--follow", action="store_true", help="follow the job to its end")

    result = _command(
        commands,
        "result",
        _Command.result,
        "Show the result of a job that has ended.",
        "Without an option it is the summary. The result as a whole, for a daily plan every open task in order,\n"
        "is JSON lines.",
        ("fanout result 20261123-101502-ab12cd", "the summary"),
        ("fanout result 20261123-101502-ab12cd --output plan.jsonl", "download the whole plan"),
        ("fanout result 20261123-101502-ab12cd --all | head", "print it"),
    )
    _add_job(result)
    where = result.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, metavar="FILE", help="download the whole result to FILE")
    where.add_argument("--all", action="store_true", help="print the whole result")

    failures = _command(
        commands,
        "failures",
        _Command.failures,
        "Show what failed in a job, grouped by reason, and the command that tries it again.",
        "",
        ("fanout failures 20261123-101502-ab12cd", "groups with counts and samples"),
        ("fanout failures 20261123-101502-ab12cd --all > failures.jsonl", "every task, one JSON a line"),
    )
    _add_job(failures)
    failures.add_argument("--all", action="store_true", help="every failed, quarantined or unprocessed task")

    retry = _command(
        commands,
        "retry",
        _Command.retry,
        "Start a job over the tasks that an earlier job did not succeed with, and follow it.",
        "It is of the same kind, with the same parameters. What succeeded is not touched again.",
        ("fanout retry 20261123-101502-ab12cd", ""),
        ("fanout retry 20261123-101502-ab12cd --tasks-per-second 20", "more gently this time"),
    )
    _add_job(retry)
    _add_tuning(retry, is_retry=True)
    _add_start(retry)

    stop = _command(
        commands,
        "stop",
        _Command.stop,
        "Stop a running job and show its closing account.",
        "Tasks that were not reached are accounted for as unprocessed; `fanout retry` works on them.",
        ("fanout stop 20261123-101502-ab12cd", ""),
    )
    _add_job(stop)
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[_Command], int],
    summary: str,
    more: str,
    *examples: tuple[str, str],
    prog: str | None = None,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary}\n{more}".strip(),
        epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **({"prog": prog} if prog else {}),
    )
    _add_globals(parser, argparse.SUPPRESS, argparse.SUPPRESS)
    parser.set_defaults(run=run)
    return parser


def _examples(*examples: tuple[str, str]) -> str:
    lines = ["examples:"]
    for command, meaning in examples:
        lines += [f"  $ {command}"] + ([f"      {meaning}"] if meaning else [])
    return "\n".join(lines)


def _add_globals(parser: argparse.ArgumentParser, nothing: Any, no: Any) -> None:
    group = parser.add_argument_group("global options")
    group.add_argument(
        "--stack", metavar="NAME", default=nothing, help="a deployed stack instead of the embedded AWS"
    )
    group.add_argument("--region", default=nothing, help="the stack's region (default: of your AWS settings)")
    group.add_argument(
        "--json", action="store_true", default=no, help="print one JSON document on standard output"
    )


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", type=_job_id, help="the job's id, as `fanout jobs` shows it")


def _add_filter(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(_WHICH + ", all conditions holding")
    group.add_argument(
        "--is-complete",
        dest="job.filter.isComplete",
        type=_boolean,
        metavar="true|false",
        default=argparse.SUPPRESS,
        help="only complete, or only open tasks",
    )
    for option, field, meaning in (
        ("--due-before", "dueBefore", "only tasks due before this moment"),
        ("--due-after", "dueAfter", "only tasks due at this moment or after it"),
    ):
        group.add_argument(
            option,
            dest=f"job.filter.{field}",
            metavar="TIME",
            default=argparse.SUPPRESS,
            help=f"{meaning}: ISO 8601 with a zone",
        )


def _add_tuning(
    parser: argparse.ArgumentParser, defaults: dict[str, Any] | None = None, *, is_retry: bool = False
) -> None:
    group = parser.add_argument_group(_TUNING)
    for option, field, read, metavar, meaning in (
        ("--shard-size", "shardSize", _number, "N", "tasks in a shard (default: 500)"),
        ("--max-concurrency", "maxConcurrency", _number, "N", "workers at a time (default: 40)"),
        (
            "--tolerated-failure-percentage",
            "toleratedFailurePercentage",
            _number,
            "PERCENT",
            "above so many tasks not succeeding, the job fails (default: 5)",
        ),
        (
            "--tasks-per-second",
            "tasksPerSecond",
            _number_or_null,
            "N",
            "ceiling over the whole job, or null (default)",
        ),
        (
            "--max-cost-usd",
            "maxCostUsd",
            _number_or_null,
            "USD",
            "refuse to work if the estimate is above it, or null (default)",
        ),
    ):
        default = (defaults or {}).get(field, argparse.SUPPRESS)
        text = meaning
        if default is not argparse.SUPPRESS:
            text = f"{meaning.partition(' (')[0]} (default: {default})"
        elif is_retry:
            is_share = field == "toleratedFailurePercentage"
            said = "as many tasks as the earlier job" if is_share else "the earlier job's"
            text = f"{meaning.replace(', or null (default)', '').partition(' (')[0]} (default: {said})"
        group.add_argument(
            option, dest=f"job.{field}", type=read, metavar=metavar, default=default, help=text
        )


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--job-id",
        type=_job_id,
        metavar="ID",
        help="the job's id (default: made from the time); the same id and input start the job only once",
    )
    parser.add_argument("--detach", action="store_true", help="do not wait for the job's end")


class _UniquePairs(argparse.Action):
    """Collects NAME=VALUE pairs and refuses a name that comes twice."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        pairs = dict(getattr(namespace, self.dest, {}))
        name, value = values
        if name in pairs:
            parser.error(f"argument {option_string}: {name} is given twice")
        pairs[name] = value
        setattr(namespace, self.dest, pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is beyond the numbers of JSON")
    return number


def _read_json(text: str | bytes) -> Any:
    """Raises ValueError for what Python would take and the state machine would not."""
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _json_or_text(text: str) -> Any:
    try:
        return _read_json(text)
    except ValueError:
        return text


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, _json_or_text(value)


def _job_id(text: str) -> str:
    from fanout.client import JOB_ID

    if not JOB_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no job id: 1 to 80 of A-Z, a-z, 0-9, _ and -")
    return text


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _number(text: str) -> int | float:
    value = _json_or_text(text)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value in (float("inf"), -float("inf"))
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _number_or_null(text: str) -> int | float | None:
    return None if text == "null" else _number(text)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _port(text: str) -> int:
    if _positive(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 1 to 65,535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
