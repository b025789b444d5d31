"""The REST API: tasks and jobs, for callers that sign their requests."""

from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.constructs.function import LOG_RETENTION
from infra.constructs.grants import acknowledge
from infra.functions import snake

STAGE = "v1"
# Requests a second of the whole stage, far below the AWS account's own limit of 10,000, so that a
# runaway client is told 429 before it takes the account's concurrent functions from the workers.
RATE = 100
BURST = 200

ROUTES = {
    # The first is every method and path that no other route has; the gateway itself would answer 403.
    "TaskApi": (
        "ANY /{proxy+}",
        "GET /tasks",
        "POST /tasks",
        "GET /tasks/{id}",
        "PUT /tasks/{id}",
        "DELETE /tasks/{id}",
    ),
    "JobsApi": (
        "POST /tasks/upload",
        "GET /jobs",
        "POST /jobs",
        "GET /jobs/{id}",
        "DELETE /jobs/{id}",
        "GET /jobs/{id}/result",
        "GET /jobs/{id}/failures",
        "POST /jobs/{id}/retry",
        "POST /uploads",
        "POST /uploads/{id}/parts",
        "POST /uploads/{id}/complete",
    ),
}
"""Every method of the API by the function that answers it; there are no others."""

GATEWAY_PROBLEMS = (
    (400, "InvalidRequest", ("DEFAULT_4XX",)),
    (500, "Internal", ("DEFAULT_5XX",)),
    (403, "Forbidden", ("ACCESS_DENIED", "EXPIRED_TOKEN", "INVALID_SIGNATURE", "MISSING_AUTHENTICATION_TOKEN")),
    (413, "PayloadTooLarge", ("REQUEST_TOO_LARGE",)),
    (429, "Throttled", ("THROTTLED", "QUOTA_EXCEEDED")),
    (504, "ServiceUnavailable", ("INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT")),
)
"""The gateway's own answers: status and name of the problem, and the response types that it stands for."""

_UNLOGGED = (
    "API Gateway writes logs by one role for the whole account, which a stack must not change unasked; the functions "
    "log every request, and the context apiLogs turns the gateway's own logs on."
)
FINDINGS = {
    "APIG2": "The functions check every field themselves, and name the field, its value and what is "
    "allowed; the gateway's own validator would answer first, with less.",
    "APIG3": "Every method asks for a signature of this account's own principals, and the stage is "
    "throttled; a web ACL is a decision, and a bill, of who deploys it.",
    "COG4": "Callers are AWS principals that sign with IAM; there are no end users for a user pool.",
    "APIG1": _UNLOGGED,
    "APIG6": _UNLOGGED,
}
"""What cdk-nag finds in the API, and why it is meant."""


class Api(Construct):
    """`rest_api`, with IAM authorization on every method; its own errors are problem details, too.

    `has_logs` writes a line for each request and each error of the gateway. The account must have the role by which
    API Gateway writes any log: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
    """

    def __init__(self, scope: Construct, id_: str, *, functions: dict[str, lambda_.Function], has_logs: bool) -> None:
        super().__init__(scope, id_)
        self.rest_api = apigateway.RestApi(
            self,
            "RestApi",
            # Metrics know an API by its name alone.
            rest_api_name=cdk.Stack.of(self).stack_name,
            description="Tasks and jobs of Fan Out",
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            # A CSV must reach the function as the bytes that were sent, in any encoding.
            binary_media_types=["text/csv"],
            cloud_watch_role=False,
            default_method_options=apigateway.MethodOptions(authorization_type=apigateway.AuthorizationType.IAM),
            deploy_options=apigateway.StageOptions(
                stage_name=STAGE,
                throttling_rate_limit=RATE,
                throttling_burst_limit=BURST,
                tracing_enabled=True,
                **(self._logged() if has_logs else {}),
            ),
        )
        # The stack has an output ApiUrl of its own.
        self.rest_api.node.try_remove_child("Endpoint")
        for name, routes in ROUTES.items():
            integration = apigateway.LambdaIntegration(functions[name], allow_test_invoke=False)
            for route in routes:
                method, _, path = route.partition(" ")
                self.rest_api.root.resource_for_path(path).add_method(method, integration)
        for status, problem, types in GATEWAY_PROBLEMS:
            self._answer(types, status, problem)
        for finding, reason in FINDINGS.items():
            acknowledge(self.rest_api, finding, reason)

    def _logged(self) -> dict[str, Any]:
        log = logs.LogGroup(self, "AccessLog", retention=LOG_RETENTION, removal_policy=cdk.RemovalPolicy.DESTROY)
        fields = "caller http_method ip protocol request_time resource_path response_length status user"
        return {
            "logging_level": apigateway.MethodLoggingLevel.ERROR,
            "access_log_destination": apigateway.LogGroupLogDestination(log),
            "access_log_format": apigateway.AccessLogFormat.json_with_standard_fields(
                **dict.fromkeys(fields.split(), True)
            ),
        }

    def _answer(self, types: Sequence[str], status: int, problem: str) -> None:
        path = snake(problem).replace("_", "-")
        # messageString is quoted already.
        detail = '"detail":$context.error.messageString'
        body = f'{{"type":"/errors/{path}","title":"{problem}Error","status":{status},{detail}}}'
        headers = {"Content-Type": "'application/problem+json'"}
        if status in (429, 504):
            headers["Retry-After"] = "'1'"
        for name in types:
            self.rest_api.add_gateway_response(
                name.title().replace("_", ""),
                type=apigateway.ResponseType.of(name),
                status_code=str(status),
                response_headers=headers,
                templates={"application/json": body},
            )
