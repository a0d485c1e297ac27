"""Timing of COCO evaluation on synthetic detections."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssd_centernet.evaluation.coco import BACKENDS, CocoEvaluator, CocoGroundTruth

_HEIGHT, _WIDTH = 480, 640


def benchmark_evaluation(
    num_images: int = 2000,
    detections_per_image: int = 100,
    backends: Sequence[str] = BACKENDS,
    *,
    objects_per_image: int = 7,
    num_classes: int = 80,
    batch_size: int = 32,
    repeats: int = 1,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time adding and scoring detections, from arrays to the 12 COCO numbers.

    Args:
        num_images: images of 640x480.
        detections_per_image: detections on each; a few near each object, the rest anywhere.
        backends: libraries to time, in this order.
        objects_per_image: objects on each image (COCO has 7 on average).
        num_classes: classes.
        batch_size: images per call of `CocoEvaluator.add`.
        repeats: runs per backend; the fastest counts.
        seed: seed of the random boxes; the same for all backends.

    Returns:
        Per backend a dict of `part`, `backend`, `num_images`, `num_detections`, `seconds` (all),
        `add_seconds` (adding batches alone), `AP` and `equal_bits` (all 12 numbers equal to
        those of the first backend).
    """
    rng = np.random.default_rng(seed)
    examples = _examples(rng, num_images, objects_per_image, num_classes)
    names = [f"class {index}" for index in range(num_classes)]
    ground_truth = CocoGroundTruth.from_examples(examples, names=names)
    batches = list(_batches(rng, examples, detections_per_image, num_classes, batch_size))
    lines: list[dict[str, Any]] = []
    reference = None
    for backend in backends:
        runs = [_timed(ground_truth, batches, backend) for _ in range(repeats)]
        seconds, add_seconds, metrics = min(runs, key=lambda run: run[0])
        reference = reference or metrics
        lines.append(
            {
                "part": "eval",
                "backend": backend,
                "num_images": num_images,
                "num_detections": num_images * detections_per_image,
                "seconds": round(seconds, 3),
                "add_seconds": round(add_seconds, 3),
                "AP": metrics["AP"],
                "equal_bits": metrics == reference,
            }
        )
    return lines


def _timed(
    ground_truth: CocoGroundTruth, batches: Sequence[tuple], backend: str
) -> tuple[float, float, dict[str, float]]:
    start = time.perf_counter()
    evaluator = CocoEvaluator(ground_truth, backend=backend)
    for batch in batches:
        evaluator.add(*batch)
    added = time.perf_counter()
    metrics = evaluator.compute().metrics
    return time.perf_counter() - start, added - start, metrics


def _examples(
    rng: np.random.Generator, num_images: int, objects: int, num_classes: int
) -> list[dict[str, Any]]:
    """Return random ground truth as decoded records."""
    boxes = _boxes(rng, (num_images, objects))
    classes = rng.integers(0, num_classes, (num_images, objects))
    return [
        {
            "source_id": i + 1,
            "height": _HEIGHT,
            "width": _WIDTH,
            "boxes": boxes[i],
            "classes": classes[i],
        }
        for i in range(num_images)
    ]


def _boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 [*shape, 4] yxyx fractions."""
    extent = rng.uniform(0.03, 0.6, (*shape, 2))
    corner = rng.uniform(0.0, 1.0, (*shape, 2)) * (1.0 - extent)
    return np.concatenate([corner, corner + extent], axis=-1).astype(np.float32)


def _batches(
    rng: np.random.Generator,
    examples: Sequence[dict[str, Any]],
    detections: int,
    num_classes: int,
    batch_size: int,
) -> Iterator[tuple]:
    """Yield the arguments of `CocoEvaluator.add`."""
    for start in range(0, len(examples), batch_size):
        chunk = examples[start : start + batch_size]
        shape = (len(chunk), detections)
        boxes, classes = _boxes(rng, shape), rng.integers(0, num_classes, shape)
        # Up to three detections around each object, the nearer the better.
        near = min(detections, 3 * len(chunk[0]["classes"]))
        true_boxes = np.stack([example["boxes"] for example in chunk])
        true_classes = np.stack([example["classes"] for example in chunk])
        boxes[:, :near] = np.tile(true_boxes, (1, 3, 1))[:, :near]
        boxes[:, :near] += rng.normal(0.0, 0.02, boxes[:, :near].shape)
        classes[:, :near] = np.tile(true_classes, (1, 3))[:, :near]
        scores = np.sort(rng.uniform(0.01, 1.0, shape).astype(np.float32), axis=1)[:, ::-1]
        fields = {"boxes": boxes, "scores": scores, "classes": classes}
        yield (
            np.array([example["source_id"] for example in chunk]),
            np.full(len(chunk), _HEIGHT),
            np.full(len(chunk), _WIDTH),
            fields | {"count": np.full(len(chunk), detections)},
        )
