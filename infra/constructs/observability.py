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
        letters = dead_letters.metric_approximate_number_of_messages_visible(
            period=PERIOD, statistic=cloudwatch.Stats.MAXIMUM
        )
        throttled = worker.metric_throttles(period=PERIOD)
        failed = machine.metric_failed(period=PERIOD)
        timed_out = machine.metric_timed_out(period=PERIOD)
        alarms = [
            self._alarm("JobFailed", failed, "A job failed: its record says why."),
            self._alarm("JobTimedOut", timed_out, "A job took longer than the machine allows."),
            self._alarm(
                "JobRecordMissing",
                letters,
                "A job that ended early has no record: the dead-letter queue holds its event.",
            ),
            # A throttled call is repeated and costs a second; 15 minutes of them ask for a higher quota.
            self._alarm(
                "WorkersThrottled",
                throttled,
                "Workers are throttled for 15 minutes: raise the concurrency quota, or lower maxConcurrency.",
                evaluation_periods=3,
            ),
            self._alarm("ApiErrors", api_errors, "The REST API answered 5xx: the functions' logs say why."),
        ]
        if alarm_topic_arn:
            topic = sns.Topic.from_topic_arn(self, "AlarmTopic", alarm_topic_arn)
            for alarm in alarms:
                alarm.add_alarm_action(actions.SnsAction(topic))
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            widgets=[
                [
                    cloudwatch.GraphWidget(
                        title="Jobs",
                        left=[
                            machine.metric_started(period=PERIOD),
                            machine.metric_succeeded(period=PERIOD),
                            machine.metric_aborted(period=PERIOD),
                            failed,
                            timed_out,
                        ],
                    ),
                    cloudwatch.GraphWidget(
                        title="Workers at a time",
                        left=[worker.metric("ConcurrentExecutions", period=PERIOD, statistic=cloudwatch.Stats.MAXIMUM)],
                    ),
                ],
                [
                    cloudwatch.GraphWidget(
                        title="Failed calls",
                        left=[f.metric_errors(period=PERIOD, label=name) for name, f in functions.items()],
                        right=[throttled],
                    ),
                    cloudwatch.GraphWidget(
                        title="Duration of a worker call",
                        left=[
                            worker.metric_duration(period=PERIOD, statistic=statistic)
                            for statistic in ("p50", "p99", "Maximum")
                        ],
                    ),
                ],
            ],
        )

    def _alarm(
        self, id_: str, metric: cloudwatch.IMetric, description: str, *, evaluation_periods: int = 1
    ) -> cloudwatch.Alarm:
        return cloudwatch.Alarm(
            self,
            id_,
            metric=metric,
            alarm_description=description,
            threshold=0,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=evaluation_periods,
            # No job, no metric: silence is health.
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
