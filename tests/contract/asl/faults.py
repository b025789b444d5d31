"""Faults that people make in a definition, each planted alone; `mutants` makes single faults by rule instead."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.contract.asl.definition import Definition, Fields

Plant = Callable[[dict[str, Fields], Fields], object]


@dataclass(frozen=True)
class Fault:
    """A fault by its name. `plant` gets copies: all states by name, and the machine's fields.

    `seen_by` has a letter for each who refuses it: L, the language in language.py; C, the other checks of
    test_state_machine.py; V, cfn-lint; A, asl-validator of npm. The last two are others' work.
    """

    seen_by: str
    name: str
    plant: Plant

    def planted(self, definition: Definition) -> str:
        """The definition's text with the fault."""
        copied = Definition(copy.deepcopy(definition.fields))
        text = self.plant(copied.states(), copied.fields)
        return text if isinstance(text, str) else json.dumps(copied.fields)


# What is done to the states.


def put(state: str, *path: Any, **fields: Any) -> Plant:
    """Set these fields of a state, or of what is at a path within it; None removes a field."""

    def plant(states: dict[str, Fields], _: Fields) -> None:
        _update(_at(states[state], path), fields)

    return plant


def of_machine(**fields: Any) -> Plant:
    return lambda _, machine: _update(machine, fields)


def retrier(state: str, number: int, **fields: Any) -> Plant:
    return put(state, "Retry", number, **fields)


def drop_retrier(error: str) -> Plant:
    """No retrier of the Worker names the error."""

    def plant(states: dict[str, Fields], _: Fields) -> None:
        worker = states["Worker"]
        worker["Retry"] = [each for each in worker["Retry"] if error not in each["ErrorEquals"]]

    return plant


def states_all_first(states: dict[str, Fields], _: Fields) -> None:
    states["Manifest"]["Retry"].insert(0, states["Manifest"]["Retry"].pop())


def payload(state: str, old: str, new: str, value: Any) -> Plant:
    """The Payload's field `old` is called `new` and has this value."""

    def plant(states: dict[str, Fields], _: Fields) -> None:
        fields = states[state]["Parameters"]["Payload"]
        del fields[old]
        fields[new] = value

    return plant


def prefix(value: str) -> Plant:
    """The prefix of the results is this intrinsic function."""
    return put("Shards", "ResultWriter", "Parameters", Prefix__=value)


def rename(old: str, new: str) -> Plant:
    """The state has another name, everywhere."""
    return lambda _, machine: json.dumps(machine).replace(f'"{old}"', f'"{new}"')


def text(old: str, new: str) -> Plant:
    """The text of the definition, written otherwise."""

    def plant(_: dict[str, Fields], machine: Fields) -> str:
        before = json.dumps(machine)
        assert old in before
        return before.replace(old, new, 1)

    return plant


def add(name: str, **state: Any) -> Plant:
    return lambda _, machine: machine["States"].update({name: state})


def _update(node: Any, fields: Fields) -> None:
    for name, value in fields.items():
        name = name.replace("__", ".$")
        if value is None:
            del node[name]
        else:
            node[name] = value


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        node = node[step]
    return node


