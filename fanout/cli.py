"""The terminal: `fanout`. Parses the command line, asks the API by fanout.client, and prints what came of it.

Exit codes: 0 what was asked for happened; 1 it did not, and a sentence says why; 2 the command line is wrong; 3 the job
ended PARTIAL: within its tolerance, but not with every task; 130 ctrl-C; 141 the reader of the output went away.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial, reduce
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import get_completion_class, shell_complete

if TYPE_CHECKING:
    from fanout.client import FanOut, JobRecord
    from fanout.screen import Screen

SUCCESS, FAILURE, USAGE, PARTIAL, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141
COMPLETE = "_FANOUT_COMPLETE"
JOB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
SHELLS, STATUSES = ("bash", "zsh", "fish"), ("RUNNING", "SUCCEEDED", "PARTIAL", "FAILED", "STOPPED")

# How many rejected rows an import names one by one.
_ROWS_SHOWN = 5

Connect = Callable[["App"], "FanOut"]


class App:
    """One run of a command: its global options, the job input that its options spell, and what it works with."""

    def __init__(self, connect: Connect | None = None, *, advises: bool = True):
        self.is_json = False
        self.stack: str | None = None
        self.region: str | None = None
        self.api_url: str | None = None
        self.job: dict[str, Any] = {}
        # The job that goes on if this command ends early; set before the request that starts it, which may have
        # arrived although its answer did not.
        self.following: str | None = None
        self._is_sure = False
        self._connect, self._advises = connect, advises

    @cached_property
    def screen(self) -> Screen:
        from fanout.screen import Screen

        given = {"--api-url": self.api_url, "--stack": self.stack, "--region": self.region}
        options = [word for option, value in given.items() if value for word in (option, value)]
        return Screen(is_json=self.is_json, options=tuple(options), advises=self._advises)

    @cached_property
    def client(self) -> FanOut:
        """The API that the global options name, FANOUT_API_URL, or that of the embedded AWS."""
        from fanout.client import Deployment, FanOut

        if self.api_url and self.stack:
            raise click.UsageError("--api-url and --stack exclude each other.")
        if self._connect is not None:
            return self._connect(self)
        if self.stack:
            return FanOut(Deployment.of_stack(self.stack, self.region))
        if url := self.api_url or os.environ.get("FANOUT_API_URL"):
            return FanOut(Deployment.of_url(url, self.region))
        return FanOut(Deployment.of_home(self.home()))

    def home(self) -> Path:
        """Where `fanout up` keeps its state: FANOUT_HOME, or .fanout in the current directory."""
        if self.stack or self.api_url:
            raise click.UsageError("--stack and --api-url name a deployment; up and down are about the embedded AWS.")
        return Path(os.environ.get("FANOUT_HOME") or ".fanout")

    def started(self, start: Callable[[str], Mapping[str, Any]], job_id: str | None, detach: bool) -> int:
        """Start a job and, unless detached, follow it and show its record and result; the exit code."""
        record = self.followed(start, job_id, detach)
        return SUCCESS if record is None else self.show(record)

    def followed(self, start: Callable[[str], Mapping[str, Any]], job_id: str | None, detach: bool) -> JobRecord | None:
        """The record of the job that `start` starts under an id, at its end; None if detached."""
        from fanout.client import ProblemError, new_job_id

        self.following = job_id or new_job_id()
        try:
            started = start(self.following)
        except ProblemError as error:
            if error.status < 500:
                self.following = None
            raise
        self._is_sure = True
        if started["status"] != "RUNNING":
            self.screen.note("The same job was started before; nothing new is started.")
        if not detach:
            return self.follow(self.following, is_new=True)
        job_id, self.following = self.following, None
        self.screen.json({"jobId": job_id, "status": started["status"]})
        self.screen.say(f"Started job {job_id}.")
        self.screen.advise("  Follow it: ", "status", job_id, "--follow")
        self.screen.advise("  Stop it:   ", "stop", job_id)
        return None

    def follow(self, job_id: str, is_new: bool = False) -> JobRecord:
        def lost(sentence: str) -> None:
            self.screen.note(self.screen.safe(f"{sentence} The job goes on; trying again."), style="yellow")

        self.following, self._is_sure = job_id, True
        self.screen.note(f"Job {job_id}")
        record = self.screen.follow(self.client.follow(job_id, lost, is_new=is_new))
        self.following = None
        return record

    def show(self, record: JobRecord) -> int:
        """Print a record and its result; the exit code."""
        self.screen.record(record)
        self.screen.result(record)
        return exit_code(record)

    def goes_on(self) -> None:
        """Say how to get back to the job that this command leaves running."""
        if self.following is not None:
            goes_on = "goes on without this terminal" if self._is_sure else "may have been started"
            self.screen.note(f"Job {self.following} {goes_on}.")
            self.screen.note(f"Follow it again: {self.screen.command('status', self.following, '--follow')}")
            self.screen.note(f"Stop it:         {self.screen.command('stop', self.following)}")


def exit_code(record: JobRecord) -> int:
    # protection: partial-is-not-success
    return {"SUCCEEDED": SUCCESS, "PARTIAL": PARTIAL}.get(record["status"], FAILURE)


# -- options ---------------------------------------------------------------------------------------------

_WHAT, _WHICH, _HOW, _GLOBAL = "What is done", "Which tasks", "How the work is done", "Global options"
_SAME = "that job's"
_WIDTH = {"max_content_width": 100}


class Option(click.Option):
    """An option under a heading of the help; `field` is the path in a job's input that it spells."""

    def __init__(self, *names: Any, group: str = "Options", field: str | None = None, **more: Any):
        if field is not None:
            more |= {"expose_value": False, "callback": _take}
        super().__init__(*names, **more)
        self.group, self.field = group, field


