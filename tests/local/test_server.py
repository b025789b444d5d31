"""The life of the embedded AWS: start, second start, crash, interruption, stop."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanout import local
from fanout.local import LocalError, gaps, server
from fanout.local.deploy import Assembly, DeployError, client, deploy, zipped
from fanout.local.emulator import local_only
from fanout.local.gaps import IncompatibleMinistackError
from fanout.local.server import Server, ServerError


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home folder whose server is stopped whatever becomes of the test."""
    folder = tmp_path / "home"
    yield folder
    server.stop(folder)


def processes_of(running: Server) -> list[int]:
    """The processes of the server's group: itself and all it started, but for those that only wait to be reaped."""
    shown = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in shown.splitlines()]
    return [int(pid) for pid, group, state in rows if int(group) == running.pid and not state.startswith("Z")]


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def add_function(running: Server, code: str) -> str:
    """A function with this code and a role that may do nothing; its name."""
    iam, functions = client("iam", running.endpoint_url), client("lambda", running.endpoint_url)
    trust = {"Version": "2012-10-17", "Statement": []}
    role = iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    functions.create_function(
        FunctionName="function",
        Runtime="python3.13",
        Handler="main.handler",
        Role=role,
        Code={"ZipFile": zip_of(code)},
        Timeout=60,
    )
    assert eventually(lambda: functions.get_function_configuration(FunctionName="function")["State"] == "Active")
    return "function"


def zip_of(code: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("main.py", textwrap.dedent(code))
    return buffer.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_is_on_loopback_only_and_leaves_nothing(home: Path) -> None:
    running = server.start(home)
    assert server.find(home) == running
    assert running.answers()
    listening = subprocess.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True, check=False)
    at = [line.split()[1] for line in listening.stdout.splitlines() if f":{running.port:04X} " in line]
    assert {address.partition(":")[0] for address in at if address} <= {"0100007F"}
    client("lambda", running.endpoint_url).invoke(FunctionName=add_function(running, "def handler(e, c): return 1"))
    assert len(processes_of(running)) >= 4

    assert server.stop(home) is True
    assert processes_of(running) == []
    assert sorted(path.name for path in home.iterdir()) == ["server.log"]
    assert server.stop(home) is False


def test_a_second_start_returns_the_running_server(home: Path) -> None:
    running = server.start(home)
    client("s3", running.endpoint_url).create_bucket(Bucket="kept")
    assert server.start(home) == running
    assert [bucket["Name"] for bucket in client("s3", running.endpoint_url).list_buckets()["Buckets"]] == ["kept"]


def test_two_homes_run_side_by_side(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    first = server.start(home)
    try:
        second = server.start(other)
        assert first.port != second.port
        assert first.answers()
        assert second.answers()
    finally:
        server.stop(other)
    assert first.answers()


def test_a_busy_port_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} of 127.0.0.1 is taken by another program"):
            server.start(home, port=port)
    assert server.find(home) is None
    assert server.start(home, port=port).port == port


def test_the_functions_of_a_crashed_server_end_with_it(home: Path) -> None:
    first = server.start(home)
    name = add_function(first, "import time\ndef handler(e, c): time.sleep(50)")
    client("lambda", first.endpoint_url).invoke(FunctionName=name, InvocationType="Event")
    # The server, its fork server and that one's resource tracker, and the function.
    assert eventually(lambda: len(processes_of(first)) >= 4)
    os.kill(first.pid, signal.SIGKILL)
    assert eventually(lambda: processes_of(first) == [])
    assert not first.is_alive()

    said: list[str] = []
    second = server.start(home, say=said.append)
    assert second.answers()
    assert said == [f"The embedded AWS has died (its log: {home / 'server.log'}). Starting it anew, empty."]


def test_a_server_that_died_is_waited_for_when_stopped(home: Path) -> None:
    running = server.start(home)
    os.killpg(running.pid, signal.SIGKILL)
    assert eventually(lambda: not running.is_alive())
    assert server.stop(home) is True
    assert running.pid not in server._started


def test_a_server_that_does_not_answer_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.5)
    first = server.start(home)
    os.kill(first.pid, signal.SIGSTOP)
    said: list[str] = []
    second = server.start(home, say=said.append)
    assert second.answers()
    assert "does not answer" in said[0]
    assert processes_of(first) == []


