"""How long COCO metrics take with each library, on random detections."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssd_centernet.benchmark import measure
from ssd_centernet.evaluation.backends import installed
from ssd_centernet.evaluation.coco import CocoEvaluator, CocoGroundTruth

_HEIGHT, _WIDTH, _CLASSES = 480, 640, 80


def random_scene(
    num_images: int = 2000, *, objects: int = 7, detections: int = 100
) -> tuple[dict, np.ndarray]:
    """Make ground truth and detections, a few near each object and the rest anywhere.

    Args:
        num_images: images of 640x480.
        objects: objects of each image (COCO has 7 on average).
        detections: detections of each image, sorted by score.

    Returns:
        The ground truth as COCO json, and float64 rows (image, x, y, width, height, score,
        category) with boxes in pixels, images one after the other.
    """
    rng = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        extent = rng.uniform(0.03, 0.6, (count, 2)) * [_WIDTH, _HEIGHT]
        corner = rng.uniform(0, 1, (count, 2)) * ([_WIDTH, _HEIGHT] - extent)
        return np.concatenate([corner, extent], axis=1)

    truth_boxes = boxes(num_images * objects)
    classes = rng.integers(1, _CLASSES + 1, num_images * objects)
    annotations = [
        {
            "id": i + 1,
            "image_id": i // objects + 1,
            "category_id": int(classes[i]),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for i, box in enumerate(truth_boxes)
    ]
    found = boxes(num_images * detections).reshape(num_images, detections, 4)
    found_classes = rng.integers(1, _CLASSES + 1, (num_images, detections))
    # Up to three near each object.
    near = min(detections, 3 * objects)
    found[:, :near] = np.tile(truth_boxes.reshape(num_images, objects, 4), (1, 3, 1))[:, :near]
    found[:, :near] += rng.normal(0.0, 5.0, found[:, :near].shape)
    found[..., 2:] = np.maximum(found[..., 2:], 1.0)
    found_classes[:, :near] = np.tile(classes.reshape(num_images, objects), (1, 3))[:, :near]
    scores = -np.sort(-rng.uniform(0.01, 1.0, (num_images, detections)), axis=1)
    ids = np.repeat(np.arange(1, num_images + 1), detections)
    rows = np.column_stack([ids, found.reshape(-1, 4), scores.ravel(), found_classes.ravel()])
    truth = {
        "images": [{"id": i + 1, "height": _HEIGHT, "width": _WIDTH} for i in range(num_images)],
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(_CLASSES)],
    }
    return truth, rows.astype(np.float64)


def evaluator_batches(rows: np.ndarray, num_images: int, batch_size: int = 32) -> Iterator[tuple]:
    """Yield what `CocoEvaluator.add` takes for each batch of a `random_scene`."""
    fields = rows.reshape(num_images, -1, 7)
    corners = fields[..., [2, 1, 2, 1]] + fields[..., [4, 3, 4, 3]] * [0, 0, 1, 1]
    boxes = (corners / [_HEIGHT, _WIDTH, _HEIGHT, _WIDTH]).astype(np.float32)
    for begin in range(0, num_images, batch_size):
        part = slice(begin, begin + batch_size)
        size = len(boxes[part])
        detections = {
            "boxes": boxes[part],
            "scores": fields[part, :, 5].astype(np.float32),
            "classes": fields[part, :, 6].astype(np.int32) - 1,
            "count": np.full(size, fields.shape[1]),
        }
        ids = np.arange(begin, begin + size) + 1
        yield ids, np.full(size, _HEIGHT), np.full(size, _WIDTH), detections


def run(num_images: int = 2000, *, detections: int = 100, repeats: int = 1) -> list[dict[str, Any]]:
    """Measure the evaluation of random detections, from arrays to the 12 COCO numbers.

    Args:
        num_images: images.
        detections: of each image.
        repeats: runs of each library that is installed, which take turns.

    Returns:
        A line for each library, the quickest first, with the median `seconds` of processor time,
        `add_seconds` of which went into adding the batches of the quickest run; then, for each of
        the others, how many times as long it takes as the first. `equal_bits` says that all 12
        numbers of all runs are equal.

    Raises:
        ImportError: no library is installed.
    """
    truth, rows = random_scene(num_images, detections=detections)
    ground_truth = CocoGroundTruth.load(truth)
    batches = list(evaluator_batches(rows, num_images))
    backends = installed()
    # A library is imported and starts its threads when it is first used.
    few, some = random_scene(2, detections=1)
    for one in backends:
        _timed(CocoGroundTruth.load(few), list(evaluator_batches(some, 2)), one)
    rounds = [[_timed(ground_truth, batches, one) for one in backends] for _ in range(repeats)]
    reference = rounds[0][0][2]
    lines, ratios = [], []
    for backend, runs in zip(backends, zip(*rounds, strict=True), strict=True):
        seconds = [one[0] for one in runs]
        lines.append(
            {
                "part": "eval",
                "name": backend,
                "backend": backend,
                "num_images": num_images,
                "num_detections": len(rows),
                "seconds": round(statistics.median(seconds), 3),
                "lowest": round(min(seconds), 3),
                "highest": round(max(seconds), 3),
                "windows": len(seconds),
                "add_seconds": round(min(runs)[1], 3),
                "AP": reference["AP"],
                "equal_bits": all(one[2] == reference for one in runs),
                **measure.peak_memory(),
            }
        )
    for place in range(1, len(backends)):
        of_rounds = [one[place][0] / max(one[0][0], 1e-9) for one in rounds]
        name = f"time of {backends[place]} / of {backends[0]}"
        ratios.append(
            {"part": "eval", "name": name, "ratio": round(statistics.median(of_rounds), 3)}
        )
    surroundings = measure.environment(*backends)
    return [{**line, **surroundings} for line in [*lines, *ratios]]


def _timed(
    ground_truth: CocoGroundTruth, batches: Sequence[tuple], backend: str
) -> tuple[float, float, dict[str, float]]:
    start = time.process_time()
    evaluator = CocoEvaluator(ground_truth, backend=backend)
    for batch in batches:
        evaluator.add(*batch)
    added = time.process_time()
    metrics = evaluator.compute().metrics
    return time.process_time() - start, added - start, metrics
