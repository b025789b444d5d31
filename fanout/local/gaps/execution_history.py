"""Executions end once, with AWS's events and their limit; a step after the end raises HaltedError."""

import contextvars
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from ministack.services import stepfunctions as sf

from . import replaces

MAX_EVENTS = 25_000
TIMEOUT = "States.Timeout"
# Ends that come from outside the thread of the execution.
OUTSIDE = {"ExecutionAborted", "ExecutionTimedOut"}
ENDED = {"ExecutionSucceeded", "ExecutionFailed", *OUTSIDE}
TASK_EVENTS = {"TaskScheduled", "TaskStarted", "TaskSucceeded", "TaskFailed"}
Data = dict[str, Any]
# What a state fails with, by name and cause.
error = sf._ExecutionError


class HaltedError(Exception):
    """The execution has ended (stopped, timed out, or its map run failed): no further step of it may start."""


@dataclass
class Control:
    """What a running execution's threads share."""

    execution: Data
    halted: threading.Event = field(default_factory=threading.Event)
    # Of its inline Maps.
    inner: list["Control"] = field(default_factory=list)

    def halt(self) -> None:
        self.halted.set()
        for control in self.inner:
            control.halt()


current: contextvars.ContextVar[Control | None] = contextvars.ContextVar("fanout_execution", default=None)
# The id of the event before in this thread; 0 before the first state.
previous: contextvars.ContextVar[int] = contextvars.ContextVar("fanout_previous", default=0)
# What the Task that runs in this thread sends.
parameters: contextvars.ContextVar[Any] = contextvars.ContextVar("fanout_parameters", default=None)
# Guards every change of a status and every append to a history: an execution ends once, whoever gets there first.
lock = threading.RLock()


def finish(execution: Data, status: str, event: str, details: Data | None = None, **fields: object) -> bool:
    """End an execution and its map runs, once: False, and nothing changed, if it had ended already."""
    with lock:
        if execution["status"] != "RUNNING":
            return False
        execution.update(status=status, stopDate=sf.now_iso(), **fields)
        key = f"{event[0].lower()}{event[1:]}EventDetails"
        add_event(execution, event, {key: details or {}})
        control = execution.pop("_control", None)
    if control is not None:
        control.halt()
    if status != "SUCCEEDED":
        for run in list(sf._map_runs.values()):
            if run["executionArn"] == execution["executionArn"] and run["status"] == "RUNNING":
                run["_map"].abort("ABORTED")
    if "mapRunArn" not in execution:
        sf._emit_execution_status_event(execution)
    return True


@replaces(sf, "_add_event")
def add_event(execution: Data, event_type: str, details: Data | None = None) -> Data:
    """Append to the history; raises HaltedError once the execution has ended, which is what keeps a stopped
    execution's threads from taking another step.

    The history has the events of AWS (a started task is two, scheduled and started), their details and its limit.
    """
    with lock:
        if event_type not in ENDED:
            control = current.get()
            is_halted = control is not None and control.execution is execution and control.halted.is_set()
            if is_halted or execution.get("status", "RUNNING") != "RUNNING":
                raise HaltedError
            if len(execution["events"]) >= MAX_EVENTS - 1:
                cause = f"The execution reached the maximum number of history events ({MAX_EVENTS})."
                raise error("States.Runtime", cause)
        told = details or {}
        # A state that cannot go on is no failure of its Task.
        if event_type == "TaskFailed" and told["taskFailedEventDetails"]["error"] == "States.Runtime":
            return {}
        kind, told = _of_task(event_type, told) if event_type in TASK_EVENTS else (event_type, told)
        events: list[Data] = execution["events"]
        before = 0 if kind in OUTSIDE else previous.get()
        event: Data = {"id": len(events) + 1, "previousEventId": before, "type": kind, "timestamp": sf.now_iso()}
        for name, fields in told.items():
            whole = {f"{field}Details": {"truncated": False} for field in ("input", "output") if field in fields}
            event[name] = fields | whole
        events.append(event)
        previous.set(event["id"])
        if event_type == "TaskScheduled":
            add_event(execution, "TaskStarted", details)
        return event


def _of_task(event_type: str, details: Data) -> tuple[str, Data]:
    """An event of a Task as AWS names and tells it: LambdaFunction… if its Resource is a function's ARN."""
    ((_, told),) = details.items()
    service, _, action = told["resource"].removeprefix("arn:aws:states:::").rpartition(":")
    is_function = ":function:" in told["resource"]
    told = {name: told[name] for name in ("error", "cause", "output") if name in told}
    if told.get("error") == TIMEOUT:
        event_type = "TaskTimedOut"
    if not is_function:
        told |= {"resourceType": service, "resource": action}
    if event_type == "TaskScheduled":
        sent = json.dumps(parameters.get())
        told |= {"resource": f"{service}:{action}", "input": sent} if is_function else {"parameters": sent}
    if is_function:
        event_type = event_type.replace("Task", "LambdaFunction")
    return event_type, {f"{event_type[0].lower()}{event_type[1:]}EventDetails": told}


@replaces(sf, "_fail_execution")
def fail_execution(execution: Data, name: str | None, cause: str | None) -> None:
    """End as FAILED, unless the execution has been stopped or timed out meanwhile."""
    told = {key: value for key, value in (("error", name), ("cause", cause)) if value}
    finish(execution, "FAILED", "ExecutionFailed", told, **told)
