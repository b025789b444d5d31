"""JSON documents as this project stores them: one form, a shape for each kind, and a seal.

A sealed document names its own key and holds a digest of its content, so that one that is cut, changed or copied
from elsewhere differs from every document that was committed there.
"""

import hashlib
import json
import re
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

# How deep a kind's value may be nested. JSON is read and written by recursion, which Python ends at about 1,000.
DEEPEST = 100

_NAMED_DIGEST = re.compile(r"-([0-9a-f]{16})\.[a-z]+$")


def encode(document: Any) -> bytes:
    """The one JSON form that this project stores: compact, UTF-8, keys in the order they were put.

    Raises TypeError or ValueError for what is not JSON, such as a set, NaN, or a lone surrogate.
    """
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def encode_value(value: Any) -> bytes:
    """A kind's value in that form. Raises ValueError, too, if it is nested more than DEEPEST deep."""
    body = encode(value)
    # protection: depth-of-a-value
    if body.count(b"[") + body.count(b"{") > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError(f"the value is nested more than {DEEPEST} deep")
    return body


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [
        child
        for each in level
        if isinstance(each, dict | list | tuple)
        for child in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
    return depth


def decode(body: bytes, shape: Any = Any, *, key: str | None = None) -> Any:
    """The document in its shape, any type that pydantic can check; with a `key`, the one that was sealed under it.

    Raises ValueError with the reason.
    """
    try:
        document = json.loads(body if key is None else _unseal(body))
        # protection: seal-names-its-key
        if key is not None and (named := document.pop("object", None)) != key:
            raise ValueError(f"it is a copy of {named}")
        return to_shape(document, shape)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def to_shape(document: Any, shape: Any) -> Any:
    """A JSON document as an instance of its type. Raises ValueError with the reason."""
    try:
        return _adapter(shape).validate_python(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")) from None


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def digest(content: bytes) -> str:
    """What names and checks a content: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def named_digest(key: str) -> str | None:
    """The digest at the end of a key that is made of its object's content."""
    found = _NAMED_DIGEST.search(key)
    return found[1] if found else None


def seal(key: str, document: dict[str, Any]) -> bytes:
    content = encode({"object": key} | document)
    return content[:-1] + f',"seal":"{digest(content)}"}}'.encode()


def _unseal(body: bytes) -> bytes:
    content, _, mark = body.rpartition(b',"seal":"')
    content += b"}"
    # protection: seal
    if mark != digest(content).encode() + b'"}':
        raise ValueError("it is not what was committed")
    return content
