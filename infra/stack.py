"""The whole of Fan Out as one stack."""

from pathlib import Path

import aws_cdk as cdk
from constructs import Construct

from infra.constructs.api import Api
from infra.constructs.function import Runtime, add_function
from infra.constructs.observability import PERIOD, Observability
from infra.constructs.storage import Storage
from infra.constructs.workflow import Workflow
from infra.functions import TASK_SERVICE

LAMBDAS = Path(__file__).resolve().parent.parent / "lambdas"


class FanOutStack(cdk.Stack):
    """Deployable to any account and region: nothing is looked up and no name is fixed but the stack's.

    `lambdas` is the folder of the functions; another folder than the project's may hold more kinds.
    Context: `removal` is `retain` (default) or `destroy`, for table and bucket when the stack is deleted (a
    bucket that is not empty stays in any case); `jobsKept` is for how many days a job can be looked at and retried
    (90), or `forever`; `workKept` is for how many days the objects are kept that only its steps need (7);
    `workerConcurrency` is the reserved concurrency of the Worker (none); `apiLogs` is `on` or `off` (default): the
    REST API's own logs, for which the account must have the role of API Gateway; `alarmTopicArn` is an SNS topic that
    hears of the alarms.
    Outputs: ApiUrl, StateMachineArn, BucketName, TaskTableName.
    Raises ValueError on another value of any of them.
    """

    def __init__(self, scope: Construct, id_: str, *, lambdas: Path = LAMBDAS) -> None:
        super().__init__(
            scope,
            id_,
            description="Fan Out: jobs over a million tasks, each task with its outcome",
            # `cdk deploy` checks the bootstrap stack itself, before it uploads anything; without the rule the
            # template takes no parameters.
            synthesizer=cdk.DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
        )
        # More than the days for which the sweep looks for jobs without a record.
        jobs_kept = _number(self, "jobsKept", 90, '9 to 36,500 days, or "forever"', range(9, 36_501), other="forever")
        # A job lasts up to seven days.
        work_kept = _number(self, "workKept", 7, "7 to 36,500 days", range(7, 36_501))
        assert work_kept is not None
        storage = Storage(
            self,
            "Storage",
            removal_policy=_removal_policy(self),
            jobs_kept=None if jobs_kept is None else cdk.Duration.days(jobs_kept),
            work_kept=cdk.Duration.days(work_kept),
        )
        runtime = Runtime(self, "Runtime", lambdas=lambdas)
        # The only functions that may touch the task table.
        service = Construct(self, "TaskService")
        tasks = {row.name: add_function(service, row, runtime=runtime, storage=storage) for row in TASK_SERVICE}
        workflow = Workflow(
            self,
            "Workflow",
            runtime=runtime,
            storage=storage,
            task_functions=tasks,
            worker_concurrency=_number(self, "workerConcurrency", None, "1 to 10,000", range(1, 10_001)),
        )
        functions = tasks | workflow.functions
        api = Api(self, "Api", functions=functions, has_logs=_choice(self, "apiLogs", "off", "on") == "on")
        Observability(
            self,
            "Observability",
            machine=workflow.machine,
            functions=functions,
            api_errors=api.rest_api.metric_server_error(period=PERIOD, statistic="Sum"),
            dead_letters=workflow.dead_letters,
            alarm_topic_arn=self.node.try_get_context("alarmTopicArn"),
        )
        cdk.CfnOutput(self, "ApiUrl", value=api.rest_api.url)
        cdk.CfnOutput(self, "StateMachineArn", value=workflow.machine.state_machine_arn)
        cdk.CfnOutput(self, "BucketName", value=storage.bucket.bucket_name)
        cdk.CfnOutput(self, "TaskTableName", value=storage.table.table_name)


def _removal_policy(stack: cdk.Stack) -> cdk.RemovalPolicy:
    asked = _choice(stack, "removal", "retain", "destroy")
    return cdk.RemovalPolicy.DESTROY if asked == "destroy" else cdk.RemovalPolicy.RETAIN


def _choice(stack: cdk.Stack, name: str, default: str, other: str) -> str:
    asked = str(stack.node.try_get_context(name) or default)
    if asked not in (default, other):
        raise ValueError(f'context "{name}" is "{asked}", but must be "{default}" or "{other}".')
    return asked


def _number(
    stack: cdk.Stack, name: str, default: int | None, rule: str, allowed: range, *, other: str | None = None
) -> int | None:
    """The number that the context says, or the default; None for the word `other`."""
    asked = stack.node.try_get_context(name) or default
    if asked is None or asked == other:
        return None
    # The CLI's -c gives texts.
    if str(asked).isdecimal() and int(asked) in allowed:
        return int(asked)
    raise ValueError(f'context "{name}" is "{asked}", but must be {rule}.')
