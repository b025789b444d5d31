"""Paths: one that selects nothing fails the state, `$$` is the context, ResultSelector reads it, and Format writes as
Java does."""

import contextvars
import json
import re
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replaces
from .execution_history import Data, error, parameters

# The context object of the state that runs in this thread.
context: contextvars.ContextVar[Data | None] = contextvars.ContextVar("fanout_context", default=None)

# A path that may select several values: if there are none, it selects an empty list.
INDEFINITE = re.compile(r"\*|\.\.|\[\?|\[[^]']*:")


def number(state: Data, name: str, data: Any, ctx: Data) -> Any:
    """A field of a Map, or what its ...Path form selects from the state's input; None if it has neither."""
    path = state.get(f"{name}Path")
    require_path(path, data, ctx, f"{name}Path")
    value = state.get(name) if path is None else sf._resolve_path_or_ctx(path, data, ctx)
    kind, types = ("float", (int, float)) if name.endswith("Percentage") else ("integer", (int,))
    if path is not None and (isinstance(value, bool) or not isinstance(value, types)):
        shown = value if isinstance(value, str) else json.dumps(value)
        cause = f'The {name}Path field refers to value "{shown}" which is not a valid {kind}: {path}'
        raise error("States.Runtime", cause)
    if value is not None and value < 0:
        raise error("States.Runtime", f"{name} cannot be negative.")
    if kind == "float" and value is not None and value > 100:
        raise error("States.Runtime", f"{name} cannot be greater than 100.")
    return value


def is_present(path: str, data: Any) -> bool:
    """Whether a reference path selects something, null included."""
    found = sf._resolve_path(path, data)
    if found is not None or not path.startswith("$") or INDEFINITE.search(path):
        return True
    tokens = sf._parse_jsonpath_tokens(path)
    if tokens is None:
        return False
    for kind, value in tokens:
        is_field = kind == "field" and isinstance(data, dict) and value in data
        is_index = kind == "index" and isinstance(data, list) and value < len(data)
        if not (is_field or is_index):
            return False
        data = data[value]
    return True


def require_path(path: Any, data: Any, ctx: Data | None, what: str) -> None:
    """Raise States.Runtime if the path selects nothing for the field `what`."""
    if not isinstance(path, str) or not path.startswith("$"):
        return
    if is_present(path[1:], ctx or {}) if path.startswith("$$") else is_present(path, data):
        return
    cause = f"The JSONPath '{path}' specified for the field '{what}' could not be found in the input "
    cause += f"'{json.dumps(data)[:1000]}'"
    if what in ("InputPath", "OutputPath"):
        steps = "".join(f"['{value}']" for _, value in sf._parse_jsonpath_tokens(path) or ())
        cause = f"Invalid path '{path}' : No results for path: ${steps}"
    raise error("States.Runtime", cause)


@replaces(sf, "_resolve_params_obj", wraps=True)
def resolve_template(original: Callable[..., Any], template: Any, data: Any, ctx: Data | None = None) -> Any:
    """A payload template, refusing a path that selects nothing, where ministack passes null."""
    if isinstance(template, dict):
        for key, value in template.items():
            if key.endswith(".$"):
                require_path(value, data, ctx, key)
    resolved = original(template, data, ctx)
    if isinstance(template, dict):
        for key, path in template.items():
            if path == "$$":
                resolved[key[:-2]] = sf._resolve_path_or_ctx(path, data, ctx)
            elif key.endswith(".$") and resolved[key[:-2]] is None and INDEFINITE.search(path):
                resolved[key[:-2]] = []
    return resolved


@replaces(sf, "_evaluate_rule", wraps=True)
def evaluate_rule(original: Callable[..., bool], rule: Data, data: Any, ctx: Data | None = None) -> bool:
    """A Choice rule: a variable that is not there fails the state, and a number equals no boolean."""
    if "Variable" in rule and "IsPresent" not in rule:
        require_path(rule["Variable"], data, ctx, "Variable")
    # In Python, 1 equals True.
    if "BooleanEquals" in rule and not isinstance(sf._resolve_path_or_ctx(rule["Variable"], data, ctx), bool):
        return False
    return original(rule, data, ctx)


@replaces(sf, "_apply_input_path", wraps=True)
def apply_input_path(original: Callable[..., Any], state: Data, data: Any, ctx: Data | None = None) -> Any:
    require_path(state.get("InputPath"), data, ctx, "InputPath")
    return original(state, data, ctx)


@replaces(sf, "_apply_output_path", wraps=True)
def apply_output_path(original: Callable[..., Any], state: Data, data: Any, ctx: Data | None = None) -> Any:
    require_path(state.get("OutputPath"), data, ctx, "OutputPath")
    return original(state, data, ctx)


@replaces(sf, "_resolve_path_or_ctx", wraps=True)
def resolve_path(original: Callable[..., Any], path: str, data: Any, ctx: Data | None) -> Any:
    if path != "$$":
        return original(path, data, ctx)
    return {name: value for name, value in (ctx or {}).items() if name[0].isupper() and name != "QueryLanguage"}


@replaces(sf, "_apply_parameters", wraps=True)
def apply_parameters(original: Callable[..., Any], state: Data, data: Any, ctx: Data | None = None) -> Any:
    """The parameters of a state, which its history tells."""
    context.set(ctx)
    parameters.set(original(state, data, ctx))
    return parameters.get()


@replaces(sf, "_apply_result_selector")
def apply_result_selector(state: Data, result: Any) -> Any:
    selector = state.get("ResultSelector")
    return sf._resolve_params_obj(selector, result, context.get()) if selector else result


def text(value: Any) -> str:
    """A value as States.Format writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(text, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


@replaces(sf, "_exec_intrinsic", wraps=True)
def run_intrinsic(original: Callable[..., Any], node: Any, data: Any, ctx: Data | None) -> Any:
    kind, name, arguments = node
    if name == "States.Format":
        template, *values = (sf._eval_intrinsic_arg(each, data, ctx) for each in arguments)
        arguments = [("str", each) for each in (template, *map(text, values))]
    return original((kind, name, arguments), data, ctx)


@replaces(sf, "_apply_result_path_raw", wraps=True)
def apply_result_path(original: Callable[..., Any], path: str | None, given: Any, result: Any) -> Any:
    if path not in (None, "$") and not isinstance(given, dict):
        step = str(path).removeprefix("$.")
        cause = f'Unable to apply step "{step}" to input {json.dumps(given)[:1000]}'
        raise error("States.ResultPathMatchFailure", cause)
    return original(path, given, result)
