"""The rules of a task: what may be sent as one, parsed once into frozen typed values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from task_service import timestamps
from task_service.errors import MISSING, Fault, InvalidTaskError, UnknownField

TITLE_CHARACTERS: Final = 100
DETAIL_CHARACTERS: Final = 1_000
LARGEST_VERSION: Final = 2**53 - 1
"""The largest integer that every JSON reader carries exactly (RFC 8259, section 6)."""

_ALLOWED: Final = {
    "title": f"a text of 1 to {TITLE_CHARACTERS} characters",
    "detail": f"a text of at most {DETAIL_CHARACTERS:,} characters",
    "dueAt": timestamps.ALLOWED,
    "isComplete": "true or false",
    "version": f"a whole number from 1 to {LARGEST_VERSION}",
}
# Tab, line feed and carriage return are how people break lines in a spreadsheet's cell; the other controls
# are noise at best, and at worst drive the terminal that a task is listed on.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RULE: Final = "rule"


def _refuse(addition: str) -> PydanticCustomError:
    return PydanticCustomError(_RULE, "{addition}", {"addition": addition})


def _without_controls(text: str) -> str:
    if _CONTROL.search(text):
        raise _refuse(" without control characters (tabs and line breaks may stay)")
    return text


def _not_blank(text: str) -> str:
    # The empty text is left to the rule on length, whose sentence fits it better.
    if text and not text.strip():
        raise _refuse(", not only white space")
    return text


def _moment(text: str) -> str:
    try:
        return timestamps.parse(text)
    except ValueError:
        raise _refuse("") from None


Title = Annotated[
    str,
    Field(min_length=1, max_length=TITLE_CHARACTERS),
    AfterValidator(_not_blank),
    AfterValidator(_without_controls),
]
Detail = Annotated[str, Field(max_length=DETAIL_CHARACTERS), AfterValidator(_without_controls)]
Moment = Annotated[str, AfterValidator(_moment)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class NewTask(_Sent):
    """What a task is made of. null for `detail` and `dueAt` is the same as leaving them out."""

    title: Title
    detail: Detail | None = None
    due_at: Moment | None = None
    is_complete: bool = False


class Replacement(NewTask):
    """A task's new content in full; `version` is the one that the caller has read."""

    version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)]


class Changes(_Sent):
    """Some of a task's fields. null removes `detail` or `dueAt`; what is left out stays as it is."""

    title: Title = ""
    detail: Detail | None = None
    due_at: Moment | None = None
    is_complete: bool = False

    def given(self) -> dict[str, str | bool | None]:
        """The fields that were sent, by their names in JSON."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class _Version(_Sent):
    version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)]


Model = TypeVar("Model", bound=_Sent)


def new_task(value: object) -> NewTask:
    """Raises InvalidTaskError with every fault."""
    return _parse(NewTask, value, "task")


def replacement(value: object) -> Replacement:
    """Raises InvalidTaskError with every fault."""
    return _parse(Replacement, value, "task")


def changes(value: object) -> Changes:
    """Raises InvalidTaskError with every fault; no field at all is one."""
    if value == {}:
        raise InvalidTaskError([Fault("changes", value, f"an object with some of {_names(Changes)}")])
    return _parse(Changes, value, "changes")


def version(value: object) -> int:
    """A version that a task can have. Raises InvalidTaskError."""
    return _parse(_Version, {"version": value}, "version").version


def _parse(model: type[Model], value: object, whole: str) -> Model:
    if not isinstance(value, Mapping):
        raise InvalidTaskError([Fault(whole, value, f"an object with {_names(model)}")])
    # Unknown names are found here and not by pydantic, which cannot carry every name that JSON can spell.
    known = {field.alias or name for name, field in model.model_fields.items()}
    faults: list[Fault] = [
        UnknownField(str(key), value[key], _names(model)) for key in value if key not in known
    ]
    try:
        parsed = model.model_validate({key: value[key] for key in value if key in known})
    except ValidationError as error:
        faults = [_fault(detail) for detail in error.errors(include_url=False)] + faults
    else:
        if not faults:
            return parsed
    raise InvalidTaskError(faults)


def _fault(detail: Mapping[str, Any]) -> Fault:
    field = str(detail["loc"][0])
    allowed = _ALLOWED[field]
    if detail["type"] == "missing":
        return Fault(field, MISSING, allowed)
    if detail["type"] == "string_unicode":
        allowed += " that is valid Unicode"
    if detail["type"] == _RULE:
        allowed += detail["ctx"]["addition"]
    return Fault(field, detail["input"], allowed)


def _names(model: type[_Sent]) -> str:
    return ", ".join(field.alias or name for name, field in model.model_fields.items())
