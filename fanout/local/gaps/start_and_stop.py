"""StartExecution checks names and inputs and answers a repeated start; StopExecution reaches the children for good."""

import json
import re
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replace
from .execution_history import Data, finish
from .payload_limit import MAX_PAYLOAD_BYTES

NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")


def start_execution(original: Callable[[Data], Any], data: Data) -> Any:
    """StartExecution with AWS's checks of name and input, and its answer to a repeated start: the running
    execution if name and input are the same, else ExecutionAlreadyExists."""
    name = data.get("name")
    if name is not None and not NAME.fullmatch(name):
        return sf.error_response_json("InvalidName", f"Invalid Name: '{name}'", 400)
    text = data.get("input", "{}")
    try:
        json.loads(text)
    except ValueError as problem:
        return sf.error_response_json(
            "InvalidExecutionInput", f"Invalid State Machine Execution Input: '{problem}'", 400
        )
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
        return sf.error_response_json(
            "InvalidExecutionInput", f"The input exceeds the maximum of {MAX_PAYLOAD_BYTES} bytes.", 400
        )
    machine_arn = sf._resolve_state_machine_arn(data.get("stateMachineArn", ""))
    if name is not None and machine_arn is not None:
        arn = f"{machine_arn.replace(':stateMachine:', ':execution:')}:{name}"
        running = sf._executions.get(arn)
        if running is not None and running["status"] == "RUNNING" and running["input"] == text:
            return sf.json_response({"executionArn": arn, "startDate": running["startDate"]})
        if running is not None:
            return sf.error_response_json("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'", 400)
    return original(data)


def stop_execution(data: Data) -> Any:
    """StopExecution: the execution is ABORTED for good, its children are ABORTED, and none of them starts new
    work. A Lambda invocation under way runs to its end, unheard, as on AWS."""
    execution = sf._executions.get(data.get("executionArn"))
    if execution is None:
        cause = f"Execution Does Not Exist: '{data.get('executionArn')}'"
        return sf.error_response_json("ExecutionDoesNotExist", cause, 400)
    reason = {"error": data.get("error"), "cause": data.get("cause")}
    details = {key: value or "" for key, value in reason.items()}
    finish(execution, "ABORTED", "ExecutionAborted", details, **reason)
    # Stopping what has ended is no error and changes nothing.
    return sf.json_response({"stopDate": execution["stopDate"]})


def close() -> None:
    replace(sf, "_stop_execution", stop_execution)
    replace(sf, "_start_execution", start_execution, wraps=True)
