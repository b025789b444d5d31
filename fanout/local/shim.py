"""The server process of the embedded AWS: ministack with its gaps closed.

`python -m fanout.local.shim FD TOKEN [LIFELINE]` serves on the listening socket FD. `TOKEN` does nothing but mark
the process in the process table as one of ours. If the file descriptor LIFELINE is given, the server ends when
the process that holds its other end does. server.py builds the environment that this module and ministack read.

`GAPS` is the list of what ministack 1.5.33 lacks or gets wrong; each entry closes one gap by putting functions
of this project in the place of ministack's. `tests/contract/test_emulator_gaps.py` has a test for each, so that
an upgrade of ministack tells which ones have closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import importlib.metadata
import os
import resource
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, NoReturn

MINISTACK_VERSION = "1.5.33"


class ShimError(Exception):
    """The installed ministack is not the one that this shim was written for."""


def _replace(module: ModuleType, name: str, make: Callable[..., Any], *, wraps: bool = False) -> None:
    """Put `make` in the place of `module.name`; with `wraps`, `make` gets the original as first argument."""
    if not hasattr(module, name):
        raise ShimError(
            f"ministack's {module.__name__} has no '{name}', which fanout/local/shim.py replaces. "
            f"The shim is written for ministack {MINISTACK_VERSION}."
        )
    original = getattr(module, name)
    setattr(module, name, functools.partial(make, original) if wraps else make)


def maps() -> None:
    """Distributed Map: MaxConcurrencyPath, ToleratedFailure...Path, ResultWriter, an end as soon as the threshold
    is exceeded, children that are executions of their own, and the peak of running children on record."""
    from ministack.services import stepfunctions as sf

    from . import shim_states

    _replace(sf, "_run_distributed_map", shim_states.run_distributed_map)


def executions() -> None:
    """Executions: the machine's TimeoutSeconds, 256 KiB, 25,000 events, the events of an inline Map, no pause
    before the first state, and an end that is final."""
    from ministack.services import stepfunctions as sf

    from . import shim_states

    _replace(sf, "_run_execution", shim_states.run_execution)
    _replace(sf, "_run_sub_machine", shim_states.run_branch)
    _replace(sf, "_add_event", shim_states.add_event)
    _replace(sf, "_fail_execution", shim_states.fail_execution)
    _replace(sf, "_invoke_resource", shim_states.invoke_resource, wraps=True)
    _replace(sf, "_error_matches", shim_states.matches, wraps=True)


def stopping() -> None:
    """StopExecution reaches the children, and nothing that has ended changes its status later."""
    from ministack.services import stepfunctions as sf

    from . import shim_states

    _replace(sf, "_stop_execution", shim_states.stop_execution)


def starting() -> None:
    """StartExecution: a repeated start of a running execution answers with it; names and inputs are checked."""
    from ministack.services import stepfunctions as sf

    from . import shim_states

    _replace(sf, "_start_execution", shim_states.start_execution, wraps=True)


def retries() -> None:
    """Retry: MaxDelaySeconds, JitterStrategy FULL, delays beyond a minute, and waits that a stop interrupts."""
    from ministack.services import stepfunctions as sf

    from . import shim_states

    _replace(sf, "_find_matching_retrier", shim_states.pick_retrier, wraps=True)
    _replace(sf, "_scaled_sleep", shim_states.sleep)


def paths() -> None:
    """A path that selects nothing fails the state, where ministack goes on with null."""
    from ministack.services import stepfunctions as sf

    from . import shim_states

    _replace(sf, "_resolve_params_obj", shim_states.resolve_template, wraps=True)
    _replace(sf, "_evaluate_rule", shim_states.evaluate_rule, wraps=True)
    _replace(sf, "_apply_input_path", shim_states.apply_input_path, wraps=True)
    _replace(sf, "_apply_output_path", shim_states.apply_output_path, wraps=True)


def lambda_errors() -> None:
    """Lambda: an exception's own name, Runtime.ExitError, Sandbox.Timedout and 429, for Tasks and for Invoke;
    environments that share a forked, warm interpreter, see only what Lambda gives, and have no layers: the
    packages of the virtual environment, at the versions of the same lock file, stand in for them."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc
    from ministack.services import stepfunctions as sf

    from . import shim_lambda, shim_states

    _replace(lambda_runtime, "Worker", shim_lambda.Worker)
    _replace(lambda_svc, "_execute_function_warm", shim_lambda.execute_function)
    _replace(sf, "_call_lambda", shim_states.call_lambda)
    shim_lambda.zygote.warm()


