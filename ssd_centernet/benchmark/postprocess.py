"""How fast raw outputs are decoded, beside the bare TensorFlow kernel where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.benchmark import measure
from ssd_centernet.benchmark.step import NUM_CLASSES
from ssd_centernet.models.detector import Detector
from ssd_centernet.recipe import Recipe

DECODER = "decode and NMS"
KERNEL = "bare combined NMS"

_OBJECTS = 7


def random_objects(
    num_classes: int, batch_size: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Place a few objects in each image: boxes float32 [B, 7, 4] and classes int32 [B, 7]."""
    rng = np.random.default_rng(seed)
    shape = (batch_size, _OBJECTS)
    extent = rng.uniform(0.15, 0.6, (*shape, 2))
    corner = rng.uniform(0.0, 1.0, (*shape, 2)) * (1.0 - extent)
    boxes = np.concatenate([corner, corner + extent], axis=-1).astype(np.float32)
    return boxes, rng.integers(0, num_classes, shape).astype(np.int32)


def run(
    recipe: Recipe, *, batch_size: int | None = None, windows: int = 5, seconds: float = 1.0
) -> list[dict[str, Any]]:
    """Measure the decoder of a recipe.

    Args:
        recipe: the settings.
        batch_size: images a call; None measures 1 and 8.
        windows: windows of the decoder and of the kernel.
        seconds: length of a window.

    Returns:
        For each batch size a line for the decoder and, where the detector has a bare kernel to
        compare with, one for that and how many times its time the decoder takes.
    """
    detector = recipe.detector(default_num_classes=NUM_CLASSES)
    sizes = [batch_size] if batch_size else [1, 8]
    return [line for size in sizes for line in _run(detector, size, windows, seconds)]


def _run(detector: Detector, batch_size: int, windows: int, seconds: float) -> list[dict[str, Any]]:
    objects = random_objects(detector.num_classes, batch_size)
    outputs = detector.realistic_outputs(*objects)
    works = {DECODER: _repeated(detector.decode, (outputs,), batch_size)}
    bare = detector.bare_decoding(outputs)
    if bare is not None:
        works[KERNEL] = _repeated(*bare, batch_size)
    rates = measure.alternate(works, windows=windows, seconds=seconds, warm_up=5)
    lines = []
    for name, values in rates.items():
        result = measure.summary(values)
        lines.append(
            {
                "part": "postprocess",
                "name": name,
                **result,
                "ms_per_image": round(1000.0 / result["images_per_second"], 3),
                "batch_size": batch_size,
                "dtype": "fp32",
                "outputs": detector.describe_outputs(),
                **measure.peak_memory(),
            }
        )
    if bare is not None:
        lines.append(
            {
                "part": "postprocess",
                "name": f"time of {DECODER} / of {KERNEL}",
                **measure.ratio(rates[KERNEL], rates[DECODER]),
                "batch_size": batch_size,
            }
        )
    return lines


def _repeated(function: Callable, arguments: tuple, images: int) -> measure.Work:
    function = tf.function(function)

    def work(units: int) -> int:
        result = None
        for _ in range(units):
            result = function(*arguments)
        if result is not None:
            tf.nest.flatten(result)[0].numpy()  # Waits for an asynchronous device.
        return units * images

    return work
