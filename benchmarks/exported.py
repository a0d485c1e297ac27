"""Measure the TFLite files of an export: size, AP of its model card, time and memory.

    python benchmarks/exported.py FOLDER [--threads=1] [--seconds=5]

Each file runs in a process of its own, which loads LiteRT and NumPy alone, on one image of noise at
a time. Milliseconds are of one call: the median, and what nine tenths of the calls stay below.
Memory is the most that the process had, and what it had with no file loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

_WARM_UP = 5


def main() -> int:
    """Print a table of the files of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.one:
        print(json.dumps(measure(values.folder, values.threads, values.seconds)))
        return 0
    card = json.loads((values.folder / "model_card.json").read_text(encoding="utf-8"))
    print(f"{values.threads} thread(s), batch 1")
    head = f"{'format':<18} {'MB':>7} {'AP':>7} {'p50 ms':>8} {'p90 ms':>8} {'peak MB':>8}"
    print(f"{head} {'empty':>6}")
    for name, entry in card["formats"].items():
        path = values.folder / entry["file"]
        if path.suffix != ".tflite":
            continue
        options = [f"--threads={values.threads}", f"--seconds={values.seconds}", "--one"]
        command = [sys.executable, __file__, str(path), *options]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(ended.stdout.splitlines()[-1])
        ap = f"{entry['ap']['file']:.4f}" if "ap" in entry else "-"
        print(
            f"{name:<18} {path.stat().st_size / 1e6:>7.2f} {ap:>7} {found['p50']:>8.2f} "
            f"{found['p90']:>8.2f} {found['peak']:>8.1f} {found['empty']:>6.1f}",
            flush=True,
        )
    return 0


def measure(path: Path, threads: int, seconds: float) -> dict[str, float]:
    """Run a file for some seconds; see above."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    empty = _memory("VmRSS")
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    run = interpreter.get_signature_runner()
    shape = run.get_input_details()["images"]["shape"]
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for _ in range(_WARM_UP):
        run(images=images)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        began = time.perf_counter()
        run(images=images)
        times.append(1e3 * (time.perf_counter() - began))
    p50, p90 = np.percentile(times, [50, 90])
    return {"p50": p50, "p90": p90, "peak": _memory("VmHWM"), "empty": empty}


def _memory(field: str) -> float:
    """Return a number of /proc/self/status in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    sys.exit(main())
