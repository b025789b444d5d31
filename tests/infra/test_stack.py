"""What the template promises."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from common.rest import type_of
from fan_out import jobs_api
from infra.functions import FUNCTIONS
from task_service import task_api
from tests.infra.template import Template
from tests.support.grants import NEEDED, UNJUDGED, needed, of_machine

REPO = Path(__file__).resolve().parents[2]
TASK_SERVICE = {"TaskApi", "ListTasks", "WriteTasks"}
FAN_OUT = {"Planner", "Lister", "Manifest", "Worker", "Merger", "Reducer", "JobsApi", "Finalizer"}

# ------------------------------------------------------------------ the stack as a whole


def test_the_stack_needs_no_parameters_and_no_lookups(template: Template, assembly: Path) -> None:
    manifest = json.loads((assembly / "manifest.json").read_text(encoding="utf-8"))
    assert "missing" not in manifest
    assert manifest["artifacts"]["FanOut"]["environment"] == "aws://unknown-account/unknown-region"
    assert "Parameters" not in template.document
    assert "Rules" not in template.document


def test_the_outputs_are_those_that_the_terminal_reads(template: Template) -> None:
    assert {name: template.flat(o["Value"]) for name, o in template.document["Outputs"].items()} == {
        "ApiUrl": "https://<RestApi>.execute-api.<AWS::Region>.<AWS::URLSuffix>/<RestApiDeploymentStagev1>/",
        "StateMachineArn": "<Machine>",
        "BucketName": "<Jobs>",
        "TaskTableName": "<Tasks>",
    }


def test_cdk_nag_finds_nothing_that_nobody_has_answered_for(assembly: Path) -> None:
    assert json.loads((assembly / "findings.json").read_text(encoding="utf-8")) == []


def test_each_finding_that_is_overruled_has_its_reason(assembly: Path) -> None:
    metadata = json.loads((assembly / "FanOut.metadata.json").read_text(encoding="utf-8"))
    reasons = {
        (path.strip("/"), finding): reason
        for path, entries in metadata.items()
        for entry in entries
        if "acknowledged" in entry["type"].lower()
        for finding, reason in entry["data"].items()
    }
    assert reasons
    assert all(len(reason) > 40 and reason.endswith(".") for reason in reasons.values())
    (report,) = json.loads((assembly / "validation-report.json").read_text(encoding="utf-8"))["pluginReports"]
    overruled = {(each["acknowledgedAt"], each["acknowledgedId"]) for each in report["suppressedViolations"]}
    assert reasons.keys() - overruled == set(), "these have become superfluous"


def test_no_names_are_fixed_but_that_of_the_machines_log(template: Template) -> None:
    """A second stack of another name can stand beside the first, and a replaced resource can be replaced."""
    kinds_with_names = {
        "AWS::Lambda::Function": "FunctionName",
        "AWS::IAM::Role": "RoleName",
        "AWS::S3::Bucket": "BucketName",
        "AWS::DynamoDB::Table": "TableName",
        "AWS::StepFunctions::StateMachine": "StateMachineName",
        "AWS::SQS::Queue": "QueueName",
        "AWS::Events::Rule": "Name",
        "AWS::SecretsManager::Secret": "Name",
    }
    for kind, name in kinds_with_names.items():
        assert template.all(kind)
        assert not [k for k, r in template.all(kind).items() if name in r.get("Properties", {})]


def test_nothing_is_deployed_that_is_not_the_projects_own(template: Template) -> None:
    """No custom resources, which would bring functions, roles and runtimes of their own."""
    assert not [
        r["Type"] for r in template.resources.values() if r["Type"].startswith(("Custom::", "AWS::CloudFormation::"))
    ]
    assert set(template.functions) == TASK_SERVICE | FAN_OUT == set(FUNCTIONS)


# ------------------------------------------------------------------ storage


def test_the_task_table_is_encrypted_recoverable_and_retained(template: Template) -> None:
    table = template.one("AWS::DynamoDB::Table")
    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
    assert table["Properties"] == {
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "SSESpecification": {"SSEEnabled": True},
        "DeletionProtectionEnabled": True,
    }


def test_the_bucket_is_private_encrypted_and_retained(template: Template) -> None:
    bucket = template.one("AWS::S3::Bucket")
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    properties = bucket["Properties"]
    assert all(properties["PublicAccessBlockConfiguration"].values())
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    assert "CorsConfiguration" not in properties
    denied = [
        s["Condition"]
        for s in template.properties("AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]
        if s["Effect"] == "Deny" and s["Action"] == "s3:*" and s["Principal"] == {"AWS": "*"}
    ]
    assert {"Bool": {"aws:SecureTransport": "false"}} in denied


def test_job_objects_and_uploads_expire(template: Template) -> None:
    rules = template.properties("AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]
    assert {r["Id"]: {k: v for k, v in r.items() if k != "Id"} for r in rules} == {
        "jobs": {"Prefix": "jobs/", "ExpirationInDays": 90, "Status": "Enabled"},
        "work": {"Prefix": "work/", "ExpirationInDays": 7, "Status": "Enabled"},
        "uploads": {"Prefix": "uploads/", "ExpirationInDays": 7, "Status": "Enabled"},
        "unfinished": {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}, "Status": "Enabled"},
    }


def test_the_secret_of_page_tokens_is_generated(template: Template) -> None:
    secret = template.properties("AWS::SecretsManager::Secret")
    assert secret["GenerateSecretString"] == {"ExcludePunctuation": True, "PasswordLength": 64}
    assert "SecretString" not in secret


# ------------------------------------------------------------------ functions


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_each_function_runs_a_handler_that_exists(template: Template, name: str) -> None:
    module, _, attribute = template.functions[name]["Handler"].rpartition(".")
    assert attribute == "handler"
    path = REPO / "lambdas" / Path(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {
        name
        for node in tree.body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef)
            else [t.id for t in node.targets if isinstance(t, ast.Name)]
            if isinstance(node, ast.Assign)
            else []
        )
    }
    assert "handler" in defined


def test_a_functions_name_is_that_of_its_handlers_file() -> None:
    for name, row in FUNCTIONS.items():
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        assert row.module in (f"task_service.{snake}", f"fan_out.{snake}")


def test_every_function_has_runtime_layer_code_and_tracing(
    template: Template,
) -> None:
    functions = template.functions.values()
    (layer_id,) = template.all("AWS::Lambda::LayerVersion")
    for function in functions:
        assert function["Runtime"] == "python3.13"
        assert function["Architectures"] == ["arm64"]
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["Layers"] == [{"Ref": layer_id}]
    assert len({f["Code"]["S3Key"] for f in functions}) == 1
    layer = template.properties("AWS::Lambda::LayerVersion")
    assert layer["CompatibleRuntimes"] == ["python3.13"]
    assert layer["CompatibleArchitectures"] == ["arm64"]


def test_each_function_has_its_time_and_memory(template: Template) -> None:
    assert {name: (f["Timeout"], f["MemorySize"]) for name, f in template.functions.items()} == {
        "TaskApi": (29, 512),
        "ListTasks": (60, 1769),
        "WriteTasks": (60, 1769),
        "Planner": (60, 512),
        "Lister": (900, 1769),
        "Manifest": (900, 1024),
        "Worker": (900, 1024),
        "Merger": (900, 2048),
        "Reducer": (900, 2048),
        "JobsApi": (29, 512),
        "Finalizer": (900, 2048),
    }


def test_each_environment_is_complete_and_has_no_secret(template: Template) -> None:
    task = {
        "POWERTOOLS_SERVICE_NAME": "task-service",
        "POWERTOOLS_METRICS_NAMESPACE": "FanOut",
        "LOG_LEVEL": "INFO",
        "TASK_TABLE_NAME": "<Tasks>",
    }
    job = {
        "POWERTOOLS_SERVICE_NAME": "fan-out",
        "POWERTOOLS_METRICS_NAMESPACE": "FanOut",
        "LOG_LEVEL": "INFO",
        "BUCKET_NAME": "<Jobs>",
    }
    # The Ref of a secret is its ARN.
    signs = {"PAGE_TOKEN_SECRET_ARN": "<PageTokenSecret>"}
    assert {
        name: {k: template.flat(v) for k, v in f["Environment"]["Variables"].items()}
        for name, f in template.functions.items()
    } == {
        "TaskApi": task | signs,
        "ListTasks": task | signs,
        "WriteTasks": task,
        "Planner": job | {"LIST_TASKS_ARN": "<ListTasksCurrentVersion>"},
        "Lister": job | {"LIST_TASKS_ARN": "<ListTasksCurrentVersion>"},
        "Manifest": job,
        "Worker": job | {"WRITE_TASKS_ARN": "<WriteTasksCurrentVersion>"},
        "Merger": job,
        "Reducer": job | {"STACK_NAME": "FanOut"},
        "JobsApi": job | {"STATE_MACHINE_ARN": "<Machine>", "STACK_NAME": "FanOut", "FINALIZER_ARN": "<Finalizer.Arn>"},
        "Finalizer": job | {"STATE_MACHINE_ARN": "<Machine>", "STACK_NAME": "FanOut"},
    }


def test_each_function_logs_into_its_own_group(template: Template) -> None:
    groups = {name: f["LoggingConfig"]["LogGroup"]["Ref"] for name, f in template.functions.items()}
    assert len(set(groups.values())) == len(groups)


def test_every_log_expires_after_a_month(template: Template) -> None:
    groups = template.all("AWS::Logs::LogGroup")
    # The functions' and the machine's.
    assert len(groups) == len(FUNCTIONS) + 1
    assert {g["Properties"]["RetentionInDays"] for g in groups.values()} == {30}


# ------------------------------------------------------------------ what each may do


def roles(template: Template) -> dict[str, Any]:
    return {name: function["Role"] for name, function in template.functions.items()}


def test_each_function_has_a_role_of_its_own(template: Template) -> None:
    ids = [role["Fn::GetAtt"][0] for role in roles(template).values()]
    ids.append(template.properties("AWS::StepFunctions::StateMachine")["RoleArn"]["Fn::GetAtt"][0])
    assert len(set(ids)) == len(ids)
    for role_id in ids[:-1]:
        trust = template.resources[role_id]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert [s["Principal"] for s in trust] == [{"Service": "lambda.amazonaws.com"}]


def test_nobody_but_the_task_service_may_touch_the_task_table(template: Template) -> None:
    assert {
        name
        for name, role in roles(template).items()
        if any(action.startswith("dynamodb:") or "<Tasks" in resource for action, resource in template.allowed(role))
    } == TASK_SERVICE
    machine = template.properties("AWS::StepFunctions::StateMachine")["RoleArn"]
    assert not [a for a, _ in template.allowed(machine) if a.startswith("dynamodb:")]


def test_nobody_but_fan_out_may_touch_the_bucket(template: Template) -> None:
    assert {
        name for name, role in roles(template).items() if any("s3:" in action for action, _ in template.allowed(role))
    } == FAN_OUT


def test_no_role_has_a_wildcard_action_nor_every_resource(template: Template) -> None:
    known_without_resources = {
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "logs:CreateLogDelivery",
        "logs:GetLogDelivery",
        "logs:UpdateLogDelivery",
        "logs:DeleteLogDelivery",
        "logs:ListLogDeliveries",
        "logs:PutResourcePolicy",
        "logs:DescribeResourcePolicies",
        "logs:DescribeLogGroups",
        "lambda:GetAccountSettings",
    }
    machine = template.properties("AWS::StepFunctions::StateMachine")["RoleArn"]
    for role in [*roles(template).values(), machine]:
        for action, resource in template.allowed(role):
            assert "*" not in action
            assert resource != "*" or action in known_without_resources


@pytest.mark.parametrize("name", sorted(UNJUDGED))
def test_a_role_may_do_what_its_grants_say_and_nothing_else(template: Template, name: str) -> None:
    assert template.grants[name] == needed(name) | set(UNJUDGED[name])
    assert not needed(name) & set(UNJUDGED[name])


def test_no_role_is_without_its_grants(template: Template) -> None:
    assert set(template.grants) == set(UNJUDGED) == {*FUNCTIONS, "Machine"}
    assert not {"AWS::IAM::ManagedPolicy", "AWS::IAM::User", "AWS::IAM::Group"} & {
        resource["Type"] for resource in template.resources.values()
    }


def test_a_grant_has_one_scenario() -> None:
    for role, scenarios in NEEDED.items():
        assert sum(len(grants) for grants in scenarios.values()) == len(needed(role)), role


def test_what_is_not_judged_has_another_check() -> None:
    for unjudged in {each for grants in UNJUDGED.values() for each in grants.values()}:
        path, _, name = unjudged.check.partition("::")
        assert f"def {name}(" in (REPO / path).read_text(encoding="utf-8"), unjudged.check


# ------------------------------------------------------------------ the machine


DEFINITION = REPO / "statemachines" / "fan_out.asl.json"


def test_the_machines_definition_is_in_the_template(template: Template) -> None:
    machine = template.properties("AWS::StepFunctions::StateMachine")
    assert machine["DefinitionString"] == DEFINITION.read_text(encoding="utf-8")
    placeholders = set(re.findall(r"\$\{(\w+)\}", machine["DefinitionString"]))
    substitutions = {k: template.flat(v) for k, v in machine["DefinitionSubstitutions"].items()}
    assert set(substitutions) == placeholders
    assert substitutions.pop("BucketName") == "<Jobs>"
    # A version: a job that runs is not changed by a deployment.
    states = ("Planner", "Lister", "Manifest", "Worker", "Merger", "Reducer")
    assert substitutions == {f"{name}Arn": f"<{name}CurrentVersion>" for name in states}
    versions = template.all("AWS::Lambda::Version")
    assert len(versions) == len(states) + 2
    assert {version["DeletionPolicy"] for version in versions.values()} == {"Retain"}


def test_the_machine_logs_errors_without_the_users_data(template: Template) -> None:
    machine = template.properties("AWS::StepFunctions::StateMachine")
    assert machine["StateMachineType"] == "STANDARD"
    assert machine["TracingConfiguration"] == {"Enabled": True}
    assert machine["LoggingConfiguration"]["Level"] == "ERROR"
    assert machine["LoggingConfiguration"]["IncludeExecutionData"] is False
    (group,) = (
        g["Properties"]["LogGroupName"]
        for g in template.all("AWS::Logs::LogGroup").values()
        if "LogGroupName" in g["Properties"]
    )
    assert group == "/aws/vendedlogs/states/FanOut"


def test_step_functions_takes_the_role_for_this_account_only(template: Template) -> None:
    (role,) = (
        role["Properties"]
        for role in template.all("AWS::IAM::Role").values()
        if "states.amazonaws.com" in json.dumps(role["Properties"]["AssumeRolePolicyDocument"])
    )
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_the_machines_role_may_do_exactly_what_its_states_need(template: Template) -> None:
    """Derived from the definition in the template, so that a new state asks for its grant here."""
    machine = template.properties("AWS::StepFunctions::StateMachine")
    substitutions = {}
    for name, value in machine["DefinitionSubstitutions"].items():
        resource = template.resources[value["Ref"]]
        if resource["Type"] == "AWS::Lambda::Version":
            # Any version: a job calls the one that it began with.
            function = resource["Properties"]["FunctionName"]["Ref"]
            substitutions[name] = f"<{template.name_of(function)}.Arn>:*"
        else:
            substitutions[name] = f"<{template.name_of(value['Ref'])}.Arn>"
    needs = of_machine(json.loads(machine["DefinitionString"]), substitutions)
    assert template.allowed(machine["RoleArn"]) == needs


def test_the_grant_on_the_machine_itself_is_not_circular(
    template: Template,
) -> None:
    machine = template.one("AWS::StepFunctions::StateMachine")
    for logical_id, policy in template.all("AWS::IAM::Policy").items():
        if "states:StartExecution" in json.dumps(policy) and "MachineRole" in json.dumps(policy["Properties"]["Roles"]):
            assert logical_id not in machine["DependsOn"]
            break
    else:
        pytest.fail("no such policy")


def test_a_job_that_ends_early_reaches_the_finalizer(template: Template) -> None:
    rules = [rule["Properties"] for rule in template.all("AWS::Events::Rule").values()]
    assert [rule["State"] for rule in rules] == ["ENABLED"] * len(rules)
    (rule,) = (rule for rule in rules if "EventPattern" in rule)
    pattern = rule["EventPattern"]
    assert pattern["source"] == ["aws.states"]
    assert pattern["detail-type"] == ["Step Functions Execution Status Change"]
    assert [template.flat(a) for a in pattern["detail"]["stateMachineArn"]] == ["<Machine>"]
    assert set(pattern["detail"]["status"]) == {"ABORTED", "TIMED_OUT", "FAILED"}
    (target,) = rule["Targets"]
    assert template.flat(target["Arn"]) == "<Finalizer.Arn>"
    assert template.flat(target["DeadLetterConfig"]["Arn"]) == "<DeadLetters.Arn>"
    assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}
    # What EventBridge delivered and the Finalizer then failed on, too.
    invocation = template.properties("AWS::Lambda::EventInvokeConfig")
    assert template.flat(invocation["FunctionName"]) == "<Finalizer>"
    assert template.flat(invocation["DestinationConfig"]["OnFailure"]["Destination"]) == "<DeadLetters.Arn>"


def test_an_hourly_sweep_reaches_the_finalizer(template: Template) -> None:
    rules = [rule["Properties"] for rule in template.all("AWS::Events::Rule").values()]
    sweeps = [rule for rule in rules if "ScheduleExpression" in rule]
    assert [rule["ScheduleExpression"] for rule in sweeps] == ["rate(1 hour)"]
    (target,) = sweeps[0]["Targets"]
    assert template.flat(target["Arn"]) == "<Finalizer.Arn>"
    assert template.flat(target["DeadLetterConfig"]["Arn"]) == "<DeadLetters.Arn>"
    # The handler tells a sweep by the event's own words.
    assert "Input" not in target


def test_the_dead_letter_queue_is_private_and_keeps_two_weeks(
    template: Template,
) -> None:
    queue = template.properties("AWS::SQS::Queue")
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 86400
    allowed = [
        s for s in template.properties("AWS::SQS::QueuePolicy")["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"
    ]
    assert [s["Principal"] for s in allowed] == [{"Service": "events.amazonaws.com"}] * 2
    sources = {template.flat(s["Condition"]["ArnEquals"]["aws:SourceArn"]) for s in allowed}
    assert sources == {"<JobEndedEarly.Arn>", "<Sweep.Arn>"}


# ------------------------------------------------------------------ the API


def api_paths(template: Template) -> dict[str, str]:
    """Logical id of each resource of the API to its path."""
    resources = template.all("AWS::ApiGateway::Resource")

    def path(logical_id: str) -> str:
        properties = resources[logical_id]["Properties"]
        parent = properties["ParentId"].get("Ref")
        return (path(parent) if parent else "") + f"/{properties['PathPart']}"

    return {logical_id: path(logical_id) for logical_id in resources}


def routes(template: Template) -> dict[str, str]:
    """Every method of the API by the function that answers it."""
    paths = api_paths(template)
    found = {}
    for method in template.all("AWS::ApiGateway::Method").values():
        properties = method["Properties"]
        assert properties["Integration"]["Type"] == "AWS_PROXY"
        answered_by = re.search(r"<(\w+)\.Arn>/invocations", template.flat(properties["Integration"]["Uri"]))
        assert answered_by
        found[f"{properties['HttpMethod']} {paths[properties['ResourceId']['Ref']]}"] = answered_by[1]
    return found


def test_each_route_is_answered_by_its_function(template: Template) -> None:
    assert routes(template) == {
        "ANY /{proxy+}": "TaskApi",
        "GET /tasks": "TaskApi",
        "POST /tasks": "TaskApi",
        "GET /tasks/{id}": "TaskApi",
        "PUT /tasks/{id}": "TaskApi",
        "DELETE /tasks/{id}": "TaskApi",
        "POST /tasks/upload": "JobsApi",
        "GET /jobs": "JobsApi",
        "POST /jobs": "JobsApi",
        "GET /jobs/{id}": "JobsApi",
        "DELETE /jobs/{id}": "JobsApi",
        "GET /jobs/{id}/result": "JobsApi",
        "GET /jobs/{id}/failures": "JobsApi",
        "POST /jobs/{id}/retry": "JobsApi",
        "POST /uploads": "JobsApi",
        "POST /uploads/{id}/parts": "JobsApi",
        "POST /uploads/{id}/complete": "JobsApi",
    }


def test_the_api_and_the_handlers_have_the_same_routes(template: Template) -> None:
    handled = dict.fromkeys(task_api.api.routes, "TaskApi")
    handled |= dict.fromkeys(jobs_api.api.routes, "JobsApi")
    assert routes(template) == handled | {"ANY /{proxy+}": "TaskApi"}


def test_every_method_asks_for_a_signature(template: Template) -> None:
    assert {m["Properties"]["AuthorizationType"] for m in template.all("AWS::ApiGateway::Method").values()} == {
        "AWS_IAM"
    }


def test_a_csv_reaches_the_function_as_the_bytes_that_were_sent(template: Template) -> None:
    assert template.properties("AWS::ApiGateway::RestApi")["BinaryMediaTypes"] == ["text/csv"]


def test_the_stage_is_throttled_and_logs_no_bodies(template: Template) -> None:
    stage = template.properties("AWS::ApiGateway::Stage")
    assert stage["TracingEnabled"] is True
    (setting,) = stage["MethodSettings"]
    assert setting == {
        "HttpMethod": "*",
        "ResourcePath": "/*",
        "DataTraceEnabled": False,
        "ThrottlingBurstLimit": 200,
        "ThrottlingRateLimit": 100,
    }
    # Metrics by method cost as much as a small deployment, and the account-wide role for logs is not this stack's.
    assert "AccessLogSetting" not in stage
    assert not template.all("AWS::ApiGateway::Account")


def test_the_gateways_own_errors_are_problem_details(template: Template) -> None:
    titles = {}
    for response in template.all("AWS::ApiGateway::GatewayResponse").values():
        properties = response["Properties"]
        body = properties["ResponseTemplates"]["application/json"]
        problem = json.loads(body.replace("$context.error.messageString", '"Why."'))
        assert problem == {
            "type": type_of(problem["title"]),
            "title": problem["title"],
            "status": int(properties["StatusCode"]),
            "detail": "Why.",
        }
        headers = properties["ResponseParameters"]
        assert headers["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
        may_retry = problem["status"] in (429, 503, 504)
        assert ("gatewayresponse.header.Retry-After" in headers) == may_retry
        titles[properties["ResponseType"]] = (problem["status"], problem["title"])
    assert titles == {
        "DEFAULT_4XX": (400, "InvalidRequestError"),
        "DEFAULT_5XX": (500, "InternalError"),
        "ACCESS_DENIED": (403, "ForbiddenError"),
        "EXPIRED_TOKEN": (403, "ForbiddenError"),
        "INVALID_SIGNATURE": (403, "ForbiddenError"),
        "MISSING_AUTHENTICATION_TOKEN": (403, "ForbiddenError"),
        "REQUEST_TOO_LARGE": (413, "PayloadTooLargeError"),
        "THROTTLED": (429, "ThrottledError"),
        "QUOTA_EXCEEDED": (429, "ThrottledError"),
        "INTEGRATION_FAILURE": (504, "ServiceUnavailableError"),
        "INTEGRATION_TIMEOUT": (504, "ServiceUnavailableError"),
    }


def test_only_the_api_and_the_rule_may_call_functions(template: Template) -> None:
    callers: dict[str, set[str]] = {}
    for permission in template.all("AWS::Lambda::Permission").values():
        properties = permission["Properties"]
        assert "SourceArn" in properties
        callers.setdefault(template.flat(properties["FunctionName"]), set()).add(properties["Principal"])
    assert callers == {
        "<TaskApi.Arn>": {"apigateway.amazonaws.com"},
        "<JobsApi.Arn>": {"apigateway.amazonaws.com"},
        "<Finalizer.Arn>": {"events.amazonaws.com"},
    }


# ------------------------------------------------------------------ alarms


def test_the_alarms_watch_jobs_accounts_throttles_and_the_api(template: Template) -> None:
    alarms = {template.name_of(k): r["Properties"] for k, r in template.all("AWS::CloudWatch::Alarm").items()}
    assert {
        name: (a["MetricName"], {d["Name"]: template.flat(d["Value"]) for d in a["Dimensions"]})
        for name, a in alarms.items()
    } == {
        # What the Reducer and the Finalizer count, in the namespace and with the service of all functions.
        "JobFailed": ("JobsFailed", {"StackName": "FanOut", "service": "fan-out"}),
        "JobTimedOut": ("ExecutionsTimedOut", {"StateMachineArn": "<Machine>"}),
        "JobRecordMissing": (
            "ApproximateNumberOfMessagesVisible",
            {"QueueName": "<DeadLetters.QueueName>"},
        ),
        "WorkersThrottled": ("Throttles", {"FunctionName": "<Worker>"}),
        "ApiErrors": ("5XXError", {"ApiName": "FanOut"}),
    }
    assert alarms["JobFailed"]["Namespace"] == "FanOut"
    for alarm in alarms.values():
        assert alarm["TreatMissingData"] == "notBreaching"
        assert alarm["AlarmDescription"]
        assert "AlarmActions" not in alarm
