import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.template import Template

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cloud assembly of the stack, synthesized once, with findings.json of cdk-nag."""
    out = tmp_path_factory.mktemp("assembly")
    done = subprocess.run(
        [sys.executable, "-m", "tests.infra.checked_synth", str(out)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def template(assembly: Path) -> Template:
    return Template(json.loads((assembly / "FanOut.template.json").read_text(encoding="utf-8")))
