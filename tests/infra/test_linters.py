"""The template as linters see it that others wrote: each finding is mended, or named here with a reason."""

import importlib
import json
import warnings
from typing import Any

from cfnlint import ManualArgs
from cfnlint.api import lint

from tests.infra.template import Template

# By rule and what the sentence says: why the finding is none.
ACKNOWLEDGED = {
    ("W3005", "dependency already enforced"): "The CDK waits for a role's policies, too, and names the role with them.",
    ("E3601", "('OutputPath' was unexpected) at 'States/Succeeded/OutputPath'"): (
        "A Succeed state has InputPath and OutputPath; cfn-lint's schema has left them out: "
        "https://docs.aws.amazon.com/step-functions/latest/dg/state-succeed.html"
    ),
}
# Of parliament: why it misses a resource for these. Its table takes all kinds of resources that an action may have
# for needed at once.
EITHER = {
    "states:DescribeExecution": "The executions of a standard machine are no express executions.",
    "states:ListExecutions": "The executions of a machine are listed, not those of a map run.",
}

with warnings.catch_warnings():
    # It leaves its table open.
    warnings.simplefilter("ignore", ResourceWarning)
    parliament = importlib.import_module("parliament")


def findings(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What cfn-lint finds in a template: rule and sentence."""
    matches = lint(json.dumps(document), config=ManualArgs(regions=["us-east-1"]))
    return [(match.rule.id, match.message) for match in matches]


def is_acknowledged(rule: str, sentence: str) -> bool:
    return any(rule == of and part in sentence for of, part in ACKNOWLEDGED)


def test_cfn_lint_finds_nothing_new(template: Template) -> None:
    found = findings(template.document)
    assert [each for each in found if not is_acknowledged(*each)] == []
    for rule, part in ACKNOWLEDGED:
        assert any(rule == of and part in sentence for of, sentence in found), f"{rule} has become superfluous"


# Each in a state of its own, so that one reading finds all.
FAULTS = {
    '"Type": "Succeed", "OutputPath"': '"Type": "Succed", "OutputPath"',
    '"StartAt": "Planner", ': "",
    '"Type": "Fail", "ErrorPath"': '"Type": "Fail", "ErorPath"',
}


def test_cfn_lint_reads_the_definition(template: Template) -> None:
    """It would be blind to a definition that is put together by Fn::Join."""
    ((name, machine),) = template.all("AWS::StepFunctions::StateMachine").items()
    broken = machine["Properties"]["DefinitionString"]
    for right, wrong in FAULTS.items():
        assert right in broken
        broken = broken.replace(right, wrong)
    changed = {**machine, "Properties": {**machine["Properties"], "DefinitionString": broken}}
    found = findings({**template.document, "Resources": {**template.resources, name: changed}})
    new = " ".join(sentence for rule, sentence in found if rule == "E3601")
    for part in ("'StartAt' is a required property", "States/Succeeded", "States/Failed"):
        assert part in new


def test_parliament_finds_nothing_in_the_policies(template: Template) -> None:
    policies = template.all("AWS::IAM::Policy")
    assert len(policies) >= 10
    missed = set()
    for name, policy in policies.items():
        text = json.dumps(resolved(template, policy["Properties"]["PolicyDocument"]))
        for finding in parliament.analyze_policy_string(text).findings:
            assert finding.issue == "RESOURCE_MISMATCH", (name, str(finding))
            actions = {detail["action"] for detail in finding.detail}
            assert actions <= EITHER.keys(), (name, str(finding))
            missed |= actions
    assert missed == EITHER.keys(), "some have become superfluous"


# The ARN of a resource by the last part of its type.
NAMED = "arn:aws:{}:us-east-1:123456789012:{}"
ARNS = {
    "Function": NAMED.format("lambda", "function:name"),
    "Table": NAMED.format("dynamodb", "table/name"),
    "Bucket": "arn:aws:s3:::name",
    "LogGroup": NAMED.format("logs", "log-group:name:log-stream:name"),
    "Queue": NAMED.format("sqs", "name"),
    "Secret": NAMED.format("secretsmanager", "secret:name"),
    "StateMachine": NAMED.format("states", "stateMachine:name"),
}
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012"}


def resolved(template: Template, value: Any) -> Any:
    """A policy as a deployment has it, with made-up names."""
    match value:
        case {"Ref": str(name)} if name in PSEUDO:
            return PSEUDO[name]
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), "Arn"]}:
            return ARNS[template.resources[name]["Type"].rpartition(":")[2]]
        case {"Fn::GetAtt": [_, "Name"]}:
            return "name"
        case {"Fn::Join": ["", list(parts)]}:
            return "".join(resolved(template, part) for part in parts)
        case dict():
            return {key: resolved(template, each) for key, each in value.items()}
        case list():
            return [resolved(template, each) for each in value]
    return value
