"""Executions: StartExecution checks names and inputs and answers a repeated start; no pause before the first state,
the machine's TimeoutSeconds, and what AWS tells of every state; StopExecution reaches the children, and for good."""

import contextvars
import json
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replaces
from .execution_history import Control, Data, HaltedError, add_event, current, error, fail_execution, finish, previous
from .paths import number, require_path
from .task_calls import MAX_PAYLOAD_BYTES, limited

logger = logging.getLogger("fanout.states")

# An execution takes a year at most: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_SECONDS = 365 * 24 * 3600
NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")


@replaces(sf, "_start_execution", wraps=True)
def start_execution(original: Callable[[Data], Any], data: Data) -> Any:
    """StartExecution with AWS's checks of name and input, and its answer to a repeated start: the running
    execution if name and input are the same, else ExecutionAlreadyExists."""
    name, text = data.get("name"), data.get("input", "{}")
    if name is not None and not NAME.fullmatch(name):
        return _refused("InvalidName", f"Invalid Name: '{name}'")
    try:
        json.loads(text)
    except ValueError as problem:
        return _refused("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{problem}'")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
        return _refused("InvalidExecutionInput", f"The input exceeds the maximum of {MAX_PAYLOAD_BYTES} bytes.")
    machine_arn = sf._resolve_state_machine_arn(data.get("stateMachineArn", "")) or ""
    arn = f"{machine_arn.replace(':stateMachine:', ':execution:')}:{name}"
    known = name and sf._executions.get(arn)
    if not known:
        return original(data)
    if known["status"] == "RUNNING" and known["input"] == text:
        return sf.json_response({"executionArn": arn, "startDate": known["startDate"]})
    return _refused("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")


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


def walk(states: Data, name: str | None, data: Any, execution: Data, ctx: Data) -> Any:
    """Run states from the one of this name to an end and return the output; raises what the last state failed with."""
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
    control = execution["_control"] = Control(execution)
    current.set(control)
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


@replaces(sf, "_stop_execution")
def stop_execution(data: Data) -> Any:
    """StopExecution: the execution is ABORTED for good, its children are ABORTED, and none of them starts new
    work. A Lambda invocation under way runs to its end, unheard, as on AWS."""
    execution = sf._executions.get(data.get("executionArn"))
    if execution is None:
        return _refused("ExecutionDoesNotExist", f"Execution Does Not Exist: '{data.get('executionArn')}'")
    reason = {"error": data.get("error"), "cause": data.get("cause")}
    details = {key: value or "" for key, value in reason.items()}
    finish(execution, "ABORTED", "ExecutionAborted", details, **reason)
    # Stopping what has ended is no error and changes nothing.
    return sf.json_response({"stopDate": execution["stopDate"]})


def _refused(code: str, message: str) -> Any:
    return sf.error_response_json(code, message, 400)
