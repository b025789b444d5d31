"""An AWS account as the throw-away stack of `make aws-test` sees it: who it is, deploying, removing, what is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fanout.local import Local
from tests.support.deployment import ROOT, stage

# In the names of what the checks make beside the stack.
CHECK = "-check-"
BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version"
# How long a child may take to end once it is asked to; then it is killed.
GRACE_SECONDS = 20
# IAM, the stack and the machines' own deletion are done some time after the calls that ask for it.
REMOVAL_SECONDS = 300
PAUSE_SECONDS = 3


class RefusedError(Exception):
    """Nothing was made; the message says what is missing and how to get it."""


def run(command: Sequence[str], **options: Any) -> int:
    """The command's exit code. It gets no signals from the terminal; when this process is told to end, it ends first,
    with everything it started."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options) as child:
        try:
            return child.wait()
        except BaseException:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE_SECONDS)
            raise


@dataclass(frozen=True)
class Account:
    """The account of the usual AWS_* settings, and the throw-away stack's name in it."""

    number: str
    caller: str
    region: str
    stack: str
    session: boto3.Session

    @classmethod
    def find(cls, stack: str) -> Account:
        """Raises RefusedError if there are no credentials that hold, no region, or no bootstrapped environment."""
        session = boto3.Session()
        if not session.region_name:
            raise RefusedError("No region is set. Set AWS_REGION, or AWS_PROFILE to a profile that has one.")
        try:
            who = session.client("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise RefusedError(
                f"AWS does not know you ({error}). Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from error
        found = cls(who["Account"], who["Arn"], session.region_name, stack, session)
        try:
            found.client("ssm").get_parameter(Name=BOOTSTRAP)
        except ClientError as error:
            raise RefusedError(
                f"The CDK is not set up in account {found.number}, region {found.region} ({error}). "
                "Run `.venv/bin/fanout cdk bootstrap` once."
            ) from error
        return found

    @property
    def endpoint_url(self) -> str:
        """Where the calls go, if that is not AWS."""
        return os.environ.get("AWS_ENDPOINT_URL", "")

    def client(self, service: str) -> Any:
        config = Config(retries={"mode": "standard", "total_max_attempts": 8})
        return self.session.client(service, config=config)  # type: ignore[call-overload]

    def cdk(self, folder: Path, *words: str) -> int:
        context = [f"stack={self.stack}", "removal=destroy", f"lambdas={folder / 'lambdas'}"]
        options = [word for each in context for word in ("-c", each)]
        # Its words are many; who wants them finds them in the log.
        with (folder / "cdk.log").open("ab") as log:
            command = [sys.executable, str(ROOT / "infra/cdk.py"), *words, *options, "--progress", "events", "--ci"]
            return run(command, cwd=folder, stdout=log, stderr=log)

    def deploy(self, folder: Path) -> Path:
        """Deploy the stack with the CDK's own CLI; the file that tests read to find it. Raises RuntimeError."""
        stage(folder / "lambdas")
        outputs = folder / "outputs.json"
        if self.cdk(folder, "deploy", "--require-approval", "never", "--outputs-file", str(outputs)):
            raise RuntimeError(f"`cdk deploy` failed:\n{(folder / 'cdk.log').read_text()[-4000:]}")
        told = json.loads(outputs.read_text())[self.stack]
        url = told["ApiUrl"]
        if self.endpoint_url:
            found = re.fullmatch(r"https://([^./]+)\.execute-api\.[^/]+/([^/]+)/?", url)
            assert found, url
            url = f"{self.endpoint_url}/_aws/execute-api/{found[1]}/{found[2]}/"
        at = Local(
            endpoint_url=self.endpoint_url,
            region=self.region,
            api_url=url,
            state_machine_arn=told["StateMachineArn"],
            bucket_name=told["BucketName"],
            task_table_name=told["TaskTableName"],
            pid=0,
            port=0,
            access_key_id="",
            secret_access_key="",
            fingerprint="",
        )
        file = folder / "deployment.json"
        file.write_text(json.dumps({"at": asdict(at), "stack": self.stack}))
        return file

    def remove(self, folder: Path, say: Callable[[str], None]) -> list[str]:
        """Remove everything that has the stack's name; what is still there then, after trying for minutes."""
        self._stop_everything()
        for bucket in self.things("bucket"):
            self._empty(bucket)
        if self.things("stack"):
            say("cdk destroy")
            if self.cdk(folder, "destroy", "--force"):
                say("cdk destroy failed; CloudFormation is asked itself")
                self.client("cloudformation").delete_stack(StackName=self.stack)
        deadline, clean = time.monotonic() + REMOVAL_SECONDS, 0
        # A deployment that was interrupted, or a function that ends, may still make something: look twice.
        while clean < 2 and time.monotonic() < deadline:
            left = self.left()
            self._delete(left)
            clean = 0 if left else clean + 1
            time.sleep(PAUSE_SECONDS)
        return self.left()

    def _stop_everything(self) -> None:
        """End the jobs: what runs writes objects into the bucket that is to be deleted."""
        client = self.client("stepfunctions")
        for machine in self.things("machine"):
            pages = client.get_paginator("list_executions").paginate(stateMachineArn=machine, statusFilter="RUNNING")
            for execution in [each["executionArn"] for page in pages for each in page["executions"]]:
                with contextlib.suppress(ClientError):
                    client.stop_execution(executionArn=execution)

    def _empty(self, bucket: str) -> None:
        client = self.client("s3")
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            keys = [
                {"Key": each["Key"], "VersionId": each["VersionId"]}
                for each in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
            ]
            if keys:
                client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def left(self) -> list[str]:
        """Everything of the stack's name that the account holds, as "kind name"."""
        return [f"{kind} {name}" for kind in KINDS for name in self.things(kind)]

    def things(self, kind: str) -> list[str]:
        """What is called like the stack or after it, as the call that deletes it names it."""
        service, operation, rows, name, _ = KINDS[kind]
        found = []
        for page in _pages(self.client(service), operation, KINDS_OPTIONS.get(kind, {})):
            for row in page.get(rows, []):
                names = {"name": row} if isinstance(row, str) else row
                # An API is known by its id alone, and named by the stack.
                is_ours = self.stack in f"{names[name]} {names.get('name')}"
                is_gone = names.get("StackStatus") == "DELETE_COMPLETE" or names.get("status") == "DELETING"
                if is_ours and not is_gone:
                    found.append(str(names[name]))
        return found

    def _delete(self, left: list[str]) -> None:
        for kind, _, name in (each.partition(" ") for each in left):
            # What depends on something else that is still there is deleted in the next round.
            with contextlib.suppress(ClientError):
                if kind == "bucket":
                    self._empty(name)
                elif kind == "table":
                    self.client("dynamodb").update_table(TableName=name, DeletionProtectionEnabled=False)
                elif kind == "role":
                    self._strip(name)
                elif kind == "rule":
                    self._untarget(name)
                KINDS[kind][4](self.client(KINDS[kind][0]), name)

    def _strip(self, role: str) -> None:
        client = self.client("iam")
        for policy in client.list_role_policies(RoleName=role)["PolicyNames"]:
            client.delete_role_policy(RoleName=role, PolicyName=policy)
        for policy in client.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            client.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])

    def _untarget(self, rule: str) -> None:
        client = self.client("events")
        targets = [each["Id"] for each in client.list_targets_by_rule(Rule=rule)["Targets"]]
        if targets:
            client.remove_targets(Rule=rule, Ids=targets)

    @cached_property
    def by_hand(self) -> str:
        """How a person removes what this could not."""
        return (
            f"Remove it by hand: empty the bucket (aws s3 rm s3://BUCKET --recursive), then "
            f"aws cloudformation delete-stack --stack-name {self.stack} --region {self.region}, then look in the "
            f"console for everything whose name contains {self.stack}."
        )


