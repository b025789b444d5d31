"""A function's environment variables, which the stack sets."""

import os


class SettingsError(Exception):
    """A variable that the stack must set is missing or empty: a fault of the deployment, not of a request."""


def variable(name: str) -> str:
    """Raises SettingsError that names it."""
    value = os.environ.get(name, "").strip()
    if not value:
        raise SettingsError(f"The environment variable {name} is missing.")
    return value
