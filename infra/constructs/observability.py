"""What tells an operator: five alarms and one dashboard."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

PERIOD = cdk.Duration.minutes(5)


class Observability(Construct):
    """Alarms on what needs a person; with `alarm_topic_arn`, an SNS topic hears of each."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        machine: sfn.StateMachine,
        functions: dict[str, lambda_.Function],
        api_errors: cloudwatch.Metric,
        dead_letters: sqs.Queue,
        alarm_topic_arn: str | None = None,
    ) -> None:
        super().__init__(scope, id_)
        worker = functions["Worker"]
        workers = worker.metric("ConcurrentExecutions", period=PERIOD, statistic="Maximum")
        letters = dead_letters.metric_approximate_number_of_messages_visible(period=PERIOD, statistic="Maximum")
        throttled = worker.metric_throttles(period=PERIOD)
        # Step Functions' own metric counts refused inputs, too.
        failed = cloudwatch.Metric(
            namespace="FanOut",
            metric_name="JobsFailed",
            dimensions_map={"StackName": cdk.Stack.of(self).stack_name, "service": "fan-out"},
            period=PERIOD,
            statistic="Sum",
        )
        timed_out = machine.metric_timed_out(period=PERIOD)
        topic = sns.Topic.from_topic_arn(self, "AlarmTopic", alarm_topic_arn) if alarm_topic_arn else None
        alarms = {
            "JobFailed": (failed, "A job failed: its record says why."),
            "JobTimedOut": (timed_out, "A job took longer than the machine allows."),
            "JobRecordMissing": (
                letters,
                "A job that ended early has no record: the dead-letter queue holds its event.",
            ),
            "WorkersThrottled": (
                throttled,
                "Workers are throttled for 15 minutes: raise the concurrency quota, or lower maxConcurrency.",
            ),
            "ApiErrors": (api_errors, "The REST API answered 5xx: the functions' logs say why."),
        }
        for name, (metric, description) in alarms.items():
            alarm = cloudwatch.Alarm(
                self,
                name,
                metric=metric,
                alarm_description=description,
                threshold=0,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                # A throttled call is repeated and costs a second; 15 minutes of them ask for a higher quota.
                evaluation_periods=3 if metric is throttled else 1,
                # No job, no metric: silence is health.
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            if topic is not None:
                alarm.add_alarm_action(actions.SnsAction(topic))
        others = (machine.metric_started, machine.metric_succeeded, machine.metric_failed, machine.metric_aborted)
        jobs = [*(metric_of(period=PERIOD) for metric_of in others), failed, timed_out]
        errors = [function.metric_errors(period=PERIOD, label=name) for name, function in functions.items()]
        durations = [worker.metric_duration(period=PERIOD, statistic=each) for each in ("p50", "p99", "Maximum")]
        graph = cloudwatch.GraphWidget
        widgets = [
            [graph(title="Jobs", left=jobs), graph(title="Workers at a time", left=[workers])],
            [
                graph(title="Failed calls", left=errors, right=[throttled]),
                graph(title="Duration of a worker call", left=durations),
            ],
        ]
        cloudwatch.Dashboard(self, "Dashboard", widgets=widgets)
