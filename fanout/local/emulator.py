"""The server process of the embedded AWS: ministack with its gaps closed.

`main` with the arguments FD TOKEN LIFELINE serves on the listening socket FD. `TOKEN` marks the process in the process
table as one of ours. The server ends when the other end of the pipe LIFELINE is closed before a byte comes. It is
started with `python -c`: a main module that is a file would be imported into every process that the fork server makes.
server.py builds the environment that this module and ministack read.
"""

import asyncio
import contextlib
import importlib
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .gaps import IncompatibleMinistackError, close_all


def local_only(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The server answers programs of this machine, not the web pages in its browsers: a request that names an
    origin or a foreign host is refused, and no answer allows every origin."""

    async def guarded(scope: dict[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # Without a port if that is the scheme's own, 80.
        host = headers.get(b"host", b"").decode("latin-1").partition(":")[0]
        if b"origin" in headers or not (host in ("127.0.0.1", "localhost") or host.endswith(".localhost")):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def without_cors(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [each for each in message["headers"] if not each[0].lower().startswith(b"access-control-")]
                message = {**message, "headers": kept}
            await send(message)

        await app(scope, receive, without_cors)

    return guarded


def _end_with(lifeline: int) -> None:
    if not os.read(lifeline, 1):
        os.killpg(0, signal.SIGKILL)


def main() -> None:
    listener, _token, lifeline = sys.argv[1:]
    threading.Thread(target=_end_with, args=(int(lifeline),), daemon=True).start()
    # Nothing is written to where the project is.
    sys.path[0] = str(Path.cwd())
    os.chdir(tempfile.gettempdir())
    # Requests come in bursts of as many connections as there are workers.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names a hard limit that it then refuses.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        close_all()
    except IncompatibleMinistackError as error:
        sys.exit(f"The embedded AWS cannot start. {error}")
    app = importlib.import_module("ministack.app")
    hypercorn = importlib.import_module("hypercorn.asyncio")
    config = importlib.import_module("hypercorn.config").Config()
    config.bind = [f"fd://{listener}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 0.5
    config.loglevel = "WARNING"
    asyncio.run(hypercorn.serve(local_only(app.app), config))
    # The functions' processes end with it.
    os.killpg(0, signal.SIGKILL)