def test_a_process_that_merely_has_the_old_number_is_left_alone(home: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        home.mkdir()
        (home / "server.json").write_text(json.dumps({"pid": stranger.pid, "port": 1, "token": "fanout-x"}))
        assert server.stop(home) is True
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = home.parent / "fanout" / "local" / "emulator.py"
    program.parent.mkdir(parents=True)
    program.write_text("import sys; sys.exit('The embedded AWS cannot start. Because.')")
    for folder in program.parents[:2]:
        (folder / "__init__.py").touch()
    monkeypatch.setattr(server, "IMPORT_ROOT", home.parent)
    with pytest.raises(ServerError, match=r"did not start: The embedded AWS cannot start\. Because\."):
        server.start(home)
    assert server.find(home) is None


def test_another_version_of_ministack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "9.9.9")
    with pytest.raises(
        IncompatibleMinistackError, match=f"ministack 9.9.9 is installed, but .* {gaps.MINISTACK_VERSION}"
    ):
        gaps.close_all()


def test_a_ministack_without_what_the_gaps_replace_is_refused() -> None:
    with pytest.raises(IncompatibleMinistackError, match="no 'run_nothing', which"):
        gaps.replace(server, "run_nothing", print)


START = "import pathlib, sys; from fanout.local import server; server.start(pathlib.Path(sys.argv[1]), tied={tied})"


def test_an_interrupted_start_leaves_no_process(home: Path) -> None:
    # Nothing is ever up, so that the signal comes in the middle of the start.
    waiting = START.replace("; server.start", "; server.Server.answers = lambda *_, **__: False; server.start")
    with subprocess.Popen([sys.executable, "-c", waiting.format(tied=False), str(home)], stderr=subprocess.PIPE) as up:
        assert eventually((home / "server.json").exists)
        running = server.find(home)
        up.send_signal(signal.SIGINT)
        up.wait(20)
    assert running is not None
    assert eventually(lambda: processes_of(running) == [])
    assert server.find(home) is None


def test_a_server_that_nobody_could_write_down_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "write_json", interrupt)
    before = set(server._started)
    with pytest.raises(KeyboardInterrupt):
        server.start(home)
    (pid,) = set(server._started) - before
    assert eventually(lambda: server._started[pid].poll() is not None, seconds=30)
    assert processes_of(Server(pid, 0, "")) == []


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 200), ("127.0.0.1:80", 200), ("a.localhost", 200), ("127.0.0.1.evil.org", 403)]
)
def test_a_host_with_the_default_port_may_leave_it_out(host: str, status: int) -> None:
    said: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        said.append(message)

    async def ask() -> None:
        await local_only(app)({"type": "http", "headers": [(b"host", host.encode())]}, send, send)

    asyncio.run(ask())
    assert said[0]["status"] == status


def test_a_tied_server_ends_with_the_process_that_started_it(home: Path) -> None:
    wait = START.format(tied=True) + "; print('up', flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", wait, str(home)], stdout=subprocess.PIPE) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == b"up\n"
        running = server.find(home)
        up.kill()
    assert running is not None
    assert eventually(lambda: processes_of(running) == [])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_of_the_callers_environment_reaches_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "HTTPS_PROXY", "http_proxy", "PYTHONPATH", "MY_SECRET"):
        monkeypatch.setenv(name, "/nowhere")
    running = server.start(home)
    environment = Path(f"/proc/{running.pid}/environ").read_text()
    assert "/nowhere" not in environment
    name = add_function(running, "import os\ndef handler(e, c): return dict(os.environ)")
    assert b"/nowhere" not in client("lambda", running.endpoint_url).invoke(FunctionName=name)["Payload"].read()


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_what_is_written_is_the_users_alone(home: Path, synthesized: Callable[..., None], umask: int) -> None:
    synthesized("def handler(e, c): open(__import__('tempfile').mktemp(), 'w').write('x')")
    before = os.umask(umask)
    try:
        home.mkdir()
        (home / "server.log").touch(0o666)
        up = local.up(home)
        assert os.umask(umask) == umask, "the caller's own files are as before"
    finally:
        os.umask(before)
    client("lambda", up.endpoint_url).invoke(FunctionName=up.state_machine_arn)
    written = [path for path in home.rglob("*") if not path.is_socket()]
    assert {"server.log", "local.json", "main.py", "tmp"} <= {path.name for path in written}
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_a_new_home_is_the_users_alone(home: Path, synthesized: Callable[..., None]) -> None:
    synthesized("def handler(e, c): return 1")
    local.up(home)
    assert home.stat().st_mode & 0o777 == 0o700


