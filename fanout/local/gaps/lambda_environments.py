"""Lambda's execution environments for Python functions, and the errors they report.

Python's own fork server forks them from an interpreter that has imported what nearly every function imports.
"""

import compileall
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable
from multiprocessing import forkserver, popen_forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.core.responses import error_response_json
from ministack.services import cloudwatch_logs, lambda_svc

from . import lambda_worker, replaces

# Lambda gives a function ten seconds to initialize and then tries again. Forty of them starting at once on
# two cores may need longer, which says nothing about the function.
INIT_SECONDS = 60.0
# More than Lambda takes as an answer (6 MB, as JSON of ASCII only).
MAX_ANSWER_BYTES = 40 * 1024 * 1024
# Kept of what one invocation wrote to its log.
MAX_LOG_BYTES = 1024 * 1024
# A function may not set these; see https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
RESERVED = ("AWS_LAMBDA_", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")

# What a Task of a state machine catches when Lambda itself, not the function, has failed.
SERVICE_ERROR = "Lambda.ServiceException"
LOST = "The process that starts Lambda environments has died."

_forking = threading.Lock()
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([f"{__package__}.lambda_preload", f"{__package__}.lambda_worker"])


class ServiceError(Exception):
    """Lambda itself has failed: what was to be invoked did not run, or nothing is known of it."""


class Process(popen_forkserver.Popen):
    """A forked environment. Raises ServiceError if the fork server dies meanwhile; the next one finds it started anew.

    It is multiprocessing's own, without its list of children, which several threads may not use.
    """

    # Whether it was lost with the fork server, which is no fault of its function.
    is_lost = False

    def __init__(self, init: dict[str, Any], channel: socket.socket) -> None:
        with _forking:
            try:
                super().__init__(_forks.Process(target=lambda_worker.serve, args=(init, channel)))
            except (OSError, EOFError) as error:
                raise ServiceError(LOST) from error

    def poll(self, _flag: int = 0) -> int | None:
        if self.returncode is None and wait([self.sentinel], 0):
            try:
                self.returncode = forkserver.read_signed(self.sentinel)
            except (OSError, EOFError):
                self.kill()
                self.is_lost, self.returncode = True, -signal.SIGKILL
        return self.returncode


_unpacking = threading.Lock()


def unpacked(code_zip: bytes) -> Path:
    """The folder of this code, shared by every environment that runs it, so that it is compiled once."""
    folder = Path(tempfile.gettempdir()) / "code" / hashlib.sha256(code_zip).hexdigest()[:32]
    with _unpacking:
        if not folder.exists():
            with zipfile.ZipFile(io.BytesIO(code_zip)) as archive:
                archive.extractall(folder)
            # Once, here, or each of forty environments that start together compiles the same files.
            compileall.compile_dir(folder, quiet=2, workers=1)
    return folder


def environment_of(config: dict[str, Any], code_dir: Path, private: Path) -> dict[str, str]:
    """Exactly what Lambda gives: nothing of the developer's or the server's environment."""
    own = config.get("Environment", {}).get("Variables", {})
    name = config["FunctionName"]
    region = config["FunctionArn"].split(":")[3]
    given = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}",
        "AWS_EC2_METADATA_DISABLED": "true",
        # Where botocore looks for the files of a developer, too.
        "HOME": str(private),
        "TMPDIR": str(private),
    }
    given |= {key: value for key, value in own.items() if not key.startswith(RESERVED)}
    return given | {
        "PATH": os.environ["PATH"],
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        **lambda_runtime.execution_credentials(config),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.get('Runtime', 'python3.13')}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": config.get("LoggingConfig", {}).get("LogGroup", f"/aws/lambda/{name}"),
        "AWS_LAMBDA_LOG_STREAM_NAME": os.urandom(16).hex(),
        "LAMBDA_TASK_ROOT": str(code_dir),
        "_HANDLER": config["Handler"],
    }


