"""Synthesis: the layer, the assets, the context, and the command line."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fanout import project
from fanout.project import SynthesisError, synthesize
from infra import cdk
from infra.cdk import NODE
from infra.layer import LOCK, lay_out
from tests.aws.account import KINDS
from tests.infra.template import Template

REPO = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, str]:
    """Path to hash of content and mode, of every file below."""
    return {
        str(path.relative_to(folder)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mode:o}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def asset(assembly: Path, template: Template, kind: str, key: str) -> Path:
    """The folder of the asset that the first resource of a type is made of."""
    resource = next(iter(template.all(kind).values()))
    return assembly / f"asset.{resource['Properties'][key]['S3Key'].removesuffix('.zip')}"


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("layer")
    lay_out(out)
    return out


# ------------------------------------------------------------------ the layer


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"HOME": None}])
def test_the_layer_is_the_same_in_any_surroundings(
    layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None]
) -> None:
    again = tmp_path / "a folder of another depth" / "and náme"
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        lay_out(again)
    finally:
        os.umask(before)
    assert files(again) == files(layer)


def test_the_layer_in_the_assembly_is_the_one_laid_out(assembly: Path, template: Template, layer: Path) -> None:
    assert files(asset(assembly, template, "AWS::Lambda::LayerVersion", "Content")) == files(layer)


def test_the_layer_holds_imports_that_the_runtime_lacks(layer: Path) -> None:
    top = {path.name.removesuffix(".py") for path in (layer / "python").iterdir()}
    assert {"aws_lambda_powertools", "aws_xray_sdk", "pydantic", "pydantic_core", "tzdata"} <= top
    assert not top & {"boto3", "botocore", "s3transfer", "bin", ".lock"}
    assert {path.name for path in layer.iterdir()} == {"python"}


def test_compiled_modules_are_for_python_3_13_on_arm64(layer: Path) -> None:
    compiled = [path.name for path in layer.rglob("*.so")]
    assert compiled
    assert all(name.endswith(".cpython-313-aarch64-linux-gnu.so") for name in compiled)
    assert not list(layer.rglob("*.pyc"))


def test_the_layer_and_the_code_fit_into_a_function(layer: Path) -> None:
    """250 MB unzipped: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
    assert sum(path.stat().st_size for path in layer.rglob("*")) < 100_000_000


def test_a_layer_that_uv_cannot_install_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.layer.LOCK", tmp_path / "pylock.toml")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(RuntimeError, match=r"(?s)could not install the functions' layer:\n.*pylock\.toml") as raised:
        lay_out(tmp_path / "out")
    assert "\x1b" not in str(raised.value)


