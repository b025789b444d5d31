"""Starts Lambda environments as forks of one warm interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

# What a Task of a state machine catches when Lambda itself, not the function, has failed.
SERVICE_ERROR = "Lambda.ServiceException"


class ServiceError(Exception):
    """Lambda itself has failed: what was to be invoked did not run, or nothing is known of it."""


class Process:
    """A forked environment, with the part of `subprocess.Popen` that ministack's pool uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # Whether it was killed because the zygote had died, which is no fault of its function.
        self.is_lost = False
        self._ended = threading.Event()

    def ended(self, status: int) -> None:
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout) or self.returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return self.returncode

    def terminate(self) -> None:
        self.kill(signal.SIGTERM)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


# The zygote's socket, and the environments that it has forked; None when it has died.
Connection = tuple[socket.socket, "queue.SimpleQueue[Process | None]"]


class Zygote:
    """The process that forks environments (lambda_worker.py); started on first use, and again if it dies."""

    def __init__(self) -> None:
        self._forking = threading.Lock()
        self._connection: Connection | None = None

    def warm(self) -> None:
        """Start it ahead of the first invocation; returns at once."""
        threading.Thread(target=self._warm, name="lambda-zygote-warm", daemon=True).start()

    def _warm(self) -> None:
        with self._forking:
            self._connect()

    def fork(self, init: dict[str, Any], channel: socket.socket, log: int) -> Process:
        """A new environment that answers on `channel` and writes what it prints to `log`.

        Raises ServiceError if the zygote dies meanwhile; the next call starts it anew.
        """
        body = json.dumps(init).encode()
        with self._forking:
            control, forked = self._connect()
            try:
                socket.send_fds(control, [struct.pack("!I", len(body))], [channel.fileno(), log])
                control.sendall(body)
                process = forked.get()
            except OSError:
                process = None
            if process is None:
                self._connection = None
        if process is None:
            raise ServiceError("The process that starts Lambda environments has died.")
        return process

    def _connect(self) -> Connection:
        if self._connection is not None:
            return self._connection
        ours, theirs = socket.socketpair()
        program = Path(__file__).with_name("lambda_worker.py")
        environment = {
            key: os.environ[key] for key in ("PATH", "LANG", "HOME", "TMPDIR") if key in os.environ
        }
        environment |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        # macOS refuses to fork a process in which certain system libraries have been used.
        environment |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"} if sys.platform == "darwin" else {}
        with theirs:
            zygote = subprocess.Popen(
                [sys.executable, "-I", str(program), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        connection = self._connection = (ours, queue.SimpleQueue())
        threading.Thread(
            target=self._listen, args=(zygote, connection), name="lambda-zygote", daemon=True
        ).start()
        return connection

    def _listen(self, zygote: subprocess.Popen[bytes], connection: Connection) -> None:
        control, forked = connection
        processes: dict[int, Process] = {}
        with contextlib.suppress(OSError):
            for line in control.makefile("rb"):
                news = json.loads(line)
                if "pid" in news:
                    process = processes[news["pid"]] = Process(news["pid"])
                    forked.put(process)
                else:
                    processes.pop(news["exit"]).ended(news["status"])
        zygote.wait()
        if self._connection is connection:
            self._connection = None
        for process in processes.values():
            process.is_lost = True
            process.kill()
            process.ended(signal.SIGKILL)
        forked.put(None)
