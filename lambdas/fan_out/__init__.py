"""What the author of a kind imports. None of it reaches AWS."""

from fan_out.errors import RetryableError, ServiceUnavailableError, ThrottledError
from fan_out.model.kind import JSON, Examples, Failure, Job, Kind, Params, TaskError
from fan_out.model.task import WRITES_PER_CALL, Row, Task, Timestamp, instant, utc

__all__ = [
    "JSON",
    "WRITES_PER_CALL",
    "Examples",
    "Failure",
    "Job",
    "Kind",
    "Params",
    "RetryableError",
    "Row",
    "ServiceUnavailableError",
    "Task",
    "TaskError",
    "ThrottledError",
    "Timestamp",
    "instant",
    "utc",
]