class Command(click.Command):
    """A command whose help has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in sorted(self.get_params(ctx), key=lambda param: getattr(param, "group", _GLOBAL) == _GLOBAL):
            if isinstance(param, click.Option) and (line := param.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(param, "group", _GLOBAL), []).append(line)
        for title, lines in groups.items():
            with formatter.section(title):
                formatter.write_dl(lines)


def _take(context: click.Context, param: click.Parameter, value: Any) -> None:
    """Put an option that was given into the job's input, at its field."""
    if context.get_parameter_source(str(param.name)) is not ParameterSource.COMMANDLINE:
        return
    assert isinstance(param, Option)
    owner, _, name = str(param.field).rpartition(".")
    target = context.obj.job.setdefault(owner, {}) if owner else context.obj.job
    if name in target:
        raise click.UsageError(f"{param.opts[0]} names a second source: give one of --source, --csv, --failed-in.")
    if param.multiple and len(dict(value)) < len(value):
        raise click.BadParameter("a name is given twice.", context, param)
    target[name] = dict(value) if param.multiple else value


def _take_global(context: click.Context, param: click.Parameter, value: Any) -> None:
    if value and context.obj is not None:
        setattr(context.obj, str(param.name), value)


Decorator = Callable[[Any], Any]


def _together(*decorators: Decorator) -> Decorator:
    return lambda function: reduce(lambda so_far, decorator: decorator(so_far), reversed(decorators), function)


option = partial(click.option, cls=Option)
_global_option = partial(option, group=_GLOBAL, expose_value=False, callback=_take_global)


def field(name: str, path: str, metavar: str, text: str, read: Any = str, group: str = _WHICH) -> Decorator:
    """An option that spells a field of a job's input."""
    is_many = path == "params"
    return option(name, field=path, metavar=metavar, help=text, type=read, group=group, multiple=is_many)


def command(group: click.Group, name: str) -> Decorator:
    """Make a function a command with the global options: it gets the App, and gives the exit code, or None for 0."""
    return _together(group.command(name, cls=Command, context_settings=_WIDTH), click.pass_obj, global_options)


