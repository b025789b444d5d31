"""What a run of `make aws-test` has cost, from what it left in the histories and what its tests counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fan_out.model import costs
from tests.aws.account import CHECK, Account

LIMIT_USD = 0.10
# Prices of us-east-1: https://aws.amazon.com/api-gateway/pricing/, https://aws.amazon.com/dynamodb/pricing/,
# https://aws.amazon.com/cloudwatch/pricing/, https://aws.amazon.com/secrets-manager/pricing/
API_REQUEST = 3.5e-6
WRITE_UNIT = 0.625e-6
READ_UNIT = 0.125e-6
LOG_BYTE = 0.5e-9
HOURS_PER_MONTH = 730
# Five alarms, a dashboard, a secret, and five metrics of the functions' own, a month.
STANDING_PER_MONTH = 5 * 0.10 + 3.00 + 0.40 + 5 * 0.30
# Assumed of each where nothing counts it.
API_GB_SECONDS = 0.5
LOG_BYTES_PER_CALL = 2_000
READ_UNITS_PER_JOB = 150
# A call that runs when its job is stopped goes on until it has done its task, a minute in these tests, and looks.
STOPPED_CALL_SECONDS = 120


class Line(NamedTuple):
    what: str
    number: float
    price: float

    @property
    def usd(self) -> float:
        return self.number * self.price


def counted(account: Account, spent: Mapping[str, int]) -> list[Line]:
    """Each part of the bill so far, rounded up where it cannot be counted."""
    client = account.client("stepfunctions")
    transitions = jobs = children = calls = 0
    seconds = 0.0
    for machine in account.things("machine"):
        for execution in _rows(client, "list_executions", "executions", stateMachineArn=machine):
            jobs += 1
            entered, called, lasted = _history(client, execution["executionArn"])
            transitions, calls, seconds = transitions + entered + 1, calls + called, seconds + lasted
            for run in _rows(client, "list_map_runs", "mapRuns", executionArn=execution["executionArn"]):
                for child in _rows(client, "list_executions", "executions", mapRunArn=run["mapRunArn"]):
                    if CHECK in machine:
                        # Of one state, which calls no function.
                        transitions += 2
                        continue
                    children += 1
                    if child["status"] == "ABORTED":
                        seconds += STOPPED_CALL_SECONDS
                    elif "stopDate" in child:
                        seconds += (child["stopDate"] - child["startDate"]).total_seconds()
    requests, writes = spent["requests"], spent["writes"]
    transitions += children * costs.TRANSITIONS_PER_SHARD
    calls += children + requests
    steps = children + jobs
    return [
        Line("state transitions", transitions, costs.TRANSITION),
        Line("calls of functions", calls, costs.INVOCATION),
        Line("GB-seconds of functions, at most", seconds + requests * API_GB_SECONDS, costs.GB_SECOND),
        Line("PUTs to S3", steps * costs.PUTS_PER_SHARD, costs.PUT),
        Line("GETs from S3", steps * costs.GETS_PER_SHARD, costs.GET),
        Line("requests of the REST API", requests, API_REQUEST),
        Line("DynamoDB write units", writes, WRITE_UNIT),
        Line("DynamoDB read units, about", jobs * READ_UNITS_PER_JOB, READ_UNIT),
        Line("bytes of logs, about", calls * LOG_BYTES_PER_CALL, LOG_BYTE),
        Line("hours of alarms, dashboard, metrics, secret", 1, STANDING_PER_MONTH / HOURS_PER_MONTH),
    ]


def _history(client: Any, execution: str) -> tuple[int, int, float]:
    """How many states an execution entered, how many functions it called, and how many seconds these took."""
    begun: dict[int, Any] = {}
    entered, seconds = 0, 0.0
    for event in _rows(client, "get_execution_history", "events", executionArn=execution):
        if event["type"].endswith("StateEntered"):
            entered += 1
        elif event["type"] == "TaskStarted":
            begun[event["id"]] = event["timestamp"]
        elif event["previousEventId"] in begun:
            seconds += (event["timestamp"] - begun[event["previousEventId"]]).total_seconds()
    return entered, len(begun), seconds


def _rows(client: Any, operation: str, rows: str, **options: Any) -> list[Any]:
    if not client.can_paginate(operation):
        return list(getattr(client, operation)(**options)[rows])
    return [row for page in client.get_paginator(operation).paginate(**options) for row in page[rows]]