LONG = "A" * 81
FORMAT = "States.Format('work/{}/results', $.jobId)"
FAULTS = (
    # where a state leads
    Fault("CA", "a Next that is no state", put("Planner", Next="Segment")),
    Fault("CA", "a Next that leaves a state out", put("Segments", Next="Shards")),
    Fault("CA", "a Next out of a map", put("Lister", Next="Manifest")),
    Fault("CA", "a state that nothing leads to", add("Orphan", Type="Succeed")),
    Fault("LCVA", "no StartAt", of_machine(StartAt=None)),
    Fault("CVA", "a StartAt that is no state", of_machine(StartAt="Plan")),
    Fault("CA", "a StartAt that leaves a state out", of_machine(StartAt="Segments")),
    Fault("LVA", "both Next and End", put("Planner", End=True)),
    Fault("LCVA", "neither Next nor End", put("Planner", Next=None)),
    Fault("LCVA", "a Fail with a Next", put("Failed", Next="Succeeded")),
    Fault("LCA", "a Choice without Default", put("MoreToWork", Default=None)),
    Fault("C", "a Choice that repeats what is done", put("MoreToWork", "Choices", 0, BooleanEquals=True)),
    Fault("LCVA", "a Choice that tests nothing", put("Outcome", "Choices", 0, IsNull=None)),
    Fault("LCVA", "a Choice that tests twice", put("Outcome", "Choices", 0, IsPresent=True)),
    # names
    Fault("LCVA", "a name of 81 characters", rename("Manifest", LONG)),
    Fault("CA", "one name in two maps", rename("Listed", "Worked")),
    Fault("LA", "a field written twice", text('"StartAt": "Planner"', '"StartAt": "Planner", "StartAt": "Reducer"')),
    Fault("LC", "a label of 41 characters", put("Shards", Label="L" * 41)),
    Fault("LC", "a label with a blank", put("Shards", Label="All shards")),
    Fault("LCVA", "a Type in small letters", put("Manifest", Type="task")),
    Fault("LVA", "a field that is none", put("Manifest", Retries=3)),
    # failures
    Fault("C", "no Catch", put("Manifest", Catch=None)),
    Fault("CA", "a failure that succeeds", put("Reducer", "Catch", 0, Next="Succeeded")),
    Fault("C", "no Fail on the way of a failure", put("RecordNotWritten", Type="Succeed", Error=None, Cause=None)),
    Fault("CA", "an error that ends well", put("Outcome", Default="Succeeded")),
    Fault("C", "a Catch that forgets the state", put("Shards", "Catch", 0, ResultPath=None)),
    Fault("C", "a Catch of a few errors", put("Shards", "Catch", 0, ErrorEquals=["States.TaskFailed"])),
    Fault("C", "a Catch within a map", put("Worker", Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Worked"}])),
    Fault("LA", "a Fail with Error and ErrorPath", put("Failed", Error="JobFailed")),
    # retries
    Fault("LC", "States.ALL is not the last", states_all_first),
    Fault(
        "LC", "States.ALL beside another error", retrier("Manifest", 4, ErrorEquals=["States.ALL", "States.Timeout"])
    ),
    Fault("C", "States.All", retrier("Manifest", 4, ErrorEquals=["States.All"])),
    Fault("C", "an error of Lambda misspelt", retrier("Worker", 1, ErrorEquals=["Lambda.TooManyRequestException"])),
    Fault("C", "an error that nobody raises", retrier("Worker", 2, ErrorEquals=["ThrottleError"])),
    Fault("C", "no retrier of 429", drop_retrier("Lambda.TooManyRequestsException")),
    Fault("C", "a refused input is retried", retrier("Planner", 0, MaxAttempts=5)),
    Fault("LC", "a retrier of no error", retrier("Worker", 0, ErrorEquals=[])),
    Fault("LCVA", "fewer than no attempts", retrier("Worker", 4, MaxAttempts=-1)),
    Fault("LC", "pauses that shrink", retrier("Worker", 4, BackoffRate=0.5)),
    Fault("C", "pauses without jitter", retrier("Worker", 4, JitterStrategy=None)),
    Fault("LC", "a longest pause below the first", retrier("Worker", 4, IntervalSeconds=60)),
    # time
    Fault("LC", "a Task without time-out", put("Worker", TimeoutSeconds=None)),
    Fault("C", "a time-out before the function's", put("Worker", TimeoutSeconds=600)),
    Fault("LCA", "a time-out as a text", put("Worker", TimeoutSeconds="960")),
    Fault("L", "a heartbeat beyond the time-out", put("Worker", HeartbeatSeconds=1000)),
    Fault("LC", "a machine without time-out", of_machine(TimeoutSeconds=None)),
    # maps
    Fault("LC", "no MaxConcurrency", put("Shards", MaxConcurrencyPath=None)),
    Fault("LA", "MaxConcurrency twice", put("Shards", MaxConcurrency=40)),
    Fault("LCA", "MaxConcurrency as a text", put("Segments", MaxConcurrencyPath=None, MaxConcurrency="4")),
    Fault("LC", "an inline map beyond 40", put("Segments", MaxConcurrencyPath=None, MaxConcurrency=100)),
    Fault("LC", "an inline map that reads", put("Shards", "ItemProcessor", ProcessorConfig={"Mode": "INLINE"})),
    Fault("L", "EXPRESS children", put("Shards", "ItemProcessor", "ProcessorConfig", ExecutionType="EXPRESS")),
    Fault("LCVA", "a map of nothing", put("Shards", ItemProcessor=None)),
    Fault("L", "a reader of CSV", put("Shards", "ItemReader", "ReaderConfig", InputType="CSV")),
    Fault("L", "a reader of a listing", put("Shards", "ItemReader", Resource="arn:aws:states:::s3:listObjectsV2")),
    Fault("LC", "a reader of one key", put("Shards", "ItemReader", "Parameters", Key__=None, Key="manifest.jsonl")),
    Fault("LC", "results into the state", put("Shards", ResultWriter=None)),
    Fault("C", "results instead of the state", put("Shards", ResultPath="$")),
    Fault("LC", "no tolerance", put("Shards", ToleratedFailureCountPath=None)),
    Fault("LA", "a tolerance of 101 percent", put("Shards", ToleratedFailurePercentage=101)),
    # paths and values
    Fault("CV", "a substitution that the stack has not", put("Worker", "Parameters", FunctionName="${WorkersArn}")),
    Fault("C", "the substitution of another state", put("Worker", "Parameters", FunctionName="${ReducerArn}")),
    Fault(
        "L", "a task that waits for a token", put("Worker", Resource="arn:aws:states:::lambda:invoke.waitForTaskToken")
    ),
    Fault("L", "a resource that is none", put("Worker", Resource="arn:aws:states:::lambda:call")),
    Fault("LC", "a path that is a text", payload("Worker", "jobId.$", "jobId", "$.jobId")),
    Fault("LCA", "a text that is a path", payload("Worker", "jobId.$", "jobId.$", "jobId")),
    Fault("LCA", "a path that is broken", payload("Worker", "jobId.$", "jobId.$", "$.job[Id")),
    Fault("LC", "a field of the context that is none", payload("Planner", "jobId.$", "jobId.$", "$$.Execution.JobId")),
    Fault("C", "the item of a map in a Task", payload("Worker", "shard.$", "shard.$", "$$.Map.Item.Value")),
    Fault("C", "a payload that lacks a field", payload("Worker", "shard.$", "shards.$", "$.shards")),
    Fault("LCA", "an intrinsic that is none", prefix(FORMAT.replace("t(", "ted("))),
    Fault("LC", "an intrinsic without its argument", prefix(FORMAT.replace(", $.jobId", ""))),
    Fault("LCA", "an intrinsic without its end", prefix(FORMAT[:-1])),
    Fault("LVA", "JSONata with paths", of_machine(QueryLanguage="JSONata")),
    Fault("LCVA", "Arguments with paths", put("Manifest", Parameters=None, Arguments={})),
    # JSON
    Fault("LA", "a comma too many", text("}]", "},]")),
    Fault("LA", "a number that is none", text('"TimeoutSeconds": 120', '"TimeoutSeconds": NaN')),
)