def test_the_layers_lock_is_what_uv_lock_says(tmp_path: Path) -> None:
    """`make lock` writes both; the command that writes the second is run again, elsewhere."""
    made = subprocess.run(
        ["make", "--dry-run", "lock"],
        cwd=REPO,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    command = shlex.split(made.stdout.replace("\\\n", " ").splitlines()[-1])
    assert command[-1] == "infra/pylock.toml"
    subprocess.run([*command[:-1], str(tmp_path / "pylock.toml")], cwd=REPO, check=True)
    assert LOCK.read_text() == (tmp_path / "pylock.toml").read_text(), "run make lock"


# ------------------------------------------------------------------ the code


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The assembly of a read-only copy of lambdas/ with one kind more, synthesized with another context."""
    folder = tmp_path_factory.mktemp("staged, with blänks")
    lambdas = folder / "lambdas"
    shutil.copytree(REPO / "lambdas", lambdas)
    (lambdas / "kinds" / "of_the_test.py").write_text("KIND = None\n", encoding="utf-8")
    (lambdas / "kinds" / "__pycache__").mkdir(exist_ok=True)
    (lambdas / "kinds" / "__pycache__" / "of_the_test.pyc").write_bytes(b"compiled")
    for path in (lambdas, *lambdas.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o400)
    (folder / "tmp").mkdir()
    context = {
        "stage": "dev",
        "jobsKept": "forever",
        "workKept": "30",
        "workerConcurrency": "50",
        "apiLogs": "on",
        "alarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:oncall",
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CDK_CONTEXT_JSON", json.dumps(context))
        monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.chdir(folder)
        return synthesize(folder / "assembly", lambdas=lambdas)


def test_the_code_is_the_folder_lambdas_itself(assembly: Path, template: Template) -> None:
    code = asset(assembly, template, "AWS::Lambda::Function", "Code")
    names = {str(p.relative_to(REPO / "lambdas")) for p in (REPO / "lambdas").rglob("*.py")}
    assert set(files(code)) == names


def test_bytecode_beside_the_functions_is_not_deployed(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOutDev.template.json").read_text(encoding="utf-8")))
    deployed = files(asset(staged, template, "AWS::Lambda::Function", "Code"))
    assert "kinds/of_the_test.py" in deployed
    assert not [name for name in deployed if "__pycache__" in name or name.endswith(".pyc")]
    assert {mode.split()[1] for mode in deployed.values()} == {"100644"}


# ------------------------------------------------------------------ the context


def test_the_stage_dev_has_its_name_in_every_fixed_name(staged: Path) -> None:
    """Stacks of two names share nothing: no physical name, no export, no dimension of a metric."""
    template = Template(json.loads((staged / "FanOutDev.template.json").read_text(encoding="utf-8")))
    named = {
        logical_id: value
        for logical_id, resource in template.resources.items()
        for name, value in resource.get("Properties", {}).items()
        # The name of an inline policy is one of its role's.
        if name.endswith("Name") and resource["Type"] != "AWS::IAM::Policy" and isinstance(value, str)
        # The stage of an API and the metric of an alarm are named within these.
        if name not in ("StageName", "MetricName")
    }
    assert set(named.values()) == {"FanOutDev", "/aws/vendedlogs/states/FanOutDev"}
    assert not [output for output in template.document["Outputs"].values() if "Export" in output]
    told = {f["Environment"]["Variables"].get("STACK_NAME") for f in template.functions.values()}
    assert told == {None, "FanOutDev"}
    alarms = [a["Properties"] for a in template.all("AWS::CloudWatch::Alarm").values()]
    dimensions = [d["Value"] for a in alarms if a["Namespace"] == "FanOut" for d in a["Dimensions"]]
    assert sorted(dimensions) == ["FanOutDev", "fan-out"]


def test_every_type_is_looked_for_when_a_stack_is_gone(template: Template) -> None:
    """By `make aws-test`, in the account's own lists, or it goes with what it is part of."""
    parts = {
        *("AWS::ApiGateway::Deployment", "AWS::ApiGateway::GatewayResponse", "AWS::ApiGateway::Method"),
        *("AWS::ApiGateway::Resource", "AWS::ApiGateway::Stage", "AWS::IAM::Policy", "AWS::Lambda::EventInvokeConfig"),
        *("AWS::Lambda::Permission", "AWS::Lambda::Version", "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"),
    }
    found = {
        "AWS::StepFunctions::StateMachine": "machine",
        "AWS::Lambda::Function": "function",
        "AWS::Lambda::LayerVersion": "layer",
        "AWS::S3::Bucket": "bucket",
        "AWS::DynamoDB::Table": "table",
        "AWS::SecretsManager::Secret": "secret",
        "AWS::Events::Rule": "rule",
        "AWS::SQS::Queue": "queue",
        "AWS::ApiGateway::RestApi": "api",
        "AWS::CloudWatch::Alarm": "alarm",
        "AWS::CloudWatch::Dashboard": "dashboard",
        "AWS::Logs::LogGroup": "log",
        "AWS::IAM::Role": "role",
    }
    assert {resource["Type"] for resource in template.resources.values()} == {*parts, *found}
    assert set(KINDS) == {*found.values(), "stack"}


def test_the_context_lets_table_and_bucket_go_with_the_stack(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOutDev.template.json").read_text(encoding="utf-8")))
    assert template.one("AWS::DynamoDB::Table")["DeletionPolicy"] == "Delete"
    assert template.one("AWS::S3::Bucket")["DeletionPolicy"] == "Delete"
    assert template.properties("AWS::DynamoDB::Table")["DeletionProtectionEnabled"] is False


def test_the_context_turns_the_logs_of_the_api_on(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOutDev.template.json").read_text(encoding="utf-8")))
    stage = template.properties("AWS::ApiGateway::Stage")
    assert stage["MethodSettings"][0]["LoggingLevel"] == "ERROR"
    assert set(json.loads(stage["AccessLogSetting"]["Format"])) >= {"caller", "status", "resourcePath"}
    assert not template.all("AWS::ApiGateway::Account"), "the role for all APIs of the account is not this stack's"


def test_jobs_are_kept_for_as_long_as_the_context_says(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOutDev.template.json").read_text(encoding="utf-8")))
    rules = template.one("AWS::S3::Bucket")["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {rule["Id"]: rule.get("ExpirationInDays") for rule in rules} == {
        "work": 30,
        "uploads": 7,
        "unfinished": None,
    }


def test_the_context_reserves_concurrency_for_the_worker(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOutDev.template.json").read_text(encoding="utf-8")))
    reserved = {name: f.get("ReservedConcurrentExecutions") for name, f in template.functions.items()}
    assert reserved == dict.fromkeys(reserved) | {"Worker": 50}
    assert template.functions["Manifest"]["Environment"]["Variables"]["WORKER_CONCURRENCY"] == "50"


def test_every_alarm_tells_the_topic_that_the_context_names(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOutDev.template.json").read_text(encoding="utf-8")))
    assert {tuple(a["Properties"]["AlarmActions"]) for a in template.all("AWS::CloudWatch::Alarm").values()} == {
        ("arn:aws:sns:eu-west-1:123456789012:oncall",)
    }


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"stage": "test"}, 'context "stage" is "test", but must be "prod" or "dev"'),
        ({"removal": "maybe"}, 'context "removal" is "maybe", but must be "retain" or "destroy"'),
        ({"apiLogs": "yes"}, 'context "apiLogs" is "yes", but must be "off" or "on"'),
        ({"workerConcurrency": "0"}, 'context "workerConcurrency" is "0", but must be 1 to 10,000'),
        ({"jobsKept": "8"}, 'context "jobsKept" is "8", but must be 9 to 36,500 days, or "forever"'),
        ({"workKept": "forever"}, 'context "workKept" is "forever", but must be 7 to 36,500 days'),
    ],
)
def test_a_context_that_means_nothing_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("CDK_CONTEXT_JSON", json.dumps(context))
    with pytest.raises(SynthesisError, match=said):
        synthesize(tmp_path / "assembly")


# ------------------------------------------------------------------ the surroundings


APP = """
import json, os, sys
from pathlib import Path
if "--fail" in sys.argv[4]:
    sys.exit("\\x1b[31mno\\x1b[0m" if os.environ.keys() & {"FORCE_COLOR", "CLICOLOR_FORCE"} else "no")
Path(sys.argv[2], "seen.json").write_text(json.dumps([sys.argv[1:], dict(os.environ), __file__]))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose app writes down what it is called with."""
    root = tmp_path / "a chéckout"
    (root / "infra").mkdir(parents=True)
    (root / "infra/__init__.py").touch()
    (root / "infra/app.py").write_text(APP)
    monkeypatch.setattr(project, "ROOT", root)
    return root


def test_the_app_is_that_of_the_project_from_any_folder(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", "/packages")
    synthesize(Path(), lambdas=Path("lambdas"))
    arguments, variables, file = json.loads((tmp_path / "seen.json").read_text())
    assert arguments == ["--out", str(tmp_path), "--lambdas", str(tmp_path / "lambdas")]
    assert file == str(stand_in / "infra/app.py")
    assert variables["PYTHONPATH"] == f"{stand_in}{os.pathsep}/packages"


@pytest.mark.parametrize("switch", ["FORCE_COLOR", "CLICOLOR_FORCE"])
def test_the_words_of_a_failing_app_have_no_colour(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(SynthesisError) as raised:
        synthesize(tmp_path, lambdas=tmp_path / "--fail")
    assert str(raised.value) == "The stack could not be synthesized:\nno"


# ------------------------------------------------------------------ the command line


def test_synthesis_leaves_nothing_outside_its_folder(staged: Path) -> None:
    assert list((staged.parent / "tmp").iterdir()) == []
    assert {path.name for path in staged.parent.iterdir()} == {"lambdas", "tmp", "assembly"}
    assert not (REPO / "cdk.context.json").exists()


def test_the_pinned_cli_runs_with_the_environments_own_node(tmp_path: Path) -> None:
    """What fetches the CLI is there and works, without asking the registry for anything."""
    done = subprocess.run(
        [str(NODE), str(cdk.NPX), "--version"],
        env={"PATH": str(NODE.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert cdk.CLI == "aws-cdk@2.1148.1"


def test_the_cli_is_told_the_app_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for npx writes down what it is called with; it works in the caller's folder."""
    monkeypatch.chdir(tmp_path)
    stand_in = tmp_path / "npx.js"
    stand_in.write_text(
        "require('fs').writeFileSync(process.env.SEEN, JSON.stringify({arguments: process.argv.slice(2),"
        " path: process.env.PYTHONPATH, node: process.env.PATH.split(':')[0], folder: process.cwd()}));"
        " process.exit(7)",
        encoding="utf-8",
    )
    seen = tmp_path / "seen.json"
    monkeypatch.setattr(cdk, "NPX", stand_in)
    monkeypatch.setenv("SEEN", str(seen))
    assert cdk.main(["diff", "-c", "removal=destroy"]) == 7
    told = json.loads(seen.read_text(encoding="utf-8"))
    assert told["arguments"] == [
        *("--yes", "--package", "aws-cdk@2.1148.1", "--", "cdk"),
        *("diff", "-c", "removal=destroy", "--app", f"{shlex.quote(sys.executable)} -P -m infra.app"),
        *cdk.SETTINGS,
    ]
    assert told["node"] == str(NODE.parent)
    assert told["folder"] == str(tmp_path)
    assert told["path"].split(os.pathsep)[0] == str(REPO)


def test_cdk_json_gives_the_same_template() -> None:
    settings = json.loads((REPO / "cdk.json").read_text(encoding="utf-8"))
    assert settings["app"] == ".venv/bin/python -m infra.app"
    assert {"versionReporting", "pathMetadata", "assetMetadata", "notices"} == settings.keys() - {
        "app",
        "output",
    }
    assert len(cdk.SETTINGS) == 4
    assert settings["pathMetadata"] is settings["assetMetadata"] is settings["versionReporting"] is False
