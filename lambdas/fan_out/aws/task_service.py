"""The two internal functions of the Task Service: the only way to its tasks."""

import json
from collections.abc import Sequence
from typing import Any

from fan_out.aws import clients as aws
from fan_out.errors import ServiceUnavailableError, TaskServiceError, ThrottledError


def list_page(
    function: str, *, match: dict[str, Any], segment: int, segments: int, cursor: str | None, limit: int
) -> tuple[list[bytes], str | None]:
    """One page of one segment of the listing, a line for each task in the form of `documents.encode`, and the cursor
    behind it; an empty page may have one, too."""
    answer = _invoke(
        function, {"filter": match, "segment": segment, "totalSegments": segments, "cursor": cursor, "limit": limit}
    )
    # They go into a shard as they are, which is half of what a lister's time went into; so their form is checked here.
    # protection: a-listed-line-is-a-task
    if not all(line.startswith('{"id":"') and line.endswith("}") and "\n" not in line for line in answer["lines"]):
        raise TaskServiceError("the Task Service answered a line that is no task")
    return [line.encode() for line in answer["lines"]], answer["cursor"]


def read_size(function: str) -> tuple[int, int]:
    """About how many tasks there are in all, and their bytes; up to six hours old."""
    answer = _invoke(function, {"size": True})
    return answer["count"], answer["bytes"]


# How many tasks one call can look up by their ids: DynamoDB's BatchGetItem takes 100.
IDS_PER_CALL = 100


def list_ids(function: str, ids: Sequence[str], *, match: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of up to 100 tasks that exist now and match the filter, in the order of `ids`."""
    answer = _invoke(function, {"filter": match, "ids": list(ids)})
    return list(answer["tasks"])


def write(function: str, writes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Apply up to 100 writes; an outcome for each, in their order. Repeating a call applies nothing twice."""
    # protection: a-throttled-call-is-an-outcome
    try:
        outcomes = list(_invoke(function, {"writes": list(writes)})["outcomes"])
    except ThrottledError as throttled:
        error = {"name": throttled.name, "message": str(throttled)}
        return [{"id": each.get("id"), "outcome": "throttled", "error": error} for each in writes]
    if len(outcomes) != len(writes):
        raise TaskServiceError(f"the Task Service answered {len(outcomes)} outcomes to {len(writes)} writes")
    return outcomes


# A function that died or ran out of time: Lambda's own names, by runtime generation.
_DIED = ("Runtime.", "Sandbox.", "Lambda.", "Extension.")


def _invoke(function: str, event: dict[str, Any]) -> Any:
    with aws.translated():
        answer = aws.lambda_client().invoke(FunctionName=function, Payload=json.dumps(event).encode())
        body = answer["Payload"].read()
    payload = json.loads(body)
    if "FunctionError" not in answer:
        return payload
    told = payload if isinstance(payload, dict) else {}
    name, message = str(told.get("errorType", "")), str(told.get("errorMessage", ""))
    if name == ThrottledError.__name__:
        raise ThrottledError(f"The Task Service is throttled: {message}")
    if name == "" or name.startswith(_DIED) or "timed out" in message:
        raise ServiceUnavailableError(f"The Task Service's function ended early ({name or 'no name'}).")
    raise TaskServiceError(f"The Task Service answered {name}: {message}")
