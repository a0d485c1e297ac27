"""The process of a contestant: it measures a window of its work whenever a line asks for one.

    python benchmarks/contestants/serving.py MODULE:FUNCTION '{"seconds": 3.0}'

FUNCTION of a module beside this file prepares the work: a function from a number of units to the
images that they had. Lines of JSON answer on standard output: first the units of a window, or what
is missing; for each line `window` images, wall and processor seconds; for the line `end` the most
memory. Nothing here is imported but the standard library, as each peer has an environment of its
own.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Does so many units, waits until they are done, and returns how many images they had.
Work = Callable[[int], int]
# Shorter than this a calibration means little.
_LEAST_SECONDS = 0.2
_SETTLE_SECONDS = 0.7
_LEAST_BATCHES = 8
_PR_SET_PDEATHSIG = 1


def processor_seconds() -> float:
    """Return what this process and its living children have used of all processors so far."""
    spent, ticks = time.process_time(), os.sysconf("SC_CLK_TCK")
    for tasks in Path("/proc/self/task").glob("*/children"):
        for child in tasks.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) / ticks
    return spent


def peak_megabytes() -> float:
    """Return the most memory that this process has had, in MB of 10^6 bytes."""
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith("VmHWM:"):
            return round(int(row.split()[1]) * 1024 / 1e6, 1)
    return 0.0


def window(work: Work, units: int) -> dict[str, float]:
    """Measure a window: images, wall and processor seconds."""
    cpu, start = processor_seconds(), time.perf_counter()
    images = work(units)
    wall = time.perf_counter() - start
    return {"images": images, "wall": wall, "cpu": processor_seconds() - cpu}


def drain(work: Work, seconds: float) -> None:
    """Work for some time, so that a window begins as it ends: with empty buffers."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work(1)


def units_for(work: Work, seconds: float) -> int:
    """Find how many units of work that is warm fill a window.

    Args:
        work: what is to be measured.
        seconds: wished length of a window.

    Returns:
        Units, at least 1.
    """
    units = 1
    while True:
        wall = window(work, units)["wall"]
        if wall >= min(_LEAST_SECONDS, seconds):
            return max(1, round(seconds * units / wall))
        units *= 2


def _versions(names: list[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Prepare, calibrate, and serve windows until the input ends."""
    target, options = sys.argv[1], json.loads(sys.argv[2])
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Whatever libraries print must not reach the one that asks.
    if sys.platform == "linux":  # Stopped between windows, it could not notice its parent's end.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    module, _, function = target.partition(":")
    try:
        work = getattr(importlib.import_module(f"contestants.{module}"), function)(options)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": f"{error.name} is not installed"}), file=channel)
        return
    # What prepares in the background fills its buffers while it waits for its first turn.
    settle = _SETTLE_SECONDS if options.get("background") else 0.0
    work(1)
    drain(work, settle)
    units = units_for(work, options["seconds"])
    if settle:  # Its workers end their batches together: few batches would be none or several.
        units = max(units, _LEAST_BATCHES)
    versions = _versions(options.get("packages", []))
    print(json.dumps({"units": units, "versions": versions}), file=channel)
    for line in sys.stdin:
        if line.strip() == "end":
            print(json.dumps({"peak_mb": peak_megabytes()}), file=channel)
            break
        drain(work, settle)
        print(json.dumps(window(work, units)), file=channel)
    channel.flush()
    os._exit(0)  # Pipelines that still run are not worth waiting for.


if __name__ == "__main__":
    main()