def _number(text: str) -> int | float:
    value = _json_or_text(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise click.BadParameter(f"{text!r} is not a number.")
    return value


def _nullable(text: str) -> int | float | None:
    return None if text == "null" else _number(text)


def _job_id(text: str) -> str:
    if not JOB_ID.fullmatch(text):
        raise click.BadParameter(f"{text!r} is no job id: 1 to 80 of A-Z, a-z, 0-9, _ and -.")
    return text


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE.")
    return name, _json_or_text(value)


def _json_or_text(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return text


def read_json(text: str | bytes) -> Any:
    """Raises ValueError also for what Python would take and JSON has not: NaN, infinities, numbers beyond a double."""
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    return value


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_KIND_HELP = "A kind to deploy beside the project's, repeatable."
_LAMBDAS_HELP = "Folder of functions and kinds to deploy (default: the project's)."
_INPUT_HELP = "The job's whole input as JSON (- reads standard input); options beside it replace its fields."
_ID_HELP = "The job's id (default: made from the time). The same id and input start the job only once."
_URL_HELP = (
    "The API of a deployed stack, its output ApiUrl (default: FANOUT_API_URL). With it, the only permission "
    "needed is execute-api:Invoke."
)
global_options = _together(
    _global_option("--stack", metavar="NAME", help="A deployed stack instead of the embedded AWS."),
    _global_option("--region", metavar="REGION", help="Its region (default: that of your AWS settings)."),
    _global_option("--api-url", metavar="URL", help=_URL_HELP),
    _global_option("--json", "is_json", is_flag=True, help="Print one JSON document on standard output."),
)
job_argument = click.argument("job", metavar="JOB", type=_job_id, help="The job's id, as `fanout jobs` shows it.")
filter_options = _together(
    field("--is-complete", "filter.isComplete", "true|false", "Only complete, or only open tasks.", bool),
    field("--due-before", "filter.dueBefore", "TIME", "Only tasks due before: ISO 8601 with a zone."),
    field("--due-after", "filter.dueAfter", "TIME", "Only tasks due then or after: ISO 8601 with a zone."),
)
start_options = _together(
    option("--job-id", type=_job_id, metavar="ID", help=_ID_HELP),
    option("--detach", is_flag=True, help="Do not wait for the job's end."),
)


def how_options(size: str, bound: str, tolerance: str, rate: str, cost: str) -> Decorator:
    """The options of how a job works, with what their help says is the default."""
    tolerated = f"Of more tasks that do not succeed, the job fails (default: {tolerance})."
    return _together(
        field("--shard-size", "shardSize", "N", f"Tasks in a shard (default: {size}).", _number, _HOW),
        field("--max-concurrency", "maxConcurrency", "N", f"Most workers (default: {bound}).", _number, _HOW),
        field("--tolerated-failure-percentage", "toleratedFailurePercentage", "PERCENT", tolerated, _number, _HOW),
        field("--tasks-per-second", "tasksPerSecond", "N", f"Rate limit (default: {rate}).", _nullable, _HOW),
        field("--max-cost-usd", "maxCostUsd", "USD", f"Most estimated cost (default: {cost}).", _nullable, _HOW),
    )


# -- commands --------------------------------------------------------------------------------------------


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], **_WIDTH},
    epilog="`fanout COMMAND --help` has examples. Exit codes: 0 done, 1 not done, 2 wrong usage, 3 PARTIAL.",
)
@global_options
@click.version_option(package_name="fanout", message="fanout %(version)s")
def cli() -> None:
    """Jobs over every task of a Task Service: start, watch, stop and retry them."""


@command(cli, "up")
@option("--port", type=click.IntRange(1, 65_535), metavar="PORT", help="Port to listen on (default: a free one).")
@option("--kind", "kinds", type=_FILE, multiple=True, metavar="FILE.py", help=_KIND_HELP)
@option("--lambdas", type=_FOLDER, metavar="FOLDER", help=_LAMBDAS_HELP)
def up(app: App, port: int | None, kinds: tuple[Path, ...], lambdas: Path | None) -> None:
    """Start an embedded AWS and deploy Fan Out to it.

    It listens on 127.0.0.1 only and keeps its state until `fanout down`. A kind that cannot be imported is refused, by
    its file and line, before anything is deployed.

    \b
    $ fanout up                            on a free port
    $ fanout up --port 4566 --json         print where everything is, as JSON
    $ fanout up --kind ../my/kind.py       with a kind beside the project's
    $ fanout up --lambdas ../my/lambdas    with the functions and kinds of another folder
    """
    from fanout import local, project
    from fanout.check import check_kinds

    if kinds and lambdas:
        raise click.UsageError("--kind and --lambdas exclude each other.")
    for kind in kinds:
        if kind.suffix != ".py" or not kind.stem.isidentifier() or kind.stem.startswith("_"):
            raise click.UsageError(f"{kind} is no file of a kind: its name must be that of a Python module.")
    home = app.home()
    was_up = local.read(home) is not None
    if kinds:
        with local.private_files():
            lambdas = project.with_kinds(home, kinds)
    check_kinds(lambdas or project.LAMBDAS, kinds)
    at = local.up(home, port=port, lambdas=lambdas, say=app.screen.note)
    if app.is_json:
        names = ("endpointUrl", "region", "apiUrl", "stateMachineArn", "bucketName", "taskTableName")
        written = json.loads((home / "local.json").read_text(encoding="utf-8"))
        app.screen.json({name: written[name] for name in names})
    app.screen.say(f"Fan Out {'was' if was_up else 'is'} up on {at.endpoint_url}.", "green")
    app.screen.advise("  Import tasks:  ", "tasks", "import", "FILE.csv")
    app.screen.advise("  Today's plan:  ", "run")
    app.screen.advise("  Stop it:       ", "down")


