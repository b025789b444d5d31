"""The documents say what is so: examples are run, links lead somewhere, and nothing that exists is left out."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import fan_out
import kinds
from fan_out import Job, Kind, Task
from fan_out.model import costs, kind
from fan_out.model.plan import JobInput, Origin, Plan, make_plan, read_input
from fanout import cli
from infra import functions
from tests.unit.fan_out.test_kinds import SHIPPED

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


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
    origin = Origin(make_plan("origin", "2026-11-23T09:00:00Z", read_input({})), 10, named=1)
    for document in inputs:
        asked = read_input(document)
        plan = make_plan(
            "job", "2026-11-23T09:00:00Z", asked, origin if "failedIn" in str(document) else None
        )
        assert isinstance(plan, Plan)


def test_every_field_of_the_input_is_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", README, flags=re.M))
    for name, field in JobInput.model_fields.items():
        documented = rows[field.alias or name].strip("`")
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert (
                documented == f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            )


def test_each_shipped_kind_and_its_parameters_are_documented() -> None:
    text = (ROOT / "docs/kinds.md").read_text()
    for name in SHIPPED:
        assert f"### `{name}`" in text
        for parameter, field in kind.find(name).params.model_fields.items():
            assert f"`{field.alias or parameter}`" in text


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


def test_the_whole_contract_of_a_kind_is_documented() -> None:
    text = (ROOT / "docs/kinds.md").read_text()
    for name in [*vars(Kind), "name", "params"]:
        if not name.startswith("_"):
            assert re.search(rf"^\| `{name}[`(]", text, flags=re.M), name
    for name in set(fan_out.__all__) - {"JSON", "Kind", "Timestamp", "instant", "utc"}:
        assert name in text, name


def test_every_command_of_the_terminal_is_in_a_document() -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    (commands,) = [
        action.choices
        for action in cli.make_parser()._actions
        if isinstance(action.choices, dict) and action.choices
    ]
    assert {"up", "run"} <= commands.keys()
    for command in commands:
        assert f"fanout {command}" in text, command


def test_every_function_is_in_the_operating_guide() -> None:
    text = (ROOT / "docs/operating.md").read_text()
    assert len(functions.FUNCTIONS) == 10
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


def test_the_commands_of_the_readme_exist_in_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    asked = re.findall(r"\bmake (\w+)", "\n".join(blocks(README, "console")))
    assert {"demo", "test"} <= set(asked) <= targets
    assert "make test" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("module", ["fanout.sample", "infra.cdk"])
def test_the_modules_that_the_documents_run_have_a_help(module: str) -> None:
    done = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-m", module, "--help"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_test_that_the_reliability_guide_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/reliability.md").read_text()))
    assert len(named) >= 25
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in (path.stem, *re.findall(r"^def (test_\w+)", path.read_text(), flags=re.M))
    }
    assert named <= there, named - there
