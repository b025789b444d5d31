"""The program in which the embedded AWS runs Python Lambda functions.

The server starts it once, as `python -I lambda_worker.py FD`. It imports what nearly every function
imports, then forks one process per execution environment, which takes milliseconds where a fresh
interpreter that imports boto3 and pydantic takes most of a second of CPU. Each forked process gets the
environment variables, the import path and the working folder of its function, imports the handler and
answers one invocation at a time, as an environment on Lambda does.

FD is a Unix socket. A request is four bytes of length and a JSON object, with two file descriptors: the
environment's channel (a JSON line for each invocation; a line of its id and JSON for each answer) and its log.
Answers on FD are JSON lines: `{"pid": n}` for a fork, `{"exit": n, "status": s}` for an ended process. When FD closes,
the server is gone: every environment is killed and the program ends.

It knows nothing of the project: a function must find here only what Lambda gives it.
"""

from __future__ import annotations

import compileall
import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from decimal import Decimal
from types import FrameType
from typing import Any, NoReturn

# Imported before the fork. Nothing here may read the function's environment variables while it is imported:
# aws_xray_sdk does (it picks its context by LAMBDA_TASK_ROOT), so it is left to the function.
PRELOADED = (
    "asyncio",
    "concurrent.futures",
    "csv",
    "uuid",
    "zoneinfo",
    "boto3",
    "boto3.dynamodb.types",
    "botocore.config",
    "botocore.endpoint",
    "botocore.httpsession",
    "botocore.signers",
    "pydantic",
    "aws_lambda_powertools",
    "aws_lambda_powertools.event_handler",
    "aws_lambda_powertools.logging.correlation_paths",
    "aws_lambda_powertools.metrics",
    "aws_lambda_powertools.utilities.typing",
)
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: a synchronous answer.
MAX_RESPONSE_BYTES = 6_291_556


class Context:
    """What Lambda passes as `context`; times from the deadline that the server set."""

    identity = None
    client_context = None

    def __init__(self, request_id: str, arn: str, deadline: float) -> None:
        self.aws_request_id = request_id
        self.invoked_function_arn = arn
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._deadline = deadline

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.time()) * 1000))


def _error(kind: str, message: str, trace: list[str], request_id: str = "") -> dict[str, Any]:
    """The payload that Lambda's Python runtime reports for a failed invocation."""
    payload: dict[str, Any] = {"errorMessage": message, "errorType": kind}
    if request_id:
        payload["requestId"] = request_id
    return payload | {"stackTrace": trace}


def _load(handler: str) -> Callable[[Any, Context], Any]:
    """Import `package/module.function`; raises what Lambda reports as a failed init."""
    path, _, name = handler.rpartition(".")
    module = importlib.import_module(path.replace("/", "."))
    function: Callable[[Any, Context], Any] = getattr(module, name)
    return function


def _load_or_explain(handler: str) -> Callable[[Any, Context], Any] | dict[str, Any]:
    module, _, name = handler.rpartition(".")
    try:
        return _load(handler)
    except ImportError as error:
        return _error("Runtime.ImportModuleError", f"Unable to import module '{module}': {error}", [])
    except AttributeError as error:
        if error.name == name:
            message = f"Handler '{name}' missing on module '{module}'"
            return _error("Runtime.HandlerNotFound", message, [])
        return _error("AttributeError", str(error), _trace(error))
    except SyntaxError as error:
        return _error("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module}': {error}", [])
    except Exception as error:
        return _error(type(error).__name__, str(error), _trace(error))


def _trace(error: BaseException) -> list[str]:
    return [line for line in traceback.format_tb(error.__traceback__) if f'File "{__file__}"' not in line]