# Deploying an assembly


def assembly_at(folder: Path, code: str, **resources: Any) -> Path:
    """A cloud assembly as the CDK writes it: a function from an asset, and an output that names it."""
    code_dir = folder / "asset.code"
    code_dir.mkdir(parents=True, exist_ok=True)
    (code_dir / "main.py").write_text(textwrap.dedent(code))
    key = f"{abs(hash(code)):x}.zip"
    bucket = "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"
    destination = {"current": {"bucketName": bucket, "objectKey": key}}
    layer = {"current": {"bucketName": bucket, "objectKey": "layer.zip"}}
    manifest = {
        "artifacts": {
            "FanOut.assets": {"type": "cdk:asset-manifest", "properties": {"file": "FanOut.assets.json"}},
            "FanOut": {
                "type": "aws:cloudformation:stack",
                "properties": {"templateFile": "FanOut.template.json", "stackName": "FanOut"},
            },
        }
    }
    files = {
        "code": {"source": {"path": "asset.code", "packaging": "zip"}, "destinations": destination},
        "layer": {"source": {"path": "asset.missing", "packaging": "zip"}, "destinations": layer},
    }
    assets_bucket = {"Fn::Sub": bucket}
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    template = {
        "Parameters": {
            "BootstrapVersion": {
                "Type": "AWS::SSM::Parameter::Value<String>",
                "Default": "/cdk-bootstrap/hnb659fds/version",
            }
        },
        "Resources": {
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}},
            "Layer": {
                "Type": "AWS::Lambda::LayerVersion",
                "Properties": {"Content": {"S3Bucket": assets_bucket, "S3Key": "layer.zip"}},
            },
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.13",
                    "Handler": "main.handler",
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"S3Bucket": assets_bucket, "S3Key": key},
                    "Layers": [{"Ref": "Layer"}],
                },
            },
            **resources,
        },
        "Outputs": {
            "FunctionName": {"Value": {"Ref": "Function"}},
            "ApiUrl": {"Value": "https://abc123.execute-api.us-east-1.amazonaws.com/v1/"},
            "StateMachineArn": {"Value": {"Ref": "Function"}},
            "BucketName": {"Value": "bucket"},
            "TaskTableName": {"Value": "table"},
        },
    }
    for name, value in [
        ("manifest.json", manifest),
        ("FanOut.assets.json", {"files": files}),
        ("FanOut.template.json", template),
    ]:
        (folder / name).write_text(json.dumps(value))
    return folder


def test_a_deployed_assembly_runs_and_a_changed_one_replaces_it(home: Path, tmp_path: Path) -> None:
    running = server.start(home)
    assembly = Assembly.read(assembly_at(tmp_path / "a", "def handler(e, c): return 1"))
    said: list[str] = []
    outputs = deploy(assembly, running.endpoint_url, say=said.append)
    name = outputs["FunctionName"]
    assert said == ["Uploading 1 assets", "Deploying stack FanOut (3 resources)"]
    assert client("lambda", running.endpoint_url).invoke(FunctionName=name)["Payload"].read() == b"1"
    assert deploy(assembly, running.endpoint_url) == outputs, "nothing to update is no error"

    changed = Assembly.read(assembly_at(tmp_path / "a", "def handler(e, c): return 2"))
    assert changed.fingerprint() != assembly.fingerprint()
    assert deploy(changed, running.endpoint_url) == outputs
    assert client("lambda", running.endpoint_url).invoke(FunctionName=name)["Payload"].read() == b"2"


