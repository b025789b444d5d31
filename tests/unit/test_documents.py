"""The documents say what is so: examples are run, links lead somewhere, and nothing that exists is left out."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fan_out
import kinds
from fan_out import Job, Kind, Task, sources
from fan_out.model import costs, kind
from fan_out.model.job_input import JobInput, TaskFilter, TasksSource, read_input
from fan_out.model.plan import Plan, RetrySource, make_plan
from fanout import cli
from infra import functions
from tests.chaos import scenarios
from tests.support.factories import plan
from tests.support.machine import make_tasks, names, put_tasks
from tests.unit.cli.test_cli import commands

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SHIPPED_KINDS = ("daily-plan", "import-tasks", "reschedule-overdue")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_the_inputs_to_paste_are_accepted() -> None:
    examples = [json.loads(block) for block in blocks(README, "json")]
    inputs = [example for example in examples if "status" not in example]
    assert len(inputs) >= 4
    origin = RetrySource(make_plan("origin", "2026-11-23T09:00:00Z", read_input({})), 10, expected_count=1)
    for document in inputs:
        asked = read_input(document)
        plan = make_plan("job", "2026-11-23T09:00:00Z", asked, origin if "failedIn" in str(document) else None)
        assert isinstance(plan, Plan)


def test_the_readme_names_each_field_with_its_default() -> None:
    table = README.partition("### The input")[2].partition("\n### ")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", table, flags=re.M))
    fields = {field.alias or name: field for name, field in JobInput.model_fields.items()}
    assert documented.keys() == fields.keys()
    for name, field in fields.items():
        match default := field.get_default(call_default_factory=True):
            case None:
                shown = "" if name == "Comment" else "none"
            case TasksSource():
                shown = '`"tasks"`'
            case TaskFilter():
                shown = f"`{json.dumps(default.to_json())}`"
            case str() | dict():
                shown = f"`{default or '{}'}`"
            case _:
                shown = f"{default:g}"
        assert documented[name] == shown, name


@pytest.mark.parametrize("name", SHIPPED_KINDS)
def test_a_shipped_kind_is_documented_with_its_parameters(name: str) -> None:
    text = (ROOT / "docs/kinds.md").read_text()
    section = text.partition(f"### `{name}`")[2].partition("\n### ")[0]
    assert section
    for parameter, field in kind.find(name).params.model_fields.items():
        assert f"`{field.alias or parameter}`" in section


def test_the_kind_of_the_guide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, example = blocks((ROOT / "docs/kinds.md").read_text(), "python")
    (tmp_path / "count_by_month.py").write_text(source)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    months = kind.find("count-by-month")
    exec(compile(example, "docs/kinds.md", "exec"), {})
    for params in months.examples.params:
        job = Job(months.params.model_validate(params))
        partials = []
        for due in ("2026-11-30T00:00:00Z", None, "2026-11-01T00:00:00Z"):
            task = Task("id", "title", False, "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", 1, due_at=due)
            result = months.process(task, job)
            assert result in months.examples.results
            partials.append(months.fold(months.zero(), task, result, job))
        merged = months.merge(months.merge(partials[0], partials[1], job), partials[2], job)
        assert merged == ({"2026-11": 2} if params else {"2026-11": 2, "undated": 1})


def test_the_kind_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = blocks(README, "python")
    (tmp_path / "count_overdue.py").write_text(source)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    overdue = kind.find("count-overdue")
    job = Job(overdue.params(), started_at="2026-11-23T09:00:00Z")
    partial = overdue.zero()
    for due in ("2026-11-30T00:00:00Z", None, "2026-11-01T00:00:00Z"):
        task = Task("id", "title", False, "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", 1, due_at=due)
        partial = overdue.fold(partial, task, overdue.process(task, job), job)
    assert overdue.summary(overdue.merge(partial, partial, job), job) == {"overdue": 2}


def test_the_whole_contract_of_a_kind_is_documented() -> None:
    text = (ROOT / "docs/kinds.md").read_text()
    for name in [*vars(Kind), "name", "params"]:
        if not name.startswith("_"):
            assert re.search(rf"^\| `{name}[`(]", text, flags=re.M), name
    for name in set(fan_out.__all__) - {"JSON", "Kind", "Timestamp", "instant", "utc"}:
        assert name in text, name


def test_every_command_and_option_is_in_the_terminals_guide() -> None:
    text = (ROOT / "docs/terminal.md").read_text()
    documented = set(re.findall(r"`fanout ([a-z]+(?: (?:import|list))?)", text))
    assert documented == {name for name, _ in commands()}
    options = {name for _, each in commands() for param in each.params for name in param.opts if name[0] == "-"}
    assert {"--shard-size", "--json"} <= options
    assert options <= set(re.findall(r"--[a-z-]+", text))


def test_every_command_that_a_document_shows_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reminders.py").touch()
    shown = [
        words
        for document in DOCUMENTS
        for block in blocks(document.read_text(), "console") + blocks(document.read_text(), "text")
        for line in block.replace(" && ", "\n$ ").splitlines()
        for words in re.findall(r"^\$ (?:\.venv/bin/)?fanout (.+?)(?: +#.*| [>|]+ .*)?$", line)
    ]
    assert len(shown) >= 10
    for words in shown:
        app = cli.App()
        with cli.cli.make_context("fanout", shlex.split(words), obj=app) as context:
            group: Any = cli.cli
            rest = [*context._protected_args, *context.args]
            while hasattr(group, "commands"):
                group, rest = group.commands[rest[0]], rest[1:]
            group.make_context(words, rest, obj=app)


def test_every_function_is_in_the_operating_guide() -> None:
    text = (ROOT / "docs/operating.md").read_text()
    assert len(functions.FUNCTIONS) == 11
    for name in functions.FUNCTIONS:
        assert f"| {name} |" in text, name


def test_the_cost_examples_are_what_the_estimate_says() -> None:
    table = re.findall(
        r"^\| daily plan over ([\d,]+) tasks, `shardSize` ([\d,]+) \| ([\d,]+) \| \$([\d.]+) \|",
        (ROOT / "docs/cost.md").read_text(),
        flags=re.M,
    )
    assert len(table) >= 3
    for tasks, size, shards, dollars in table:
        listed, planned = int(tasks.replace(",", "")), int(shards.replace(",", ""))
        assert planned == listed // int(size.replace(",", ""))
        assert float(dollars) == pytest.approx(costs.estimate_usd("daily-plan", listed, planned), rel=0.2)


def test_the_price_of_an_import_is_the_sum_of_its_parts() -> None:
    table = (
        (ROOT / "docs/cost.md").read_text().partition("| part of an import of 1,000,000 rows")[2].partition("\n\n")[0]
    )
    job, units, calls, whole = (float(price) for price in re.findall(r"\| \$([\d.]+) \|", table))
    # With the shards that an import has by default.
    shards = 1_000_000 // kind.find("import-tasks").shard_size
    assert job == pytest.approx(costs.estimate_usd("import-tasks", 1_000_000, shards), rel=0.02)
    memory = functions.FUNCTIONS["WriteTasks"].memory / 1024
    assert calls == pytest.approx(10_000 * (costs.INVOCATION + 0.1 * memory * costs.GB_SECOND), rel=0.02)
    assert whole == pytest.approx(job + units + calls)
    assert whole <= 0.80


# Prices of us-east-1 for a unit of 4 KiB read consistently: https://aws.amazon.com/dynamodb/pricing/on-demand/
READ_UNIT = 0.125e-6
# Bytes of a stored task with its keys: those of `bench listing`, which have a detail, have 430.
STORED_BYTES = 450
# Seconds that ListTasks and the Lister each run for a task. `bench listing` measures 4 and 1 µs of CPU, and a scan is
# read at some 10 MB/s, which is 45 µs: with a factor of safety of 3.
LISTING_SECONDS = 150e-6
# And to start for a segment; the Reducer's for a task: `bench reducer` measures 8 µs.
STARTING_SECONDS, REDUCING_SECONDS = 2, 30e-6


def test_the_price_of_a_million_tasks_plan_is_below_20_cents() -> None:
    table = (ROOT / "docs/cost.md").read_text().partition("| part of a plan of 1,000,000 tasks")[2].partition("\n\n")[0]
    job, reads, listing, reducing, whole = (float(price) for price in re.findall(r"\| \$([\d.]+) \|", table))
    million, gb = 1_000_000, {name: row.memory / 1024 for name, row in functions.FUNCTIONS.items()}
    segments = plan().in_segments(million, million * STORED_BYTES).segments
    # The last shard of each segment is not full.
    shards = million // kind.find("daily-plan").shard_size + segments
    assert job == pytest.approx(costs.estimate_usd("daily-plan", million, shards), rel=0.02)
    assert reads == pytest.approx(million * STORED_BYTES / 4096 * READ_UNIT, rel=0.02)
    seconds = million * LISTING_SECONDS + segments * STARTING_SECONDS
    pages = million / sources.PAGE + segments
    of_segments = segments * (4 * costs.TRANSITION + costs.INVOCATION + costs.PUT + 2 * costs.GET)
    of_functions = seconds * (gb["Lister"] + gb["ListTasks"]) * costs.GB_SECOND + pages * costs.INVOCATION
    assert listing == pytest.approx(of_segments + of_functions, rel=0.02)
    assert reducing == pytest.approx(million * REDUCING_SECONDS * gb["Reducer"] * costs.GB_SECOND, rel=0.1)
    assert whole == pytest.approx(job + reads + listing + reducing)
    assert whole <= 0.20


def test_the_commands_of_the_readme_exist_in_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"demo", "test"} <= set(re.findall(r"\bmake ([\w-]+)", "\n".join(blocks(README, "console"))))
    for document in DOCUMENTS:
        asked = set(re.findall(r"(?:`|^\$ |^)make ([a-z-]+)", document.read_text(), flags=re.M))
        assert asked <= targets, document.name
    for gate in (".ci/run", ".github/workflows/check.yml"):
        assert "make test\n" in (ROOT / gate).read_text()


@pytest.mark.parametrize("module", ["fanout.sample", "infra.cdk"])
def test_the_modules_that_the_documents_run_have_a_help(module: str) -> None:
    done = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-m", module, "--help"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_rows_of_tables_are_short(document: Path) -> None:
    rows = [line for line in document.read_text().splitlines() if line.startswith("|")]
    assert [row for row in rows if len(row) > 200] == []


def test_every_document_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", README.partition("## Read on")[2]))
    assert {path.relative_to(ROOT).as_posix() for path in DOCUMENTS} - {"README.md"} <= linked


def test_each_assumption_has_evidence_and_a_consequence() -> None:
    document = (ROOT / "docs/aws-assumptions.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    sections = re.split(r"^### ", document, flags=re.M)[1:]
    assert len(sections) >= 17
    checks: list[str] = []
    for section in sections:
        title, evidence, consequence, check = re.split(r"\n- (?:Evidence|If not|Check): ", section.partition("\n\n")[0])
        assert re.match("documentation|recording|none|CloudFormation", evidence), title
        assert "documentation" not in evidence or "](" in evidence or "recording" in evidence, title
        assert consequence, title
        checks += [check]
    for name in re.findall(r"`(test_\w+)`", document):
        assert f"def {name}(" in tests, name
    # Each is checked on an account, or it is said why not; and every check is of an assumption.
    assert [check for check in checks if not re.match(r"`test_\w+`|none\. \w", check)] == []
    made = re.findall(r"^def (test_\w+)", (ROOT / "tests/aws/test_assumptions.py").read_text(), flags=re.M)
    assert sorted(name for check in checks for name in re.findall(r"^`(\w+)`", check)) == sorted(made)


def test_every_object_of_a_job_is_in_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every object of the guide comes to be: jobs that fail in several ways write all of them."""
    table = (ROOT / "docs/how-it-works.md").read_text().partition("## A job's objects")[2].partition("\n### ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    patterns = {
        name: re.compile(re.sub(r"\\{\w+\\}", "[^/.-]+", re.escape(name)))
        for cell in cells
        for name in re.findall(r"`(.+?)`", cell)
    }
    assert len(patterns) >= 20
    # Step Functions writes them, not this project.
    del patterns["results/"]
    monkeypatch.setattr("fan_out.model.plan.SEGMENTS", 1)
    tasks = [task | {"isComplete": False} for task in make_tasks(60)]
    ids = [task["id"] for task in tasks]
    refused = {"refuse": ids[::2], "kill": ids[1:2]}
    with scenarios.deployed() as machine:
        put_tasks(tasks)
        machine.run({"kind": "daily-plan", "shardSize": 5}, "plan")
        machine.run({"kind": "poison", "params": refused, "shardSize": 5}, "poison")
        scenarios.finalize(machine, "never-planned")
        # A kind's file has the name that the kind gives it; the guide's is that of the daily plan.
        written = {*names("plan"), *names("poison"), *names("never-planned")} - {kind.find("poison").lines_file}
    assert {name for name in written if not any(each.fullmatch(name) for each in patterns.values())} == set()
    assert {name for name, each in patterns.items() if not any(map(each.fullmatch, written))} == set()
