"""Pydantic models of what callers send, with sentences for what is wrong.

The description of a field is its rule, as the sentence `FIELD is VALUE, but must be RULE.` has it.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from common.errors import MISSING, Fault, unknown_field

M = TypeVar("M", bound=BaseModel)
_NARROWED = "narrowed"


class Sent(BaseModel):
    """A JSON object of a request: fields in camelCase, each of exactly its type, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


def narrowed(addition: str) -> PydanticCustomError:
    """What a validator raises to have `addition` said after the field's rule."""
    return PydanticCustomError(_NARROWED, "{addition}", {"addition": addition})


def parse(
    model: type[M], value: object, error: Callable[[list[Fault]], Exception], *, whole: str = "body", prefix: str = ""
) -> M:
    """The parsed model. Raises `error` with every fault.

    `whole` names a value that is no object, `prefix` stands before its fields.
    """
    known = _fields(model)
    if not isinstance(value, Mapping):
        raise error([Fault(whole, value, f"an object with {', '.join(known)}")])
    # Unknown names are found here: pydantic cannot carry every name that JSON can spell.
    unknown: list[Fault] = [unknown_field(f"{prefix}{key}", value[key], known) for key in value if key not in known]
    try:
        parsed = model.model_validate({key: value[key] for key in value if key in known}, by_alias=True, by_name=False)
    except ValidationError as invalid:
        found = (_fault(model, detail, prefix) for detail in invalid.errors(include_url=False))
        raise error([*{fault.field: fault for fault in found}.values(), *unknown]) from None
    if unknown:
        raise error(unknown)
    return parsed


def _fault(model: type[BaseModel], detail: Any, prefix: str) -> Fault:
    """One problem that pydantic found, with the rule of the innermost field that has one."""
    owner: Any = model
    path: list[str] = []
    rule = ""
    for step in detail["loc"]:
        fields = _fields(owner)
        if step not in fields:
            # A member of a list or a union: the field itself has the rule.
            if detail["type"] == "extra_forbidden":
                path.append(str(step))
            break
        path.append(str(step))
        rule = fields[step].description or rule
        owner = fields[step].annotation
    field = (prefix + ".".join(path))[:200]
    match detail["type"]:
        case "missing":
            return Fault(field, MISSING, rule)
        case "extra_forbidden":
            return unknown_field(field, detail["input"], _fields(owner))
        case "string_unicode":
            rule += " that is valid Unicode"
        case kind if kind == _NARROWED:
            rule += detail["ctx"]["addition"]
    return Fault(field, detail["input"], rule or str(detail["msg"]))


def _fields(model: Any) -> dict[str, Any]:
    fields = getattr(model, "model_fields", {})
    return {field.alias or name: field for name, field in fields.items()}
