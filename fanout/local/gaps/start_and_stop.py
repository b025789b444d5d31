"""StartExecution checks names and inputs and answers a repeated start; StopExecution reaches the children for good."""

import json
import re
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replaces
from .execution_history import Data, finish
from .task_calls import MAX_PAYLOAD_BYTES

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
    known = sf._executions.get(arn)
    if known is None:
        return original(data)
    if known["status"] == "RUNNING" and known["input"] == text:
        return sf.json_response({"executionArn": arn, "startDate": known["startDate"]})
    return _refused("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")


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
