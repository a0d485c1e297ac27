"""Tell the processor time that `ssd_centernet train` takes until its first step is done.

    python benchmarks/start.py --recipe=ssd300_resnet34

A fresh process trains the recipe on small random pictures, two steps of one image each. Its time
(user and system, of all threads) is read when it prints that it is about to begin, and after each
of the steps. What the second step takes is the share of the first one that is no preparation.
Linux only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_SETTINGS = (
    "train.batch_size = 1",
    "train.accumulate_steps = 1",
    "train.steps = 2",
    "train.log_every = 1",
    "train.freeze_random = False",
)
# What a line begins with, or holds -> what it tells.
_MARKS = {" training images, ": "built", "step 1/2": "first step", "step 2/2": "second step"}


def spent(pid: int) -> float:
    """Return the processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(recipe: str, data_dir: str, model_dir: str, settings: Sequence[str]) -> dict:
    """Train two steps in a process of their own and return mark -> seconds."""
    command = [sys.executable, "-m", "ssd_centernet", "train", f"--gin_file={recipe}"]
    command += [f"--data_dir={data_dir}", f"--model_dir={model_dir}", "--device=cpu"]
    command += [f"--gin_params={one}" for one in (*_SETTINGS, *settings)]
    marks: dict[str, float] = {}
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as child:
        lines = []
        for line in child.stdout:
            lines.append(line)
            for text, mark in _MARKS.items():
                if text in line and mark not in marks:
                    marks[mark] = spent(child.pid)
            if len(marks) == len(_MARKS):
                child.kill()  # What comes behind is no start.
                return marks
    raise SystemExit(f"the training ended too early:\n{''.join(lines)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="ssd_demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gin_params", action="append", default=[])
    given = parser.parse_args(argv)
    from ssd_centernet.benchmark.records import write_records

    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        for split, number in (("coco_train", 8), ("coco_val", 2)):
            write_records(data, num_images=number, size=(120, 160), num_shards=1, split=split)
        for number in range(given.rounds):
            one = measure(given.recipe, str(data), f"{folder}/run{number}", given.gin_params)
            once = one["second step"] - one["first step"]
            rounds.append(
                {
                    "until all is built": one["built"],
                    "until the first step is done": one["first step"],
                    "... without what it computes": one["first step"] - once,
                    "a further step": once,
                }
            )
    for mark in rounds[0]:
        seconds = [one[mark] for one in rounds]
        middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"{mark:30} {middle:6.1f} s  ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
