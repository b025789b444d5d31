"""A function out of the table, with its own role and its own log group."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.constructs.grants import acknowledge, allow, objects
from infra.constructs.storage import Storage
from infra.functions import Function
from infra.layer import lay_out, make_readable

LOG_RETENTION = logs.RetentionDays.ONE_MONTH


class Runtime(Construct):
    """What all functions share: the asset of lambdas/ and the layer of their dependencies."""

    def __init__(self, scope: Construct, id_: str, *, lambdas: Path) -> None:
        super().__init__(scope, id_)
        # The CDK copies each folder into the cloud assembly at once, under the hash of its content, which is the same
        # on every machine.
        with TemporaryDirectory(prefix="fanout-synth-") as folder:
            code, layer = Path(folder) / "code", Path(folder) / "layer"
            shutil.copytree(lambdas, code, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
            make_readable(code)
            self.code = lambda_.Code.from_asset(str(code))
            # The construct of the asset is made when the first function uses it.
            self.code.bind(self)
            lay_out(layer)
            self.layer = lambda_.LayerVersion(
                self,
                "Layer",
                code=lambda_.Code.from_asset(str(layer)),
                compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
                compatible_architectures=[lambda_.Architecture.ARM_64],
                description="Locked dependencies of the functions of Fan Out",
            )


def add_function(
    scope: Construct,
    row: Function,
    *,
    runtime: Runtime,
    storage: Storage,
) -> lambda_.Function:
    """Add the function that `row` describes, with a role that holds what `row` says about data, and no more.

    Who calls whom and who drives the machine is granted with `allow` by the construct that knows their ARNs.
    """
    log_group = logs.LogGroup(
        scope,
        f"{row.name}Log",
        retention=LOG_RETENTION,
        # A job's record is in the bucket, which is kept; the log goes with the function that wrote it.
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    role = iam.Role(
        scope,
        f"{row.name}Role",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        description=f"What the function {row.name} of Fan Out may do",
    )
    log_group.grant_write(role)
    environment = {
        "POWERTOOLS_SERVICE_NAME": row.service.replace("_", "-"),
        "POWERTOOLS_METRICS_NAMESPACE": "FanOut",
        "LOG_LEVEL": "INFO",
    }
    if row.service == "task_service":
        environment["TASK_TABLE_NAME"] = storage.table.table_name
    else:
        environment["BUCKET_NAME"] = storage.bucket.bucket_name
    if row.signs_pages:
        environment["PAGE_TOKEN_SECRET_ARN"] = storage.page_token_secret.secret_arn
    function = lambda_.Function(
        scope,
        row.name,
        description=row.purpose,
        runtime=lambda_.Runtime.PYTHON_3_13,
        architecture=lambda_.Architecture.ARM_64,
        code=runtime.code,
        layers=[runtime.layer],
        handler=f"{row.module}.handler",
        timeout=cdk.Duration.seconds(row.timeout),
        memory_size=row.memory,
        role=role,
        log_group=log_group,
        tracing=lambda_.Tracing.ACTIVE,
        environment=environment,
        current_version_options=lambda_.VersionOptions(removal_policy=cdk.RemovalPolicy.RETAIN),
    )
    _grant_data(row, role, storage)
    acknowledge(
        role,
        "IAM5[Resource::*]",
        "X-Ray's PutTraceSegments and PutTelemetryRecords, and Lambda's GetAccountSettings, know no resource-level "
        "permission; every other statement of the role names its resources.",
    )
    acknowledge(
        function,
        "L1",
        "Python 3.13 is the version that the layer is built for; it moves with the lock file, deliberately.",
    )
    return function


def _grant_data(row: Function, role: iam.Role, storage: Storage) -> None:
    allow(role, [f"dynamodb:{action}" for action in row.table], [storage.table.table_arn])
    if row.signs_pages:
        allow(role, ["secretsmanager:GetSecretValue"], [storage.page_token_secret.secret_arn])
    allow(role, [f"lambda:{action}" for action in row.account], ["*"])
    if row.reads:
        allow(role, ["s3:GetObject"], objects(storage.bucket, row.reads, granted_to=role))
        # Without s3:ListBucket a GET of a missing key answers 403, not 404, and the steps tell by the 404
        # that work is still to be done. It cannot be tied to a prefix: the request context of a GET has no
        # s3:prefix, so a condition on it would never hold. It shows names of objects, not their content.
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html (Permissions)
        allow(role, ["s3:ListBucket"], [storage.bucket.bucket_arn])
    if row.writes:
        allow(role, ["s3:PutObject"], objects(storage.bucket, row.writes, granted_to=role))
    if row.streams:
        allow(role, ["s3:AbortMultipartUpload"], objects(storage.bucket, row.streams, granted_to=role))
