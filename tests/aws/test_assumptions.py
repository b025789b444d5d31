"""One check for each assumption of docs/aws-assumptions.md that an account can tell the truth about.

`make aws-test` runs them on its throw-away stack, and nothing else does; `make soak` runs that command on the embedded
AWS.
"""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.aws.account import CHECK
from tests.support.deployment import Deployment, deployed
from tests.support.emulator import TRUST, distributed, task
from tests.support.machine import make_tasks

CODE = """
import json, time
import boto3

class WantedError(Exception):
    pass

def handler(event, context):
    if "raises" in event:
        raise WantedError(event["raises"])
    if "seconds" in event:
        time.sleep(event["seconds"])
    if "key" in event:
        boto3.client("s3").put_object(Bucket=event["bucket"], Key=event["key"], Body=b"x")
    if "loops" in event:
        begun = time.perf_counter()
        for _ in range(event["loops"]):
            pass
        return time.perf_counter() - begun
    return "x" * event.get("bytes", 0)
"""
DONE = {"Type": "Pass", "End": True}
# IAM tells a new role everywhere within seconds.
PATIENCE = 60
Saw = Callable[[str], None]


class Bench:
    """Small machines and one function of the checks' own beside the stack, of the stack's name; they are removed
    with it. Their role may call that function, run their own children and use the stack's bucket."""

    def __init__(self, aws: Deployment) -> None:
        self.aws = aws
        partition, region, account = (aws.at.state_machine_arn.split(":")[index] for index in (1, 3, 4))
        arn, functions = (f"arn:{partition}:{service}:{region}:{account}" for service in ("states", "lambda"))
        statements: list[dict[str, Any]] = [
            {"Action": "lambda:InvokeFunction", "Resource": f"{functions}:function:{aws.stack}{CHECK}*"},
            {"Action": "states:StartExecution", "Resource": f"{arn}:stateMachine:{aws.stack}{CHECK}*"},
            {"Action": ["states:DescribeExecution", "states:StopExecution"], "Resource": f"{arn}:execution:*{CHECK}*"},
            {"Action": "s3:PutObject", "Resource": f"arn:{partition}:s3:::{aws.at.bucket_name}/*"},
        ]
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}
        iam, name = aws.client("iam"), self.name()
        self.role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("main.py", textwrap.dedent(CODE))
        self.lambda_, self.function = aws.client("lambda"), self.name()
        patiently(
            lambda: self.lambda_.create_function(
                FunctionName=self.function,
                Runtime="python3.13",
                Handler="main.handler",
                Role=self.role,
                Code={"ZipFile": code.getvalue()},
                Timeout=30,
                MemorySize=512,
            )
        )
        self.settle()
        # Until the role holds for machines, too.
        patiently(lambda: self.ended({"Work": self.task({})}))

    def name(self) -> str:
        return f"{self.aws.stack}{CHECK}{uuid.uuid4().hex[:6]}"

    def settle(self) -> None:
        """Wait until the function is as it was told to be."""
        self.lambda_.get_waiter("function_active_v2").wait(FunctionName=self.function)
        self.lambda_.get_waiter("function_updated_v2").wait(FunctionName=self.function)

    def invoke(self, event: object) -> Any:
        answer = self.lambda_.invoke(FunctionName=self.function, Payload=json.dumps(event))
        return json.loads(answer["Payload"].read())

    def task(self, payload: object, **fields: Any) -> dict[str, Any]:
        return task(self.function, **fields) | {"Parameters": {"FunctionName": self.function, "Payload": payload}}

    def start(self, states: dict[str, Any], data: object = None) -> str:
        definition = {"StartAt": next(iter(states)), "States": states, "TimeoutSeconds": 300}
        client = self.aws.client("stepfunctions")
        machine = patiently(
            lambda: client.create_state_machine(name=self.name(), definition=json.dumps(definition), roleArn=self.role)[
                "stateMachineArn"
            ]
        )
        started = client.start_execution(stateMachineArn=machine, input=json.dumps(data or {}))
        return str(started["executionArn"])

    def run(self, states: dict[str, Any], data: object = None) -> Any:
        """The ended execution's description."""
        return self.aws.wait(self.start(states, data))

    def ended(self, states: dict[str, Any]) -> Any:
        found = self.run(states)
        assert found["status"] == "SUCCEEDED", found
        return found

    def history(self, execution: str) -> list[Any]:
        pages = self.aws.client("stepfunctions").get_paginator("get_execution_history")
        return [event for page in pages.paginate(executionArn=execution) for event in page["events"]]

    def children(self, execution: str) -> list[Any]:
        """The children of the execution's map run, once there are any: a list may be behind."""
        client = self.aws.client("stepfunctions")
        runs = until(lambda: client.list_map_runs(executionArn=execution)["mapRuns"])

        def listed() -> list[Any]:
            pages = client.get_paginator("list_executions").paginate(mapRunArn=runs[0]["mapRunArn"])
            return [child for page in pages for child in page["executions"]]

        return list(until(listed))


