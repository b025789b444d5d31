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
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from . import replace
from .lambda_zygote import Process, Zygote

# Lambda gives a function ten seconds to initialize and then tries again. Forty of them starting at once on
# two cores may need longer, which says nothing about the function.
INIT_SECONDS = 60.0
# Kept of what one invocation wrote to its log.
MAX_LOG_BYTES = 1024 * 1024
# A function may not set these; see https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
RESERVED = ("AWS_LAMBDA_", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")


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
            if self._proc is None or self._proc.poll() is not None:
                try:
                    self._spawn()
                except InitError as error:
                    return {"body": error.payload, "error": True, "log": error.log}
            timeout = float(self.config.get("Timeout", 3))
            deadline = time.time() + timeout
            call = {
                "event": event,
                "requestId": request_id,
                "arn": arn,
                "deadline": deadline,
                "traceId": trace_id,
            }
            # The process can be gone since its last invocation; then nothing is there to answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                assert self._channel is not None
                self._channel.sendall(json.dumps(call).encode() + b"\n")
            try:
                line = self._receive(deadline)
            except (AssertionError, AttributeError, OSError):
                # Another deployment has retired this environment in the middle of its work.
                line = b""
            if line:
                answer = json.loads(line)
                self.last_used = time.time()
                if "error" in answer:
                    return {"body": answer["error"], "error": True, "log": self._logged()}
                return {"body": answer["result"], "log": self._logged()}
            if line is None:
                payload = {
                    "errorType": "Sandbox.Timedout",
                    "errorMessage": f"RequestId: {request_id} Error: Task timed out after {timeout:.2f} seconds",
                }
            else:
                payload = {
                    "errorType": "Runtime.ExitError",
                    "errorMessage": f"RequestId: {request_id} Error: {self._last_words()}",
                }
            self._retire()
            return {"body": payload, "error": True, "log": f"{self._logged()}\n{payload['errorMessage']}"}

    def _spawn(self) -> None:
        """Start the process and let it load its handler; raises InitError."""
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
        line = self._receive(time.time() + INIT_SECONDS)
        answer = json.loads(line) if line else {"error": None}
        if "error" in answer:
            seconds = f"{INIT_SECONDS:.2f}"
            last = self._last_words() if line == b"" else f"Init timed out after {seconds} seconds"
            self._retire()
            raise InitError(
                answer["error"] or {"errorType": "Runtime.ExitError", "errorMessage": f"Error: {last}"},
                self._logged(),
            )

    def _receive(self, deadline: float) -> bytes | None:
        """The process's next line; empty if it died, None if the deadline passed. Collects the log meanwhile:
        a full pipe would stop the function."""
        assert self._channel is not None
        answers, logs = self._channel.fileno(), self._log_fd
        poll = select.poll()
        poll.register(answers, select.POLLIN)
        poll.register(logs, select.POLLIN)
        line = bytearray()
        while True:
            left = deadline - time.time()
            ready = {fd for fd, _ in poll.poll(max(0.0, left) * 1000)}
            if logs in ready and not self._collect_log():
                poll.unregister(logs)
            if answers in ready:
                try:
                    part = self._channel.recv(1 << 18)
                except ConnectionResetError:
                    part = b""
                if not part:
                    return b""
                line += part
                if line.endswith(b"\n"):
                    return bytes(line)
            elif left <= 0:
                return None

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


def execute_function(func: dict[str, Any], event: object, request_id: str) -> dict[str, Any]:
    """Invoke a Python function; what ministack's `_execute_function_warm` is to the rest of it."""
    config = func.get("config") or func
    code_zip = func.get("code_zip")
    name = config["FunctionName"]
    if not code_zip:
        payload = {"errorType": "Runtime.ImportModuleError", "errorMessage": f"Function {name} has no code."}
        return {"body": payload, "error": True, "log": ""}
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


def close() -> None:
    replace(lambda_runtime, "Worker", Worker)
    replace(lambda_svc, "_execute_function_warm", execute_function)
    zygote.warm()
