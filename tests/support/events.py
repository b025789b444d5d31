"""The events with which AWS calls functions, as far as they are documented."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from fan_out import jobs_api
from task_service import task_api

# 2026-11-23T09:00:00.123Z
STARTED_MS = 1_795_424_400_123
STAGE = "v1"
CATCH_ALL = "/{proxy+}"


def resources() -> list[str]:
    """The resources of both functions, those with the fewest placeholders first, as API Gateway matches them."""
    names = {name.partition(" ")[2] for api in (task_api.api, jobs_api.api) for name in api.routes}
    return sorted(names, key=lambda name: name.count("{"))


def match(path: str) -> tuple[str, dict[str, str] | None]:
    """The resource of a path, and the values of its placeholders."""
    for resource in resources():
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", resource)
        if (found := re.fullmatch(pattern, path)) is not None:
            return resource, found.groupdict() or None
    return CATCH_ALL, {"proxy": path.lstrip("/")}


def api_event(
    method: str,
    path: str,
    body: str | bytes | None = None,
    *,
    query: Mapping[str, str | list[str]] | None = None,
    content_type: str | None = "application/json",
) -> dict[str, Any]:
    """A request; a body of bytes travels in base64."""
    resource, parameters = match(path)
    lists = {name: [value] if isinstance(value, str) else value for name, value in (query or {}).items()}
    headers = {} if content_type is None else {"Content-Type": content_type}
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": headers or None,
        "multiValueHeaders": {name: [value] for name, value in headers.items()} or None,
        "queryStringParameters": {name: values[-1] for name, values in lists.items()} or None,
        "multiValueQueryStringParameters": lists or None,
        "pathParameters": parameters,
        "stageVariables": None,
        "requestContext": {
            "requestId": "r-1",
            "resourcePath": resource,
            "httpMethod": method,
            "stage": STAGE,
            "path": f"/{STAGE}{path}",
        },
        "body": base64.b64encode(body).decode() if isinstance(body, bytes) else body,
        "isBase64Encoded": isinstance(body, bytes),
    }


def execution_ended(status: str, job_id: str = "job-1") -> dict[str, Any]:
    """EventBridge's event of an execution that was stopped, timed out or failed."""
    machine = "arn:aws:states:eu-central-1:123456789012:stateMachine:FanOut"
    return {
        "source": "aws.states",
        "detail-type": "Step Functions Execution Status Change",
        "detail": {
            "executionArn": f"{machine.replace('stateMachine', 'execution')}:{job_id}",
            "stateMachineArn": machine,
            "name": job_id,
            "status": status,
            "startDate": STARTED_MS,
            "stopDate": STARTED_MS + 5000,
            "input": "{}",
            "output": None,
        },
    }