@command(cli, "down")
def down(app: App) -> None:
    """Stop the embedded AWS and delete its state.

    \b
    $ fanout down
    """
    from fanout import local

    home = app.home()
    was_up = local.down(home)
    app.screen.json({"wasUp": was_up})
    app.screen.say("Fan Out is down." if was_up else f"Nothing was up in {home}.")


@cli.group()
def tasks() -> None:
    """Import and list tasks of the Task Service."""


@command(tasks, "import")
@click.argument("file", metavar="FILE.csv", help="The CSV file; - reads standard input.")
@how_options("2000", "40", "100", "none", "none")
@start_options
def tasks_import(app: App, file: str, job_id: str | None, detach: bool) -> int:
    """Create a task from each row of a CSV file.

    Columns: title, and optionally detail, dueAt, isComplete, in any order, under a header. Valid rows are imported;
    rejected rows are named by number (the header is row 1) and reason. Exit code 3: some rows were rejected.

    \b
    $ fanout tasks import tasks.csv
    $ python -m fanout.sample 1000 | fanout tasks import -    1,000 sample tasks
    """
    client = app.client
    with click.open_file(file, "rb") as content:
        source = client.upload(content)
    job = {"kind": "import-tasks", "source": source, "toleratedFailurePercentage": 100, **app.job}
    record = app.followed(lambda new_id: client.start(job, new_id), job_id, detach)
    if record is None:
        return SUCCESS
    found = client.failures(record["jobId"]) if "failuresUrl" in record else {}
    lines = client.lines(client.link(found, "failuresUrl", client.failures)) if found else ()
    record["rejected"] = [json.loads(line) for line in islice(lines, _ROWS_SHOWN)]
    app.screen.record(record)
    app.screen.imported(record)
    return exit_code(record)


@command(tasks, "list")
@filter_options
@option("--limit", type=click.IntRange(1), metavar="N", help="At most N tasks (default: all).")
def tasks_list(app: App, limit: int | None) -> None:
    """List tasks, page by page, in no particular order.

    \b
    $ fanout tasks list --limit 20
    $ fanout tasks list --is-complete false --due-before 2026-12-01T00:00:00Z
    $ fanout tasks list --json > tasks.json
    """
    app.screen.entries("tasks", app.client.tasks(app.job.get("filter", {}), limit), app.screen.tasks)


@command(cli, "run")
@field("--kind", "kind", "KIND", "Kind of job (default: daily-plan).", group=_WHAT)
@field("--param", "params", "NAME=VALUE", "A parameter, repeatable; VALUE is JSON or text.", _param, _WHAT)
@field("--source", "source", "SOURCE", "`tasks`, the whole Task Service (default), or JSON.", _json_or_text)
@field("--csv", "source", "KEY", "Rows of an uploaded CSV, such as uploads/NAME.csv.", lambda key: {"csv": key})
@field("--failed-in", "source", "JOB", "What did not succeed in that job.", lambda job: {"failedIn": _job_id(job)})
@filter_options
@how_options("500, or what the kind says", "40", "5", "none", "none")
@option("--input", "file", metavar="FILE.json", help=_INPUT_HELP)
@start_options
def run(app: App, file: str | None, job_id: str | None, detach: bool) -> int:
    """Start a job and follow it to its result.

    Without any option it is today's plan. Exit code 0: SUCCEEDED. 3: PARTIAL, some tasks did not succeed, within the
    tolerance. 1: FAILED or STOPPED, or the input was refused.

    \b
    $ fanout run                                 today's plan over all open tasks, in UTC
    $ fanout run --param timeZone=Europe/Zurich --param top=10
    $ fanout run --kind reschedule-overdue --tasks-per-second 100
    $ fanout run --input job.json --json         the job record as JSON
    """
    job = app.job if file is None else _laid_over(file, app.job)
    return app.started(lambda new_id: app.client.start(job, new_id), job_id, detach)


