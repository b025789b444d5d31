import argparse
import contextlib
import io
import json
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fan_out.model.job_input import JobInput, TaskFilter, read_input
from fanout import cli
from fanout.client import Deployment, FanOut, JobNotFoundError, new_job_id
from tests.support.emulator import Emulator
from tests.unit.cli.conftest import Put, Run, record_of

COMMANDS = {
    "up", "down", "tasks import", "tasks list", "run", "jobs", "status", "result", "failures", "retry", "stop",
}  # fmt: skip


def commands(
    parser: argparse.ArgumentParser, words: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield words.strip(), parser
    for action in nested:
        for name, child in action.choices.items():
            yield from commands(child, f"{words} {name}")


def parsed(*argv: str) -> dict[str, Any]:
    return cli.job_input(cli.make_parser().parse_args(["run", *argv]))


def test_these_are_the_commands() -> None:
    assert {name for name, _ in commands(cli.make_parser())} == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_describes_itself_and_has_an_example_that_parses(name: str) -> None:
    parser = dict(commands(cli.make_parser()))[name]
    assert parser.description
    assert parser.description[0].isupper()
    examples = re.findall(r"^  \$ (.*)$", parser.epilog or "", re.MULTILINE)
    assert examples
    for example in examples:
        (call,) = (part for part in re.split(r"[|>]", example) if part.split()[0] == "fanout")
        words = shlex.split(call)[1:]
        assert " ".join(words).startswith(name)
        cli.make_parser().parse_args(words)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_says_what_it_is_for(name: str) -> None:
    for action in dict(commands(cli.make_parser()))[name]._actions:
        assert action.help, action.option_strings


def test_run_has_an_option_for_every_field_of_a_jobs_input_and_for_no_other() -> None:
    fields = {field.alias or name for name, field in JobInput.model_fields.items()} - {"Comment", "filter"}
    fields |= {f"filter.{field.alias or name}" for name, field in TaskFilter.model_fields.items()}
    run = dict(commands(cli.make_parser()))["run"]
    assert {a.dest.removeprefix("job.") for a in run._actions if a.dest.startswith("job.")} == fields


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
def test_the_source_is_said_in_one_of_three_ways(options: list[str], source: Any) -> None:
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
        ("", ""),
    ],
)
def test_a_parameter_is_json_if_it_parses_as_such_else_text(text: str, value: Any) -> None:
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
        "status",
        "status ../../x",
        "jobs --limit 0",
        "up --port 70000",
        "result j --all --output x",
        "up --stack X",
        "run --input /dev/null",
    ],
)
def test_wrong_usage_exits_2(argv: str, fanout: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout(*argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err


@pytest.mark.parametrize("argv", ["--help", "run --help", "tasks import --help", "--version"])
def test_help_exits_0(argv: str, fanout: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout(*argv.split()) == 0
    assert "fanout" in capsys.readouterr().out


def end(how: str, **params: Any) -> list[str]:
    options = ["--param", f"end={how}"]
    for name, value in params.items():
        options += ["--param", f"{name}={json.dumps(value)}"]
    return options


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("PARTIAL", 3)])
def test_run_prints_the_record_as_one_document_and_tells_success_from_partial(
    status: str, code: int, fanout: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    record = record_of("j", status)
    assert fanout("run", "--json", *end("succeed", record=record)) == code
    assert json.loads(capsys.readouterr().out) == record


def test_a_refused_job_exits_1_with_its_sentence(fanout: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout("run", *end("fail", error="InvalidJobError", cause="shardSize is 0.")) == 1
    assert "InvalidJobError: shardSize is 0." in capsys.readouterr().out


def test_an_input_file_is_the_jobs_input_and_options_replace_its_fields(
    fanout: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.json"
    record = record_of("j")
    path.write_text(json.dumps({"Comment": "x", "params": {"end": "fail", "record": record}}))
    assert fanout("run", "--json", "--input", str(path), "--param", "end=succeed") == 0
    assert json.loads(capsys.readouterr().out) == record


def test_ctrl_c_leaves_the_job_running_and_says_how_to_stop_it(
    fanout: Run, client: FanOut, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = new_job_id()

    def interrupt() -> None:
        while True:
            with contextlib.suppress(JobNotFoundError):
                client.record(job_id)
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert fanout("run", "--json", "--job-id", job_id, *end("wait")) == 130
    out, err = capsys.readouterr()
    assert json.loads(out) == {"jobId": job_id, "status": "RUNNING"}
    assert f"fanout stop {job_id}" in err
    assert client.record(job_id)["status"] == "RUNNING"
    assert fanout("stop", "--json", job_id) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "STOPPED"


def test_a_detached_job_is_started_and_left_alone(fanout: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout("run", "--detach", "--json", *end("wait")) == 0
    started = json.loads(capsys.readouterr().out)
    assert started["status"] == "RUNNING"
    assert fanout("status", "--json", started["jobId"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "RUNNING"
    assert fanout("result", started["jobId"]) == 1
    assert fanout("stop", started["jobId"]) == 0


def test_an_unknown_job_is_a_sentence_and_an_error_document(
    fanout: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fanout("status", "nope", "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["name"] == "JobNotFoundError"
    assert err.startswith("fanout: There is no job nope")


def failed_job(put: Put, deployment: Deployment, failures: int) -> str:
    """A job whose import refused rows, with what such a job leaves in the bucket."""
    job_id = new_job_id()
    name = f"jobs/{job_id}/failures.jsonl"
    lines = [
        {
            "task": {"row": row, "fields": {"title": "\x1b[2J"}},
            "outcome": "failed",
            "error": {"name": "InvalidTaskError", "message": f"title is wrong \x1b[2J{row}"},
            "shard": 0,
            "attempts": 1,
        }
        for row in range(2, 2 + failures)
    ]
    put(name, "\n".join(json.dumps(line) for line in lines).encode())
    put(
        f"jobs/{job_id}/digest.json",
        [
            {
                "outcome": "failed",
                "error": "InvalidTaskError",
                "message": "title is wrong \x1b[2J<n>",
                "count": failures,
                "samples": [{"task": "row-2", "message": "title is wrong", "shard": 0}],
            }
        ],
    )
    url = f"s3://{deployment.bucket_name}/{name}"
    put(f"jobs/{job_id}/record.json", record_of(job_id, "PARTIAL", failed=failures, failuresUrl=url))
    return job_id


def test_failures_show_groups_first_and_the_command_that_retries(
    fanout: Run, put: Put, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = failed_job(put, deployment, 7)
    assert fanout("failures", job_id) == 0
    out = capsys.readouterr().out
    assert "        7  failed: InvalidTaskError: title is wrong \\x1b[2J<n>" in out
    assert "row-2: title is wrong" in out
    assert f"fanout retry {job_id}" in out
    assert "\x1b" not in out
    assert fanout("failures", job_id, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["digest"][0]["count"] == 7
    assert document["retryCommand"] == f"fanout retry {job_id}"


def test_all_failures_are_json_lines_that_no_terminal_obeys(
    fanout: Run, put: Put, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = failed_job(put, deployment, 7)
    assert fanout("failures", job_id, "--all") == 0
    out = capsys.readouterr().out
    assert [json.loads(line)["task"]["row"] for line in out.splitlines()] == list(range(2, 9))
    assert "\x1b" not in out
    assert fanout("failures", job_id, "--all", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["failures"]) == 7


def test_an_import_names_the_first_refused_rows_and_where_the_others_are(
    client: FanOut, put: Put, deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = failed_job(put, deployment, 7)
    started: list[Any] = []

    class Finished(FanOut):
        """Every job it starts is the one that was put there."""

        def _check_free(self, job_id: str) -> None:
            pass

        def start(self, job: Any, job_id: Any = None) -> Any:
            started.append(job)
            return super().start({"params": {"end": "fail", "error": "x", "cause": "y"}}, job_id)

    path = tmp_path / "tasks.csv"
    path.write_text("title\nx\n")
    finished = Finished(deployment, poll=0.02)
    argv = ["tasks", "import", str(path), "--job-id", job_id]
    assert cli.main(argv, connect=lambda _: finished) == 3
    out = capsys.readouterr().out
    assert started == [
        {
            "kind": "import-tasks",
            "source": {"csv": f"uploads/{job_id}.csv"},
            "toleratedFailurePercentage": 100,
        }
    ]
    assert list(client.lines(f"uploads/{job_id}.csv")) == [b"title", b"x"]
    assert "Took 993 rows, refused 7." in out
    assert "  Row 2: title is wrong \\x1b[2J2" in out
    assert f"  … and 2 more: fanout failures {job_id} --all" in out


def test_an_import_of_a_missing_file_starts_nothing(fanout: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout("tasks", "import", "/nowhere/tasks.csv") == 1
    assert capsys.readouterr().err == "fanout: /nowhere/tasks.csv: No such file or directory.\n"


def test_a_result_is_downloaded_whole_or_printed_as_lines(
    fanout: Run, put: Put, deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = new_job_id()
    plan = b'{"id":"a","title":"\\u001b[2J"}\n{"id":"b","title":"\xc2\x9b2J"}\n'
    url = f"s3://{deployment.bucket_name}/jobs/{job_id}/plan.jsonl"
    put(f"jobs/{job_id}/plan.jsonl", plan)
    put(f"jobs/{job_id}/record.json", record_of(job_id, resultUrl=url))
    path = tmp_path / "plan.jsonl"
    assert fanout("result", job_id, "--output", str(path)) == 0
    assert path.read_bytes() == plan
    capsys.readouterr()
    assert fanout("result", job_id, "--all") == 0
    out = capsys.readouterr().out
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["a", "b"]
    assert "\x9b" not in out
    assert fanout("result", job_id, "--all", "--json") == 0
    assert [line["id"] for line in json.loads(capsys.readouterr().out)["lines"]] == ["a", "b"]
    assert fanout("result", job_id, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"imported": 1000}


def test_jobs_are_a_table_or_one_document(fanout: Run, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    job_id = new_job_id()
    fanout("run", "--job-id", job_id, *end("succeed", record=record_of(job_id)))
    capsys.readouterr()
    assert fanout("jobs", "--limit", "1") == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["JOB", "KIND", "STATUS", "STARTED", "TOOK", "TASKS"]
    assert line.startswith(job_id)
    assert fanout("jobs", "--limit", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["jobId"] == job_id


def test_without_a_deployment_every_command_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path))
    for argv in (["run"], ["jobs"], ["tasks", "list"], ["tasks", "import", "x.csv"], ["status", "j"]):
        assert cli.main([*argv, "--json"]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["error"]["name"] == "NotUpError"
        assert "`fanout up`" in err


def test_down_where_nothing_is_up_is_done_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FANOUT_HOME", str(tmp_path / "none"))
    assert cli.main(["down", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"wasUp": False}


def test_a_stack_is_named_again_in_the_commands_that_are_shown(
    client: FanOut, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", "--stack", "FanOut", "--region", "eu-west-1", "--detach", *end("succeed", record={})]
    assert cli.main(argv, connect=lambda _: client) == 0
    assert "fanout status --stack FanOut --region eu-west-1 " in capsys.readouterr().out


def test_a_reader_that_goes_away_ends_the_command_quietly(
    fanout: Run, put: Put, deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    job_id = failed_job(put, deployment, 3)
    theirs, ours = os.pipe()
    os.close(theirs)
    with io.TextIOWrapper(os.fdopen(ours, "wb", buffering=0), write_through=True) as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert fanout("failures", job_id, "--all") == 141
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
