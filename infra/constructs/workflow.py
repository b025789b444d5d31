"""Fan Out: the state machine, the functions that its states run, and what starts and finalizes its jobs."""

from functools import partial
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct, IConstruct

from infra.constructs.function import LOG_RETENTION, Runtime, add_function
from infra.constructs.grants import acknowledge, allow, allow_invoke, logical_id, objects
from infra.constructs.storage import Storage
from infra.functions import FUNCTIONS, STATES, snake

DEFINITION = Path(__file__).resolve().parents[2] / "statemachines" / "fan_out.asl.json"

MANIFESTS = "work/*/manifest.jsonl"
RESULTS = "work/*/results/*"

# Kinds of ARN below the machine's name: its executions, those that its Distributed Map started, and the runs
# of that map. https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsstepfunctions.html
JOB = ("execution", ":*")
CHILD = ("execution", "/Shards:*")
MAP_RUN = ("mapRun", "/*:*")
# protection: every-early-end
ENDED_EARLY = ["ABORTED", "TIMED_OUT", "FAILED"]


class Workflow(Construct):
    """`machine` runs the jobs; `functions` by name; `dead_letters` gets events that the Finalizer could not handle.

    `worker_concurrency` is the Worker's reserved concurrency.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        runtime: Runtime,
        storage: Storage,
        task_functions: dict[str, lambda_.Function],
        worker_concurrency: int | None = None,
    ) -> None:
        super().__init__(scope, id_)
        self._storage = storage
        add = partial(add_function, self, runtime=runtime, storage=storage)
        self.functions = {row.name: add(row) for row in STATES}
        if worker_concurrency is not None:
            worker = self.functions["Worker"].node.default_child
            assert isinstance(worker, lambda_.CfnFunction)
            worker.reserved_concurrent_executions = worker_concurrency
            # Who decides how many workers a job gets.
            self.functions["Manifest"].add_environment("WORKER_CONCURRENCY", str(worker_concurrency))
        self.machine = self._add_machine()
        self._let_the_machine_run_its_own_children()
        self.functions["JobsApi"] = add(FUNCTIONS["JobsApi"])
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        acknowledge(self.dead_letters, "SQS3", "It is itself the dead-letter queue, of the rule and of the Finalizer.")
        self.functions["Finalizer"] = add(FUNCTIONS["Finalizer"])
        self._keep_what_failed(self.functions["Finalizer"])
        # For commands that are told to callers, and as the dimension of a metric.
        for name in ("JobsApi", "Reducer", "Finalizer"):
            self.functions[name].add_environment("STACK_NAME", cdk.Stack.of(self).stack_name)
        self._finalize_jobs_that_end_early()
        self._let_functions_call(task_functions)

    def _add_machine(self) -> sfn.StateMachine:
        role = iam.Role(
            self,
            "MachineRole",
            # Only for machines of this account: https://docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html
            assumed_by=iam.ServicePrincipal(
                "states.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(self).account}}
            ),
            description="What the states of Fan Out's machine may do",
        )
        bucket = self._storage.bucket
        for row in STATES:
            allow_invoke(role, self.functions[row.name])
        # The item reader of the Distributed Map, and its result writer, which uploads in parts.
        allow(role, ["s3:GetObject"], objects(bucket, [MANIFESTS], granted_to=role))
        allow(
            role,
            ["s3:PutObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"],
            objects(bucket, [RESULTS], granted_to=role),
        )
        machine = sfn.StateMachine(
            self,
            "Machine",
            state_machine_type=sfn.StateMachineType.STANDARD,
            # As a string, the definition is in the template, and a change of it is in the diff.
            definition_body=sfn.DefinitionBody.from_string(DEFINITION.read_text(encoding="utf-8")),
            definition_substitutions={
                "BucketName": bucket.bucket_name,
                # A job runs to its end with the code that it began with, whatever is deployed meanwhile.
                **{f"{row.name}Arn": self.functions[row.name].current_version.function_arn for row in STATES},
            },
            role=role,
            tracing_enabled=True,
            logs=sfn.LogOptions(
                destination=logs.LogGroup(
                    self,
                    "MachineLog",
                    # Under this prefix AWS needs no statement a log group in a resource policy that has room
                    # for few. https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html
                    log_group_name=f"/aws/vendedlogs/states/{cdk.Stack.of(self).stack_name}",
                    retention=LOG_RETENTION,
                    removal_policy=cdk.RemovalPolicy.DESTROY,
                ),
                level=sfn.LogLevel.ERROR,
                # Inputs are the users' own words, and the history keeps them for 90 days anyway.
                include_execution_data=False,
            ),
        )
        acknowledge(
            role,
            "IAM5[Resource::*]",
            "X-Ray, and the delivery of logs that Step Functions manages, know no resource-level permission.",
        )
        acknowledge(
            machine,
            "SF1",
            "Errors are logged. All events would log a million transitions a job, which the execution "
            "history and the job's record in the bucket hold already.",
        )
        return machine

    def _let_the_machine_run_its_own_children(self) -> None:
        # The Distributed Map starts its children as executions of this same machine. In the role's own policy
        # the statement would be circular: the machine waits for that policy, which would name the machine.
        policy = iam.Policy(self, "MachineRunsItsOwnChildren", roles=[self.machine.role])
        allow(policy, ["states:StartExecution"], [self.machine.state_machine_arn])
        allow(policy, ["states:DescribeExecution", "states:StopExecution"], [self._any(CHILD, granted_to=policy)])

    def _keep_what_failed(self, function: lambda_.Function) -> None:
        """Have the event of each asynchronous call of the function that failed three times in `dead_letters`."""
        config = lambda_.EventInvokeConfig(function, "EventInvokeConfig", function=function).node.default_child
        assert isinstance(config, lambda_.CfnEventInvokeConfig)
        config.destination_config = lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
            on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=self.dead_letters.queue_arn)
        )
        # Given the destination, the CDK would grant two more actions, for programs that look a queue up.
        # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
        allow(function, ["sqs:SendMessage"], [self.dead_letters.queue_arn])

    def _finalize_jobs_that_end_early(self) -> None:
        """Have the Finalizer write the record of every job that was stopped, timed out or failed.

        Delivery is repeated for a day, the call itself twice; what still fails is in `dead_letters`. A sweep finds
        the jobs of which no event came.
        """
        rule = events.Rule(
            self,
            "JobEndedEarly",
            description="A job was stopped, timed out or failed: the Finalizer writes its record",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={"stateMachineArn": [self.machine.state_machine_arn], "status": ENDED_EARLY},
            ),
        )
        # protection: a-sweep-every-hour
        sweep = events.Rule(
            self,
            "Sweep",
            description="The Finalizer writes the record of each job whose ending was not delivered",
            schedule=events.Schedule.rate(cdk.Duration.hours(1)),
        )
        for each, hours in ((rule, 24), (sweep, 1)):
            each.add_target(
                targets.LambdaFunction(
                    self.functions["Finalizer"],
                    dead_letter_queue=self.dead_letters,
                    retry_attempts=185,
                    max_event_age=cdk.Duration.hours(hours),
                )
            )

    def _let_functions_call(self, task_functions: dict[str, lambda_.Function]) -> None:
        """Let each function call what its row names: other functions, and the machine."""
        for name, function in self.functions.items():
            row, role = FUNCTIONS[name], function.role
            assert role is not None
            for callee in row.calls:
                called = task_functions[callee]
                function.add_environment(f"{snake(callee).upper()}_ARN", called.current_version.function_arn)
                allow_invoke(role, called)
            for callee in row.starts:
                # Not a version of it: the dead-letter queue belongs to the function itself.
                started = self.functions[callee].function_arn
                function.add_environment(f"{snake(callee).upper()}_ARN", started)
                allow(function, ["lambda:InvokeFunction"], [started])
            if row.machine:
                function.add_environment("STATE_MACHINE_ARN", self.machine.state_machine_arn)
            for actions, pattern in ((row.machine, None), (row.jobs, JOB), (row.map_runs, MAP_RUN)):
                if actions:
                    arn = self._any(pattern, granted_to=role) if pattern else self.machine.state_machine_arn
                    allow(function, [f"states:{action}" for action in actions], [arn])

    def _any(self, pattern: tuple[str, str], *, granted_to: IConstruct) -> str:
        """The ARN of all executions or map runs of the machine, to be granted and acknowledged."""
        resource, suffix = pattern
        acknowledge(
            granted_to,
            "IAM5[Resource::arn:<AWS::Partition>:states:<AWS::Region>:<AWS::AccountId>:"
            f"{resource}:<{logical_id(self.machine)}.Name>{suffix}]",
            "Users choose the names of jobs when they start them, and Step Functions those of its children; "
            "all are this one machine's.",
        )
        return cdk.Stack.of(self).format_arn(
            service="states",
            resource=resource,
            resource_name=f"{self.machine.state_machine_name}{suffix}",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
