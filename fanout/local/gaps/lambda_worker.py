"""One execution environment of Lambda: a forked process that answers one invocation at a time.

It gets the environment variables, the import path and the working folder of its function, imports the handler and
reads a JSON line for each invocation from its channel. Each answer is a line of the invocation's id and JSON.
Nothing of the project is left in it: a function finds here only what Lambda gives it.
"""

import contextlib
import ctypes
import importlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from decimal import Decimal
from multiprocessing import forkserver
from typing import Any, NoReturn

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: a synchronous answer.
MAX_RESPONSE_BYTES = 6_291_556

PR_SET_PDEATHSIG = 1


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


def _failure(kind: str, message: str, trace: list[str], request_id: str = "") -> bytes:
    """An answer with the payload that Lambda's Python runtime reports for a failed invocation or init."""
    named = {"requestId": request_id} if request_id else {}
    return json.dumps({"error": {"errorMessage": message, "errorType": kind, **named, "stackTrace": trace}}).encode()


def _load(handler: str) -> Callable[[Any, Context], Any] | bytes:
    """The function `package/module.name`, or the answer of a failed init."""
    path, _, name = handler.rpartition(".")
    try:
        function: Callable[[Any, Context], Any] = getattr(importlib.import_module(path.replace("/", ".")), name)
        return function
    except ImportError as error:
        return _failure("Runtime.ImportModuleError", f"Unable to import module '{path}': {error}", [])
    except SyntaxError as error:
        return _failure("Runtime.UserCodeSyntaxError", f"Syntax error in module '{path}': {error}", [])
    except Exception as error:
        if isinstance(error, AttributeError) and error.name == name:
            return _failure("Runtime.HandlerNotFound", f"Handler '{name}' missing on module '{path}'", [])
        return _failure(type(error).__name__, str(error), _trace(error))


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
        return _failure(type(error).__name__, str(error), _trace(error), request_id)
    try:
        # Bytes are sent as they are.
        text = result if isinstance(result, bytes) else json.dumps(result, ensure_ascii=False, default=_plain).encode()
        answer = b'{"result": ' + text + b"}"
    except (TypeError, ValueError) as error:
        return _failure("Runtime.MarshalError", f"Unable to marshal response: {error}", [], request_id)
    if len(answer) > MAX_RESPONSE_BYTES:
        message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
        return _failure("Function.ResponseSizeTooLarge", message, [], request_id)
    return answer


def _become(init: dict[str, Any]) -> None:
    """Turn the forked process into the environment that Lambda would give to the function."""
    if sys.platform == "linux":
        # It ends with the fork server, as that does with the server; elsewhere when its function has returned.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(init["env"])
    time.tzset()
    log = os.open(init["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(log, number)
        stream = open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    os.close(log)
    # As Lambda's runtime: the root logger writes to the function's log, warnings and above.
    logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
    sys.argv = ["/var/runtime/bootstrap"]
    # Only the interpreter's own library and the installed packages: on AWS there is no checkout to import from.
    roots = (sys.prefix + os.sep, sys.base_prefix + os.sep)
    sys.path[:] = [init["codeDir"], *(path for path in sys.path if path.startswith(roots))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "fanout"]:
        del sys.modules[name]
    multiprocessing.set_start_method(None, force=True)
    # The fork server ends once every copy of this descriptor is closed.
    os.close(vars(vars(forkserver)["_forkserver"])["_forkserver_alive_fd"])
    vars(forkserver)["_forkserver"] = forkserver.ForkServer()
    os.chdir(init["codeDir"])


def serve(init: dict[str, Any], channel: socket.socket) -> NoReturn:
    """The life of an environment; ends when the server closes the channel."""
    _become(init)
    # A process that the function starts neither holds the channel nor answers on it.
    null = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(channel.fileno(), False)
    os.register_at_fork(after_in_child=lambda: os.dup2(null, channel.fileno(), inheritable=False))
    streams = sys.stdout, sys.stderr
    loaded = _load(init["handler"])
    if isinstance(loaded, bytes):
        channel.sendall(b"init " + loaded + b"\n")
        sys.exit(1)
    channel.sendall(b'init {"ready": true}\n')
    for line in channel.makefile("rb"):
        call = json.loads(line)
        answer = call["requestId"].encode() + b" " + _answer(loaded, call)
        # What the function printed must be in the log before its answer is. It may have put others there, or closed it.
        for stream in streams:
            with contextlib.suppress(ValueError):
                stream.flush()
        channel.sendall(answer + b"\n")
    # Threads that the function left must not keep the process alive.
    os._exit(0)
