"""Executions end once, with AWS's events and their limit; a step after the end raises HaltedError."""

from __future__ import annotations

import contextvars
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from ministack.services import stepfunctions as sf

from . import replace

MAX_EVENTS = 25_000
TIMEOUT = "States.Timeout"
ENDED = {"ExecutionSucceeded", "ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"}
Data = dict[str, Any]


class HaltedError(Exception):
    """The execution has ended (stopped, timed out, or its map run failed): no further step of it may start."""


@dataclass
class Control:
    """What a running execution's threads share."""

    execution: Data
    halted: threading.Event = field(default_factory=threading.Event)
    # Of its inline Maps.
    inner: list[Control] = field(default_factory=list)

    def halt(self) -> None:
        self.halted.set()
        for control in self.inner:
            control.halt()


current: contextvars.ContextVar[Control | None] = contextvars.ContextVar("fanout_execution", default=None)
controls: dict[str, Control] = {}
# Guards every change of a status and every append to a history: an execution ends once, whoever gets there first.
lock = threading.RLock()


def error(name: str, cause: str) -> Exception:
    failure: Exception = sf._ExecutionError(name, cause)
    return failure


def finish(execution: Data, status: str, event: str, details: Data | None = None, **fields: object) -> bool:
    """End an execution and its map runs, once: False, and nothing changed, if it had ended already."""
    with lock:
        if execution["status"] != "RUNNING":
            return False
        execution.update(status=status, stopDate=sf.now_iso(), **fields)
        key = f"{event[0].lower()}{event[1:]}EventDetails"
        add_event(execution, event, {key: details or {}})
        control = controls.get(execution["executionArn"])
    if control is not None:
        control.halt()
    if status != "SUCCEEDED":
        for run in list(sf._map_runs.values()):
            if run["executionArn"] == execution["executionArn"] and run["status"] == "RUNNING":
                run["_map"].abort("ABORTED")
    if "mapRunArn" not in execution:
        sf._emit_execution_status_event(execution)
    return True


def add_event(execution: Data, event_type: str, details: Data | None = None) -> Data:
    """Append to the history; raises HaltedError once the execution has ended, which is what keeps a stopped
    execution's threads from taking another step.

    The history has the events of AWS (a started task is two, scheduled and started) and its limit.
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
        details = details or {}
        failed = details.get("taskFailedEventDetails", {})
        if failed.get("error") == TIMEOUT:
            event_type, details = "TaskTimedOut", {"taskTimedOutEventDetails": failed}
        events: list[Data] = execution["events"]
        event: Data = {"id": len(events) + 1, "type": event_type, "timestamp": sf.now_iso(), **details}
        events.append(event)
        if event_type == "TaskScheduled":
            add_event(execution, "TaskStarted", {"taskStartedEventDetails": details["taskScheduledEventDetails"]})
        return event


def fail_execution(execution: Data, name: str | None, cause: str | None) -> None:
    """End as FAILED, unless the execution has been stopped or timed out meanwhile."""
    name, cause = name or None, cause or None
    finish(
        execution,
        "FAILED",
        "ExecutionFailed",
        {key: value for key, value in (("error", name), ("cause", cause)) if value},
        error=name,
        cause=cause,
        output=json.dumps({"Error": name, "Cause": cause}),
    )


def close() -> None:
    replace(sf, "_add_event", add_event)
    replace(sf, "_fail_execution", fail_execution)
