"""Synthesis: the layer, the assets, the context, and the command line."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from infra.synth import synthesize

from infra import cdk
from infra.layer import lay_out
from tests.infra.template import Template

REPO = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, str]:
    """Path to hash of content and mode, of every file below."""
    return {
        str(
            path.relative_to(folder)
        ): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mode:o}"
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


def test_the_layer_comes_out_the_same_byte_for_byte_wherever_it_is_laid_out(
    layer: Path, tmp_path: Path
) -> None:
    again = tmp_path / "a folder of another depth" / "and name"
    before = os.umask(0o077)
    try:
        lay_out(again)
    finally:
        os.umask(before)
    assert files(again) == files(layer)


def test_the_layer_in_the_assembly_is_the_one_laid_out(
    assembly: Path, template: Template, layer: Path
) -> None:
    assert files(asset(assembly, template, "AWS::Lambda::LayerVersion", "Content")) == files(layer)


def test_the_layer_holds_what_the_functions_import_and_not_what_the_runtime_brings(layer: Path) -> None:
    top = {path.name.removesuffix(".py") for path in (layer / "python").iterdir()}
    assert {"aws_lambda_powertools", "aws_xray_sdk", "pydantic", "pydantic_core", "tzdata"} <= top
    assert not top & {"boto3", "botocore", "s3transfer", "bin", ".lock"}
    assert {path.name for path in layer.iterdir()} == {"python"}


def test_every_compiled_module_of_the_layer_is_for_python_3_13_on_arm64(layer: Path) -> None:
    compiled = [path.name for path in layer.rglob("*.so")]
    assert compiled
    assert all(name.endswith(".cpython-313-aarch64-linux-gnu.so") for name in compiled)
    assert not list(layer.rglob("*.pyc"))


def test_the_layer_and_the_code_fit_into_a_function(layer: Path) -> None:
    """250 MB unzipped: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
    assert sum(path.stat().st_size for path in layer.rglob("*")) < 100_000_000


def test_a_layer_that_uv_cannot_lay_out_is_an_error_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.layer.REPO", tmp_path)
    with pytest.raises(RuntimeError, match=r"could not lay out the functions' layer:\n.*pyproject\.toml"):
        lay_out(tmp_path / "out")


# ------------------------------------------------------------------ the code


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The assembly of a staged copy of lambdas/ with one kind more, synthesized with another context."""
    folder = tmp_path_factory.mktemp("staged")
    lambdas = folder / "lambdas"
    shutil.copytree(REPO / "lambdas", lambdas)
    (lambdas / "kinds" / "of_the_test.py").write_text("KIND = None\n", encoding="utf-8")
    (lambdas / "kinds" / "__pycache__").mkdir(exist_ok=True)
    (lambdas / "kinds" / "__pycache__" / "of_the_test.pyc").write_bytes(b"compiled")
    (folder / "tmp").mkdir()
    context = {
        "removal": "destroy",
        "jobsKept": "forever",
        "alarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:oncall",
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CDK_CONTEXT_JSON", json.dumps(context))
        monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
        return synthesize(folder / "assembly", lambdas=lambdas)


def test_the_code_is_the_folder_lambdas_itself(assembly: Path, template: Template) -> None:
    code = asset(assembly, template, "AWS::Lambda::Function", "Code")
    names = {str(p.relative_to(REPO / "lambdas")) for p in (REPO / "lambdas").rglob("*.py")}
    assert set(files(code)) == names


def test_a_staged_folder_of_functions_is_deployed_without_what_was_compiled_in_it(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOut.template.json").read_text(encoding="utf-8")))
    deployed = files(asset(staged, template, "AWS::Lambda::Function", "Code"))
    assert "kinds/of_the_test.py" in deployed
    assert not [name for name in deployed if "__pycache__" in name or name.endswith(".pyc")]


# ------------------------------------------------------------------ the context


def test_table_and_bucket_go_with_the_stack_when_the_context_says_so(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOut.template.json").read_text(encoding="utf-8")))
    assert template.one("AWS::DynamoDB::Table")["DeletionPolicy"] == "Delete"
    assert template.one("AWS::S3::Bucket")["DeletionPolicy"] == "Delete"


def test_jobs_are_kept_for_as_long_as_the_context_says(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOut.template.json").read_text(encoding="utf-8")))
    rules = template.one("AWS::S3::Bucket")["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {rule["Id"] for rule in rules} == {"uploads", "unfinished"}


def test_every_alarm_tells_the_topic_that_the_context_names(staged: Path) -> None:
    template = Template(json.loads((staged / "FanOut.template.json").read_text(encoding="utf-8")))
    assert {
        tuple(a["Properties"]["AlarmActions"]) for a in template.all("AWS::CloudWatch::Alarm").values()
    } == {("arn:aws:sns:eu-west-1:123456789012:oncall",)}


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"removal": "maybe"}, 'context "removal" is "maybe", but must be "retain" or "destroy"'),
        ({"jobsKept": "1"}, 'context "jobsKept" is "1", but must be 7 to 36,500 days, or "forever"'),
    ],
)
def test_a_context_that_means_nothing_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("CDK_CONTEXT_JSON", json.dumps(context))
    with pytest.raises(RuntimeError, match=said):
        synthesize(tmp_path / "assembly")


# ------------------------------------------------------------------ the command line


def test_synthesis_leaves_nothing_outside_its_folder(staged: Path) -> None:
    assert list((staged.parent / "tmp").iterdir()) == []
    assert {path.name for path in staged.parent.iterdir()} == {"lambdas", "tmp", "assembly"}
    assert not (REPO / "cdk.context.json").exists()


def test_the_pinned_cli_runs_with_the_environments_own_node(tmp_path: Path) -> None:
    """What fetches the CLI is there and works, without asking the registry for anything."""
    done = subprocess.run(
        [str(cdk.NODE), str(cdk.NPX), "--version"],
        env={"PATH": str(cdk.NODE.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert cdk.CLI == "aws-cdk@2.1148.1"


def test_the_cli_is_told_the_app_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for npx writes down what it is called with."""
    stand_in = tmp_path / "npx.js"
    stand_in.write_text(
        "require('fs').writeFileSync(process.env.SEEN, JSON.stringify({arguments: process.argv.slice(2),"
        " node: process.env.PATH.split(':')[0], folder: process.cwd()})); process.exit(7)",
        encoding="utf-8",
    )
    seen = tmp_path / "seen.json"
    monkeypatch.setattr(cdk, "NPX", stand_in)
    monkeypatch.setenv("SEEN", str(seen))
    assert cdk.main(["diff", "-c", "removal=destroy"]) == 7
    told = json.loads(seen.read_text(encoding="utf-8"))
    assert told["arguments"] == [
        *("--yes", "--package", "aws-cdk@2.1148.1", "--", "cdk"),
        *("diff", "-c", "removal=destroy", "--app", f"{sys.executable} -m infra.app"),
    ]
    assert told["node"] == str(cdk.NODE.parent)
    assert told["folder"] == str(REPO)


def test_cdk_json_runs_the_same_app_for_who_calls_the_cli_by_hand() -> None:
    settings = json.loads((REPO / "cdk.json").read_text(encoding="utf-8"))
    assert settings["app"] == ".venv/bin/python -m infra.app"
    # Metadata that the CLI would add and `infra.synth` would not: both give the same template.
    assert settings["pathMetadata"] is settings["assetMetadata"] is settings["versionReporting"] is False
    assert "context" not in settings
