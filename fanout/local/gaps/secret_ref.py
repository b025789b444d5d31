"""CloudFormation: Ref of a secret is its ARN, which is what a policy needs; ministack gives its name."""

from collections.abc import Callable
from typing import Any

from ministack.services.cloudformation import engine, stacks

from . import replaces


@replaces(engine, "_resolve_refs", wraps=True)
@replaces(stacks, "_resolve_refs", wraps=True)
def resolve(original: Callable[..., Any], value: Any, resources: dict[str, Any], *rest: Any) -> Any:
    name = value.get("Ref", "") if isinstance(value, dict) else ""
    if resources.get(name, {}).get("ResourceType") == "AWS::SecretsManager::Secret":
        value = {"Fn::GetAtt": [name, "Arn"]}
    return original(value, resources, *rest)
