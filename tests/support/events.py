"""The events with which AWS calls functions, as far as they are documented."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

# 2026-11-23T09:00:00.123Z
STARTED_MS = 1_795_424_400_123


def api_request(
    method: str,
    path: str,
    body: object = None,
    *,
    query: Mapping[str, str | list[str]] | None = None,
    content_type: str | None = "application/json",
) -> dict[str, Any]:
    """A request through API Gateway. A body of bytes arrives in Base64, text as it is, all else as JSON."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    lists = {name: value if isinstance(value, list) else [value] for name, value in (query or {}).items()}
    is_binary = isinstance(body, bytes)
    if isinstance(body, bytes):
        text: str | None = base64.b64encode(body).decode()
    else:
        text = body if isinstance(body, str) or body is None else json.dumps(body)
    return {
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in lists.items()} or None,
        "multiValueQueryStringParameters": lists or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "requestId": "r-1",
            "stage": "prod",
            "path": f"/prod{path}",
            "resourcePath": path,
            "httpMethod": method,
        },
        "body": text,
        "isBase64Encoded": is_binary,
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
