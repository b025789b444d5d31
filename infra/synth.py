"""Synthesize the stack: `python -m infra.synth OUT [--lambdas DIR]`."""

import argparse
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def synthesize(out: Path, *, lambdas: Path | None = None) -> Path:
    """Write the cloud assembly (manifest.json, FanOut.template.json, assets) into `out`; return that folder.

    `lambdas` replaces the project's folder of functions. Runs in a process of its own, because aws_cdk takes
    seconds to import and keeps a Node process. Nothing is written elsewhere but caches.
    Raises RuntimeError with the last words of the app if it fails.
    """
    out, lambdas = out.resolve(), lambdas.resolve() if lambdas else None
    command = [sys.executable, "-m", "infra.synth", str(out)]
    if lambdas:
        command += ["--lambdas", str(lambdas)]
    done = subprocess.run(
        command, cwd=REPO, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"The stack could not be synthesized:\n{done.stderr.strip()[-4000:]}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.synth", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the cloud assembly")
    parser.add_argument("--lambdas", type=Path, help="folder of the functions (default: the project's)")
    arguments = parser.parse_args()

    from infra.app import build

    build(out=arguments.out.resolve(), lambdas=arguments.lambdas).synth()


if __name__ == "__main__":
    main()
