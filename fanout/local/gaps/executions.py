"""Executions: the machine's TimeoutSeconds, the events of an inline Map, no pause before the first state."""

from __future__ import annotations

import contextvars
import copy
import json
import logging
import threading
from typing import Any

from ministack.services import stepfunctions as sf

from . import replace
from .execution_history import (
    Control,
    Data,
    HaltedError,
    add_event,
    controls,
    current,
    error,
    fail_execution,
    finish,
)
from .payload_limit import limited
from .stop_execution import abort_map_runs

logger = logging.getLogger("fanout.states")


def walk(states: Data, start: str | None, data: Any, execution: Data, ctx: Data) -> Any:
    """Run states from `start` to an end and return the output; raises what the last state failed with."""
    name = start
    while name is not None:
        state = states.get(name)
        if state is None:
            raise error("States.Runtime", f"State '{name}' not found in definition")
        kind = state["Type"]
        ctx["State"] = {"Name": name, "EnteredTime": sf.now_iso(), "RetryCount": 0}
        entered = {"name": name, "input": limited(data, name)}
        add_event(execution, f"{kind}StateEntered", {"stateEnteredEventDetails": entered})
        following: str | None = None
        if kind == "Succeed":
            data = sf._apply_output_path(state, sf._apply_input_path(state, data, ctx), ctx)
        elif kind == "Fail":
            raise error(*sf._fail_state_error(state, data, ctx))
        elif kind in ("Task", "Parallel", "Map"):
            run = {"Task": sf._execute_task, "Parallel": sf._execute_parallel, "Map": sf._execute_map}[kind]
            data, following = run(state, data, execution, ctx)
        elif kind in ("Pass", "Choice", "Wait"):
            step = {"Pass": sf._execute_pass, "Choice": sf._execute_choice, "Wait": sf._execute_wait}[kind]
            data, following = step(state, data, ctx)
        else:
            raise error("States.Runtime", f"Unknown state type: {kind}")
        exited = {"name": name, "output": limited(data, name)}
        add_event(execution, f"{kind}StateExited", {"stateExitedEventDetails": exited})
        name = following
    return data


def run_branch(states: Data, start: str, data: Any, execution: Data, ctx: Data) -> Any:
    """One iteration of an inline Map or one branch of a Parallel: its events are in the execution's history."""
    item = ctx.get("Map", {}).get("Item")
    if item is None:
        return walk(states, start, copy.deepcopy(data), execution, ctx)
    details = {"name": ctx["State"]["Name"], "index": item["Index"]}
    add_event(execution, "MapIterationStarted", {"mapIterationStartedEventDetails": details})
    output = walk(states, start, copy.deepcopy(data), execution, ctx)
    add_event(execution, "MapIterationSucceeded", {"mapIterationSucceededEventDetails": details})
    return output


def run_execution(arn: str) -> None:
    """Run a started execution to its end, in the calling thread. At the machine's TimeoutSeconds it ends as
    TIMED_OUT, whatever its tasks are doing."""
    execution = sf._executions.get(arn)
    machine = sf._state_machines.get(execution["stateMachineArn"]) if execution else None
    if execution is None:
        return
    if machine is None:
        fail_execution(execution, "StateMachineDeleted", "State machine no longer exists")
        return
    definition = json.loads(machine["definition"])
    data = json.loads(execution["input"])
    ctx = {
        "QueryLanguage": definition.get("QueryLanguage", "JSONPath"),
        "Execution": {
            "Id": arn,
            "Input": data,
            "Name": execution["name"],
            "RoleArn": machine["roleArn"],
            "StartTime": execution["startDate"],
            "RedriveCount": 0,
        },
        "StateMachine": {"Id": execution["stateMachineArn"], "Name": machine["name"]},
        "variables": {},
    }
    control = controls[arn] = Control(execution)
    current.set(control)
    timer = None
    if "TimeoutSeconds" in definition:
        context = contextvars.copy_context()
        timer = threading.Timer(definition["TimeoutSeconds"], context.run, (time_out, execution))
        timer.daemon = True
        timer.start()
    try:
        output = walk(definition["States"], definition["StartAt"], data, execution, ctx)
        text = json.dumps(output)
        finish(execution, "SUCCEEDED", "ExecutionSucceeded", {"output": text}, output=text)
    except HaltedError:
        logger.info("%s is %s", arn, execution["status"])
    except sf._ExecutionError as failure:
        fail_execution(execution, failure.error, failure.cause)
    except Exception as failure:
        logger.exception("Execution %s", arn)
        fail_execution(execution, "States.Runtime", str(failure))
    finally:
        if timer is not None:
            timer.cancel()
        controls.pop(arn, None)


def time_out(execution: Data) -> None:
    if finish(
        execution, "TIMED_OUT", "ExecutionTimedOut", {"error": "States.Timeout"}, error="States.Timeout"
    ):
        abort_map_runs(execution["executionArn"])


def close() -> None:
    replace(sf, "_run_execution", run_execution)
    replace(sf, "_run_sub_machine", run_branch)
