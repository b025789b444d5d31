"""The process in which something is measured: `python -m bench.child MODULE ARGUMENT`; see `Run.in_fresh_process`."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import resource
import sys
import time
from pathlib import Path

_STATUS = Path("/proc/self/status")


def _mib(name: str) -> float:
    """Linux' own account of this process: VmRSS is its memory now, VmHWM the most it had; elsewhere the latter only.

    On Linux `getrusage` is the second choice: its maximum includes the parent that the process was forked from.
    """
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(module: str, argument: str) -> None:
    work = importlib.import_module(f"bench.{module}").prepare(json.loads(argument))
    gc.collect()
    with contextlib.suppress(OSError):
        # Forget the maximum that the imports left: https://docs.kernel.org/filesystems/proc.html
        Path("/proc/self/clear_refs").write_text("5")
    before = _mib("VmRSS")
    begun, begun_cpu = time.perf_counter(), time.process_time()
    answer = work()
    spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - begun_cpu}
    print(json.dumps(answer | spent | {"peak": max(0.0, _mib("VmHWM") - before)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
