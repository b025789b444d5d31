"""Each grant of each role is needed: taken away on the embedded AWS, something fails that went well with it.

`tests/support/grants.py` names the scenario of each grant. Three minutes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.infra.template import Template
from tests.support.deployment import Deployment, deployed
from tests.support.factories import task
from tests.support.grants import NEEDED, UNJUDGED, Grant, needed

CSV = {"Content-Type": "text/csv"}
ROWS = "title\n" + "A\n" * 5
# The third row of each shard of five is refused.
BAD_ROWS = "title\n" + 'A\nB\n""\nD\nE\n' * 2
DEADLY = """
import os
from fan_out import Kind, Params

class Deadly(Kind):
    name = "deadly"
    params = Params
    batch = 1

    def process(self, task, job):
        if task.id.endswith("1"):
            os._exit(1)

KIND = Deadly()
"""


@dataclass
class Flow:
    """What the scenarios do on a deployment. No event of it reaches the Finalizer: those who need it call it."""

    aws: Deployment
    _outcomes: dict[str, Any] = field(default_factory=dict)
    _number: int = 0

    def name(self) -> str:
        self._number += 1
        return f"job-{self._number}"

    def job(self, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The id of a job that has ended, and its record; without one, the execution's error."""
        job_id = self.name()
        ended = self.aws.wait(self.aws.start(document, job_id))
        return job_id, self.record(job_id) or {"status": ended.get("error")}

    def record(self, job_id: str) -> Any:
        return self.stored(f"jobs/{job_id}/record.json")

    def stored(self, key: str) -> Any:
        s3 = self.aws.client("s3")
        try:
            return json.loads(s3.get_object(Bucket=self.aws.at.bucket_name, Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def put(self, key: str, text: str) -> None:
        self.aws.client("s3").put_object(Bucket=self.aws.at.bucket_name, Key=key, Body=text.encode())

    def begin(self) -> tuple[str, str]:
        """The id and the ARN of a job that runs, of whose shards one is done and another is worked on."""
        job_id = self.name()
        slow = {"kind": "probe", "params": {"seconds": 0.5}, "shardSize": 1, "maxConcurrency": 1}
        execution = self.aws.start(slow, job_id)
        partial = f"work/{job_id}/partials/00000000.json"
        until(lambda: self.stored(partial) is not None)
        return job_id, execution

    def stop(self) -> str:
        """The id of a job that was stopped and has no record."""
        job_id, execution = self.begin()
        self.aws.client("stepfunctions").stop_execution(executionArn=execution)
        self.aws.wait(execution)
        return job_id

    def call(self, function: str, event: dict[str, Any]) -> Any:
        """What a new environment of the function answers to the event: an old one may know what it has read."""
        self.renew(function)
        answer = self.aws.client("lambda").invoke(FunctionName=self.functions[function], Payload=json.dumps(event))
        return json.loads(answer["Payload"].read())

    def renew(self, function: str) -> None:
        name, client = self.functions[function], self.aws.client("lambda")
        environment = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        environment["RENEWED"] = self.name()
        client.update_function_configuration(FunctionName=name, Environment={"Variables": environment})

    @cached_property
    def resources(self) -> dict[str, str]:
        """The deployed stack's resources: logical ids to names."""
        found = self.aws.client("cloudformation").describe_stack_resources(StackName="FanOut")["StackResources"]
        return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found}

    @cached_property
    def template(self) -> Template:
        body = self.aws.client("cloudformation").get_template(StackName="FanOut")["TemplateBody"]
        return Template(body if isinstance(body, dict) else json.loads(body))

    @cached_property
    def functions(self) -> dict[str, str]:
        logical_ids = self.template.all("AWS::Lambda::Function")
        return {self.template.name_of(each): self.resources[each] for each in logical_ids}

    @contextmanager
    def without(self, role: str, grant: Grant) -> Iterator[None]:
        """The deployed role without this grant, and with every other."""
        iam, template, changed = self.aws.client("iam"), self.template, 0
        policies = {}
        for policy in template.all("AWS::IAM::Policy").values():
            (logical_id,) = (each["Ref"] for each in policy["Properties"]["Roles"])
            if template.name_of(logical_id) != f"{role}Role":
                continue
            place = {"RoleName": self.resources[logical_id], "PolicyName": policy["Properties"]["PolicyName"]}
            document = policies[tuple(place.items())] = iam.get_role_policy(**place)["PolicyDocument"]
            kept = []
            # The template's statement says what the deployed one's ARNs are.
            for planned, real in zip(
                policy["Properties"]["PolicyDocument"]["Statement"], document["Statement"], strict=True
            ):
                assert set(real) == {"Action", "Effect", "Resource"}
                for action in many(real["Action"]):
                    for plan, arn in zip(many(planned["Resource"]), many(real["Resource"]), strict=True):
                        if Grant(action, template.flat(plan)) == grant:
                            changed += 1
                        else:
                            kept.append({"Effect": "Allow", "Action": action, "Resource": arn})
            iam.put_role_policy(**place, PolicyDocument=json.dumps({**document, "Statement": kept}))
        try:
            assert changed == 1, f"the role {role} has {grant} {changed} times"
            yield
        finally:
            for place_of, document in policies.items():
                iam.put_role_policy(**dict(place_of), PolicyDocument=json.dumps(document))

    def outcome(self, scenario: str) -> Any:
        """What the scenario brings with every grant; tried once."""
        if scenario not in self._outcomes:
            self._outcomes[scenario] = SCENARIOS[scenario][0](self)
        return self._outcomes[scenario]


def many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def until(found: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


# ------------------------------------------------------------------ the scenarios


def tasks_over_rest(flow: Flow) -> Any:
    flow.renew("TaskApi")
    http = flow.aws.http
    status, made = http("POST", "/tasks", b'{"title": "A"}')
    # One that is there, if it could not be made.
    path = f"/tasks/{made.get('id', 'task-00001')}"
    statuses = [
        http("GET", path)[0],
        http("PUT", path, json.dumps({"title": "B", "version": 1}).encode())[0],
        # It has a page token, which takes the secret.
        http("GET", "/tasks?limit=1")[0],
        http("DELETE", path)[0],
    ]
    return [status, *statuses]


def tasks_listed(flow: Flow) -> Any:
    page = {"filter": {}, "segment": 0, "totalSegments": 1, "cursor": None, "limit": 1}
    listed = flow.call("ListTasks", page)
    read = flow.call("ListTasks", {"filter": {}, "ids": ["task-00001"]})
    return len(listed.get("lines", [])), len(read.get("tasks", []))


def a_size(flow: Flow) -> Any:
    return sorted(flow.call("ListTasks", {"size": True}))


def a_plan(flow: Flow) -> Any:
    _, record = flow.job({"shardSize": 2})
    return record["status"], record.get("counts", {}).get("succeeded")


def a_limit(flow: Flow) -> Any:
    """Whether a new environment of the Manifest has read the account's limit: an old one keeps it for a minute."""
    job_id = flow.stop()
    execution = flow.aws.at.state_machine_arn.replace(":stateMachine:", ":execution:") + f":{job_id}"
    events = flow.aws.client("stepfunctions").get_execution_history(executionArn=execution, maxResults=1000)["events"]
    (entered,) = (
        each["stateEnteredEventDetails"]["input"]
        for each in events
        if each.get("stateEnteredEventDetails", {}).get("name") == "Manifest"
    )
    answer = flow.call("Manifest", json.loads(entered))
    return answer.get("shards"), "could not be read" in json.dumps(flow.stored(f"jobs/{job_id}/manifest.json"))


def an_import_of_one_row(flow: Flow) -> Any:
    return an_import(flow, "title\nThe only one\n")


def an_import(flow: Flow, rows: str = ROWS) -> Any:
    key = f"uploads/{flow.name()}.csv"
    flow.put(key, rows)
    _, record = flow.job({"kind": "import-tasks", "source": {"csv": key}})
    return record["status"], record.get("counts", {}).get("succeeded")


def a_change(flow: Flow) -> Any:
    _, record = flow.job({"kind": "fragile"})
    return record["status"], record.get("counts", {}).get("succeeded")


def a_missing_source(flow: Flow) -> Any:
    _, record = flow.job({"kind": "import-tasks", "source": {"csv": "uploads/none.csv"}})
    return record.get("error", {}).get("name")


def a_quarantine(flow: Flow) -> Any:
    _, record = flow.job({"kind": "deadly", "toleratedFailurePercentage": 100})
    counts = record.get("counts", {})
    return record["status"], counts.get("succeeded"), counts.get("quarantined")


def an_early_stop(flow: Flow) -> Any:
    """What the map heard of the first shard: its one failure is below the average, and more than the job tolerates."""
    key, job_id = f"uploads/{flow.name()}.csv", flow.name()
    flow.put(key, BAD_ROWS)
    document = {"kind": "import-tasks", "source": {"csv": key}, "shardSize": 5, "maxConcurrency": 1}
    execution = flow.aws.start(document, job_id)
    flow.aws.wait(execution)
    client = flow.aws.client("stepfunctions")
    (run,) = client.list_map_runs(executionArn=execution)["mapRuns"]
    children = client.list_executions(mapRunArn=run["mapRunArn"])["executions"]
    errors = {client.describe_execution(executionArn=each["executionArn"]).get("error") for each in children}
    return errors - {None}, flow.stored(f"work/{job_id}/excess.json") is not None


def a_sweep(flow: Flow) -> Any:
    job_id = flow.stop()
    flow.call("Finalizer", {"detail-type": "Scheduled Event"})
    record = flow.record(job_id) or {"status": None}
    return record["status"], record.get("counts", {}).get("succeeded")


def jobs_over_rest(flow: Flow) -> Any:
    http = flow.aws.http
    started, _ = http("POST", "/jobs", b"{}")
    listed, _ = http("GET", "/jobs")
    missing, _ = http("GET", "/jobs/none")
    job_id, _ = flow.begin()
    running, document = http("GET", f"/jobs/{job_id}")
    stopped, _ = http("DELETE", f"/jobs/{job_id}")
    return started, listed, missing, running, document.get("phase"), stopped


def an_upload(flow: Flow) -> Any:
    # The one writes an object, the other asks whether it is there.
    return flow.aws.http("POST", "/tasks/upload", ROWS.encode(), headers=CSV)[0]


def a_lost_event(flow: Flow) -> Any:
    """Who asks for a job more than ten seconds after its end has the Finalizer called."""
    job_id = flow.stop()
    time.sleep(11)
    status, _ = flow.aws.http("GET", f"/jobs/{job_id}")
    if status == 200:
        until(lambda: flow.record(job_id) is not None)
    return status


TASKS = 5
SCENARIOS: dict[str, tuple[Callable[[Flow], Any], Any]] = {
    "tasks over REST": (tasks_over_rest, [201, 200, 200, 200, 204]),
    "tasks listed": (tasks_listed, (1, 1)),
    "a size": (a_size, ["bytes", "count"]),
    "a plan": (a_plan, ("SUCCEEDED", TASKS)),
    "a limit": (a_limit, (TASKS, False)),
    "an import": (an_import, ("SUCCEEDED", 5)),
    "an import of one row": (an_import_of_one_row, ("SUCCEEDED", 1)),
    "a change": (a_change, ("SUCCEEDED", TASKS)),
    "a missing source": (a_missing_source, "SourceNotFoundError"),
    "a quarantine": (a_quarantine, ("PARTIAL", TASKS - 1, 1)),
    "an early stop": (an_early_stop, ({"ShardFailedError"}, True)),
    "a sweep": (a_sweep, ("STOPPED", 1)),
    "jobs over REST": (jobs_over_rest, (202, 200, 404, 200, "WORKING", 202)),
    "an upload": (an_upload, 202),
    "a lost event": (a_lost_event, 200),
}


# ------------------------------------------------------------------ the tests

GRANTS = [
    pytest.param(role, scenario, grant, id=f"{role} {grant}")
    for role, scenarios in NEEDED.items()
    for scenario, grants in scenarios.items()
    for grant in sorted(grants)
]
# One deployment for all: they stay together when the soak is shared out among processes.
soak = [pytest.mark.soak, pytest.mark.timeout(1800), pytest.mark.xdist_group("roles")]


def with_marks(test: Callable[..., None]) -> Callable[..., None]:
    for mark in soak:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    def add_kind(staged: Path) -> None:
        (staged / "kinds" / "deadly.py").write_text(DEADLY)

    with deployed(tmp_path_factory.mktemp("roles"), add_kind, wait_scale=0) as aws:
        events = aws.client("events")
        for rule in events.list_rules()["Rules"]:
            events.disable_rule(Name=rule["Name"])
        yield Flow(aws)


@pytest.fixture
def tasks(flow: Flow) -> None:
    """Five open tasks, and no others, whatever the scenarios before have left."""
    flow.aws.empty()
    flow.aws.put_tasks([task(number) for number in range(TASKS)])


def test_every_scenario_is_some_grants() -> None:
    assert {scenario for scenarios in NEEDED.values() for scenario in scenarios} == set(SCENARIOS)


@with_marks
def test_the_deployed_roles_are_those_of_the_table(flow: Flow) -> None:
    assert flow.template.grants == {role: needed(role) | set(UNJUDGED[role]) for role in UNJUDGED}


@with_marks
@pytest.mark.parametrize(("role", "scenario", "grant"), GRANTS)
def test_without_a_grant_its_scenario_fails(flow: Flow, tasks: None, role: str, scenario: str, grant: Grant) -> None:
    run, expected = SCENARIOS[scenario]
    assert flow.outcome(scenario) == expected
    flow.aws.empty()
    flow.aws.put_tasks([task(number) for number in range(TASKS)])
    with flow.without(role, grant):
        assert run(flow) != expected


@with_marks
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_with_every_grant_back_all_is_well(flow: Flow, tasks: None, scenario: str) -> None:
    run, expected = SCENARIOS[scenario]
    assert run(flow) == expected
