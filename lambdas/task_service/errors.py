"""The Task Service's own errors."""

from common.errors import FaultyError, ServiceError, shown


class InvalidTaskError(FaultyError):
    """A task's fields break the rules of a task."""


class InvalidPageTokenError(FaultyError):
    """A page token that this service did not issue for this filter and segment."""


class TaskNotFoundError(ServiceError):
    """No task has this id."""

    status = 404

    def __init__(self, task_id: str) -> None:
        super().__init__(f"No task has the id {shown(task_id)}.")


class VersionConflictError(ServiceError):
    """The task has changed since the caller read it."""

    status = 409

    def __init__(self, task_id: str, *, given: int, current: int) -> None:
        super().__init__(
            f"version is {given}, but the task {shown(task_id)} is at version {current}: "
            "read it again, apply the change to that, and send its version."
        )


class TaskExistsError(ServiceError):
    """Another write has created a task with this id already."""

    status = 409

    def __init__(self, task_id: str) -> None:
        super().__init__(f"A task with the id {shown(task_id)} exists already, and this write did not create it.")


class ThrottledError(ServiceError):
    """The service's stores throttle, or cannot be reached just now. A retry can succeed."""

    status = 503

    def __init__(self, reason: str = "") -> None:
        # What AWS said is for the log, where the cause of this error is.
        super().__init__("The Task Service is throttled at the moment: retry shortly.")
