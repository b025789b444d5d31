from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from fan_out.model.job_input import JobInput, TaskFilter, read_input
from fanout import cli
from fanout.client import Deployment, FanOut
from tests.unit.cli.conftest import Run, record_of, running
from tests.unit.cli.fake_api import BREAK, FakeApi, problem

COMMANDS = {
    "up", "down", "tasks import", "tasks list", "run", "jobs", "status", "result", "failures", "retry", "stop",
    "cdk", "completion",
}  # fmt: skip
# The functions that print: capsys.
Output = pytest.CaptureFixture[str]


def commands(group: click.Group = cli.cli, words: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from commands(each, f"{words}{name} ")
        else:
            yield words + name, each


def parsed(*argv: str, command: click.Command = cli.run) -> dict[str, Any]:
    app = cli.App()
    command.make_context("run", list(argv), obj=app)
    return app.job


def examples(command: click.Command) -> list[str]:
    return re.findall(r"^ *\$ (.*?)(?:   .*)?$", command.help or "", re.MULTILINE)


def test_these_are_the_commands() -> None:
    assert {name for name, _ in commands()} == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_examples_that_parse(name: str) -> None:
    command = dict(commands())[name]
    assert examples(command)
    for example in examples(command):
        (call,) = (part for part in re.split(r"[|>]+", example) if part.split()[0] == "fanout")
        words = shlex.split(call)[1:]
        assert " ".join(words).startswith(name)
        # Files of the reader's own are not here.
        rest = shlex.split(re.sub(r"--\w+ \.\./\S+", "", " ".join(words[len(name.split()) :])))
        command.make_context(name, rest, obj=cli.App())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_and_argument_says_what_it_is_for(name: str) -> None:
    command = dict(commands())[name]
    assert command.get_short_help_str(60)[-1] == "."
    assert not command.get_short_help_str(60).endswith("..."), "the summary is too long for the list of commands"
    for param in command.params:
        assert getattr(param, "help", None), param


def test_run_has_an_option_for_every_field_of_the_input() -> None:
    fields = {field.alias or name for name, field in JobInput.model_fields.items()} - {"Comment", "filter"}
    fields |= {f"filter.{field.alias or name}" for name, field in TaskFilter.model_fields.items()}
    assert {param.field for param in cli.run.params if isinstance(param, cli.Option) and param.field} == fields


def test_the_options_spell_a_jobs_input() -> None:
    given = parsed(
        *("--kind", "reschedule-overdue", "--param", "timeZone=Europe/Zurich", "--param", "top=3"),
        *("--is-complete", "false", "--due-before", "2026-12-01T00:00:00Z"),
        *("--due-after", "2026-11-01T00:00:00+01:00", "--shard-size", "250", "--max-concurrency", "8"),
        *("--tolerated-failure-percentage", "2.5", "--tasks-per-second", "100", "--max-cost-usd", "null"),
    )
    assert given == {
        "kind": "reschedule-overdue",
        "params": {"timeZone": "Europe/Zurich", "top": 3},
        "filter": {
            "isComplete": False,
            "dueBefore": "2026-12-01T00:00:00Z",
            "dueAfter": "2026-11-01T00:00:00+01:00",
        },
        "shardSize": 250,
        "maxConcurrency": 8,
        "toleratedFailurePercentage": 2.5,
        "tasksPerSecond": 100,
        "maxCostUsd": None,
    }
    read_input(given)


@pytest.mark.parametrize(
    ("options", "source"),
    [
        (["--source", "tasks"], "tasks"),
        (["--source", '{"csv": "uploads/x.csv"}'], {"csv": "uploads/x.csv"}),
        (["--csv", "uploads/x.csv"], {"csv": "uploads/x.csv"}),
        (["--failed-in", "some-job"], {"failedIn": "some-job"}),
    ],
)
def test_the_source_is_named_in_one_of_three_ways(options: list[str], source: Any) -> None:
    assert parsed(*options) == {"source": source}
    read_input(parsed(*options))


def test_what_is_not_given_is_left_to_the_jobs_defaults() -> None:
    assert parsed() == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("[1]", [1]),
        ("a=b", "a=b"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("", ""),
    ],
)
def test_a_parameter_is_json_or_else_text(text: str, value: Any) -> None:
    assert parsed("--param", f"x={text}") == {"params": {"x": value}}


