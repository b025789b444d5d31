"""CloudFormation: Ref of a secret is its ARN, which is what a policy needs; ministack gives its name."""

import importlib

from . import IncompatibleMinistackError


def close() -> None:
    provisioners = importlib.import_module("ministack.services.cloudformation.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS.get("AWS::SecretsManager::Secret", {})
    for action in ("create", "update", "delete"):
        if action not in handlers:
            raise IncompatibleMinistackError(
                f"ministack's CloudFormation has no '{action}' of AWS::SecretsManager::Secret."
            )
    create, update, delete = handlers["create"], handlers["update"], handlers["delete"]

    def by_arn(answer: tuple[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
        _name, attributes = answer
        return attributes["Arn"], attributes

    handlers["create"] = lambda *args: by_arn(create(*args))
    handlers["update"] = lambda arn, *args: by_arn(update(_name_in(arn), *args))
    handlers["delete"] = lambda arn, props: delete(_name_in(arn), props)


def _name_in(arn: str) -> str:
    return arn.partition(":secret:")[2][: -len("-abcdef")]
