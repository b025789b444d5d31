"""What an environment of Lambda finds imported: the fork server imports this module before it forks the first one.

A fresh interpreter takes most of a second of CPU to import boto3 and pydantic; a fork takes milliseconds.
"""

import gc
import importlib

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config

# Nothing here may read the function's environment variables while it is imported:
# aws_xray_sdk does (it picks its context by LAMBDA_TASK_ROOT), so it is left to the function.
# What these and the clients below import themselves is not listed.
PRELOADED = (
    "zoneinfo",
    "boto3.dynamodb.types",
    "pydantic",
    "aws_lambda_powertools.event_handler",
    "aws_lambda_powertools.logging.correlation_paths",
    "aws_lambda_powertools.metrics",
    "aws_lambda_powertools.utilities.typing",
)

for name in PRELOADED:
    importlib.import_module(name)

# Reading the model of an AWS service takes up to a tenth of a second of CPU. What this one loader has read before the
# fork, every session of every environment shares.
loader = botocore.session.create_loader()
setattr(botocore.session, "create_loader", lambda _path=None: loader)  # noqa: B010
for service in ("dynamodb", "lambda", "s3", "stepfunctions", "secretsmanager"):
    boto3.Session().client(service, region_name="us-east-1", config=Config(signature_version=UNSIGNED))
gc.collect()
gc.freeze()
