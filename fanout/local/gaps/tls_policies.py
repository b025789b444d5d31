"""Policies that demand TLS: on the loopback interface plain HTTP counts as secure, or the TLS-only policy of a bucket
would refuse every request."""

from __future__ import annotations

from collections.abc import Callable

from ministack import app

from . import replace


def pin(original: Callable[[str, bool], None], source_ip: str, secure: bool) -> None:
    original(source_ip, True)


def close() -> None:
    replace(app, "pin_request_origin", pin, wraps=True)