def transport() -> None:
    """Policies that demand TLS: on the loopback interface plain HTTP counts as secure, or the TLS-only policy of
    a bucket would refuse every request."""
    from ministack import app

    def pin(original: Callable[[str, bool], None], source_ip: str, secure: bool) -> None:
        original(source_ip, True)

    _replace(app, "pin_request_origin", pin, wraps=True)


def secrets() -> None:
    """CloudFormation: Ref of a secret is its ARN, which is what a policy needs; ministack gives its name."""
    provisioners = importlib.import_module("ministack.services.cloudformation.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS.get("AWS::SecretsManager::Secret", {})
    for action in ("create", "update", "delete"):
        if action not in handlers:
            raise ShimError(f"ministack's CloudFormation has no '{action}' of AWS::SecretsManager::Secret.")
    create, update, delete = handlers["create"], handlers["update"], handlers["delete"]

    def by_arn(answer: tuple[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
        _name, attributes = answer
        return attributes["Arn"], attributes

    def name_in(arn: str) -> str:
        return arn.partition(":secret:")[2][: -len("-abcdef")]

    handlers["create"] = lambda *args: by_arn(create(*args))
    handlers["update"] = lambda arn, *args: by_arn(update(name_in(arn), *args))
    handlers["delete"] = lambda arn, props: delete(name_in(arn), props)


def map_run_policies() -> None:
    """IAM: a request about a map run is about that map run; ministack takes it to be about everything."""
    from ministack.core import iam_actions

    def resource_arn(
        original: Callable[..., str],
        service: str,
        method: str,
        path: str,
        headers: Any,
        body: bytes,
        *rest: Any,
    ) -> str:
        arn = original(service, method, path, headers, body, *rest)
        if service == "states" and arn == "*":
            return str(iam_actions._safe_json_field(body, "mapRunArn") or arn)
        return arn

    # Its callers import it at each request, so that this one place is enough.
    _replace(iam_actions, "extract_resource_arn", resource_arn, wraps=True)


GAPS: tuple[Callable[[], None], ...] = (
    maps,
    executions,
    stopping,
    starting,
    retries,
    paths,
    lambda_errors,
    transport,
    secrets,
    map_run_policies,
)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def local_only(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The server answers programs of this machine, not the web pages in its browsers: a request that names an
    origin or a foreign host is refused, and no answer allows every origin."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").rpartition(":")[0]
        if b"origin" in headers or not (host in ("127.0.0.1", "localhost") or host.endswith(".localhost")):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def without_cors(message: Any) -> None:
            if message["type"] == "http.response.start":
                wildcard = [
                    (name, value)
                    for name, value in message["headers"]
                    if not name.lower().startswith(b"access-control-")
                ]
                message = {**message, "headers": wildcard}
            await send(message)

        await app(scope, receive, without_cors)

    return guarded


def _end_with(lifeline: int) -> None:
    """Wait for the other end of `lifeline` to close, then end the server and all that it started."""
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


def install() -> None:
    """Close every gap; raises ShimError if ministack is not what the shim was written for."""
    installed = importlib.metadata.version("ministack")
    if installed != MINISTACK_VERSION:
        raise ShimError(
            f"ministack {installed} is installed, but fanout/local/shim.py is written for {MINISTACK_VERSION}."
        )
    for close_gap in GAPS:
        close_gap()


def main(arguments: list[str]) -> NoReturn:
    listener, _token, *rest = arguments
    # Requests come in bursts of as many connections as there are workers.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names a hard limit that it then refuses.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if rest:
        threading.Thread(target=_end_with, args=(int(rest[0]),), daemon=True).start()
    install()
    app = importlib.import_module("ministack.app")
    hypercorn = importlib.import_module("hypercorn.asyncio")
    config = importlib.import_module("hypercorn.config").Config()
    config.bind = [f"fd://{listener}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 0.5
    config.loglevel = "WARNING"
    asyncio.run(hypercorn.serve(local_only(app.app), config))
    sys.exit(0)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ShimError as error:
        sys.exit(f"The embedded AWS cannot start. {error}")
