"""Single faults of the definition, made by rule, so that a new state or field gets its own."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.contract.asl.definition import Definition, Fields
from tests.contract.asl.language import LAMBDA_ERRORS

Path = tuple[str | int, ...]
Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Mutant:
    """A definition with one fault: `rule` says which, `path` where."""

    rule: str
    path: str
    definition: Definition

    @property
    def name(self) -> str:
        return f"{self.rule}: {self.path}"


def mutants(definition: Definition) -> Iterator[Mutant]:
    """Every fault of every rule. Comments have none: they mean nothing to Step Functions."""
    for path, value in _walk(definition.fields):
        if "Comment" not in path:
            for rule, change in _faults(definition, path, value):
                mutated, owner = _copied(definition.fields, path)
                change(owner)
                yield Mutant(rule, _readable(path), Definition(mutated))


def repetitions(definition: Definition) -> Iterator[str]:
    """Texts in which one name is written twice; most readers of JSON keep the last one."""
    for path, value in _walk(definition.fields):
        if isinstance(value, dict):
            for name in value:
                mutated, _ = _copied(definition.fields, path)
                _at(mutated, path)[f"{name}<again>"] = None
                yield json.dumps(mutated).replace("<again>", "")


def _faults(definition: Definition, path: Path, value: Any) -> Iterator[tuple[str, Change]]:
    if path:
        yield "delete", _delete(path[-1])
        if isinstance(path[-1], str):
            yield "misspell the name", _rename(path[-1], _misspelt(path[-1]))
            yield "a small first letter", _rename(path[-1], path[-1][0].swapcase() + path[-1][1:])
        for rule, new in _other_values(definition, path, value):
            yield rule, _set(path[-1], new)
    if isinstance(value, dict):
        for name, new in _additions(path, value):
            if name not in value:
                yield f"add {name}", _add(path, name, new)
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        for number in range(len(value) - 1):
            yield f"swap entries {number} and {number + 1}", _swap(path, number)


def _other_values(definition: Definition, path: Path, value: Any) -> Iterator[tuple[str, Any]]:
    name = path[-1]
    if isinstance(value, bool):
        yield "flip", not value
    elif isinstance(value, int | float):
        for new in dict.fromkeys((value + 1, value * 10, 0, -1, value - 1, str(value), value + 0.5)):
            if new != value:
                yield f"the number {new!r}", new
    elif value is None:
        yield "a value for null", "$.none"
    elif isinstance(value, str):
        yield "misspell the text", _misspelt(value)
        for text in dict.fromkeys(_other_texts(definition, path, value)):
            if text != value:
                yield f"the text {text}", text
    if name == "ErrorEquals":
        yield "another error beside", [*value, "States.Timeout"]
        yield "no error", []


def _other_texts(definition: Definition, path: Path, value: str) -> Iterator[str | None]:
    name = path[-1]
    yield ""
    if name in ("Next", "Default", "StartAt"):
        yield from definition.states()
    elif name == "Type":
        yield from ("Task", "Map", "Choice", "Succeed", "Fail", "Pass", "Wait", "Parallel")
    elif name == "Resource":
        yield from (f"{value}.waitForTaskToken", "${PlannerArn}", "arn:aws:states:::sqs:sendMessage")
    elif "ErrorEquals" in path:
        yield from ("States.ALL", "States.TaskFailed", "States.Timeout", "InvalidJobError", "ThrottledError")
        yield from sorted(LAMBDA_ERRORS)
    elif re.fullmatch(r"\$\{\w+\}", value):
        yield from sorted(set(re.findall(r"\$\{\w+\}", json.dumps(definition.fields))))
    elif value.startswith("$"):
        owner = _at(definition.fields, path[:-1])
        yield from (other for other in owner.values() if isinstance(other, str) and other.startswith("$"))
        yield from ("$", "$.none", f"{value}.none", "$$.Execution.Id", "$$.Execution.Name")
        yield from ("$$.Execution.RedriveCount", "$$.State.Name", "$$.Map.Item.Index", "$$.None")
        yield None
    elif value.startswith("States."):
        yield from ("$.jobId", value.replace("{}", ""), value.replace("$.jobId", "$.none"))
        yield from (value.replace("results", "result"), value.replace("Format", "Formatted"), value[:-1])
    else:
        yield from OTHER_WORDS.get(value, ())
        if name == "Label":
            yield from ("L" * 41, "with blanks", "Other")


OTHER_WORDS = {
    "JSONPath": ("JSONata",),
    "FULL": ("NONE", "full"),
    "INLINE": ("DISTRIBUTED",),
    "DISTRIBUTED": ("INLINE",),
    "STANDARD": ("EXPRESS",),
    "JSONL": ("JSON", "CSV", "MANIFEST"),
    "RecordNotWrittenError": ("AccountingError", "States.TaskFailed"),
}


def _additions(path: Path, value: Fields) -> Iterator[tuple[str, Any]]:
    """Fields that the language knows elsewhere, or that would overrule one that is there."""
    if "States" in value:
        yield from {"Version": "1.0", "TimeoutSeconds": 60, "QueryLanguage": "JSONata", "Foo": 1}.items()
    elif "FunctionName" in value:
        yield from {
            "InvocationType": "Event", "Qualifier": "1", "LogType": "Tail", "ClientContext": "x", "Payload.$": "$",
        }.items()  # fmt: skip
    elif "ErrorEquals" in value:
        yield from {
            "IntervalSeconds": 30, "BackoffRate": 1, "MaxDelaySeconds": 5, "JitterStrategy": "NONE",
            "ResultPath": "$.caught", "Next": "Reducer", "MaxAttempts": 1, "Assign": {},
        }.items()  # fmt: skip
    elif "Type" in value:
        all_errors = {"ErrorEquals": ["States.ALL"]}
        yield from {
            "End": True, "Next": "Reducer", "Retry": [all_errors], "Catch": [all_errors | {"Next": "Reducer"}],
            "InputPath": "$.none", "OutputPath": "$.none", "ResultPath": "$.result", "ResultSelector": {"done": True},
            "Parameters": {"done": True}, "Assign": {"a": 1}, "Output": "{% 1 %}", "Arguments": {},
            "QueryLanguage": "JSONata", "HeartbeatSeconds": 30, "TimeoutSecondsPath": "$.workers",
            "Credentials": {"RoleArn": "arn"}, "MaxConcurrency": 1000, "MaxConcurrencyPath": "$.workers",
            "ToleratedFailurePercentage": 100, "ToleratedFailurePercentagePath": "$.workers",
            "ToleratedFailureCount": 10, "ToleratedFailureCountPath": "$.workers", "ItemsPath": "$.segments",
            "ItemBatcher": {"MaxItemsPerBatch": 2}, "Seconds": 10, "Branches": [], "Result": {}, "Error": "E",
            "Cause": "c", "ErrorPath": "$.error.name", "CausePath": "$.error.cause", "Default": "Failed",
            "ItemReader": {}, "ResultWriter": {}, "Label": "Label", "Version": "1.0", "TimeoutSeconds": 1000,
        }.items()  # fmt: skip
    elif "Variable" in value:
        yield from {
            "IsPresent": True, "NumericEquals": 1, "BooleanEquals": True, "IsNull": False, "And": [], "Not": {},
        }.items()  # fmt: skip
        for operator in {"BooleanEquals", "NumericEquals", "IsNull"} & set(value):
            for other in ("IsPresent", "IsBoolean", "NumericGreaterThan", "BooleanEqualsPath"):
                yield f"{other} instead of {operator}", (operator, other)
    elif path and path[-1] in ("Payload", "ItemSelector"):
        yield from {"more": 1, "more.$": "$.more"}.items()
    elif path and path[-1] == "ReaderConfig":
        yield from {"MaxItems": 10, "CSVHeaderLocation": "FIRST_ROW"}.items()
    elif path and path[-1] == "ProcessorConfig":
        yield "ExecutionType", "EXPRESS"
    elif path and path[-1] == "Parameters":
        yield from {"VersionId": "1", "Prefix": "jobs/"}.items()
    elif "Resource" in value:
        yield from {"WriterConfig": {"OutputType": "JSONL"}, "Arguments": {}}.items()


def _copied(fields: Fields, path: Path) -> tuple[Fields, Any]:
    """The fields with copies of all that is on the path, and the last member's owner among them."""
    mutated = owner = copy.copy(fields)
    node: Any = mutated
    for step in path:
        owner = node
        node = owner[step] = copy.copy(owner[step])
    return mutated, owner