def _plain(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _answer(handler: Callable[[Any, Context], Any], call: dict[str, Any]) -> bytes:
    """Run one invocation; an exception is an answer too. BaseException ends the process, as on Lambda."""
    request_id = call["requestId"]
    context = Context(request_id, call["arn"], call["deadline"])
    os.environ.pop("_X_AMZN_TRACE_ID", None)
    if call.get("traceId"):
        os.environ["_X_AMZN_TRACE_ID"] = call["traceId"]
    try:
        result = handler(call["event"], context)
    except Exception as error:
        # As the Lambda runtime does: the trace goes to the log, the error to the caller.
        print(f"[ERROR] {type(error).__name__}: {error}", *_trace(error), sep="\n", end="")  # noqa: T201
        failure = _error(type(error).__name__, str(error), _trace(error), request_id)
        return json.dumps({"error": failure}).encode()
    try:
        answer = json.dumps({"result": result}, ensure_ascii=False, default=_plain).encode()
    except (TypeError, ValueError) as error:
        failure = _error("Runtime.MarshalError", f"Unable to marshal response: {error}", [], request_id)
        return json.dumps({"error": failure}).encode()
    if len(answer) > MAX_RESPONSE_BYTES:
        message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
        failure = _error("Function.ResponseSizeTooLarge", message, [], request_id)
        return json.dumps({"error": failure}).encode()
    return answer


def _become(init: dict[str, Any], log: int) -> None:
    """Turn the forked process into the environment that Lambda would give to the function."""
    os.environ.clear()
    os.environ.update(init["env"])
    time.tzset()
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    # As Lambda's runtime: the root logger writes to the function's log, warnings and above.
    logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
    sys.argv = ["/var/runtime/bootstrap"]
    sys.path.insert(0, init["codeDir"])
    os.chdir(init["codeDir"])


def _serve(init: dict[str, Any], channel: socket.socket, log: int) -> NoReturn:
    _become(init, log)
    # A process that the function starts neither holds the channel nor answers on it.
    null = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(channel.fileno(), False)
    os.register_at_fork(after_in_child=lambda: os.dup2(null, channel.fileno(), inheritable=False))
    loaded = _load_or_explain(init["handler"])
    if isinstance(loaded, dict):
        channel.sendall(b"init " + json.dumps({"error": loaded}).encode() + b"\n")
        sys.exit(1)
    channel.sendall(b'init {"ready": true}\n')
    for line in channel.makefile("rb"):
        call = json.loads(line)
        answer = call["requestId"].encode() + b" " + _answer(loaded, call)
        # What the function printed must be in the log before its answer is.
        sys.stdout.flush()
        sys.stderr.flush()
        channel.sendall(answer + b"\n")
    # The server closed the channel. Threads that the function left must not keep the process alive.
    os._exit(0)


def _preload() -> None:
    # Only the interpreter's own library and the installed packages: on AWS there is no checkout to import from.
    roots = (sys.prefix + os.sep, sys.base_prefix + os.sep)
    sys.path[:] = [path for path in sys.path if path.startswith(roots)]
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    # Reading the model of an AWS service takes up to a tenth of a second of CPU. What this one loader has read
    # before the fork, every session of every environment shares.
    loader = botocore.session.create_loader()
    setattr(botocore.session, "create_loader", lambda _path=None: loader)  # noqa: B010
    for service in ("dynamodb", "lambda", "s3", "stepfunctions", "secretsmanager"):
        boto3.Session().client(service, region_name="us-east-1", config=Config(signature_version=UNSIGNED))
    gc.collect()
    gc.freeze()


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """One request and its two file descriptors; None when the server is gone."""
    header, fds, _, _ = socket.recv_fds(control, 4, 2)
    body = b""
    size = struct.unpack("!I", header)[0] if len(header) == 4 else 0
    while len(body) < size:
        part = control.recv(size - len(body))
        if not part:
            return None
        body += part
    return (json.loads(body), fds) if size else None


def main() -> NoReturn:
    control = socket.socket(fileno=int(sys.argv[1]))
    _preload()
    ended, wake = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(wake, False)
    compiled: set[str] = set()
    children: set[int] = set()

    def on_child(_signal: int, _frame: FrameType | None) -> None:
        """Only wakes the loop below, through the pipe."""

    signal.signal(signal.SIGCHLD, on_child)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([control.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            while children:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                children.discard(pid)
                control.sendall(json.dumps({"exit": pid, "status": status}).encode() + b"\n")
        if control.fileno() not in ready:
            continue
        try:
            request = _receive(control)
        except OSError:
            request = None
        if request is None:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os._exit(0)
        init, (channel, log) = request
        if init["codeDir"] not in compiled:
            # Once, here, or each of forty environments that start together compiles the same files.
            compileall.compile_dir(init["codeDir"], quiet=2, workers=1)
            compiled.add(init["codeDir"])
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (ended, wake):
                os.close(fd)
            control.close()
            _serve(init, socket.socket(fileno=channel), log)
        children.add(pid)
        os.close(channel)
        os.close(log)
        control.sendall(json.dumps({"pid": pid}).encode() + b"\n")


if __name__ == "__main__":
    main()