@command(cli, "jobs")
@option("--limit", type=click.IntRange(1), default=20, metavar="N", help="At most N jobs (default: 20).")
@option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only jobs of this status.")
def jobs(app: App, limit: int, status: str | None) -> None:
    """List jobs, newest first.

    \b
    $ fanout jobs --status FAILED
    $ fanout jobs --limit 500 --json
    """
    app.screen.entries("jobs", app.client.jobs(limit, status), app.screen.jobs)


@command(cli, "status")
@job_argument
@option("--follow", is_flag=True, help="Follow the job to its end.")
def status(app: App, job: str, follow: bool) -> int:
    """Show a job's progress, or how it ended.

    The counts of outcomes are known once the job has ended. With --follow, exit codes are those of `fanout run`.

    \b
    $ fanout status 20261123-101502-ab12cd --follow
    """
    record = app.client.record(job)
    if follow:
        return app.show(app.follow(job))
    app.screen.record(record)
    return SUCCESS


@command(cli, "result")
@job_argument
@option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Download the whole result to FILE.")
@option("--all", "whole", is_flag=True, help="Print the whole result.")
def result(app: App, job: str, output: Path | None, whole: bool) -> None:
    """Show the result of a job that has ended.

    Without an option it is the summary. The whole result, for a daily plan every open task in order, is JSON lines.

    \b
    $ fanout result 20261123-101502-ab12cd
    $ fanout result 20261123-101502-ab12cd --output plan.jsonl
    $ fanout result 20261123-101502-ab12cd --all | head
    """
    if output is not None and whole:
        raise click.UsageError("--output and --all exclude each other.")
    client, screen = app.client, app.screen
    found = client.result(job)
    if output is not None:
        client.download(client.link(found, "resultUrl", client.result), output)
        screen.json({"jobId": job, "output": str(output)})
        screen.say(screen.safe(f"Wrote {output}."))
    elif whole:
        lines = map(json.loads, client.lines(client.link(found, "resultUrl", client.result)))
        screen.entries("lines", lines, screen.json_lines, {"jobId": job, "result": found["result"]})
    elif app.is_json:
        screen.json(found["result"])
    else:
        app.show(client.record(job))


@command(cli, "failures")
@job_argument
@option("--all", "whole", is_flag=True, help="Every failed, quarantined or unprocessed task, as JSON lines.")
def failures(app: App, job: str, whole: bool) -> None:
    """Show what failed in a job, grouped by reason.

    Below it is the command that retries exactly that.

    \b
    $ fanout failures 20261123-101502-ab12cd
    $ fanout failures 20261123-101502-ab12cd --all > failures.jsonl
    """
    client, screen = app.client, app.screen
    found = client.failures(job)
    if whole:
        lines = client.lines(client.link(found, "failuresUrl", client.failures)) if "failuresUrl" in found else ()
        screen.entries("failures", map(json.loads, lines), screen.json_lines, {"jobId": job})
    elif app.is_json:
        screen.json({**found, "retryCommand": screen.command("retry", job) if "retryRequest" in found else None})
    else:
        screen.failures(found)


@command(cli, "retry")
@job_argument
@how_options(_SAME, _SAME, "as many tasks as that job tolerated", _SAME, _SAME)
@start_options
def retry(app: App, job: str, job_id: str | None, detach: bool) -> int:
    """Start a job over what did not succeed in a job.

    It is of the same kind, with the same parameters. What succeeded is not processed again.

    \b
    $ fanout retry 20261123-101502-ab12cd
    $ fanout retry 20261123-101502-ab12cd --tasks-per-second 20    more slowly this time
    """
    return app.started(lambda new_id: app.client.retry(job, app.job, new_id), job_id, detach)


