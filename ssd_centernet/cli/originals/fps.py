"""calc_fps.py of SSD VGG-16: images per second, from the log of a run."""

from __future__ import annotations

import collections
import json
import os
import statistics

from absl import flags

from ssd_centernet.cli.originals.options import Given
from ssd_centernet.cli.originals.plan import Plan
from ssd_centernet.files import read_text

# The original's lines come every 50 steps, and the first of an epoch holds its start.
_WARMUP = 50


def translate(given: Given) -> Plan:
    """Answer `calc_fps.py LOG GPU_NUMS BATCH_SIZE`.

    Raises:
        flags.Error: other arguments, or a log that does not tell a speed.
    """
    if len(given.positional) != 3 or not all(w.isdigit() for w in given.positional[1:]):
        raise flags.Error(
            f"calc_fps.py got {' '.join(given.positional) or 'nothing'}; expected LOG GPU_NUMS "
            "BATCH_SIZE: metrics.jsonl of a run or a .log.json of MMDetection, the number of "
            "devices, and the images of each."
        )
    path, devices, batch = given.positional[0], *map(int, given.positional[1:])
    rows = _rows(path)
    if any("kind" in row for row in rows):
        speed = _of_run(path, rows, devices * batch)
    else:
        speed = _of_mmdetection(path, rows, devices * batch)
    return Plan([], answer=f"FPS: {speed:.2f}")


def _rows(path: str) -> list[dict]:
    rows = []
    for line in read_text(path).splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # The last line of a run that is killed, or at work.
        rows += [row] if isinstance(row, dict) else []
    return rows


def _of_run(path: str, rows: list[dict], global_batch: int) -> float:
    """Return the mean of the windows; the first one, which traces, says no speed."""
    from ssd_centernet.training.log_files import recorded_sessions

    begun = [one for one in recorded_sessions(os.path.dirname(path) or ".") if "images" in one]
    trained = begun[-1]["global_batch_size"] if begun else global_batch
    if trained != global_batch:
        raise flags.Error(
            f"{path} is of a run with {trained} images a step over all devices, but GPU_NUMS x "
            f"BATCH_SIZE is {global_batch}."
        )
    speeds = [row["images_per_second"] for row in rows if "images_per_second" in row]
    if not speeds:
        raise flags.Error(f"{path} tells no images_per_second yet: let the run take more steps.")
    return statistics.mean(speeds)


def _of_mmdetection(path: str, rows: list[dict], global_batch: int) -> float:
    """Return the mean over epochs of the mean of their lines, as the original computes it."""
    epochs = collections.defaultdict(list)
    for row in rows:
        if row.get("mode") == "train" and row.get("iter", 0) > _WARMUP and row.get("time"):
            epochs[row.get("epoch")].append(global_batch / row["time"])
    if not epochs:
        raise flags.Error(
            f"{path} has no line of a training with a time after step {_WARMUP}: is it a log.json?"
        )
    return statistics.mean(statistics.mean(speeds) for speeds in epochs.values())
