"""The two internal functions of the Task Service: the only way to its tasks."""

import json
from collections.abc import Sequence
from typing import Any

from fan_out.aws import clients as aws
from fan_out.errors import ServiceUnavailableError, TaskServiceError, ThrottledError


def list_page(
    function: str, *, match: dict[str, Any], segment: int, segments: int, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """One page of one segment of the listing, and the cursor behind it; an empty page may have one, too."""
    answer = _invoke(
        function, {"filter": match, "segment": segment, "totalSegments": segments, "cursor": cursor, "limit": limit}
    )
    return answer["tasks"], answer["cursor"]


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
