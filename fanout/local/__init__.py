"""The embedded AWS: the stack that `cdk deploy` puts on AWS, deployed on an emulator of this machine.

`up` brings it up in a home folder, `down` takes it down, `read` says what is there. server.py owns the process,
deploy.py the stack, emulator.py and gaps/ what runs inside the process.
"""

import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fanout import project

from . import server
from .server import Say, ServerError, private_files

__all__ = ["Local", "LocalError", "ServerError", "down", "map_runs", "private_files", "read", "up"]


class LocalError(Exception):
    """The embedded AWS could not be brought up; the message says why and what to do."""


@dataclass(frozen=True)
class Local:
    """A deployed embedded AWS: `local.json` of its home folder, where the names are in camelCase."""

    endpoint_url: str
    region: str
    api_url: str
    state_machine_arn: str
    bucket_name: str
    task_table_name: str
    pid: int
    port: int
    # The emulator's root credentials; any AWS SDK or curl --aws-sigv4 works with them.
    access_key_id: str
    secret_access_key: str
    # What was deployed, so that `up` knows whether there is anything to deploy.
    fingerprint: str


def up(
    home: Path,
    *,
    port: int | None = None,
    lambdas: Path | None = None,
    tied: bool = False,
    wait_scale: float = 1.0,
    say: Say = lambda _: None,
) -> Local:
    """Bring up the embedded AWS of `home` and deploy the stack on it; if it is up, deploy what has changed.

    `lambdas` takes the place of the project's folder of that name. `tied` and `wait_scale` are those of
    `server.start`. `say` gets a sentence for each thing that happens. `local.json` is written when everything is
    ready, and not before. If a server that this call started cannot be used, it is stopped again; interrupting is
    safe at any time. Raises ServerError, LocalError or DeployError.
    """
    home = home.resolve()
    with _only_one(home):
        known = server.find(home)
        running = server.start(home, port=port, tied=tied, wait_scale=wait_scale, say=say)
        is_new = running != known
        if is_new:
            say(f"Started the embedded AWS on {running.endpoint_url}")
        else:
            say(f"The embedded AWS is running on {running.endpoint_url}")
            if port not in (None, running.port):
                say(f"It keeps its port. To get port {port}, take it down first.")
        try:
            return _deploy(home, running, lambdas or project.LAMBDAS, say)
        except BaseException:
            if is_new:
                server.stop(home)
            raise


def down(home: Path) -> bool:
    """Take down the embedded AWS of `home`, with all its data; whether there was one. Harmless if not."""
    if not home.is_dir():
        return False
    with _only_one(home):
        return server.stop(home)


def read(home: Path) -> Local | None:
    """The embedded AWS of `home`, or None if it is not up; whether it answers is not tried."""
    running = server.find(home)
    try:
        known = json.loads((home / "local.json").read_text())
        local = Local(**{field.name: known[_camel(field.name)] for field in fields(Local)})
    except (FileNotFoundError, KeyError):
        # KeyError: left by another version of this project; what it describes will be deployed anew.
        return None
    return local if running and running.pid == local.pid and running.is_alive() else None


def map_runs(home: Path) -> list[dict[str, object]]:
    """Every ended map run, oldest first: mapRunArn, executionArn, status, children, maxConcurrency, peakRunning.

    `peakRunning` is the most children that were running at the same moment.
    """
    path = home / "map-runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _deploy(home: Path, running: server.Server, lambdas: Path, say: Say) -> Local:
    # boto3 takes a third of a second to import, which neither the server process nor `read` should pay.
    from .deploy import Assembly, deploy

    assembly = Assembly.read(_synthesized(home, lambdas, say))
    known = read(home)
    if known is not None and known.fingerprint == assembly.fingerprint():
        return known
    outputs = deploy(assembly, running.endpoint_url, say=say)
    found = re.fullmatch(r"https://([^./]+)\.execute-api\.[^/]+/([^/]+)/?", outputs["ApiUrl"])
    if found is None:
        raise LocalError(f"The stack's output ApiUrl is {outputs['ApiUrl']}, which is no address of a REST API.")
    local = Local(
        endpoint_url=running.endpoint_url,
        region=server.REGION,
        # The emulator's address of the REST API.
        api_url=f"{running.endpoint_url}/_aws/execute-api/{found[1]}/{found[2]}/",
        state_machine_arn=outputs["StateMachineArn"],
        bucket_name=outputs["BucketName"],
        task_table_name=outputs["TaskTableName"],
        pid=running.pid,
        port=running.port,
        access_key_id=server.ACCESS_KEY_ID,
        secret_access_key=server.SECRET_ACCESS_KEY,
        fingerprint=assembly.fingerprint(),
    )
    server.write_json(home / "local.json", {_camel(name): value for name, value in asdict(local).items()})
    return local


def _synthesized(home: Path, lambdas: Path, say: Say) -> Path:
    """The cloud assembly of the stack in the home folder; made anew only if something it depends on changed."""
    folder, mark = home / "cdk.out", home / "cdk.out.hash"
    wanted = _content_hash(lambdas)
    if (folder / "manifest.json").exists() and mark.exists() and mark.read_text() == wanted:
        return folder
    say("Synthesizing the stack")
    mark.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        project.synthesize(folder, lambdas=lambdas)
    except project.SynthesisError as error:
        raise LocalError(str(error)) from error
    mark.write_text(wanted)
    return folder


def _content_hash(lambdas: Path) -> str:
    digest = hashlib.sha256(str(lambdas.resolve()).encode())
    for path in sorted(path for root in (lambdas, *project.SOURCES) for path in root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Wait until no other process is bringing this home up or taking it down."""
    with private_files():
        home.mkdir(parents=True, exist_ok=True)
        with (home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _camel(name: str) -> str:
    return re.sub("_(.)", lambda match: match[1].upper(), name)
