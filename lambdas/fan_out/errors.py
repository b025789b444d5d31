"""The errors of a job. Lambda reports a class's name to the state machine, so the names are a contract:
the machine's retriers and every job record use them.
"""

from common.errors import Fault, ServiceError


class FanOutError(ServiceError):
    """Base of every error that this service raises on purpose. Its text is a sentence for the job's owner."""


class InvalidJobError(FanOutError):
    """The job's input is wrong; nothing was started. Never retried.

    `faults` are the wrong fields, for callers that want them apart from the sentence.
    """

    status = 400

    def __init__(self, message: str, *faults: Fault):
        super().__init__(message)
        self.faults = faults


class SourceNotFoundError(InvalidJobError):
    """The job's source — a CSV object, an earlier job — does not exist. Never retried."""


class JobNotFoundError(FanOutError):
    """No job has this id."""

    status = 404


class JobExistsError(FanOutError):
    """Another job, with another input, has this id."""

    status = 409


class JobNotEndedError(FanOutError):
    """The job has no record yet: it runs, or its record is being written."""

    status = 409


class ResultNotFoundError(FanOutError):
    """The job has ended without a result."""

    status = 404


class UploadNotFoundError(FanOutError):
    """No unfinished or finished upload has this id."""

    status = 404


class TaskServiceError(FanOutError):
    """The Task Service refused a request, or failed in a way that a retry does not fix. Never retried."""


class CostLimitError(FanOutError):
    """The job would cost more than its `maxCostUsd`. Nothing was worked on. Never retried."""


class AccountingError(FanOutError):
    """An object of the job is missing or cannot be read, or a sum is off. Never retried."""


class ToleranceExceededError(FanOutError):
    """More of the job's tasks failed, were quarantined or stayed unprocessed than the job tolerates."""


class KindFailedError(FanOutError):
    """The kind's own code made no result of the tasks' results. Every task has its outcome."""


class ShardFailedError(FanOutError):
    """The shard counts as failed because too many of its tasks did. Never retried: its partial is written."""


class ShardStuckError(FanOutError):
    """A shard's workers died repeatedly without any progress. Never retried."""


class JobEndedError(FanOutError):
    """The job was stopped while this worker ran. Never retried."""


class RetryableError(FanOutError):
    """A request that may succeed when it is retried after a pause."""

    status = 503


class ThrottledError(RetryableError):
    """AWS or the Task Service asked to slow down."""


class ServiceUnavailableError(RetryableError):
    """AWS or the Task Service did not answer, or answered with an internal error."""