def test_a_failed_deployment_says_why_and_can_be_repeated(home: Path, tmp_path: Path) -> None:
    running = server.start(home)
    code = "def handler(e, c): return 1"
    wrong = {"Rule": {"Type": "AWS::Nowhere::Thing", "Properties": {}}}
    with pytest.raises(DeployError, match=r"(?s)Rule|AWS::Nowhere::Thing"):
        deploy(Assembly.read(assembly_at(tmp_path / "a", code, **wrong)), running.endpoint_url)
    assert "FunctionName" in deploy(Assembly.read(assembly_at(tmp_path / "b", code)), running.endpoint_url)


def test_a_zip_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "__pycache__").mkdir(parents=True)
        (tmp_path / folder / "__pycache__" / "x.pyc").write_text(folder)
        (tmp_path / folder / "main.py").write_text("x = 1")
    os.utime(tmp_path / "b" / "main.py", (0, 0))
    assert zipped(tmp_path / "a") == zipped(tmp_path / "b")


def test_what_is_not_up_reads_as_none_and_can_be_taken_down(home: Path) -> None:
    assert local.read(home) is None
    assert local.map_runs(home) == []
    assert local.down(home) is False


# Bringing it up and taking it down


@pytest.fixture
def synthesized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets `up` find an assembly made by hand, which the CDK would need ten seconds for."""

    def synthesize(code: str, **resources: Any) -> None:
        folder = assembly_at(tmp_path / "assembly", code, **resources)
        monkeypatch.setattr(local, "_synthesized", lambda *_: folder)

    return synthesize


def test_up_deploys_and_writes_down_where(home: Path, synthesized: Callable[..., None]) -> None:
    synthesized("def handler(e, c): return 1")
    up = local.up(home)
    assert local.read(home) == up
    written = json.loads((home / "local.json").read_text())
    assert written["endpointUrl"] == f"http://127.0.0.1:{written['port']}"
    assert written["apiUrl"] == f"{written['endpointUrl']}/_aws/execute-api/abc123/v1/"
    assert {"region", "stateMachineArn", "bucketName", "taskTableName", "pid"} <= written.keys()
    assert local.down(home) is True
    assert local.read(home) is None
    assert not Server(pid=up.pid, port=up.port, token="fanout").is_alive()


def test_an_output_that_is_no_api_is_said(
    home: Path, synthesized: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesized("def handler(e, c): return 1")
    monkeypatch.setattr("fanout.local.deploy.deploy", lambda *_, **__: {"ApiUrl": "https://example.com/v1/"})
    with pytest.raises(LocalError, match=r"output ApiUrl is https://example\.com/v1/, which is no address"):
        local.up(home)
    assert local.read(home) is None


def test_up_twice_is_the_same_and_deploys_only_what_changed(home: Path, synthesized: Callable[..., None]) -> None:
    synthesized("def handler(e, c): return 1")
    first = local.up(home)
    said: list[str] = []
    assert local.up(home, port=1, say=said.append) == first
    assert said == [
        f"The embedded AWS is running on {first.endpoint_url}",
        "It keeps its port. To get port 1, take it down first.",
    ]
    synthesized("def handler(e, c): return 2")
    second = local.up(home)
    assert (second.pid, second.port) == (first.pid, first.port)
    answer = client("lambda", first.endpoint_url).invoke(FunctionName=second.state_machine_arn)
    assert answer["Payload"].read() == b"2"


def test_a_failed_up_stops_only_the_server_that_it_started(home: Path, synthesized: Callable[..., None]) -> None:
    wrong = {"Rule": {"Type": "AWS::Nowhere::Thing", "Properties": {}}}
    synthesized("def handler(e, c): return 1", **wrong)
    with pytest.raises(DeployError):
        local.up(home)
    assert server.find(home) is None
    assert local.read(home) is None
    synthesized("def handler(e, c): return 1")
    up = local.up(home)
    synthesized("def handler(e, c): return 1", **wrong)
    with pytest.raises(DeployError):
        local.up(home)
    assert local.read(home) == up


def test_up_after_a_crash_deploys_anew(home: Path, synthesized: Callable[..., None]) -> None:
    synthesized("def handler(e, c): return 1")
    first = local.up(home)
    os.killpg(first.pid, signal.SIGKILL)
    assert eventually(lambda: local.read(home) is None)
    said: list[str] = []
    second = local.up(home, say=said.append)
    assert second.pid != first.pid
    assert "has died" in said[0]
    assert local.read(home) == second
