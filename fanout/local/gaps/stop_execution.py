"""StopExecution reaches the children, and nothing that has ended changes its status later."""

from __future__ import annotations

from typing import Any

from ministack.services import stepfunctions as sf

from . import replace
from .execution_history import Data, finish


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
