"""Try Fan Out on an AWS account, and leave nothing there: `python -m tests.aws [--yes] [--only NAME]`.

It deploys a stack of its own with the CDK's CLI, runs the scenarios of the embedded AWS on it and a check for each
assumption of docs/aws-assumptions.md, prints what it cost, and removes everything, also when it fails or is
interrupted. Nothing is made before it has said so and been answered `yes`. The exit code is 0 only if all passed and
nothing is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.aws.account import Account, RefusedError, run
from tests.aws.cost import LIMIT_USD, counted
from tests.support.deployment import NAMED, ROOT

SUITES = ("tests/local/test_flow.py", "tests/local/test_routes.py", "tests/aws/test_assumptions.py")
# Nobody waits for a test as long as this: a hanging one must not keep the stack there.
TEST_SECONDS = 900
# Also that a terminal was closed.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

EXPLANATION = """\
This deploys Fan Out to an AWS account, tries it there, and removes it again.

  account   {number}, region {region}
  as        {caller}
  endpoint  {endpoint}
  stack     {stack}: a table, a bucket, ten functions, a state machine, a REST API, alarms
            beside it, of the same name: one role, one function, one table, small state machines
  it takes  about 25 minutes; removal included
  it costs  less than ${limit:.2f}
  it needs  about what an administrator may: IAM roles are made and removed
  it keeps  the code's two archives in the CDK's own bucket, as every deployment does
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.aws", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--only", metavar="NAME", help="only the tests whose name contains NAME")
    options = parser.parse_args(arguments)
    if not options.yes and not sys.stdin.isatty():
        return _refuse("This makes things on an AWS account and asks first, but there is no terminal. Add --yes.")
    try:
        account = Account.find(f"fanout-test-{secrets.token_hex(4)}")
    except RefusedError as error:
        return _refuse(str(error))
    endpoint = f"{account.endpoint_url} -- not AWS" if account.endpoint_url else "AWS"
    _say(EXPLANATION.format(**vars(account), endpoint=endpoint, limit=LIMIT_USD))
    if not options.yes:
        sys.stdout.write("Type yes to go on: ")
        sys.stdout.flush()
        if sys.stdin.readline().strip() != "yes":
            return _refuse("Nothing was made.")
    with tempfile.TemporaryDirectory(prefix=f"{account.stack}-") as folder:
        return _try_and_remove(account, Path(folder), options.only)


def _try_and_remove(account: Account, folder: Path, only: str | None) -> int:
    # A shell that starts this in the background has it ignore an interrupt.
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    begun, is_good = time.monotonic(), False
    try:
        try:
            is_good = _try(account, folder, only)
        finally:
            _ignore_interrupts()
    except KeyboardInterrupt:
        _say("\nInterrupted.")
    except Exception as error:
        _say(f"\n{error}")
    finally:
        _say("\nRemoving everything; this is not interrupted")
        left = _removed(account, folder)
    _say(f"\n{'All passed' if is_good else 'NOT all passed'}. It took {(time.monotonic() - begun) / 60:.1f} minutes.")
    return 0 if is_good and not left else 1


def _interrupt(*_: object) -> None:
    """The first interrupt ends the trial; none ends the removal."""
    _ignore_interrupts()
    raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def _try(account: Account, folder: Path, only: str | None) -> bool:
    _say("Deploying with the CDK's CLI")
    begun = time.monotonic()
    deployment = account.deploy(folder)
    _say(f"  deployed in {time.monotonic() - begun:.0f} s\nTrying")
    # Not the options of a run at a desk: its own report, no other process, no files here.
    words = ["-o", "addopts=", "-m", "not embedded", "-n", "0", "-p", "no:cacheprovider"]
    words += ["-p", "no:terminal", "-p", "tests.aws.report", "--timeout", str(TEST_SECONDS)]
    words += ["--basetemp", str(folder / "tests"), *(["-k", only] if only else [])]
    environment = {**os.environ, NAMED: str(deployment)}
    code = run([sys.executable, "-P", "-m", "pytest", *words, *SUITES], cwd=ROOT, env=environment)
    spent = json.loads((folder / "spent.json").read_text())
    usd = _print_cost(account, spent)
    return code == 0 and spent["ran"] > 0 and usd < LIMIT_USD


def _print_cost(account: Account, spent: dict[str, Any]) -> float:
    _say("\nWhat it cost, at the prices of us-east-1")
    lines = counted(account, spent)
    usd = sum(line.usd for line in lines)
    for line in lines:
        _say(f"  ${line.usd:.4f}  {line.number:,.0f} {line.what}")
    _say(f"  ${usd:.4f}  in all, which is {'less' if usd < LIMIT_USD else 'NOT LESS'} than ${LIMIT_USD:.2f}")
    return usd


def _removed(account: Account, folder: Path) -> list[str]:
    """What is left after the removal, said; if even that cannot be told, that."""
    try:
        left = account.remove(folder, lambda text: _say(f"  {text}"))
    except Exception as error:
        left = [f"unknown: {error}"]
    if left:
        _say("\n".join(["STILL THERE:", *(f"  {each}" for each in left), account.by_hand]))
    else:
        _say(f"  nothing named {account.stack} is left")
    return left


def _say(text: str) -> None:
    # Nobody may be there to hear it any more; the removal goes on.
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _refuse(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
