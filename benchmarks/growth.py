"""Tell how conversion and evaluation grow with the images of a split and with its files.

    nice -n 19 python benchmarks/growth.py
    python benchmarks/growth.py --images 100 200 --shards 1 4

Writes pictures of 32x24, 7 objects and 20 detections each, and for every number of images and files
converts them, reads the split as an evaluation does (check of the records and ground truth), makes
its first batch and scores the detections. Each part runs in a process of its own, after a run on a
few images, which takes the costs of a start. Prints processor time by image and the memory that
came on top of what the process had. Linux only.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_centernet.benchmark.evaluation import evaluator_batches, random_scene
from ssd_centernet.data.convert import convert_coco
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.loading import resize_only
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.evaluation.coco import CocoEvaluator
from ssd_centernet.evaluation.detector import split_ground_truth
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.memory import used_memory

# Pictures are so many times smaller than those of `random_scene`.
SMALLER = 20
FEW = 8
PARTS = ("convert", "read", "first batch", "metric")


def write_pictures(folder: Path, number: int) -> None:
    """Write tiny pictures, no two of them alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        pixels = rng.integers(0, 256, (480 // SMALLER, 640 // SMALLER, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index + 1}.jpg")


def write_annotations(path: Path, truth: dict) -> None:
    """Write the ground truth of `random_scene` for tiny pictures."""
    for image in truth["images"]:
        image |= {"file_name": f"{image['id']}.jpg", "height": 480 // SMALLER}
        image["width"] = 640 // SMALLER
    for one in truth["annotations"]:
        one["bbox"] = [value / SMALLER for value in one["bbox"]]
        one["area"] /= SMALLER**2
    path.write_text(json.dumps(truth))


def processor_seconds() -> float:
    """Return what this process and those that it has ended have used of all processors."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def in_a_process(work: Callable[[bool], None]) -> tuple[float, float]:
    """Run something in a fork, on a few images first, and return its seconds and megabytes.

    Args:
        work: called with whether it is the measured run.

    Raises:
        RuntimeError: it failed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            work(False)
            began, had = processor_seconds(), used_memory()
            work(True)
            spent = processor_seconds() - began
            more = max(0, used_memory(peak=True) - had) / 1e6
            os.write(writing, json.dumps([spent, more]).encode())
            status = 0
        except BaseException as error:  # Told here: nothing of a fork may go on.
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        told = file.read()
    os.waitpid(child, 0)
    if not told:
        raise RuntimeError("a part failed; it has said why.")
    return tuple(json.loads(told))


def convert(place: Path, images: int, shards: int, measured: bool) -> None:
    """Convert the split, or a few images."""
    count = images if measured else FEW
    out = place / ("records" if measured else "few")
    options = {"split": "val", "num_shards": min(shards, count), "workers": 1, "overwrite": True}
    convert_coco(place / f"{count}.json", place / "pictures", out, progress=False, **options)


def read(place: Path, measured: bool) -> None:
    """Check the records and read their ground truth."""
    folder = place / ("records" if measured else "few")
    split_ground_truth(folder, "coco_val", load_label_map(folder))


def first_batch(place: Path, measured: bool) -> None:
    """Make the first batch of a training on the split."""
    folder = place / ("records" if measured else "few")
    chain = resize_only(Preprocessing((24, 32)))
    options = {"label_map": load_label_map(folder), "split": "coco_val", "batch_size": 4}
    batch = next(iter(training_batches(str(folder), augment=chain, **options)))
    assert batch["image"].numpy().shape == (4, 24, 32, 3)


def score(place: Path, rows: np.ndarray, images: int, measured: bool) -> None:
    """Score the detections."""
    folder, count = (place / "records", images) if measured else (place / "few", FEW)
    label_map = load_label_map(folder)
    truth = score.truth if measured else split_ground_truth(folder, "coco_val", label_map)
    if not measured:  # Read outside of what is measured.
        score.truth = split_ground_truth(place / "records", "coco_val", label_map)
    evaluator = CocoEvaluator(truth, category_ids=label_map.ids)
    few = rows[: count * (len(rows) // images)]
    for ids, heights, widths, found in evaluator_batches(few, count):
        evaluator.add(ids, heights // SMALLER, widths // SMALLER, found)
    assert evaluator.compute().num_images == count


def measure(place: Path, images: int, shards: int, rows: np.ndarray) -> dict[str, tuple]:
    """Return (seconds, megabytes) of each part."""
    works = (
        functools.partial(convert, place, images, shards),
        functools.partial(read, place),
        functools.partial(first_batch, place),
        functools.partial(score, place, rows, images),
    )
    return {part: in_a_process(work) for part, work in zip(PARTS, works, strict=True)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--rounds", type=int, default=1, help="of which the medians are printed")
    given = parser.parse_args(argv)
    if min(given.images) < FEW or min(given.shards) < 1 or given.rounds < 1:
        parser.error(f"expected at least {FEW} images, 1 shard and 1 round")
    began, found = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_pictures(place / "pictures", max(given.images))
        scenes = {}
        for count in (FEW, *given.images):
            truth, scenes[count] = random_scene(count, detections=20)
            write_annotations(place / f"{count}.json", truth)
        print("images  shards  " + "".join(f"{f'{part}, ms  MB':>24}" for part in PARTS))
        for images in given.images:
            for shards in given.shards:
                rounds = [
                    measure(place, images, shards, scenes[images]) for _ in range(given.rounds)
                ]
                cells = ""
                for part in PARTS:
                    seconds, more = (
                        statistics.median(one[part][i] for one in rounds) for i in (0, 1)
                    )
                    found[images, shards, part] = seconds
                    cells += f"{1000 * seconds / images:>16.3f}{more:>8.0f}"
                print(f"{images:>6}{shards:>8}  {cells}", flush=True)
    least, most = min(given.images), max(given.images)
    for part in PARTS if most > least else ():
        powers = [
            math.log(max(found[most, s, part], 1e-3) / max(found[least, s, part], 1e-3))
            / math.log(most / least)
            for s in given.shards
        ]
        told = ", ".join(f"{power:.2f}" for power in powers)
        print(f"{part}: grows with the images to the power of {told}")
    print(f"{time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
