"""The Task Service: three functions, the only ones that may touch the task table."""

from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.constructs.function import Runtime, add_function
from infra.constructs.storage import Storage
from infra.functions import TASK_SERVICE


class TaskService(Construct):
    """`functions` by name: TaskApi answers the REST API, ListTasks and WriteTasks are invoked by Fan Out."""

    def __init__(self, scope: Construct, id_: str, *, runtime: Runtime, storage: Storage) -> None:
        super().__init__(scope, id_)
        self.functions: dict[str, lambda_.Function] = {
            row.name: add_function(self, row, runtime=runtime, storage=storage) for row in TASK_SERVICE
        }