def _walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    yield path, node
    if isinstance(node, dict | list):
        for step, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _walk(value, (*path, step))


def _at(node: Any, path: Path) -> Any:
    for step in path:
        node = node[step]
    return node


def _readable(path: Path) -> str:
    *before, last = path or ("the machine",)
    return ".".join([*(str(step) for step in before if step not in ("States", "ItemProcessor")), str(last)])


def _misspelt(word: str) -> str:
    """The word without its middle letter."""
    middle = len(word) // 2
    return word[:middle] + word[middle + 1 :]


def _delete(step: str | int) -> Change:
    def change(owner: Any) -> None:
        del owner[step]

    return change


def _set(step: str | int, new: Any) -> Change:
    def change(owner: Any) -> None:
        owner[step] = new

    return change


def _rename(old: str, new: str) -> Change:
    def change(owner: Any) -> None:
        owner[new] = owner.pop(old)

    return change


def _add(path: Path, name: str, new: Any) -> Change:
    def change(owner: Any) -> None:
        node = owner[path[-1]] if path else owner
        if isinstance(new, tuple):
            old, other = new
            node[other] = node.pop(old)
        else:
            node[name] = new

    return change


def _swap(path: Path, number: int) -> Change:
    def change(owner: Any) -> None:
        entries = owner[path[-1]]
        entries[number], entries[number + 1] = entries[number + 1], entries[number]

    return change
