"""A path that selects nothing fails the state, where ministack goes on with null."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions as sf

from . import replace
from .execution_history import Data, error


def is_present(path: str, data: Any) -> bool:
    """Whether a reference path selects something, null included."""
    found = sf._resolve_path(path, data)
    if found is not None or not path.startswith("$"):
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
    if not isinstance(path, str) or not path.startswith("$"):
        return
    present = is_present(path[1:], ctx or {}) if path.startswith("$$.") else is_present(path, data)
    if not present:
        raise error(
            "States.Runtime",
            f"The JSONPath '{path}' specified for the field '{what}' could not be found in the input "
            f"'{json.dumps(data)[:1000]}'",
        )


def resolve_template(original: Callable[..., Any], template: Any, data: Any, ctx: Data | None = None) -> Any:
    """A payload template, refusing a path that selects nothing, where ministack passes null."""
    if isinstance(template, dict):
        for key, value in template.items():
            if key.endswith(".$"):
                require_path(value, data, ctx, key)
    return original(template, data, ctx)


def evaluate_rule(original: Callable[..., bool], rule: Data, data: Any, ctx: Data | None = None) -> bool:
    """A Choice rule, refusing a variable that is not there, where ministack says false."""
    if "Variable" in rule and "IsPresent" not in rule:
        require_path(rule["Variable"], data, ctx, "Variable")
    return original(rule, data, ctx)


def apply_input_path(original: Callable[..., Any], state: Data, data: Any, ctx: Data | None = None) -> Any:
    require_path(state.get("InputPath"), data, ctx, "InputPath")
    return original(state, data, ctx)


def apply_output_path(original: Callable[..., Any], state: Data, data: Any, ctx: Data | None = None) -> Any:
    require_path(state.get("OutputPath"), data, ctx, "OutputPath")
    return original(state, data, ctx)


def close() -> None:
    replace(sf, "_resolve_params_obj", resolve_template, wraps=True)
    replace(sf, "_evaluate_rule", evaluate_rule, wraps=True)
    replace(sf, "_apply_input_path", apply_input_path, wraps=True)
    replace(sf, "_apply_output_path", apply_output_path, wraps=True)
