"""Grants by hand, as narrow as they can be written, and the reasons why cdk-nag is overruled."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import Construct, IConstruct


def allow(grantee: iam.IGrantable, actions: Sequence[str], resources: Sequence[str]) -> None:
    """Add one Allow statement, if there is an action, to the own policy of the role, or of the function's role."""
    if actions:
        grantee.grant_principal.add_to_principal_policy(iam.PolicyStatement(actions=actions, resources=resources))


def allow_invoke(role: iam.IRole, function: lambda_.Function) -> None:
    """Let the role call every version of the function: that of a job which began before a deployment, too."""
    allow(role, ["lambda:InvokeFunction"], [f"{function.function_arn}:*"])
    acknowledge(
        role,
        f"IAM5[Resource::<{logical_id(function)}.Arn>:*]",
        "The versions of one function; a running job calls the one that it began with.",
    )


def acknowledge(scope: IConstruct, finding: str, reason: str) -> None:
    """Record why this finding of cdk-nag on `scope`, and on what is below it, is meant."""
    cdk.Validations.of(scope).acknowledge(cdk.Acknowledgment(id=f"AwsSolutions::AwsSolutions-{finding}", reason=reason))


def objects(bucket: s3.Bucket, patterns: Sequence[str], *, granted_to: IConstruct) -> list[str]:
    """The ARNs of the bucket's objects under these patterns, acknowledged on the role that gets them."""
    for pattern in patterns:
        acknowledge(
            granted_to,
            f"IAM5[Resource::<{logical_id(bucket)}.Arn>/{pattern}]",
            "Keys hold the names of jobs, which users choose when they start one; the pattern is a branch of "
            "this project's own bucket.",
        )
    return [bucket.arn_for_objects(pattern) for pattern in patterns]


def logical_id(construct: Construct) -> str:
    """The name of the construct's resource in the template, as cdk-nag writes it in its findings."""
    resource = construct.node.default_child
    assert isinstance(resource, cdk.CfnElement)
    return cdk.Stack.of(construct).get_logical_id(resource)
