"""JSON as its standard has it (RFC 8259), which Python's reader extends and its writer leaves."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def loads(data: bytes) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark.

    Raises ValueError for what is none, and for what neither an execution's input nor an answer could repeat: NaN,
    a number beyond the range of a double, a lone surrogate, objects nested too deep, an integer of thousands of digits.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
