"""Imports point one way: from handlers to steps to the model, and never across services."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAMBDAS = ROOT / "lambdas"

# What each layer may import of the project, besides modules of the layer itself.
BASE = {"common"}
MODEL = BASE | {"fan_out.errors", "fan_out.model"}
AWS = MODEL | {"fan_out.aws"}
STEPS = AWS | {"fan_out.sources", "fan_out.steps"}
MAY_IMPORT = {
    "common": set[str](),
    "fan_out.errors": BASE,
    "fan_out.model": MODEL,
    "fan_out.aws": AWS,
    "fan_out.sources": AWS,
    "fan_out.steps": STEPS,
    "fan_out.uploads": STEPS,
    "fan_out.jobs": STEPS | {"fan_out.uploads"},
    "handlers": STEPS | {"fan_out.jobs", "fan_out.uploads"},
    # What a kind needs, in one place.
    "fan_out": MODEL,
    "kinds": MODEL | {"fan_out"},
    "task_service": BASE,
    "infra": set[str](),
    "fanout": set[str](),
    # Files that the demo puts beside the kinds of a deployment.
    "fanout.demo_kinds": {"fan_out"},
}
# Loads a job's kind by its name.
LOADS_KINDS = "fan_out.model.kind"


def modules() -> dict[str, Path]:
    """The file of every module that is deployed or installed."""
    found = {}
    for root, folder in ((LAMBDAS, LAMBDAS), (ROOT, ROOT / "infra"), (ROOT, ROOT / "fanout")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def layer(module: str) -> str:
    top, *below = module.split(".")
    if module.startswith("fanout.demo_kinds"):
        return "fanout.demo_kinds"
    if top != "fan_out" or not below:
        return top
    inner = f"fan_out.{below[0]}"
    return inner if inner in MAY_IMPORT else "handlers"


def imports(module: str) -> Iterator[str]:
    """The project's modules that a module imports, wherever in it."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def violations(module: str) -> list[str]:
    own = layer(module)
    allowed = MAY_IMPORT[own] | ({own} if own != "handlers" else set())
    if module == LOADS_KINDS:
        allowed = allowed | {"kinds"}
    used = {name for name in imports(module) if name.partition(".")[0] in TOP}
    return [f"{module} imports {name}" for name in sorted(used) if layer(name) not in allowed]


TOP = {name.partition(".")[0] for name in MODULES} | {"tests", "bench"}


def test_every_folder_below_fan_out_is_a_layer() -> None:
    folders = {f"fan_out.{path.parent.name}" for path in (LAMBDAS / "fan_out").glob("*/__init__.py")}
    assert folders <= MAY_IMPORT.keys()
    assert {layer(module) for module in MODULES} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("name", sorted({layer(module) for module in MODULES}))
def test_a_layer_imports_only_those_below_it(name: str) -> None:
    found = [line for module in MODULES if layer(module) == name for line in violations(module)]
    assert not found, "\n".join(found)


def test_what_a_kind_needs_is_imported_without_boto3() -> None:
    needed = [module for module in MODULES if layer(module) in ("fan_out", "fan_out.model", "kinds")]
    program = f"import sys, {', '.join(needed)}; print(*sorted(sys.modules.keys() & {{'boto3', 'botocore'}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=LAMBDAS, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