def _pages(client: Any, operation: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if client.can_paginate(operation):
        yield from client.get_paginator(operation).paginate(**options)
    else:
        yield getattr(client, operation)(**options)


# Kind: service, how it is listed, where the rows are, which field names one to the deletion, and the deletion.
KINDS: dict[str, tuple[str, str, str, str, Callable[[Any, str], object]]] = {
    "stack": (
        *("cloudformation", "describe_stacks", "Stacks", "StackName"),
        lambda client, name: client.delete_stack(StackName=name),
    ),
    "machine": (
        *("stepfunctions", "list_state_machines", "stateMachines", "stateMachineArn"),
        lambda client, name: client.delete_state_machine(stateMachineArn=name),
    ),
    "function": (
        *("lambda", "list_functions", "Functions", "FunctionName"),
        # Without a qualifier all of its versions go.
        lambda client, name: client.delete_function(FunctionName=name),
    ),
    "layer": (
        *("lambda", "list_layers", "Layers", "LayerName"),
        lambda client, name: [
            client.delete_layer_version(LayerName=name, VersionNumber=each["Version"])
            for each in client.list_layer_versions(LayerName=name)["LayerVersions"]
        ],
    ),
    "bucket": ("s3", "list_buckets", "Buckets", "Name", lambda client, name: client.delete_bucket(Bucket=name)),
    "table": (
        *("dynamodb", "list_tables", "TableNames", "name"),
        lambda client, name: client.delete_table(TableName=name),
    ),
    "secret": (
        *("secretsmanager", "list_secrets", "SecretList", "Name"),
        lambda client, name: client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True),
    ),
    "rule": ("events", "list_rules", "Rules", "Name", lambda client, name: client.delete_rule(Name=name)),
    "queue": ("sqs", "list_queues", "QueueUrls", "name", lambda client, name: client.delete_queue(QueueUrl=name)),
    "api": ("apigateway", "get_rest_apis", "items", "id", lambda client, name: client.delete_rest_api(restApiId=name)),
    "alarm": (
        *("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        lambda client, name: client.delete_alarms(AlarmNames=[name]),
    ),
    "dashboard": (
        *("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
        lambda client, name: client.delete_dashboards(DashboardNames=[name]),
    ),
    "log": (
        *("logs", "describe_log_groups", "logGroups", "logGroupName"),
        lambda client, name: client.delete_log_group(logGroupName=name),
    ),
    "role": ("iam", "list_roles", "Roles", "RoleName", lambda client, name: client.delete_role(RoleName=name)),
}
KINDS_OPTIONS: dict[str, dict[str, Any]] = {"secret": {"IncludePlannedDeletion": True}}
