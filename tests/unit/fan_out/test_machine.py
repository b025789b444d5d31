"""The in-process machine leaves nothing behind for the next one."""

from __future__ import annotations

from fan_out.aws import clients as aws
from tests.support import machine as machines


def test_a_deployment_makes_its_own_clients() -> None:
    """A client remembers how often it may still retry."""
    with machines.deployed():
        first = aws.s3()
        assert aws.s3() is first
    with machines.deployed():
        assert aws.s3() is not first