def until(found: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return value


def patiently(call: Callable[[], Any]) -> Any:
    """What the call answers, tried again while a new role is not known yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except (AssertionError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("assumptions")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def bench(aws: Deployment) -> Bench:
    return Bench(aws)


@pytest.fixture
def saw(record_property: Callable[[str, object], None]) -> Saw:
    """Tells what was seen, for the table."""
    return lambda what: record_property("seen", what)


def test_retries_start_anew_on_reentry(bench: Bench, saw: Saw) -> None:
    fails = {
        "Retry": [{"ErrorEquals": ["WantedError"], "MaxAttempts": 2, "IntervalSeconds": 1, "BackoffRate": 1.0}],
        "Catch": [{"ErrorEquals": ["WantedError"], "ResultPath": "$.error", "Next": "IsSecond"}],
    }
    ended = bench.run(
        {
            "Work": bench.task({"raises": "no"}, Next="Done", **fails),
            "IsSecond": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.second", "IsPresent": True, "Next": "Done"}],
                "Default": "Mark",
            },
            "Mark": {"Type": "Pass", "Result": True, "ResultPath": "$.second", "Next": "Work"},
            "Done": DONE,
        }
    )
    assert ended["status"] == "SUCCEEDED", ended
    tries = Counter(event["type"] for event in bench.history(ended["executionArn"]))["TaskFailed"]
    saw(f"{tries} attempts in two entries of at most 3 each")
    assert tries == 6


def test_manifest_lines_arrive_parsed(aws: Deployment, bench: Bench, saw: Saw) -> None:
    aws.put_tasks(make_tasks(3, complete=0))
    execution = aws.start({"kind": "probe", "shardSize": 1}, "parsed")
    aws.wait(execution)
    child = bench.children(execution)[0]
    described = aws.client("stepfunctions").describe_execution(executionArn=child["executionArn"])
    shard = json.loads(described["input"])["shard"]
    saw(f"a shard is {json.dumps(shard)[:80]}")
    assert isinstance(shard, dict)
    assert isinstance(shard["index"], int)


def test_a_refused_call_has_its_name(bench: Bench, saw: Saw) -> None:
    bench.lambda_.put_function_concurrency(FunctionName=bench.function, ReservedConcurrentExecutions=0)
    try:
        states = {
            "Work": bench.task({}, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]),
            "Caught": DONE,
        }
        # The limit holds everywhere some time after it is set.
        caught = until(lambda: bench.run(states).get("output", '""').startswith("{") and bench.run(states))
    finally:
        bench.lambda_.delete_function_concurrency(FunctionName=bench.function)
        until(lambda: bench.run({"Work": bench.task({})})["status"] == "SUCCEEDED")
    error = json.loads(caught["output"])["Error"]
    saw(error)
    assert error == "Lambda.TooManyRequestsException"


@pytest.mark.parametrize(("failed", "status"), [(2, "SUCCEEDED"), (3, "FAILED")])
def test_a_tolerated_count_is_of_children(bench: Bench, saw: Saw, failed: int, status: str) -> None:
    choice = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.fails", "BooleanEquals": True, "Next": "No"}],
        "Default": "Yes",
    }
    states = {"Is": choice, "No": {"Type": "Fail"}, "Yes": {"Type": "Succeed"}}
    items = [{"fails": index < failed} for index in range(6)]
    machine = {"Map": distributed(states, ToleratedFailureCountPath="$.tolerated", MaxConcurrency=1)}
    ended = bench.run(machine, {"items": items, "tolerated": 2})
    saw(f"{failed} of 6 failed, 2 tolerated: {ended['status']} {ended.get('error', '')}".strip())
    assert ended["status"] == status
    assert ended.get("error", "States.ExceedToleratedFailureThreshold") == "States.ExceedToleratedFailureThreshold"


def test_children_started_a_second(bench: Bench, saw: Saw) -> None:
    """Nothing depends on the number: it is told, to be held against the forecast."""
    ended = bench.run({"Map": distributed({"Pass": DONE})}, {"items": list(range(100))})
    assert ended["status"] == "SUCCEEDED", ended
    execution = ended["executionArn"]
    until(lambda: len(bench.children(execution)) == 100)
    begun = sorted(child["startDate"] for child in bench.children(execution))
    saw(f"100 children in {(begun[-1] - begun[0]).total_seconds():.1f} s")


def test_children_end_with_their_parent(aws: Deployment, bench: Bench, saw: Saw) -> None:
    client = aws.client("stepfunctions")
    wait = {"Wait": {"Type": "Wait", "Seconds": 100_000, "End": True}}
    execution = bench.start({"Map": distributed(wait)}, {"items": [1, 2, 3]})
    until(lambda: [child["status"] for child in bench.children(execution)] == ["RUNNING"] * 3)
    client.stop_execution(executionArn=execution)
    begun = time.monotonic()
    until(lambda: {child["status"] for child in bench.children(execution)} == {"ABORTED"})
    saw(f"all were ABORTED after {time.monotonic() - begun:.1f} s")


def test_the_rule_matches_no_child(aws: Deployment, bench: Bench, saw: Saw) -> None:
    aws.put_tasks(make_tasks(1, complete=0))
    execution = aws.start({"kind": "probe", "shardSize": 1}, "children")
    parent = aws.wait(execution)
    client, events = aws.client("stepfunctions"), aws.client("events")
    child = client.describe_execution(executionArn=bench.children(execution)[0]["executionArn"])
    pattern = events.describe_rule(Name=aws.resource("AWS::Events::Rule", "JobEndedEarly"))["EventPattern"]

    def matches(described: Any) -> bool:
        names = ("stateMachineArn", "executionArn")
        event = {
            **{"id": "1", "account": "1", "time": "2026-11-23T09:00:00Z", "region": aws.at.region, "resources": []},
            **{"source": "aws.states", "detail-type": "Step Functions Execution Status Change"},
            "detail": {"status": "ABORTED", **{name: described[name] for name in names}},
        }
        return bool(events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"])

    saw(f"a child's machine is …{child['stateMachineArn'][-30:]}")
    assert matches(parent)
    assert not matches(child)


def test_a_throttled_write_has_not_taken_effect(aws: Deployment, bench: Bench, saw: Saw) -> None:
    """On a table that takes one write unit a second."""
    name, client = bench.name(), aws.client("dynamodb")
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        OnDemandThroughput={"MaxWriteRequestUnits": 1},
    )
    client.get_waiter("table_exists").wait(TableName=name)
    # botocore would repeat it.
    assert aws.session is not None, "the check asks AWS"
    impatient = aws.session.client("dynamodb", config=Config(retries={"total_max_attempts": 1}))
    throttled: list[str] = []

    def put(number: int) -> None:
        item = {"id": {"S": str(number)}, "body": {"S": "x" * 900}}
        try:
            impatient.put_item(TableName=name, Item=item, ConditionExpression="attribute_not_exists(id)")
        except ClientError as error:
            if "Throttl" in str(error) or "ProvisionedThroughputExceeded" in str(error):
                throttled.append(str(number))
                return
            raise

    aws.spent["writes"] += 1_000
    with ThreadPoolExecutor(16) as pool:
        for first in range(0, 1_000, 100):
            list(pool.map(put, range(first, first + 100)))
            if throttled:
                break
    saw(f"{len(throttled)} writes were throttled")
    assert throttled, "of 1,000 writes none was throttled"
    found = [
        number
        for number in throttled
        if "Item" in client.get_item(TableName=name, Key={"id": {"S": number}}, ConsistentRead=True)
    ]
    assert found == []


def test_cpu_grows_with_memory(bench: Bench, saw: Saw) -> None:
    def fastest(memory: int) -> float:
        bench.lambda_.update_function_configuration(FunctionName=bench.function, MemorySize=memory)
        bench.settle()
        return min(float(bench.invoke({"loops": 5_000_000})) for _ in range(3))

    small, large = fastest(512), fastest(1769)
    bench.lambda_.update_function_configuration(FunctionName=bench.function, MemorySize=512)
    bench.settle()
    saw(f"1,769 MB are {small / large:.1f} times as fast as 512 MB")
    assert small / large > 2


def test_the_first_deployment_needed_no_second(aws: Deployment, saw: Saw) -> None:
    pages = aws.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=aws.stack)
    events = [event for page in pages for event in page["StackEvents"]]
    failed = [event["LogicalResourceId"] for event in events if "FAILED" in event["ResourceStatus"]]
    resources = {event["LogicalResourceId"] for event in events}
    saw(f"{len(resources)} resources, {len(failed)} failures")
    assert failed == []
    (stack,) = aws.client("cloudformation").describe_stacks(StackName=aws.stack)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"


def test_one_writer_at_a_time_writes_on_condition(aws: Deployment, saw: Saw) -> None:
    client, where = aws.client("s3"), {"Bucket": aws.at.bucket_name, "Key": "uploads/check/once"}

    def status(**options: Any) -> int:
        try:
            return int(client.put_object(**where, **options)["ResponseMetadata"]["HTTPStatusCode"])
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])

    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda body: status(Body=body, IfNoneMatch="*"), (b"%d" % index for index in range(8))))
    saw(f"eight writers at once: {sorted(first)}")
    assert first.count(200) == 1
    assert set(first) <= {200, 409, 412}
    assert status(Body=b"later", IfNoneMatch="*") == 412
    body = client.get_object(**where)
    assert body["Body"].read() == b"%d" % first.index(200)
    assert status(Body=b"other", IfMatch='"0123456789abcdef0123456789abcdef"') == 412
    assert status(Body=b"next", IfMatch=body["ETag"]) == 200


def test_an_object_is_there_once_written(aws: Deployment, saw: Saw) -> None:
    client, bucket = aws.client("s3"), aws.at.bucket_name
    for index in range(20):
        key = f"uploads/check/seen-{index}"
        client.put_object(Bucket=bucket, Key=key, Body=b"%d" % index)
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"%d" % index
        listed = client.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
        assert [each["Key"] for each in listed][:1] == [key]
    saw("20 objects read and listed at once")


def test_a_scan_gives_each_lasting_task_once(aws: Deployment, saw: Saw) -> None:
    lasting = make_tasks(200, complete=0)
    aws.put_tasks(lasting)
    client, table = aws.client("dynamodb"), aws.at.task_table_name
    client.put_item(TableName=table, Item={"id": {"S": "passing"}})
    pages = client.get_paginator("scan")

    def segment(number: int) -> list[str]:
        found = []
        options = {"PaginationConfig": {"PageSize": 7}, "Segment": number, "TotalSegments": 4}
        for index, page in enumerate(pages.paginate(TableName=table, ConsistentRead=True, **options)):
            found += [item["id"]["S"] for item in page["Items"]]
            # What comes and goes meanwhile moves nothing else.
            passing = {"id": {"S": f"passing-{number}-{index % 2}"}}
            if index % 3:
                client.put_item(TableName=table, Item=passing)
            else:
                client.delete_item(TableName=table, Key=passing)
        return found

    with ThreadPoolExecutor(4) as pool:
        counts = Counter(name for names in pool.map(segment, range(4)) for name in names)
    times = {counts[task["id"]] for task in lasting}
    aws.empty()
    saw(f"200 tasks in 4 segments, found {times} times")
    assert times == {1}


def test_a_statement_of_a_batch_fails_alone(aws: Deployment, saw: Saw) -> None:
    client, table = aws.client("dynamodb"), aws.at.task_table_name
    client.put_item(TableName=table, Item={"id": {"S": "batch-1"}})
    statement = f"INSERT INTO \"{table}\" VALUE {{'id': ?, 'title': ?}}"
    batch: Any = [
        {"Statement": statement, "Parameters": [{"S": f"batch-{number}"}, {"S": "New"}]} for number in range(3)
    ]
    answers = client.batch_execute_statement(Statements=batch)["Responses"]
    codes = [answer.get("Error", {}).get("Code") for answer in answers]
    stored = [
        "Item" in client.get_item(TableName=table, Key={"id": {"S": f"batch-{number}"}}, ConsistentRead=True)
        for number in range(3)
    ]
    aws.empty()
    saw(f"of three creations, one of a task that is there: {codes}")
    assert (codes, stored) == ([None, "DuplicateItem", None], [True] * 3)


def test_calls_outlive_a_failed_inline_map(aws: Deployment, bench: Bench, saw: Saw) -> None:
    slow = {"seconds": 6, "bucket": aws.at.bucket_name, "key": "uploads/check/outlived"}
    choice = {
        "Type": "Choice",
        "Choices": [{"Variable": "$", "NumericEquals": 1, "Next": "Fails"}],
        "Default": "Slow",
    }
    # It fails once the other call runs.
    states = {
        "Is": choice,
        "Fails": {"Type": "Wait", "Seconds": 2, "Next": "Failed"},
        "Failed": {"Type": "Fail", "Error": "WantedError"},
        "Slow": bench.task(slow),
    }
    map_state = {
        **{"Type": "Map", "ItemsPath": "$.items", "End": True},
        "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Is", "States": states},
    }
    bench.invoke({})
    client, where = aws.client("s3"), {"Bucket": slow["bucket"], "Key": slow["key"]}
    ended = bench.run({"Map": map_state}, {"items": [1, 2]})
    assert ended["status"] == "FAILED"
    with pytest.raises(ClientError, match="404"):
        client.head_object(**where)

    def is_there() -> bool:
        with contextlib.suppress(ClientError):
            return bool(client.head_object(**where))
        return False

    until(is_there)
    saw(f"the map failed after {(ended['stopDate'] - ended['startDate']).total_seconds():.1f} s; the call went on")


def test_a_result_over_256_kib_fails_its_state(bench: Bench, saw: Saw) -> None:
    big = bench.task({"bytes": 300_000}, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}])
    ended = bench.run({"Big": big, "Caught": DONE})
    is_caught = ended["status"] == "SUCCEEDED"
    error = json.loads(ended["output"])["Error"] if is_caught else ended["error"]
    saw(f"{error}, {'caught' if is_caught else 'not caught'}")
    assert error == "States.DataLimitExceeded"


def test_an_execution_name_stays_taken(aws: Deployment, saw: Saw) -> None:
    first = aws.start({"shardSize": 0}, "taken")
    aws.wait(first)
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        aws.start({"shardSize": 1}, "taken")
    saw("taken after its end; 90 days are not waited for")


def test_the_cause_of_an_error_is_json(bench: Bench, saw: Saw) -> None:
    ended = bench.run({"Work": bench.task({"raises": "said"})})
    cause = json.loads(ended["cause"])
    saw(f"{ended['error']}: {sorted(cause)}")
    assert (ended["error"], cause["errorType"], cause["errorMessage"]) == ("WantedError", "WantedError", "said")
