"""How long a trained or untrained detector takes from a normalised batch to detections."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_centernet.benchmark import measure
from ssd_centernet.benchmark.step import NUM_CLASSES
from ssd_centernet.data.fake import random_batch
from ssd_centernet.evaluation.detector import detection_step
from ssd_centernet.models.detector import Detector
from ssd_centernet.recipe import Recipe
from ssd_centernet.runtime.precision import precision_name

PERCENTILES = (90, 95, 99)


def latencies(
    detector: Detector, *, batch_size: int, iterations: int, warm_up: int, seed: int = 0
) -> list[float]:
    """Measure one batch after the other, each until its detections are on the host.

    Args:
        detector: what detects.
        batch_size: images per batch.
        iterations: batches that are measured.
        warm_up: batches before them.
        seed: of the noise that the images are.

    Returns:
        Seconds of each batch.
    """
    batch = random_batch(
        detector.image_size, [0] * batch_size, num_classes=detector.num_classes, seed=seed
    )
    step = detection_step(detector)
    seconds = []
    for _ in range(warm_up + iterations):
        begin = time.perf_counter()
        detections, _parts = step(batch)
        for value in detections.values():
            value.numpy()
        seconds.append(time.perf_counter() - begin)
    return seconds[warm_up:]


def summary(seconds: Sequence[float], batch_size: int) -> dict[str, Any]:
    """Summarise latencies.

    Args:
        seconds: of each batch, at least one.
        batch_size: images in a batch.

    Returns:
        `images_per_second`, the mean of the rates of the batches; `latency_ms`, the mean; and
        `latency_ms_p90`, `_p95` and `_p99`.

    Source: docs/reference/ssd320_resnet50_fpn.md, section 12.3
    """
    times = np.asarray(seconds)
    result = {
        "images_per_second": round(float(np.mean(batch_size / times)), 3),
        "latency_ms": round(float(times.mean()) * 1e3, 3),
    }
    for percentile in PERCENTILES:
        value = float(np.percentile(times, percentile)) * 1e3
        result[f"latency_ms_p{percentile}"] = round(value, 3)
    return result


def run(
    recipe: Recipe, *, batch_size: int | None = None, iterations: int = 300, warm_up: int = 100
) -> list[dict[str, Any]]:
    """Measure the detector of a recipe with random weights.

    Args:
        recipe: the settings.
        batch_size: images per batch, 1 by default.
        iterations: batches that are measured.
        warm_up: batches before them, which are not.

    Returns:
        One line.
    """
    batch_size = batch_size or 1
    detector = recipe.detector(default_num_classes=NUM_CLASSES)
    seconds = latencies(detector, batch_size=batch_size, iterations=iterations, warm_up=warm_up)
    return [
        {
            "part": "inference",
            "name": "network, decoding and NMS",
            **summary(seconds, batch_size),
            "batch_size": batch_size,
            "iterations": iterations,
            "dtype": precision_name(detector.dtype_policy.name),
            "image_size": list(detector.image_size),
            **measure.peak_memory(),
        }
    ]
