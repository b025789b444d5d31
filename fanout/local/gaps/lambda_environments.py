"""Lambda's execution environments for Python functions, and the errors they report."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.core.responses import error_response_json
from ministack.services import lambda_svc

from . import replace
from .lambda_zygote import SERVICE_ERROR, Process, ServiceError, Zygote

# Lambda gives a function ten seconds to initialize and then tries again. Forty of them starting at once on
# two cores may need longer, which says nothing about the function.
INIT_SECONDS = 60.0
# How soon the death of a process is noticed whose child holds the channel.
DEATH_SECONDS = 0.5
# More than Lambda takes as an answer (6 MB, as JSON of ASCII only).
MAX_ANSWER_BYTES = 40 * 1024 * 1024
# Kept of what one invocation wrote to its log.
MAX_LOG_BYTES = 1024 * 1024
# A function may not set these; see https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
RESERVED = ("AWS_LAMBDA_", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")


Answer = tuple[int, dict[str, str], bytes]


class InitError(Exception):
    """The function's process started but could not load its handler; carries Lambda's error payload."""

    def __init__(self, payload: dict[str, Any], log: str) -> None:
        super().__init__(payload["errorMessage"])
        self.payload = payload
        self.log = log


zygote = Zygote()
_unpacking = threading.Lock()


def unpacked(code_zip: bytes) -> Path:
    """The folder of this code, shared by every environment that runs it, so that it is compiled once."""
    folder = Path(tempfile.gettempdir()) / "code" / hashlib.sha256(code_zip).hexdigest()[:32]
    with _unpacking:
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(prefix="unpack-"))
            with zipfile.ZipFile(io.BytesIO(code_zip)) as archive:
                archive.extractall(draft)
            folder.parent.mkdir(exist_ok=True)
            draft.rename(folder)
    return folder


def environment_of(config: dict[str, Any], code_dir: Path, private: Path) -> dict[str, str]:
    """Exactly what Lambda gives: nothing of the developer's or the server's environment."""
    own = config.get("Environment", {}).get("Variables", {})
    name = config["FunctionName"]
    region = config["FunctionArn"].split(":")[3]
    given = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}",
        "AWS_EC2_METADATA_DISABLED": "true",
        # botocore would otherwise look for them in the home folder of whoever runs this.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
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


class Worker:
    """One execution environment. Lambda's: it serves one invocation at a time, survives a handler's exception,
    and is gone after a timeout or a crash."""

    def __init__(self, func_name: str, config: dict[str, Any], code_zip: bytes) -> None:
        self.func_name = func_name
        self.config = config
        self.code_zip = code_zip
        self.in_use = False
        self.last_used = time.time()
        self._lock = threading.Lock()
        self._proc: Process | None = None
        self._private: Path | None = None
        self._channel: socket.socket | None = None
        self._log_fd = -1
        self._log = bytearray()

    def run(self, event: object, request_id: str, arn: str, trace_id: str | None) -> dict[str, Any]:
        """One invocation: `{"body", "log"}`, with `"error": True` if it failed, the body then Lambda's error
        payload."""
        with self._lock:
            self._log.clear()
            try:
                if not self._is_ready():
                    self._spawn()
                return self._invoke(event, request_id, arn, trace_id)
            except InitError as error:
                return {"body": error.payload, "error": True, "log": error.log}
            except ServiceError as error:
                self._retire()
                return _failed(SERVICE_ERROR, str(error))

    def _is_ready(self) -> bool:
        """Whether the process lives and has sent nothing since its last answer."""
        if self._proc is None or self._proc.poll() is not None or self._channel is None:
            return False
        return not select.select([self._channel], [], [], 0)[0]

    def _invoke(self, event: object, request_id: str, arn: str, trace_id: str | None) -> dict[str, Any]:
        process, timeout = self._proc, float(self.config.get("Timeout", 3))
        deadline = time.time() + timeout
        call = {
            "event": event,
            "requestId": request_id,
            "arn": arn,
            "deadline": deadline,
            "traceId": trace_id,
        }
        try:
            assert self._channel is not None
            # The process can be gone since its last invocation; then nothing is there to answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._channel.sendall(json.dumps(call).encode() + b"\n")
            answer = self._receive(request_id, deadline)
        except (AssertionError, AttributeError, OSError):
            # Another deployment has retired this environment in the middle of its work.
            answer = {}
        if answer:
            self.last_used = time.time()
            if "error" in answer:
                return {"body": answer["error"], "error": True, "log": self._logged()}
            return {"body": answer["result"], "log": self._logged()}
        if process is not None and process.is_lost:
            raise ServiceError("The process that starts Lambda environments has died.")
        if answer is None:
            kind, last = "Sandbox.Timedout", f"Task timed out after {timeout:.2f} seconds"
        else:
            kind, last = "Runtime.ExitError", self._last_words()
        self._retire()
        message = f"RequestId: {request_id} Error: {last}"
        return _failed(kind, message, f"{self._logged()}\n{message}")

    def _spawn(self) -> None:
        """Start the process and let it load its handler; raises InitError or ServiceError."""
        self._retire()
        code_dir = unpacked(self.code_zip)
        self._private = Path(tempfile.mkdtemp(prefix="lambda-"))
        init = {
            "codeDir": str(code_dir),
            "handler": self.config["Handler"],
            "env": environment_of(self.config, code_dir, self._private),
        }
        self._channel, theirs = socket.socketpair()
        self._log_fd, write_end = os.pipe()
        os.set_blocking(self._log_fd, False)
        with theirs:
            try:
                self._proc = zygote.fork(init, theirs, write_end)
            finally:
                os.close(write_end)
        answer = self._receive("init", time.time() + INIT_SECONDS)
        if not answer and self._proc.is_lost:
            raise ServiceError("The process that starts Lambda environments has died.")
        if not answer or "error" in answer:
            last = (
                f"Init timed out after {INIT_SECONDS:.2f} seconds" if answer is None else self._last_words()
            )
            payload = (answer or {}).get("error") or _failed("Runtime.ExitError", f"Error: {last}")["body"]
            self._retire()
            raise InitError(payload, self._logged())

    def _receive(self, call_id: str, deadline: float) -> dict[str, Any] | None:
        """The process's answer to this call; empty if it died or sent anything else, None if the deadline passed.
        Collects the log meanwhile: a full pipe would stop the function."""
        assert self._channel is not None
        assert self._proc is not None
        answers, logs = self._channel.fileno(), self._log_fd
        poll = select.poll()
        poll.register(answers, select.POLLIN)
        poll.register(logs, select.POLLIN)
        line = bytearray()
        while True:
            left = deadline - time.time()
            # A child of the process may hold the channel open, so that its end does not tell of the process's.
            has_died = self._proc.poll() is not None
            ready = {fd for fd, _ in poll.poll(0 if has_died else max(0.0, min(left, DEATH_SECONDS)) * 1000)}
            if logs in ready and not self._collect_log():
                poll.unregister(logs)
            if answers in ready:
                try:
                    part = self._channel.recv(1 << 18)
                except ConnectionResetError:
                    part = b""
                line += part
                if not part or len(line) > MAX_ANSWER_BYTES:
                    return self._parsed(b"", call_id)
                if line.endswith(b"\n"):
                    return self._parsed(bytes(line), call_id)
            elif has_died:
                return {}
            elif left <= 0:
                return None

    def _parsed(self, line: bytes, call_id: str) -> dict[str, Any]:
        """The answer in the line; empty, and the process killed, if it is none to this call."""
        answered, _, text = line.partition(b" ")
        with contextlib.suppress(ValueError):
            answer = json.loads(text)
            if answered == call_id.encode() and isinstance(answer, dict):
                return answer
        if line and self._proc is not None:
            self._proc.kill()
        return {}

    def _collect_log(self) -> bool:
        """Read what is there; False once the log has been closed at its other end."""
        while True:
            try:
                part = os.read(self._log_fd, 1 << 16)
            except OSError as error:
                return error.errno == errno.EAGAIN
            if not part:
                return False
            self._log += part
            del self._log[:-MAX_LOG_BYTES]

    def _logged(self) -> str:
        if self._log_fd >= 0:
            self._collect_log()
        return self._log.decode("utf-8", "replace").rstrip("\n")

    def _last_words(self) -> str:
        """How Lambda words the end of a process."""
        process = self._proc
        try:
            code = process.wait(5) if process is not None else 0
        except subprocess.TimeoutExpired:
            return "Runtime exited without providing a reason"
        if code == 0:
            return "Runtime exited without providing a reason"
        if code > 0:
            return f"Runtime exited with error: exit status {code}"
        return f"Runtime exited with error: signal: {signal.strsignal(-code) or -code}".lower().replace(
            "runtime", "Runtime", 1
        )

    def _retire(self) -> None:
        process, self._proc = self._proc, None
        if process is not None:
            process.kill()
        self._discard_tmpdir()

    def _discard_tmpdir(self) -> None:
        if self._log_fd >= 0:
            self._collect_log()
            os.close(self._log_fd)
            self._log_fd = -1
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None


def _failed(kind: str, message: str, log: str = "") -> dict[str, Any]:
    return {"body": {"errorType": kind, "errorMessage": message}, "error": True, "log": log}


def execute_function(func: dict[str, Any], event: object, request_id: str) -> dict[str, Any]:
    """Invoke a Python function; what ministack's `_execute_function_warm` is to the rest of it."""
    config = func.get("config") or func
    code_zip = func.get("code_zip")
    name = config["FunctionName"]
    if not code_zip:
        return _failed("Runtime.ImportModuleError", f"Function {name} has no code.")
    lambda_svc._ensure_reaper_thread()
    worker, _ = lambda_runtime.acquire_worker(
        name, config, code_zip, qualifier=config.get("Version", "$LATEST")
    )
    try:
        outcome: dict[str, Any] = worker.run(
            event, request_id, config["FunctionArn"], lambda_svc._xray_trace_id_for_invocation(config)
        )
        return outcome
    finally:
        lambda_runtime.release_worker(worker)


async def invoke(original: Callable[..., Awaitable[Answer]], *arguments: Any, **options: Any) -> Answer:
    """The Invoke API; a failure of Lambda itself is a 500, not an error of the function."""
    status, headers, body = await original(*arguments, **options)
    if "X-Amz-Function-Error" in headers and (failure := json.loads(body)).get("errorType") == SERVICE_ERROR:
        answer: Answer = error_response_json("ServiceException", failure["errorMessage"], 500)
        return answer
    return status, headers, body


def close() -> None:
    replace(lambda_svc, "_invoke", invoke, wraps=True)
    replace(lambda_runtime, "Worker", Worker)
    replace(lambda_svc, "_execute_function_warm", execute_function)
    zygote.warm()
