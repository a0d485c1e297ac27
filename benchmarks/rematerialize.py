"""Compare a train step with and without `train.rematerialize`: processor time and memory.

    python benchmarks/rematerialize.py --recipe=centernet_hourglass52 --dtype=bf16 --batch_size=2

Each has a process of its own, on the CPU; their steps take turns. Prints the median of the
processor time of a step (all threads) with the lowest and the highest, and the most memory that the
process had: weights, the state of the optimizer and TensorFlow itself are a part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

_FORMS = {"plain": False, "rematerialized": True}


def _work(given: argparse.Namespace, again: bool) -> None:
    """Do a step for each line of the standard input, and print what it took."""
    from ssd_centernet import config
    from ssd_centernet.benchmark import measure
    from ssd_centernet.benchmark.step import prepare
    from ssd_centernet.recipe import Recipe

    config.parse([given.recipe], [*given.gin_params, f"build_detector.dtype = {given.dtype!r}"])
    recipe = Recipe().replace(batch_size=given.batch_size, rematerialize=again)
    work, _ = prepare(recipe, None, device="cpu")
    work(1)  # Traces.
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        work(1)
        took = {"seconds": time.process_time() - began, **measure.peak_memory()}
        print(json.dumps(took), flush=True)


def _answer(child: subprocess.Popen) -> str:
    line = child.stdout.readline()
    if not line:
        raise SystemExit("the measuring process ended; its message stands above")
    return line


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="centernet_hourglass52")
    parser.add_argument("--dtype", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gin_params", action="append", default=[])
    parser.add_argument("--form", choices=_FORMS, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.form:
        _work(given, _FORMS[given.form])
        return
    words = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = {form: subprocess.Popen([*words, f"--form={form}"], **pipes) for form in _FORMS}
    try:
        for child in children.values():
            _answer(child)
        found: dict[str, list[dict]] = {form: [] for form in _FORMS}
        for _ in range(given.rounds):
            for form, child in children.items():
                child.stdin.write("step\n")
                child.stdin.flush()
                found[form].append(json.loads(_answer(child)))
    finally:
        for child in children.values():
            child.kill()
    for form, steps in found.items():
        seconds = [step["seconds"] for step in steps]
        middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
        memory = steps[-1]["peak_rss_mb"]
        print(f"{form:15} {middle:7.2f} s a step ({low:.2f} to {high:.2f}), {memory:6.0f} MB")


if __name__ == "__main__":
    main()