@command(cli, "stop")
@job_argument
def stop(app: App, job: str) -> None:
    """Stop a running job and show its final record.

    Tasks that no worker reached are counted as unprocessed; `fanout retry` processes them.

    \b
    $ fanout stop 20261123-101502-ab12cd
    """
    app.screen.record(app.client.stop(job))


@cli.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", metavar="COMMAND...", nargs=-1, type=click.UNPROCESSED, help="What the CDK's CLI gets.")
def cdk(words: tuple[str, ...]) -> int:
    """Run the AWS CDK on this stack.

    \b
    $ fanout cdk bootstrap                            once per account and region
    $ fanout cdk deploy --require-approval never      deploy the stack without asking
    $ fanout cdk destroy                              delete it; task table and bucket stay
    """
    from fanout.project import cdk as run_cdk

    return run_cdk(list(words))


@cli.command(cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS), help="bash, zsh or fish.")
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    $ fanout completion bash >> ~/.bashrc
    $ fanout completion zsh >> ~/.zshrc
    $ fanout completion fish > ~/.config/fish/completions/fanout.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    sys.stdout.write(script(cli, {}, "fanout", COMPLETE).source() + "\n")


# -- running ---------------------------------------------------------------------------------------------


def main(
    argv: Sequence[str] | None = None, connect: Connect | None = None, *, is_last: bool = True, advises: bool = True
) -> int:
    """Run one command; its exit code.

    `connect` finds the API that the options name. If this command is not the `is_last` thing that the program does,
    ctrl-C goes through to the caller. Without `advises`, no command to go on with is shown.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character must not end a command half-way.
            stream.reconfigure(errors="backslashreplace")
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(cli, {}, "fanout", COMPLETE, instruction)
    app = App(connect, advises=advises)
    try:
        with cli.make_context("fanout", list(sys.argv[1:] if argv is None else argv), obj=app) as context:
            code: int = cli.invoke(context) or SUCCESS
        sys.stdout.flush()
        return code
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        # Nothing more can be written; the interpreter must not try at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except click.UsageError as error:
        shown = StringIO()
        error.show(shown)
        sys.stderr.write("\n".join(map(app.screen.safe, shown.getvalue().split("\n"))))
        return USAGE
    except KeyboardInterrupt:
        if not is_last:
            raise
        if app.following is None:
            app.screen.note("\nInterrupted.")
        else:
            app.screen.json({"jobId": app.following, "status": "RUNNING"})
            app.screen.note("")
            app.goes_on()
        return INTERRUPTED
    except Exception as error:
        return _failed(app, error)


def _failed(app: App, error: Exception) -> int:
    """Say an error that a sentence explains; any other is a fault of this program and is raised."""
    from fanout.client import FanOutClientError
    from fanout.screen import ShownError, error_document

    cause = error.__cause__ if isinstance(error, ShownError) else error
    # Those of the embedded AWS are known by their modules, which other commands need not import.
    is_local = type(cause).__module__.startswith(("fanout.check", "fanout.local"))
    if not is_local and not isinstance(cause, FanOutClientError | OSError):
        raise error
    sentence = str(cause)
    if isinstance(cause, OSError) and cause.filename is not None and cause.strerror:
        sentence = f"{cause.filename}: {cause.strerror}."
    if app.is_json and not isinstance(error, ShownError):
        app.screen.json(error_document(error, sentence))
    app.screen.note(app.screen.safe(f"fanout: {sentence}"), style="red")
    app.goes_on()
    return FAILURE


def _laid_over(path: str, given: dict[str, Any]) -> dict[str, Any]:
    """The input in a file, with the fields that were given; of `params` and `filter`, the members that were given."""
    with click.open_file(path, "rb") as file:
        content = file.read()
    try:
        base = read_json(content)
    except ValueError as error:
        raise click.UsageError(f"{path} is not JSON: {error}.") from None
    if not isinstance(base, dict):
        raise click.UsageError(f"{path} must hold a JSON object, the input of a job.")
    for name in ("params", "filter"):
        if isinstance(base.get(name), dict) and name in given:
            given = {**given, name: {**base[name], **given[name]}}
    return {**base, **given}


if __name__ == "__main__":
    sys.exit(main())
