"""What a function of the Task Service works with, by the environment that the stack gives it; made at its first use."""

from functools import cache

from common.environment import variable
from task_service import aws
from task_service.store import TaskStore
from task_service.tokens import PageTokens


@cache
def store() -> TaskStore:
    """Raises SettingsError."""
    return TaskStore(aws.dynamodb(), variable("TASK_TABLE_NAME"))


@cache
def page_tokens() -> PageTokens:
    """Raises SettingsError, ThrottledError."""
    arn = variable("PAGE_TOKEN_SECRET_ARN")
    with aws.translated():
        return PageTokens(aws.secrets_manager().get_secret_value(SecretId=arn)["SecretString"])
