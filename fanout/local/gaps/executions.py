"""Executions: the machine's TimeoutSeconds, the events of an inline Map, no pause before the first state."""

import contextvars
import json
import logging
import threading
from typing import Any

from ministack.services import stepfunctions as sf

from . import replaces
from .execution_history import Control, Data, HaltedError, add_event, current, error, fail_execution, finish, previous
from .paths import number, require_path
from .task_calls import limited

logger = logging.getLogger("fanout.states")

# An execution takes a year at most: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_SECONDS = 365 * 24 * 3600


def step(state: Data, data: Any, execution: Data, ctx: Data) -> Any:
    """Run one state: its output and the next state's name, None if there is none."""
    kind = state["Type"]
    if kind == "Succeed":
        return sf._apply_output_path(state, sf._apply_input_path(state, data, ctx), ctx), None
    if kind == "Fail":
        for field in ("ErrorPath", "CausePath"):
            require_path(state.get(field), data, ctx, field)
        name, cause = sf._fail_state_error(state, data, ctx)
        raise error(name if {"Error", "ErrorPath"} & state.keys() else "", cause)
    if "TimeoutSecondsPath" in state:
        state = {**state, "TimeoutSeconds": number(state, "TimeoutSeconds", data, ctx)}
    run = getattr(sf, f"_execute_{kind.lower()}")
    arguments = (execution, ctx) if kind in ("Task", "Parallel", "Map") else (ctx,)
    return run(state, data, *arguments)


def walk(states: Data, start: str | None, data: Any, execution: Data, ctx: Data) -> Any:
    """Run states from `start` to an end and return the output; raises what the last state failed with."""
    name = start
    while name is not None:
        state = states[name]
        kind = state["Type"]
        ctx["State"] = {"Name": name, "EnteredTime": sf.now_iso()}
        entered = {"name": name, "input": limited(data, name)}
        event = add_event(execution, f"{kind}StateEntered", {"stateEnteredEventDetails": entered})
        try:
            data, following = step(state, data, execution, ctx)
        except sf._ExecutionError as failure:
            cause = f"An error occurred while executing the state '{name}' (entered at the event id #{event['id']}). "
            is_own = failure.error == "States.Runtime" and state.get("Error") != "States.Runtime"
            # An iteration of a Map has said so already.
            if not is_own or failure.cause.startswith("An error occurred while"):
                raise
            raise error(failure.error, cause + failure.cause) from failure
        exited = {"name": name, "output": limited(data, name)}
        add_event(execution, f"{kind}StateExited", {"stateExitedEventDetails": exited})
        name = following
    return data


@replaces(sf, "_run_execution")
def run_execution(arn: str) -> None:
    """Run a started execution to its end, in the calling thread. At the machine's TimeoutSeconds it ends as
    TIMED_OUT, whatever its tasks are doing."""
    execution = sf._executions[arn]
    machine = sf._state_machines[execution["stateMachineArn"]]
    execution["events"][0] |= {"previousEventId": 0}
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
    ended = (finish, execution, "TIMED_OUT", "ExecutionTimedOut")
    timer = threading.Timer(definition.get("TimeoutSeconds", MAX_SECONDS), contextvars.copy_context().run, ended)
    timer.daemon = True
    timer.start()
    run_to_the_end(execution, definition, data, ctx)
    timer.cancel()


def run_to_the_end(execution: Data, definition: Data, data: Any, ctx: Data) -> None:
    """Run an execution, or a child of a map run, in the calling thread, and end it."""
    execution["_control"] = Control(execution)
    current.set(execution["_control"])
    previous.set(0)
    try:
        output = walk(definition["States"], definition["StartAt"], data, execution, ctx)
        text = json.dumps(output)
        finish(execution, "SUCCEEDED", "ExecutionSucceeded", {"output": text}, output=text)
    except HaltedError:
        logger.info("%s is %s", execution["executionArn"], execution["status"])
    except sf._ExecutionError as failure:
        fail_execution(execution, failure.error, failure.cause)
    except Exception as failure:
        logger.exception("Execution %s", execution["executionArn"])
        fail_execution(execution, "States.Runtime", str(failure))
