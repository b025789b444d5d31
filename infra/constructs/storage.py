"""What is kept: the task table, the bucket of the jobs, and the secret that signs page tokens."""

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.grants import acknowledge

UPLOADS_KEPT = cdk.Duration.days(7)


class Storage(Construct):
    """Table and bucket, which outlive the stack if `removal_policy` says so, and the secret.

    `jobs_kept` says when the objects of a job expire, if they do: as long as they are there, a job can be looked at and
    retried. `work_kept` is for the objects that only its steps need.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        removal_policy: cdk.RemovalPolicy,
        jobs_kept: cdk.Duration | None,
        work_kept: cdk.Duration,
    ) -> None:
        super().__init__(scope, id_)
        self.table = dynamodb.Table(
            self,
            "Tasks",
            partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING),
            # A job reads everything at once and then nothing for hours: no provisioned capacity fits that.
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            encryption=dynamodb.TableEncryption.AWS_MANAGED,
            # The tasks are the users' own: what keeps them beyond the stack keeps them from a DeleteTable, too.
            deletion_protection=removal_policy == cdk.RemovalPolicy.RETAIN,
            removal_policy=removal_policy,
        )
        self.bucket = s3.Bucket(
            self,
            "Jobs",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            # A repeated step writes the same bytes under the same key: a former version is worth nothing,
            # and versions would double what a large job costs to keep.
            versioned=False,
            lifecycle_rules=[
                *([s3.LifecycleRule(id="jobs", prefix="jobs/", expiration=jobs_kept)] if jobs_kept else []),
                s3.LifecycleRule(id="work", prefix="work/", expiration=work_kept),
                s3.LifecycleRule(id="uploads", prefix="uploads/", expiration=UPLOADS_KEPT),
                s3.LifecycleRule(id="unfinished", abort_incomplete_multipart_upload_after=cdk.Duration.days(1)),
            ],
            removal_policy=removal_policy,
        )
        self.page_token_secret = secretsmanager.Secret(
            self,
            "PageTokenSecret",
            description="Signs the page tokens and cursors of the Task Service",
            generate_secret_string=secretsmanager.SecretStringGenerator(password_length=64, exclude_punctuation=True),
        )
        acknowledge(
            self.bucket,
            "S1",
            "Only this project's own roles read and write here, and what they did is in the jobs' records; "
            "who needs every request logged turns on CloudTrail data events.",
        )
        acknowledge(
            self.page_token_secret,
            "SMG4",
            "It protects page tokens and cursors only, and a rotation would break those in use, even a "
            "running job's; it is replaced by hand if it ever leaks.",
        )
