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
    The context is what infra/cdk.py lists. ValueError is raised on another value; a bucket that is not empty stays,
    whatever `removal` says.
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
        stage = self._setting("stage", '"prod" or "dev"', "prod", "dev")
        removals = ("retain", "destroy") if stage == "prod" else ("destroy", "retain")
        removal = self._setting("removal", '"retain" or "destroy"', *removals)
        # More than the days for which the sweep looks for jobs without a record.
        days = range(9, 36_501)
        jobs_kept = self._setting("jobsKept", '9 to 36,500 days, or "forever"', "90", "forever", numbers=days)
        # A job lasts up to seven days.
        work_kept = self._setting("workKept", "7 to 36,500 days", "7", numbers=range(7, 36_501))
        workers = self._setting("workerConcurrency", "1 to 10,000", "", numbers=range(1, 10_001))
        api_logs = self._setting("apiLogs", '"off" or "on"', "off", "on")
        storage = Storage(
            self,
            "Storage",
            removal_policy=cdk.RemovalPolicy[removal.upper()],
            jobs_kept=None if jobs_kept == "forever" else cdk.Duration.days(int(jobs_kept)),
            work_kept=cdk.Duration.days(int(work_kept)),
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
            worker_concurrency=int(workers) if workers else None,
        )
        functions = tasks | workflow.functions
        api = Api(self, "Api", functions=functions, has_logs=api_logs == "on")
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

    def _setting(self, name: str, rule: str, *words: str, numbers: range = range(0)) -> str:
        """What the context says of `name`: one of these words, of which the first is the default, or a number."""
        # The CLI's -c gives texts.
        asked = str(self.node.try_get_context(name) or words[0])
        if asked in words or (asked.isdecimal() and int(asked) in numbers):
            return asked
        raise ValueError(f'context "{name}" is "{asked}", but must be {rule}.')
