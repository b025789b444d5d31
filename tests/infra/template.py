"""Reading a template: resources by type, what refers to what, and what a role may do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Statement:
    """An Allow statement with its actions and resources as plain strings, `Ref`s as <LogicalId>."""

    actions: frozenset[str]
    resources: frozenset[str]


class Template:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.resources: dict[str, dict[str, Any]] = document["Resources"]

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Logical id to resource, of every resource of a type."""
        return {k: r for k, r in self.resources.items() if r["Type"] == kind}

    def one(self, kind: str) -> dict[str, Any]:
        resource: dict[str, Any]
        (resource,) = self.all(kind).values()
        return resource

    def properties(self, kind: str) -> dict[str, Any]:
        properties: dict[str, Any] = self.one(kind)["Properties"]
        return properties

    @property
    def functions(self) -> dict[str, dict[str, Any]]:
        """Name in the table of functions to properties."""
        return {
            self.name_of(logical_id): function["Properties"]
            for logical_id, function in self.all("AWS::Lambda::Function").items()
        }

    def name_of(self, logical_id: str) -> str:
        """The construct's own id: without its parents' and without the hash."""
        return re.sub(
            r"^(Storage|Runtime|TaskService|Workflow|Api|Observability)|[0-9A-F]{8}[0-9a-f]{0,32}$", "", logical_id
        )

    def statements(self, role: Any) -> list[Statement]:
        """Everything that the role (as a function or the machine refers to it) is allowed."""
        role_id = role["Fn::GetAtt"][0]
        assert not self.resources[role_id]["Properties"].get("ManagedPolicyArns"), "managed policies are not read"
        assert not self.resources[role_id]["Properties"].get("Policies")
        found = []
        for policy in self.all("AWS::IAM::Policy").values():
            if {"Ref": role_id} in policy["Properties"]["Roles"]:
                for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
                    assert statement["Effect"] == "Allow"
                    assert not {"NotAction", "NotResource"} & set(statement)
                    found.append(
                        Statement(
                            frozenset(_many(statement["Action"])),
                            frozenset(self.flat(r) for r in _many(statement["Resource"])),
                        )
                    )
        return found

    @property
    def grants(self) -> dict[str, set[tuple[str, str]]]:
        """Every (action, resource) of every role, by its name without the word Role."""
        return {
            self.name_of(role_id).removesuffix("Role"): self.allowed({"Fn::GetAtt": [role_id, "Arn"]})
            for role_id in self.all("AWS::IAM::Role")
        }

    def allowed(self, role: Any) -> set[tuple[str, str]]:
        """Every (action, resource) of the role."""
        return {(a, r) for s in self.statements(role) for a in s.actions for r in s.resources}

    def flat(self, value: Any) -> str:
        """A value as a string, with what is only known when deployed as <Name> or <Name.Attribute>."""
        match value:
            case str():
                return value
            case {"Ref": str(name)}:
                return f"<{self.name_of(name)}>"
            case {"Fn::GetAtt": [name, attribute]}:
                return f"<{self.name_of(name)}.{attribute}>"
            case {"Fn::Join": [str(separator), parts]}:
                return separator.join(self.flat(part) for part in parts)
        raise AssertionError(json.dumps(value))


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
