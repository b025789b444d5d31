"""Runs the sections of the benchmark that are named, or all."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import signal
import sys
import time
from typing import NoReturn

from bench.run import OutOfTimeError, Run

# With the share of the time that each may use, so that a slow one leaves some to those behind it; what it does not
# need goes on to them.
SECTIONS = {"reducer": 34, "worker": 11, "listing": 18, "flow": 37}
# What a run may take in all, with what it takes to start and to stop.
SECONDS, QUICK_SECONDS = 340, 52


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory of Fan Out.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS) + "; default all")
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument("--seconds", type=float, help=f"the run's time, by default {SECONDS}")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    signal.signal(signal.SIGTERM, _interrupted)
    begun = time.monotonic()
    ends = begun + (asked.seconds or (QUICK_SECONDS if asked.quick else SECONDS))
    print(f"Fan Out benchmark: Python {platform.python_version()}, {os.cpu_count()} CPUs. Read the ratios.")
    try:
        sections = [name for name in SECTIONS if name in (asked.sections or SECTIONS)]
        for number, section in enumerate(sections):
            now = time.monotonic()
            share = SECTIONS[section] / sum(SECTIONS[name] for name in sections[number:])
            run = Run("quick" if asked.quick else "full", now + (ends - now) * share)
            try:
                for table in importlib.import_module(f"bench.{section}").tables(run):
                    print(f"\n{table}", flush=True)
            except OutOfTimeError as error:
                print(f"\n{section}: not measured to its end, {error}.", flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 130
    print(f"\n{time.monotonic() - begun:.0f} s in all.")
    return 0


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
