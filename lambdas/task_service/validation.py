"""The rules of a task: what may be sent as one, parsed once into frozen typed values."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from common import timestamps
from common.errors import Fault
from common.models import Sent, narrowed, parse
from task_service.errors import InvalidTaskError

TITLE_CHARACTERS: Final = 100
# protection: a-detail-is-bounded
DETAIL_CHARACTERS: Final = 1_000
LARGEST_VERSION: Final = 2**53 - 1
"""The largest integer that every JSON reader carries exactly (RFC 8259, section 6)."""

# Tab, line feed and carriage return are line breaks in a spreadsheet's cell; other control characters can drive the
# terminal that a task is listed on.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _without_controls(text: str) -> str:
    if _CONTROL.search(text):
        raise narrowed(" without control characters (tabs and line breaks may stay)")
    return text


def _not_blank(text: str) -> str:
    # The empty text is left to the rule on length, whose sentence fits it better.
    if text and not text.strip():
        raise narrowed(", not only white space")
    return text


Title = Annotated[
    str,
    Field(min_length=1, max_length=TITLE_CHARACTERS, description=f"a text of 1 to {TITLE_CHARACTERS} characters"),
    AfterValidator(_not_blank),
    AfterValidator(_without_controls),
]
Detail = Annotated[
    Annotated[str, Field(max_length=DETAIL_CHARACTERS), AfterValidator(_without_controls)] | None,
    Field(description=f"a text of at most {DETAIL_CHARACTERS:,} characters"),
]
DueAt = Annotated[Annotated[str, AfterValidator(timestamps.utc)] | None, Field(description=timestamps.RULE)]
IsComplete = Annotated[bool, Field(description="true or false")]
Version = Annotated[int, Field(ge=1, le=LARGEST_VERSION, description=f"a whole number from 1 to {LARGEST_VERSION}")]


class NewTask(Sent):
    """The fields of a new task. null for `detail` and `dueAt` is the same as leaving them out."""

    title: Title
    detail: Detail = None
    due_at: DueAt = None
    is_complete: IsComplete = False


class Replacement(NewTask):
    """A task's new content in full; `version` is the one that the caller has read."""

    version: Version


class Changes(NewTask):
    """Some of a task's fields. null removes `detail` or `dueAt`; what is left out stays as it is."""

    title: Title = ""


def new_task(value: object) -> NewTask:
    """Raises InvalidTaskError with every fault."""
    return parse(NewTask, value, InvalidTaskError, whole="task")


def replacement(value: object) -> Replacement:
    """Raises InvalidTaskError with every fault."""
    return parse(Replacement, value, InvalidTaskError, whole="task")


def changes(value: object) -> Changes:
    """Raises InvalidTaskError with every fault; no field at all is one."""
    if value == {}:
        raise InvalidTaskError([Fault("changes", value, "an object with a field of a task")])
    return parse(Changes, value, InvalidTaskError, whole="changes")
