"""The CDK app: `python -m infra.app [--out DIR] [--lambdas DIR]` synthesizes the stack.

It needs no credentials, no Docker, no system Node, and writes no cdk.context.json.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from infra.cdk import NODE

if TYPE_CHECKING:
    import aws_cdk

STACK = "FanOut"


def build(*, out: Path | None = None, lambdas: Path | None = None) -> "aws_cdk.App":
    """The app with its one stack, not yet synthesized.

    Without `out` the CLI chooses the cloud assembly's folder; `lambdas`, or the context of that name, replaces the
    project's folder of functions. The stack's name is the context `stack`, or that of the stage.
    """
    # jsii starts Node as soon as aws_cdk is imported: it must find the environment's own by then.
    os.environ.setdefault("JSII_NODE", str(NODE))
    import aws_cdk

    from infra.stack import LAMBDAS, FanOutStack

    app = aws_cdk.App(
        outdir=str(out) if out else None,
        analytics_reporting=False,
        # Over what the CLI may find in a cdk.json, which only it reads: every way to synthesize gives one template.
        post_cli_context={"@aws-cdk/aws-iam:minimizePolicies": True, "@aws-cdk/core:checkSecretUsage": True},
    )
    context = app.node.try_get_context
    name = context("stack") or (f"{STACK}Dev" if context("stage") == "dev" else STACK)
    folder = lambdas or Path(context("lambdas") or LAMBDAS)
    FanOutStack(app, name, lambdas=folder.resolve())
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.app", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the cloud assembly")
    parser.add_argument("--lambdas", type=Path, help="folder of the functions (default: the project's)")
    arguments = parser.parse_args()
    build(out=arguments.out, lambdas=arguments.lambdas).synth()


if __name__ == "__main__":
    main()
