"""Deploy a synthesized CDK app to the embedded AWS, as `cdk deploy` does to AWS: assets to the bucket that the
assembly names, then CreateStack or UpdateStack with the assembly's template, unchanged."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from .server import ACCESS_KEY_ID, ACCOUNT_ID, REGION, SECRET_ACCESS_KEY, Say

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_s3 import S3Client

STACK_SECONDS = 120
TEMPLATE_BUCKET = f"cdk-hnb659fds-assets-{ACCOUNT_ID}-{REGION}"
FAILED_STATES = ("FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_IN_PROGRESS")


class DeployError(Exception):
    """The stack is not there; the message names each resource that failed, with its reason."""


@dataclass(frozen=True)
class Assembly:
    """A cloud assembly of one stack; `assets` are files and folders by the bucket and key that the template names."""

    stack: str
    template: dict[str, Any]
    assets: dict[tuple[str, str], Path]

    @classmethod
    def read(cls, folder: Path) -> Assembly:
        artifacts = json.loads((folder / "manifest.json").read_text())["artifacts"]
        ((name, stack),) = [each for each in artifacts.items() if each[1]["type"] == "aws:cloudformation:stack"]
        assets = {}
        for artifact in artifacts.values():
            if artifact["type"] == "cdk:asset-manifest":
                text = (folder / artifact["properties"]["file"]).read_text()
                for placeholder, value in (("AccountId", ACCOUNT_ID), ("Region", REGION), ("Partition", "aws")):
                    text = text.replace(f"${{AWS::{placeholder}}}", value)
                for entry in json.loads(text)["files"].values():
                    for to in entry["destinations"].values():
                        assets[to["bucketName"], to["objectKey"]] = folder / entry["source"]["path"]
        template = json.loads((folder / stack["properties"]["templateFile"]).read_text())
        return cls(stack["properties"].get("stackName", name), template, assets)

    def needed(self) -> dict[tuple[str, str], Path]:
        """The assets to upload: a layer's is left out, because the embedded AWS has no layers."""
        layers = {
            resource["Properties"].get("Content", {}).get("S3Key")
            for resource in self.template["Resources"].values()
            if resource["Type"] == "AWS::Lambda::LayerVersion"
        }
        return {(bucket, key): source for (bucket, key), source in self.assets.items() if key not in layers}

    def fingerprint(self) -> str:
        """Changes exactly when a deployment would change something."""
        text = json.dumps([self.stack, self.template, sorted(key for _, key in self.assets)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def zipped(folder: Path) -> bytes:
    """The folder as a zip whose bytes depend on the files' names and contents only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def session() -> boto3.Session:
    """A session with the embedded AWS's root credentials; the caller's profiles, right or wrong, play no part."""
    unread = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
    core = botocore.session.Session(session_vars={**unread, "credentials_file": (None, None, os.devnull, None)})
    return boto3.Session(
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        region_name=REGION,
        botocore_session=core,
    )


def client(service: str, endpoint_url: str) -> Any:
    """A client of the embedded AWS, past any proxy that the caller's environment names."""
    options = Config(proxies={}, retries={"total_max_attempts": 2}, read_timeout=120)
    return session().client(service, endpoint_url=endpoint_url, config=options)  # type: ignore[call-overload]


def deploy(assembly: Assembly, endpoint_url: str, *, say: Say = lambda _: None) -> dict[str, str]:
    """Create or update the assembly's stack and return its outputs; raises DeployError."""
    s3: S3Client = client("s3", endpoint_url)
    cloudformation: CloudFormationClient = client("cloudformation", endpoint_url)
    # CDK's newest bootstrap version; the template only asks that there be one that is new enough.
    bootstrap = {"Name": "/cdk-bootstrap/hnb659fds/version", "Value": "30", "Type": "String"}
    client("ssm", endpoint_url).put_parameter(**bootstrap, Overwrite=True)
    assets = assembly.needed()
    say(f"Uploading {len(assets)} assets")
    for bucket in {bucket for bucket, _ in assets} | {TEMPLATE_BUCKET}:
        s3.create_bucket(Bucket=bucket)
    for (bucket, key), source in assets.items():
        s3.put_object(Bucket=bucket, Key=key, Body=zipped(source) if source.is_dir() else source.read_bytes())
    # By URL, as the CDK's command does: a template may be larger than a request may carry.
    key = f"{assembly.fingerprint()}.template.json"
    s3.put_object(Bucket=TEMPLATE_BUCKET, Key=key, Body=json.dumps(assembly.template).encode())
    say(f"Deploying stack {assembly.stack} ({len(assembly.template['Resources'])} resources)")
    _apply(cloudformation, assembly.stack, f"{endpoint_url}/{TEMPLATE_BUCKET}/{key}")
    outputs = _described(cloudformation, assembly.stack).get("Outputs", [])
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


def _apply(cloudformation: Any, stack: str, template_url: str) -> None:
    """Create or update the stack and wait until it is done; raises DeployError."""
    patience = {"StackName": stack, "WaiterConfig": {"Delay": 0.1, "MaxAttempts": 10 * STACK_SECONDS}}
    status = _described(cloudformation, stack).get("StackStatus")
    if status is not None and status.endswith(FAILED_STATES) and not status.startswith("UPDATE_ROLLBACK"):
        # Such a stack can only be deleted.
        cloudformation.delete_stack(StackName=stack)
        cloudformation.get_waiter("stack_delete_complete").wait(**patience)
        status = None
    change = cloudformation.create_stack if status is None else cloudformation.update_stack
    done = cloudformation.get_waiter(f"stack_{'create' if status is None else 'update'}_complete")
    try:
        change(StackName=stack, TemplateURL=template_url, Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_IAM"])
        done.wait(**patience)
    except ClientError as error:
        if "No updates are to be performed" not in str(error):
            raise DeployError(f"The stack {stack} was refused: {error}") from error
    except WaiterError as error:
        status = _described(cloudformation, stack).get("StackStatus", "gone")
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        # The first failure first.
        reasons = [
            f"\n  {event['LogicalResourceId']} ({event['ResourceType']}): {event['ResourceStatusReason']}"
            for event in reversed(events)
            if event["ResourceStatus"].endswith("_FAILED") and "ResourceStatusReason" in event
        ]
        raise DeployError(f"The stack {stack} is {status}.{''.join(reasons)}") from error


def _described(cloudformation: CloudFormationClient, stack: str) -> dict[str, Any]:
    """The stack's description; empty if there is none."""
    try:
        return dict(cloudformation.describe_stacks(StackName=stack)["Stacks"][0])
    except ClientError as error:
        if "does not exist" in str(error):
            return {}
        raise
