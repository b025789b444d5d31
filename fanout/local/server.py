"""Start, find and stop the server process of one home folder.

A home folder has at most one server; homes are independent, so several servers can run at once. In the home:
`server.json` (which process it is), `server.log`, `tmp/` (everything the server and its functions write) and
`map-runs.jsonl` (a line for each ended map run: its bound and the peak of its running children).

The server is a process group of its own that binds 127.0.0.1 only and gets an environment made here: nothing of
the caller's credentials, profiles, proxies or Python settings reaches it or the functions that it runs.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

REGION = "us-east-1"
# The emulator's root credentials: they may do everything and are not secret.
ACCESS_KEY_ID = "test"
SECRET_ACCESS_KEY = "test"  # noqa: S105
ACCOUNT_ID = "000000000000"

# Much more than a start takes (about a second), for machines that are busy with something else.
START_SECONDS = 60.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 5.0

# The folder that holds the package `fanout`: a checkout, or site-packages.
IMPORT_ROOT = Path(__file__).resolve().parents[2]

Say = Callable[[str], None]


class ServerError(Exception):
    """The embedded AWS cannot be started; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """A server process. `token` stands in its command line, so that a process that merely got its old number is
    never taken for it."""

    pid: int
    port: int
    token: str

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_alive(self) -> bool:
        """Whether the process exists, answering or not."""
        if popen := _started.get(self.pid):
            return popen.poll() is None
        return self.token in _command_line(self.pid)

    def answers(self, seconds: float = ANSWER_SECONDS) -> bool:
        # Whatever proxy the caller's environment names, this does not go through it.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.endpoint_url}/_ministack/health", timeout=seconds):
                return True
        except OSError:
            return False


# The processes that this process started. Kept, because they are its children and must be waited for.
_started: dict[int, subprocess.Popen[bytes]] = {}


def find(home: Path) -> Server | None:
    """The server that was last started for this home, running or not."""
    try:
        return Server(**json.loads((home / "server.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ServerError(f"{home / 'server.json'} cannot be read ({error}). Remove the folder {home}.") from error


def start(
    home: Path, *, port: int | None = None, tied: bool = False, wait_scale: float = 1.0, say: Say = lambda _: None
) -> Server:
    """Start the home's server and wait until it answers; the running one, if there is one.

    `tied`: it ends when this process does, even if this process is killed. `wait_scale` multiplies every wait of
    a state machine (Wait states and retry delays; 0 for none). Interrupted, or if the server does not come up,
    nothing stays behind. Raises ServerError.
    """
    home = home.resolve()
    known = find(home)
    if known is not None:
        if known.is_alive() and known.answers():
            return known
        state = "does not answer" if known.is_alive() else "has died"
        say(f"The embedded AWS {state} (its log: {home / 'server.log'}). Starting it anew, empty.")
        stop(home)
    with private_files(), _listener(port) as listener, _lifeline(tied) as lifeline:
        try:
            server = _launch(home, listener, lifeline, wait_scale)
            _await(server, home)
        except BaseException:
            stop(home)
            raise
    return server


def stop(home: Path) -> bool:
    """Stop the home's server and everything it started, and remove what it left; whether there was one.

    Harmless if there is none. The log stays.
    """
    home = home.resolve()
    server = find(home)
    if server is not None:
        if server.is_alive():
            # There is nothing to save: its state is in its memory. The whole group goes at once, so that no function
            # runs on without its server.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while server.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        _started.pop(server.pid, None)
    for name in ("server.json", "local.json", "map-runs.jsonl"):
        (home / name).unlink(missing_ok=True)
    _remove(home / "tmp")
    return server is not None


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """What this process, and every process that it starts meanwhile, writes is the user's alone: it holds tasks,
    logs and credentials."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _listener(port: int | None) -> socket.socket:
    """A socket that listens on `port` of 127.0.0.1, or on a free one; handing it over leaves no moment in which
    another program could take the port."""
    try:
        return socket.create_server(("127.0.0.1", port or 0), backlog=1024)
    except OSError as error:
        reason = f"cannot be used: {os.strerror(error.errno or 0)}."
        if error.errno == errno.EADDRINUSE:
            reason = "is taken by another program. Name another one, or none to get a free one."
        raise ServerError(f"Port {port} of 127.0.0.1 {reason}") from None


@contextlib.contextmanager
def _lifeline(tied: bool) -> Iterator[int]:
    """The end of a pipe that a server watches: it ends when the other end is closed before a byte comes.

    So it does if this process is interrupted or killed while it starts the server; if `tied`, also later.
    """
    ours, theirs = os.pipe()
    try:
        yield ours
        if tied:
            _lifelines.append(os.dup(theirs))
        else:
            os.write(theirs, b"1")
    finally:
        os.close(theirs)
        os.close(ours)


_lifelines: list[int] = []


def _launch(home: Path, listener: socket.socket, lifeline: int, wait_scale: float) -> Server:
    tmp = home / "tmp"
    _remove(tmp)
    tmp.mkdir(parents=True)
    port = listener.getsockname()[1]
    token = f"fanout-{secrets.token_hex(8)}"
    program = "from fanout.local.emulator import main; main()"
    command = [sys.executable, "-c", program, str(listener.fileno()), token, str(lifeline)]
    # Not the file of an earlier start, which others may be able to read.
    (home / "server.log").unlink(missing_ok=True)
    with (home / "server.log").open("wb") as log:
        popen = subprocess.Popen(
            command,
            cwd=IMPORT_ROOT,
            env=_environment(home, port, wait_scale),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(listener.fileno(), lifeline),
        )
    _started[popen.pid] = popen
    server = Server(pid=popen.pid, port=port, token=token)
    write_json(home / "server.json", asdict(server))
    return server


def _environment(home: Path, port: int, wait_scale: float) -> dict[str, str]:
    tmp = str(home / "tmp")
    # Interpreters outside the system's folders may need it to start at all.
    inherited = {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}
    return inherited | {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "en_US.UTF-8",
        "HOME": tmp,
        "TMPDIR": tmp,
        "FANOUT_MAP_RUNS": str(home / "map-runs.jsonl"),
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
        # Functions act as their roles, and a role may do only what its policies say.
        "AUTH": "true",
        # What functions print is in their log groups; the server's log is for its own troubles.
        "LOG_LEVEL": "WARNING",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        # The quota of a new AWS account; ministack would derive it from this machine's memory.
        "LAMBDA_ACCOUNT_CONCURRENCY": "1000",
        "SFN_WAIT_SCALE": str(wait_scale),
        # macOS refuses to fork a process in which certain system libraries have been used.
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        # No container is ever started; without this ministack looks for a daemon.
        "DOCKER_HOST": f"unix://{tmp}/no-docker.sock",
        "S3_DATA_DIR": f"{tmp}/s3",
    }


def _await(server: Server, home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.answers(seconds=1.0):
        log = home / "server.log"
        if not server.is_alive():
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no word in its log"]
            raise ServerError(f"The embedded AWS did not start: {last[0]} (its log: {log})")
        if time.monotonic() > deadline:
            raise ServerError(f"The embedded AWS did not answer within {START_SECONDS:.0f} seconds (its log: {log}).")
        time.sleep(0.05)


def _command_line(pid: int) -> str:
    """The command line of a process; empty if there is none, or if it has ended and only waits to be noticed."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return ""
    shown = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout


def _remove(folder: Path) -> None:
    # Functions that were just killed may have been writing here.
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def write_json(path: Path, value: object) -> None:
    """Write at once or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    draft.replace(path)