class Environment:
    """One execution environment. Lambda's: it serves one invocation at a time, survives a handler's exception,
    and is gone after a timeout or a crash."""

    def __init__(self, config: dict[str, Any], code_zip: bytes) -> None:
        self.config = config
        self.folder = Path(tempfile.mkdtemp(prefix="lambda-"))
        # What the function prints.
        self.log = self.folder / "log"
        private = self.folder / "tmp"
        private.mkdir()
        code_dir = unpacked(code_zip)
        init = {
            "codeDir": str(code_dir),
            "handler": config["Handler"],
            "env": environment_of(config, code_dir, private),
            "log": str(self.log),
        }
        self.channel, theirs = socket.socketpair()
        with theirs:
            self.process = Process(init, theirs)

    def is_ready(self) -> bool:
        """Whether the process lives and has sent nothing since its last answer."""
        return self.channel.fileno() >= 0 and not self._wait(0)

    def load(self, request_id: str) -> dict[str, Any] | None:
        """Let the process load its handler; the invocation's outcome if it cannot."""
        answer = self._ask("init", time.time() + INIT_SECONDS)
        if answer and "error" not in answer:
            return None
        timed_out = f"Init timed out after {INIT_SECONDS:.2f} seconds"
        last = "" if answer else timed_out if answer is None else self._last_words()
        failed = _failed("Runtime.ExitError", f"RequestId: {request_id} Error: {last}", self._logged())
        self.close()
        return failed | {"body": {"requestId": request_id, **answer["error"]}} if answer else failed

    def invoke(self, event: object, request_id: str, trace_id: str | None) -> dict[str, Any]:
        """One invocation: `{"body", "log"}`, with `"error": True` if it failed, the body then Lambda's error
        payload."""
        timeout = float(self.config.get("Timeout", 3))
        deadline = time.time() + timeout
        arn = self.config["FunctionArn"]
        call = {"event": event, "requestId": request_id, "arn": arn, "deadline": deadline, "traceId": trace_id}
        with contextlib.suppress(OSError):
            os.truncate(self.log, 0)
        answer = self._ask(request_id, deadline, json.dumps(call).encode() + b"\n")
        if answer:
            if "error" in answer:
                return {"body": answer["error"], "error": True, "log": self._logged()}
            return {"body": answer["result"], "log": self._logged()}
        if answer is None:
            kind, last = "Sandbox.Timedout", f"Task timed out after {timeout:.2f} seconds"
        else:
            kind, last = "Runtime.ExitError", self._last_words()
        message, log = f"RequestId: {request_id} Error: {last}", self._logged()
        self.close()
        return _failed(kind, message, f"{log}\n{message}")

    def close(self) -> None:
        self.process.kill()
        self.channel.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self, seconds: float) -> list[Any]:
        """Wait for the channel or the end of the process: a child of it may hold the channel open for longer."""
        return wait([self.channel, self.process.sentinel], max(0.0, seconds))

    def _ask(self, call_id: str, deadline: float, question: bytes = b"") -> dict[str, Any] | None:
        """Send the question and return the answer to this call; empty if the process died or sent anything else,
        which ends it, None if the deadline passed."""
        line = b""
        # Another deployment may close this environment in the middle of its work.
        with contextlib.suppress(OSError, ValueError):
            # The process can be gone since its last invocation; then nothing is there to answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.channel.sendall(question)
            while not line.endswith(b"\n"):
                ready = self._wait(deadline - time.time())
                if not ready:
                    return None
                part = self.channel.recv(1 << 18) if self.channel in ready else b""
                line += part
                if not part or len(line) > MAX_ANSWER_BYTES:
                    break
            answered, _, text = line.partition(b" ")
            answer = json.loads(text) if answered == call_id.encode() else None
            if isinstance(answer, dict):
                return answer
        if line:
            self.process.kill()
        return {}

    def _logged(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_bytes()[-MAX_LOG_BYTES:].decode("utf-8", "replace").rstrip("\n")
        return ""

    def _last_words(self) -> str:
        """How Lambda words the end of a process; raises ServiceError if it is not the function's fault."""
        code = self.process.wait(5)
        if self.process.is_lost:
            raise ServiceError(LOST)
        if not code:
            return "Runtime exited without providing a reason"
        reason = f"exit status {code}" if code > 0 else f"signal: {signal.strsignal(-code) or -code}".lower()
        return f"Runtime exited with error: {reason}"


@replaces(lambda_runtime, "Worker")
class Worker:
    """The place of an environment in ministack's pool, which lends it to one invocation at a time."""

    # What ministack would end before it calls `_discard_tmpdir`, which ends it here.
    _proc = None

    def __init__(self, _func_name: str, config: dict[str, Any], code_zip: bytes) -> None:
        self.config = config
        self.code_zip = code_zip
        self.in_use = False
        self.last_used = time.time()
        self.environment: Environment | None = None

    def run(self, event: object, request_id: str, trace_id: str | None) -> dict[str, Any]:
        """One invocation, in a new environment if none is ready."""
        try:
            environment, failed = self.environment, None
            if environment is None or not environment.is_ready():
                self._discard_tmpdir()
                environment = self.environment = Environment(self.config, self.code_zip)
                failed = environment.load(request_id)
            return failed or environment.invoke(event, request_id, trace_id)
        except ServiceError as error:
            self._discard_tmpdir()
            return _failed(SERVICE_ERROR, str(error))
        finally:
            self.last_used = time.time()

    def _discard_tmpdir(self) -> None:
        environment, self.environment = self.environment, None
        if environment is not None:
            environment.close()


def _failed(kind: str, message: str, log: str = "") -> dict[str, Any]:
    return {"body": {"errorType": kind, "errorMessage": message}, "error": True, "log": log}


@replaces(lambda_svc, "_execute_function_warm")
def execute_function(func: dict[str, Any], event: object, request_id: str) -> Any:
    """Invoke a Python function."""
    config = func.get("config") or func
    qualifier = config.get("Version", "$LATEST")
    lambda_svc._ensure_reaper_thread()
    worker, _ = lambda_runtime.acquire_worker(config["FunctionName"], config, func["code_zip"], qualifier=qualifier)
    try:
        return worker.run(event, request_id, lambda_svc._xray_trace_id_for_invocation(config))
    finally:
        lambda_runtime.release_worker(worker)


@replaces(lambda_svc, "_emit_lambda_logs", wraps=True)
def write_log(original: Callable[..., None], function: dict[str, Any], *rest: Any, **options: Any) -> None:
    """A log group of another name than Lambda's own must be there: the role of its function may not make one, so what
    ends after its stack was deleted leaves none."""
    settings = function.get("config") or function
    own = f"/aws/lambda/{settings.get('FunctionName')}"
    named = settings.get("LoggingConfig", {}).get("LogGroup", own)
    if named == own or named in cloudwatch_logs._log_groups:
        original(function, *rest, **options)


@replaces(lambda_svc, "_invoke", wraps=True)
async def invoke(original: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    """The Invoke API; a failure of Lambda itself is a 500, not an error of the function."""
    status, headers, body = await original(*arguments, **options)
    if "X-Amz-Function-Error" in headers and (failure := json.loads(body)).get("errorType") == SERVICE_ERROR:
        return error_response_json("ServiceException", failure["errorMessage"], 500)
    return status, headers, body


# The address of a Unix socket has 104 characters at most, so the fork server's is relative.
vars(multiprocessing.current_process())["_config"]["tempdir"] = os.curdir
threading.Thread(target=forkserver.ensure_running, daemon=True).start()
