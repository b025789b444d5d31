"""Every grant of every role, and what tells that it is needed: a scenario that fails without it, or another check.

`tests/infra` compares the table with the template, so that no role has a grant that is not here;
`tests/local/test_roles.py` takes each away in turn on the embedded AWS and has its scenario fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Grant(NamedTuple):
    """An action on a resource, as `tests.infra.template` writes it."""

    action: str
    resource: str

    def __str__(self) -> str:
        return f"{self.action} {self.resource}"


@dataclass(frozen=True)
class Unjudged:
    """Why the embedded AWS cannot tell whether a grant is needed, and the test or the page that does."""

    reason: str
    check: str


def on(resource: str, *actions: str) -> set[Grant]:
    return {Grant(action, resource) for action in actions}


TASKS = "<Tasks.Arn>"
SECRET = "<PageTokenSecret>"  # The Ref of a secret is its ARN.
BUCKET = "<Jobs.Arn>"
STATES_ARN = "arn:<AWS::Partition>:states:<AWS::Region>:<AWS::AccountId>"
EXECUTIONS = f"{STATES_ARN}:execution:<Machine.Name>:*"
MAP_RUNS = f"{STATES_ARN}:mapRun:<Machine.Name>/*:*"


def read(*patterns: str) -> set[Grant]:
    return {Grant("s3:GetObject", f"{BUCKET}/{pattern}") for pattern in patterns}


def write(*patterns: str) -> set[Grant]:
    return {Grant("s3:PutObject", f"{BUCKET}/{pattern}") for pattern in patterns}


# Without it a missing object is forbidden, not missing.
LIST = on(BUCKET, "s3:ListBucket")
DYNAMODB = [f"dynamodb:{name}" for name in ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan")]

NEEDED: dict[str, dict[str, set[Grant]]] = {
    "TaskApi": {
        "tasks over REST": on(TASKS, *DYNAMODB) | on(SECRET, "secretsmanager:GetSecretValue"),
    },
    "ListTasks": {
        "tasks listed": on(TASKS, "dynamodb:Scan", "dynamodb:BatchGetItem")
        | on(SECRET, "secretsmanager:GetSecretValue"),
        "a size": on(TASKS, "dynamodb:DescribeTable"),
    },
    "WriteTasks": {
        "an import": on(TASKS, "dynamodb:PartiQLInsert"),
        "an import of one row": on(TASKS, "dynamodb:PutItem"),
        "a change": on(TASKS, "dynamodb:UpdateItem"),
    },
    "Planner": {
        "a plan": read("jobs/*") | write("jobs/*/job.json"),
        "an import": read("uploads/*"),
        "a missing source": LIST,
    },
    "Lister": {
        "a plan": read("jobs/*", "work/*")
        | write("work/*/shards/*", "work/*/parts/*")
        | LIST
        | on("<ListTasks.Arn>:*", "lambda:InvokeFunction"),
        "an import": read("uploads/*"),
    },
    "Manifest": {
        "a plan": read("jobs/*", "work/*") | write("work/*/manifest.jsonl", "jobs/*/manifest.json") | LIST,
        "a limit": on("*", "lambda:GetAccountSettings"),
    },
    "Worker": {
        "a plan": read("jobs/*", "work/*") | write("work/*/partials/*"),
        "a change": on("<WriteTasks.Arn>:*", "lambda:InvokeFunction"),
        "a quarantine": write("work/*/checkpoints/*"),
        "an early stop": write("work/*/excess/*", "work/*/excess.json") | LIST,
    },
    "Merger": {},
    "Reducer": {
        "a plan": read("jobs/*", "work/*") | write("jobs/*", "work/*") | LIST,
    },
    "Finalizer": {
        "a sweep": read("jobs/*", "work/*")
        | write("jobs/*", "work/*")
        | LIST
        | on("<Machine>", "states:ListExecutions"),
    },
    "JobsApi": {
        "jobs over REST": read("jobs/*")
        | LIST
        | on("<Machine>", "states:StartExecution", "states:ListExecutions")
        | on(EXECUTIONS, "states:DescribeExecution", "states:StopExecution", "states:ListMapRuns")
        | on(MAP_RUNS, "states:DescribeMapRun"),
        "an upload": read("uploads/*") | write("uploads/*"),
        "a lost event": on("<Finalizer.Arn>", "lambda:InvokeFunction"),
    },
}
"""By role and scenario: the grants of which each is needed by the scenario."""

_STACK = "tests/infra/test_stack.py::test_"
_X_RAY = Unjudged("There is no X-Ray.", f"{_STACK}every_function_has_runtime_layer_code_and_tracing")
_LOG = Unjudged("It writes a function's log unasked.", f"{_STACK}each_function_logs_into_its_own_group")
_MACHINE = Unjudged(
    "It runs a machine without its role.", f"{_STACK}the_machines_role_may_do_exactly_what_its_states_need"
)
_ABORT = Unjudged(
    "Nobody looks for the parts of a stream that failed.",
    "tests/unit/fan_out/test_storage.py::test_writing_that_breaks_off_leaves_nothing",
)
_DEAD_LETTER = Unjudged(
    "It sends a function's dead letters unasked.", f"{_STACK}a_job_that_ends_early_reaches_the_finalizer"
)
_HINT = Unjudged(
    "Without it a job has the least segments, as for a small table.",
    "tests/unit/fan_out/test_planner.py::test_a_large_table_is_listed_in_more_segments",
)
_MERGER = Unjudged(
    "Whatever a Merger cannot do, the Reducer does.",
    "tests/unit/fan_out/test_merger.py::test_the_reducer_makes_what_mergers_left",
)
X_RAY = on("*", "xray:PutTraceSegments", "xray:PutTelemetryRecords")


def abort(*patterns: str) -> set[Grant]:
    return {Grant("s3:AbortMultipartUpload", f"{BUCKET}/{pattern}") for pattern in patterns}


# What AWS asks for to log, and to trace: https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
# https://docs.aws.amazon.com/step-functions/latest/dg/xray-iam.html
LOGGING = on(
    "*",
    *(f"logs:{name}LogDelivery" for name in ("Create", "Get", "Update", "Delete")),
    *(f"logs:{name}" for name in ("ListLogDeliveries", "PutResourcePolicy", "DescribeResourcePolicies")),
    "logs:DescribeLogGroups",
)
TRACING = X_RAY | on("*", "xray:GetSamplingRules", "xray:GetSamplingTargets")


def of_machine(definition: dict[str, Any], substitutions: Mapping[str, str]) -> set[Grant]:
    """What the role of a machine with this definition needs, with logging and tracing, and nothing else.

    `substitutions`: for each placeholder the ARN that is granted. A state that this does not know raises KeyError.
    """
    needs = LOGGING | TRACING
    for state in _states(definition):
        if state["Type"] == "Task":
            needs |= OF_RESOURCE[state["Resource"]](state["Parameters"], substitutions)
        for part in ("ItemReader", "ResultWriter"):
            if part in state:
                needs |= OF_RESOURCE[state[part]["Resource"]](state[part]["Parameters"], substitutions)
        if state.get("ItemProcessor", {}).get("ProcessorConfig", {}).get("Mode") == "DISTRIBUTED":
            # https://docs.aws.amazon.com/step-functions/latest/dg/iam-policies-eg-dist-map.html
            children = f"{STATES_ARN}:execution:<Machine.Name>/{state['Label']}:*"
            needs |= on("<Machine>", "states:StartExecution")
            needs |= on(children, "states:DescribeExecution", "states:StopExecution")
    return needs


def _states(machine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for state in machine["States"].values():
        yield state
        if "ItemProcessor" in state:
            yield from _states(state["ItemProcessor"])


def _invoking(parameters: dict[str, Any], substitutions: Mapping[str, str]) -> set[Grant]:
    return on(substitutions[_placeholder(parameters["FunctionName"])], "lambda:InvokeFunction")


def _reading(parameters: dict[str, Any], substitutions: Mapping[str, str]) -> set[Grant]:
    return on(f"{substitutions[_placeholder(parameters['Bucket'])]}/{KEYS[parameters['Key.$']]}", "s3:GetObject")


def _writing(parameters: dict[str, Any], substitutions: Mapping[str, str]) -> set[Grant]:
    """It writes in parts, and reads what it has written."""
    prefix = re.fullmatch(r"States\.Format\('(.*)', \$\.jobId\)", parameters["Prefix.$"])
    assert prefix
    below = f"{substitutions[_placeholder(parameters['Bucket'])]}/{prefix[1].replace('{}', '*')}/*"
    actions = ("PutObject", "GetObject", "ListMultipartUploadParts", "AbortMultipartUpload")
    return on(below, *(f"s3:{action}" for action in actions))


def _placeholder(text: str) -> str:
    return text.removeprefix("${").removesuffix("}")


OF_RESOURCE = {
    "arn:aws:states:::lambda:invoke": _invoking,
    "arn:aws:states:::s3:getObject": _reading,
    "arn:aws:states:::s3:putObject": _writing,
}
# What stands at a path of the state: a test of the Manifest says so.
KEYS = {"$.manifestKey": "work/*/manifest.jsonl"}
DEFINITION = json.loads((Path(__file__).parents[2] / "statemachines/fan_out.asl.json").read_text(encoding="utf-8"))
SUBSTITUTIONS = {"BucketName": BUCKET} | {
    f"{name}Arn": f"<{name}.Arn>:*" for name in ("Planner", "Lister", "Manifest", "Worker", "Merger", "Reducer")
}

UNJUDGED: dict[str, dict[Grant, Unjudged]] = {
    name: dict.fromkeys(X_RAY, _X_RAY)
    | dict.fromkeys(on(f"<{name}Log.Arn>", "logs:CreateLogStream", "logs:PutLogEvents"), _LOG)
    for name in NEEDED
}
"""By role: the grants that the embedded AWS cannot judge."""
UNJUDGED["Planner"] |= dict.fromkeys(
    on("<ListTasks.Arn>:*", "lambda:InvokeFunction") | on("*", "lambda:GetAccountSettings"), _HINT
)
UNJUDGED["Manifest"] |= dict.fromkeys(abort("work/*/manifest.jsonl"), _ABORT)
_OF_MERGER = ("work/*/reduce/*", "work/*/partials/*")
UNJUDGED["Merger"] |= dict.fromkeys(read("jobs/*", "work/*") | write(*_OF_MERGER) | LIST, _MERGER)
UNJUDGED["Merger"] |= dict.fromkeys(abort(*_OF_MERGER), _ABORT)
UNJUDGED["Reducer"] |= dict.fromkeys(abort("jobs/*", "work/*"), _ABORT)
UNJUDGED["Finalizer"] |= dict.fromkeys(abort("jobs/*", "work/*"), _ABORT)
UNJUDGED["Finalizer"] |= dict.fromkeys(on("<DeadLetters.Arn>", "sqs:SendMessage"), _DEAD_LETTER)
UNJUDGED["Machine"] = dict.fromkeys(of_machine(DEFINITION, SUBSTITUTIONS), _MACHINE)


def needed(role: str) -> set[Grant]:
    return {grant for grants in NEEDED.get(role, {}).values() for grant in grants}