@pytest.mark.parametrize(
    "argv",
    [
        "",
        "nonsense",
        "tasks",
        "run --nonsense",
        "run --param x",
        "run --param =1",
        "run --param x=1 --param x=2",
        "run --csv a --failed-in b",
        "run --shard-size many",
        "run --shard-size true",
        "run --tasks-per-second Infinity",
        "run --is-complete perhaps",
        "run --job-id a/b",
        "run --stack X --api-url https://x",
        "status",
        "status ../../x",
        "status \x1b[2J",
        "jobs --limit 0",
        "jobs --status DONE",
        "up --port 70000",
        "up --lambdas /nowhere",
        "up --kind /nowhere.py",
        "up --kind /dev/null",
        "up --kind fanout/cli.py --lambdas fanout",
        "up --kind fanout/__init__.py",
        "up --stack X",
        "down --api-url https://x",
        "result j --all --output x",
        "run --input /dev/null",
        "completion tcsh",
    ],
)
def test_wrong_usage_exits_2(argv: str, api: FakeApi, fanout: Run, capsys: Output) -> None:
    assert fanout(*argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err
    assert "\x1b" not in err
    assert api.requests == []


@pytest.mark.parametrize("argv", ["--help", "-h", "run --help", "tasks import --help", "--version", "cdk --help"])
def test_help_exits_0(argv: str, fanout: Run, capsys: Output) -> None:
    assert fanout(*argv.split()) == 0
    assert "fanout" in capsys.readouterr().out


# -- run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("PARTIAL", 3), ("FAILED", 1), ("STOPPED", 1)])
def test_run_prints_the_record_and_exits_by_its_status(
    status: str, code: int, api: FakeApi, fanout: Run, capsys: Output
) -> None:
    api.script = [running(), record_of(status=status)]
    assert fanout("run", "--json", "--job-id", "my") == code
    assert json.loads(capsys.readouterr().out) == record_of("my", status)


def test_a_refused_job_exits_1_with_its_sentence(api: FakeApi, fanout: Run, capsys: Output) -> None:
    assert fanout("run", "--shard-size", "0") == 1
    out, err = capsys.readouterr()
    assert (out, api.jobs) == ("", {})
    assert err == "fanout: shardSize is 0, but must be a whole number from 1 to 10,000.\n"
    assert fanout("run", "--shard-size", "0", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["name"], error["errors"][0]["field"]) == ("InvalidJobError", "shardSize")


def test_options_replace_the_fields_of_an_input_file(api: FakeApi, fanout: Run, tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"Comment": "x", "shardSize": 7, "params": {"a": 1, "b": 2}}))
    assert fanout("run", "--input", str(path), "--job-id", "j", "--param", "b=3") == 0
    assert api.inputs["j"] == {"Comment": "x", "shardSize": 7, "params": {"a": 1, "b": 3}}


