"""Synthesize the stack into a folder with cdk-nag's AWS Solutions rules: `python -m tests.infra.checked_synth OUT`.

OUT/findings.json lists what the rules found and nobody acknowledged. A process of its own, because aws_cdk keeps
a Node process for as long as it is imported.
"""

import json
import sys
from pathlib import Path

from infra.app import build


def main(out: Path) -> None:
    app = build(out=out)
    import aws_cdk
    import cdk_nag

    rules = cdk_nag.AwsSolutionsChecks(app, verbose=True)
    aws_cdk.Validations.of(app).add_plugins(rules)
    try:
        app.synth()
    except RuntimeError as error:
        # The report says what was found; a stack that cannot be synthesized has none.
        if "ValidationFailed" not in str(error):
            raise
    report = json.loads((out / "validation-report.json").read_text(encoding="utf-8"))
    assert [r["pluginName"] for r in report["pluginReports"]] == ["AwsSolutions"], report
    findings = [
        f"{violation['ruleName']} at {found['constructPath']}"
        for violation in report["pluginReports"][0]["violations"]
        for found in violation["violatingConstructs"]
    ]
    (out / "findings.json").write_text(json.dumps(findings), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
