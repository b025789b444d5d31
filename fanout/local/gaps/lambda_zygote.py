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


class Process:
    """A forked environment, with the part of `subprocess.Popen` that ministack's pool uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
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
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Zygote:
    """The process that forks environments (lambda_worker.py); started on first use, and again if it dies."""

    def __init__(self) -> None:
        self._forking = threading.Lock()
        self._control: socket.socket | None = None
        self._processes: dict[int, Process] = {}
        self._forked: queue.SimpleQueue[Process | None] = queue.SimpleQueue()

    def warm(self) -> None:
        """Start it ahead of the first invocation; returns at once."""
        threading.Thread(target=self._warm, name="lambda-zygote-warm", daemon=True).start()

    def _warm(self) -> None:
        with self._forking:
            self._connect()

    def fork(self, init: dict[str, Any], channel: socket.socket, log: int) -> Process:
        """A new environment that answers on `channel` and writes what it prints to `log`."""
        body = json.dumps(init).encode()
        with self._forking:
            control = self._connect()
            socket.send_fds(control, [struct.pack("!I", len(body))], [channel.fileno(), log])
            control.sendall(body)
            process = self._forked.get()
        if process is None:
            raise RuntimeError("The process that starts Lambda environments died.")
        return process

    def _connect(self) -> socket.socket:
        if self._control is not None:
            return self._control
        ours, theirs = socket.socketpair()
        program = Path(__file__).with_name("lambda_worker.py")
        environment = {
            key: os.environ[key] for key in ("PATH", "LANG", "HOME", "TMPDIR") if key in os.environ
        }
        environment |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        with theirs:
            # macOS refuses to fork a process in which certain system libraries have been used.
            environment |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"} if sys.platform == "darwin" else {}
            subprocess.Popen(
                [sys.executable, "-I", str(program), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self._control = ours
        threading.Thread(target=self._listen, args=(ours,), name="lambda-zygote", daemon=True).start()
        return ours

    def _listen(self, control: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for line in control.makefile("rb"):
                news = json.loads(line)
                if "pid" in news:
                    process = self._processes[news["pid"]] = Process(news["pid"])
                    self._forked.put(process)
                else:
                    self._processes.pop(news["exit"]).ended(news["status"])
        self._control = None
        for process in self._processes.values():
            process.kill()
            process.ended(signal.SIGKILL)
        self._processes.clear()
        self._forked.put(None)
        self._forked = queue.SimpleQueue()