def test_ctrl_c_leaves_the_job_running(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.script = [running()]

    def interrupt() -> None:
        while len(api.requests) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert fanout("run", "--json", "--job-id", "j") == 130
    out, err = capsys.readouterr()
    assert json.loads(out) == {"jobId": "j", "status": "RUNNING"}
    assert "fanout stop j" in err
    assert api.named("DELETE", ".*") == []


def test_a_detached_job_is_started_and_left_alone(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.script = [running()]
    assert fanout("run", "--detach", "--json", "--job-id", "j") == 0
    assert json.loads(capsys.readouterr().out) == {"jobId": "j", "status": "RUNNING"}
    assert len(api.requests) == 1
    assert fanout("run", "--detach") == 0
    assert "Follow it: fanout status " in capsys.readouterr().out


def test_a_job_that_ran_before_is_said_to_have(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.faults = [(202, {"jobId": "j", "executionArn": "arn:x", "status": "SUCCEEDED"}, {})]
    api.jobs["j"] = [record_of()]
    assert fanout("run", "--job-id", "j") == 0
    assert "started before; nothing new is started" in capsys.readouterr().err


def test_a_lost_connection_is_said_and_survived(api: FakeApi, fanout: Run, capsys: Output, there: FanOut) -> None:
    api.script = [running()] * 3 + [record_of()]
    api.faults = [None, None, *[BREAK] * 7]
    assert fanout("run") == 0
    out, err = capsys.readouterr()
    assert "SUCCEEDED" in out
    assert "does not answer" in err
    assert "The job goes on; trying again." in err


def test_a_start_without_an_answer_may_have_started(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.faults = [BREAK] * 99
    assert fanout("run", "--job-id", "j") == 1
    err = capsys.readouterr().err
    assert "Job j may have been started." in err
    assert "fanout status j --follow" in err


def test_an_outage_says_how_to_get_back(api: FakeApi, fanout: Run, capsys: Output, there: FanOut) -> None:
    there._outage = 0
    api.script = [running()]
    api.faults = [None, None, *[BREAK] * 99]
    assert fanout("run", "--job-id", "j") == 1
    assert "fanout status j --follow" in capsys.readouterr().err


# -- the others ------------------------------------------------------------------------------------------


def test_an_unknown_job_is_a_sentence_and_a_document(fanout: Run, capsys: Output) -> None:
    assert fanout("status", "nope", "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["name"] == "JobNotFoundError"
    assert err == 'fanout: There is no job "nope". `fanout jobs` lists the jobs there are.\n'


def test_status_follows_a_job_to_its_end(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.jobs["j"] = [running(), running(), record_of(status="PARTIAL", failed=1)]
    assert fanout("status", "j") == 0
    assert "Job j (import-tasks): RUNNING\n  1,000 tasks in 4 shards: 2 worked on\n" in capsys.readouterr().out
    assert fanout("status", "j", "--follow", "--json") == 3
    assert json.loads(capsys.readouterr().out)["status"] == "PARTIAL"


def test_a_job_is_stopped(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.jobs["j"] = [running()]
    assert fanout("stop", "j", "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "STOPPED"


def test_a_retry_has_the_changes_and_shows_its_result(api: FakeApi, fanout: Run, capsys: Output) -> None:
    assert fanout("retry", "old", "--shard-size", "10", "--job-id", "new") == 0
    assert api.inputs["new"] == {"source": {"failedIn": "old"}, "shardSize": 10}
    assert "A retry of job old." in capsys.readouterr().out


def failed_job(api: FakeApi, failures: int = 7, job_id: str = "j") -> None:
    """A job whose import rejected rows."""
    lines = [
        {
            "task": {"row": row, "fields": {"title": "\x1b[2J"}},
            "outcome": "failed",
            "error": {"name": "InvalidTaskError", "message": f"title is wrong \x1b[2J{row}"},
        }
        for row in range(2, 2 + failures)
    ]
    api.objects[f"{job_id}/failures"] = "\n".join(map(json.dumps, lines)).encode()
    group = {"outcome": "failed", "error": "InvalidTaskError", "message": "title is wrong \x1b[2J<n>"}
    samples = [{"task": "row-2", "message": "title is wrong \x1b[2J2", "shard": 0}]
    api.digests[job_id] = [{**group, "count": failures, "samples": samples}]
    url = "https://bucket/failures"
    api.jobs[job_id] = [record_of(job_id, "PARTIAL", failed=failures, failuresUrl=url)]


def test_failures_are_a_table_and_the_retry(api: FakeApi, fanout: Run, capsys: Output) -> None:
    failed_job(api)
    assert fanout("failures", "j") == 0
    assert capsys.readouterr().out.splitlines() == [
        "7 tasks of job j did not succeed:",
        "TASKS  OUTCOME  ERROR             MESSAGE",
        "    7  failed   InvalidTaskError  title is wrong \\x1b[2J<n>",
        "                                  row-2: title is wrong \\x1b[2J2",
        "Each of them, as JSON lines: fanout failures j --all",
        "Retry only these:            fanout retry j",
    ]
    assert fanout("failures", "j", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["digest"][0]["count"] == 7
    assert document["retryCommand"] == "fanout retry j"


def test_all_failures_are_lines_that_no_terminal_obeys(api: FakeApi, fanout: Run, capsys: Output) -> None:
    failed_job(api)
    assert fanout("failures", "j", "--all") == 0
    out = capsys.readouterr().out
    assert [json.loads(line)["task"]["row"] for line in out.splitlines()] == list(range(2, 9))
    assert "\x1b" not in out
    assert fanout("failures", "j", "--all", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["failures"]) == 7


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (running(), "What failed is known when it has ended."),
        (record_of(), "No failure of job j is recorded."),
        (record_of(status="STOPPED"), "Retry all of it: fanout retry j"),
    ],
)
def test_a_job_without_failures_says_why(
    record: dict[str, Any], said: str, api: FakeApi, fanout: Run, capsys: Output
) -> None:
    api.jobs["j"] = [record]
    assert fanout("failures", "j") == 0
    assert said in capsys.readouterr().out
    assert fanout("failures", "j", "--all", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"failures": [], "jobId": "j"}


def test_an_import_uploads_and_names_the_rejected_rows(
    api: FakeApi, fanout: Run, tmp_path: Path, capsys: Output
) -> None:
    failed_job(api)
    path = tmp_path / "tasks.csv"
    path.write_text("title\nx\n")
    assert fanout("tasks", "import", str(path), "--job-id", "j", "--max-concurrency", "2") == 3
    assert api.objects["uploads/u.csv"] == b"title\nx\n"
    assert api.inputs["j"] == {
        "kind": "import-tasks",
        "source": {"csv": "uploads/u.csv"},
        "toleratedFailurePercentage": 100,
        "maxConcurrency": 2,
    }
    out = capsys.readouterr().out
    assert "Imported 993 rows, rejected 7." in out
    assert "  Row 2: title is wrong \\x1b[2J2" in out
    assert "  … and 2 more: fanout failures j --all" in out
    assert fanout("tasks", "import", str(path), "--job-id", "j", "--max-concurrency", "2", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], len(document["rejected"])) == ("PARTIAL", 5)


def test_an_import_of_a_missing_file_starts_nothing(api: FakeApi, fanout: Run, capsys: Output) -> None:
    assert fanout("tasks", "import", "/nowhere/tasks.csv") == 1
    assert capsys.readouterr().err == "fanout: /nowhere/tasks.csv: No such file or directory.\n"
    assert api.requests == []


def test_a_result_is_downloaded_or_printed(api: FakeApi, fanout: Run, tmp_path: Path, capsys: Output) -> None:
    plan = b'{"id":"a","title":"\\u001b[2J"}\n{"id":"b","title":"\xc2\x9b2J"}\n'
    api.jobs["j"], api.objects["j/result"] = [record_of()], plan
    path = tmp_path / "plan.jsonl"
    assert fanout("result", "j", "--output", str(path)) == 0
    assert path.read_bytes() == plan
    assert capsys.readouterr().out == f"Wrote {path}.\n"
    assert fanout("result", "j", "--all") == 0
    out = capsys.readouterr().out
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["a", "b"]
    assert "\x9b" not in out
    assert fanout("result", "j", "--all", "--json") == 0
    assert [line["id"] for line in json.loads(capsys.readouterr().out)["lines"]] == ["a", "b"]
    assert fanout("result", "j", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"imported": 1000}
    assert fanout("result", "j") == 0
    assert '{"imported": 1000}' in capsys.readouterr().out


def test_a_job_without_a_result_exits_1(api: FakeApi, fanout: Run, tmp_path: Path, capsys: Output) -> None:
    api.jobs["j"] = [running()]
    assert fanout("result", "j", "--output", str(tmp_path / "plan.jsonl")) == 1
    assert "has no result yet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_result_without_a_file_exits_1(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.faults = [(200, {"jobId": "j", "result": 1}, {})]
    assert fanout("result", "j", "--all") == 1
    assert capsys.readouterr().err == "fanout: Job j has no such file.\n"


def test_jobs_are_a_table_or_one_document(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.jobs = {"first": [record_of("first")], "second": [record_of("second", "FAILED")]}
    assert fanout("jobs") == 0
    assert capsys.readouterr().out.splitlines() == [
        "JOB     KIND          STATUS     STARTED               TOOK  TASKS",
        "second  import-tasks  FAILED     2026-11-23T10:15:02Z  12 s  1,000",
        "first   import-tasks  SUCCEEDED  2026-11-23T10:15:02Z  12 s  1,000",
    ]
    assert fanout("jobs", "--status", "failed", "--json") == 0
    assert [job["jobId"] for job in json.loads(capsys.readouterr().out)["jobs"]] == ["second"]


def test_tasks_are_a_table_or_one_document(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.tasks = [
        {"id": "a", "title": "Pay \x1b[2J rent", "dueAt": "2026-11-23T10:15:00Z", "isComplete": True},
        {"id": "b", "title": "いつか", "isComplete": False},
    ]
    assert fanout("tasks", "list", "--is-complete", "false") == 0
    assert capsys.readouterr().out.splitlines() == [
        "DUE                   STATE  ID                                    TITLE",
        "2026-11-23T10:15:00Z  done   a                                     Pay \\x1b[2J rent",
        "-                     open   b                                     いつか",
    ]
    assert api.requests[0].query == {"limit": "10000", "isComplete": "false"}
    assert fanout("tasks", "list", "--json", "--limit", "1") == 0
    assert [task["id"] for task in json.loads(capsys.readouterr().out)["tasks"]] == ["a"]


def test_a_list_that_breaks_off_is_one_document(api: FakeApi, fanout: Run, capsys: Output) -> None:
    api.tasks = [{"id": str(n)} for n in range(15_000)]
    api.faults = [None, problem(500, "InternalError", "The request failed on our side.")]
    assert fanout("tasks", "list", "--json") == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert len(document["tasks"]) == 10_000
    assert document["error"] == {"name": "InternalError", "message": "The request failed on our side."}
    assert err == "fanout: The request failed on our side.\n"


def test_a_reader_that_goes_away_ends_the_command_quietly(
    api: FakeApi, fanout: Run, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    failed_job(api)
    for argv in (["failures", "j", "--all"], ["failures", "j"], ["failures", "j", "--all", "--json"]):
        theirs, ours = os.pipe()
        os.close(theirs)
        with io.TextIOWrapper(os.fdopen(ours, "wb", buffering=0), write_through=True) as pipe:
            monkeypatch.setattr("sys.stdout", pipe)
            assert fanout(*argv) == 141
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


# -- where the API is -------------------------------------------------------------------------------------


def test_without_a_deployment_commands_say_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path))
    monkeypatch.delenv("FANOUT_API_URL", raising=False)
    for argv in (["run"], ["jobs"], ["tasks", "list"], ["tasks", "import", "x.csv"], ["status", "j"]):
        assert cli.main([*argv, "--json"]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["error"]["name"] == "NotUpError"
        assert "`fanout up`" in err


def test_the_api_is_found_by_home_variable_and_option(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACCESS_KEY_ID": "AKIDOWN", "SECRET_ACCESS_KEY": "test", "REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path))
    monkeypatch.delenv("FANOUT_API_URL", raising=False)
    local = {"apiUrl": api.url, "region": "us-east-1", "accessKeyId": "test", "secretAccessKey": "test"}
    (tmp_path / "local.json").write_text(json.dumps(local))
    assert cli.main(["jobs"]) == 0
    monkeypatch.setenv("FANOUT_API_URL", "http://127.0.0.1:1/v1")
    assert cli.main(["--api-url", api.url, "jobs", "--region", "us-west-2"]) == 0
    monkeypatch.setenv("FANOUT_API_URL", api.url)
    assert cli.main(["jobs"]) == 0
    credentials = [request.headers["Authorization"].split("/")[0::2] for request in api.requests]
    assert [key.rpartition("=")[2] for key, *_ in credentials] == ["test", "AKIDOWN", "AKIDOWN"]
    assert [request.headers["Authorization"].split("/")[2] for request in api.requests] == [
        "us-east-1",
        "us-west-2",
        "eu-west-1",
    ]


@pytest.mark.parametrize("options", [["--stack", "FanOut", "--region", "eu-west-1"], ["--api-url", "https://x/v1"]])
def test_a_deployment_is_named_again_in_shown_commands(options: list[str], there: FanOut, capsys: Output) -> None:
    assert cli.main(["run", *options, "--detach"], connect=lambda _: there) == 0
    assert f"fanout status {' '.join(options)} " in capsys.readouterr().out
    assert cli.main([*options, "run", "--detach"], connect=lambda _: there) == 0
    assert f"fanout status {' '.join(options)} " in capsys.readouterr().out


def test_down_where_nothing_is_up_is_done_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path / "none"))
    assert cli.main(["down", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"wasUp": False}


def test_cdk_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run_cdk(words: Sequence[str]) -> int:
        calls.append(list(words))
        return 7

    monkeypatch.setattr("fanout.project.cdk", run_cdk)
    assert cli.main(["cdk", "deploy", "-c", "removal=destroy", "--json", "--help"]) == 7
    assert calls == [["deploy", "-c", "removal=destroy", "--json", "--help"]]


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_a_shell_completes_commands_and_options(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert cli.main(["completion", shell]) == 0
    assert cli.COMPLETE in capsys.readouterr().out
    for words, expected in (("fanout re", "retry"), ("fanout run --shard", "--shard-size")):
        monkeypatch.setenv(cli.COMPLETE, f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", words.split()[-1] if shell == "fish" else str(len(words.split()) - 1))
        assert cli.main([]) == 0
        assert expected in capsys.readouterr().out
        monkeypatch.delenv(cli.COMPLETE)


def test_the_client_asks_the_api_and_its_links_only() -> None:
    source = Path(cli.__file__).with_name("client.py").read_text()
    assert re.findall(r'create_client\("(\w+)"\)', source) == ["cloudformation"]
    assert "boto3" not in source
    assert Deployment.__dataclass_fields__.keys() == {"api_url", "region", "keys"}
