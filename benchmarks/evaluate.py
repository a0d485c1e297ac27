"""Time a whole evaluation beside the network alone, on the same random pictures in turn.

    python benchmarks/evaluate.py --recipe=ssd300_resnet34 --images=64 --detections=200

The network alone reads the pictures, runs and decodes. The evaluation does so too, and has the
losses, the metric and the files as well. A third one matches its losses in the step, from padded
rows, as `train.targets_in_pipeline = False` has it. As random weights detect nothing, the
detections that are scored are made up, as many as asked for. Prints processor time, medians over
rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.benchmark import measure, records
from ssd_centernet.benchmark.evaluation import evaluator_batches, random_scene
from ssd_centernet.evaluation.coco import CocoEvaluator, CocoResult
from ssd_centernet.evaluation.detector import (
    detection_step,
    evaluate_detector,
    split_ground_truth,
)
from ssd_centernet.labels import LabelMap
from ssd_centernet.recipe import Recipe

SPLIT = "coco_val"
ALONE, WHOLE, PADDED = "network alone", "evaluation", "evaluation, losses of padded rows"


class TimedEvaluator(CocoEvaluator):
    """Measure what the metric takes, without the network."""

    spent = 0.0

    def compute(self) -> CocoResult:
        """Score what was added."""
        began = time.process_time()
        result = super().compute()
        self.spent = time.process_time() - began
        return result


def contestants(
    gin_files: Sequence[str | Path], folder: str, images: int, detections: int
) -> dict[str, Callable[[], dict[str, float]]]:
    """Return what is timed: name -> function of a pass, which returns seconds of its parts."""
    records.write_records(folder, num_images=images, split=SPLIT)
    config.parse(gin_files)
    recipe = Recipe().replace(eval_split=SPLIT, batch_size=8)
    ids = tuple(range(1, 81))
    label_map = LabelMap([f"class {i}" for i in ids], ids)
    detector = recipe.detector(label_map)
    truth = split_ground_truth(folder, SPLIT, label_map)
    evaluator = TimedEvaluator(truth, category_ids=label_map.ids)
    ((*_, found),) = evaluator_batches(
        random_scene(images, detections=detections)[1], images, batch_size=images
    )

    def batches(in_pipeline: bool) -> Iterable[dict]:
        chosen = recipe.replace(targets_in_pipeline=in_pipeline)
        return chosen.evaluation_batches(detector, folder, images=images, label_map=label_map)

    bare, with_losses = detection_step(detector), detection_step(detector, with_losses=True)
    with_targets, without = batches(True), batches(False)

    def alone() -> dict[str, float]:
        for batch in without:
            bare(batch)[0]["count"].numpy()
        return {}

    def step(batch: dict) -> tuple[dict, dict]:
        parts = with_losses(batch)[1]
        rows = batch["source_id"].numpy() - 1
        return {name: tf.constant(values[rows]) for name, values in found.items()}, parts

    def whole(dataset: Iterable[dict]) -> dict[str, float]:
        result, _ = evaluate_detector(detector, dataset, evaluator, step=step)
        began = time.process_time()
        result.save(Path(folder) / "evaluation")
        return {"metric": evaluator.spent, "files": time.process_time() - began}

    return {
        ALONE: alone,
        WHOLE: lambda: whole(with_targets),
        PADDED: lambda: whole(without),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="ssd300_resnet34")
    parser.add_argument("--images", type=int, default=64, help="a multiple of 8")
    parser.add_argument("--detections", type=int, default=200, help="of each image")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args(argv)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        works = contestants([given.recipe], folder, given.images, given.detections)
        for number in range(given.rounds + 1):
            for name, work in works.items():
                began = time.process_time()
                parts = work()
                spent = {name: time.process_time() - began}
                spent |= {f"{name}: {part}": seconds for part, seconds in parts.items()}
                for what, seconds in spent.items():
                    # The first round traces.
                    times.setdefault(what, []).extend([seconds] if number else [])
    for what, seconds in times.items():
        print(f"{what:42} {1e3 * statistics.median(seconds) / given.images:8.2f} ms an image")
    for name in (WHOLE, PADDED):
        pairs = zip(times[name], times[ALONE], strict=True)
        ratio = statistics.median(one / alone for one, alone in pairs)
        print(f"{name} / {ALONE}: {ratio:.3f}")
    print(f"most memory: {measure.peak_memory()['peak_rss_mb']} MB")


if __name__ == "__main__":
    main()
