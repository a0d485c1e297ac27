"""How fast decoding with non-maximum suppression is, beside the bare TensorFlow kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.benchmark import measure
from ssd_centernet.benchmark.step import NUM_CLASSES
from ssd_centernet.models.ssd import SSD
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.recipe import Recipe

DECODER = "decode and NMS"
KERNEL = "bare combined NMS"

# What a trained SSD300 leaves of an image of COCO at the threshold 0.05.
_CANDIDATES = 195
_OBJECTS = 7
_BACKGROUND = 10.0


def realistic_outputs(
    anchors: np.ndarray,
    num_classes: int,
    batch_size: int,
    *,
    candidates: int = _CANDIDATES,
    seed: int = 0,
) -> dict[str, tf.Tensor]:
    """Make raw outputs like those of a trained detector.

    Args:
        anchors: float32 [A, 4], yxyx.
        num_classes: C.
        batch_size: B.
        candidates: anchors of each image with a class that scores above 0.05; they lie around a
            few objects. All others are background.
        seed: of everything random.

    Returns:
        `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4].
    """
    rng = np.random.default_rng(seed)
    shape = (batch_size, len(anchors))
    logits = rng.standard_normal((*shape, num_classes + 1)).astype(np.float32)
    logits[..., 0] += _BACKGROUND
    codes = rng.normal(0.0, 0.3, (*shape, 4)).astype(np.float32)
    candidates = min(candidates, len(anchors))
    for image in range(batch_size):
        extent = rng.uniform(0.15, 0.6, (_OBJECTS, 2))
        corner = rng.uniform(0.0, 1.0, (_OBJECTS, 2)) * (1.0 - extent)
        objects = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
        overlaps = box_ops.iou(tf.constant(objects), tf.constant(anchors)).numpy()
        nearest = np.argsort(-overlaps.max(axis=0), kind="stable")[:candidates]
        owner = overlaps[:, nearest].argmax(axis=0)
        classes = 1 + rng.integers(0, num_classes, _OBJECTS)[owner]
        # e^-2.5 / (1 + e^-2.5) is 0.076: each of them is a candidate.
        logits[image, nearest, classes] = logits[image, nearest, 0] + rng.uniform(
            -2.5, 4.0, candidates
        )
        near = box_ops.encode(tf.constant(objects[owner]), tf.constant(anchors[nearest]))
        codes[image, nearest] += near.numpy()
    return {"class_logits": tf.constant(logits), "box_codes": tf.constant(codes)}


def decoding(detector: SSD, outputs: dict[str, tf.Tensor]) -> measure.Work:
    """Return the work of decoding raw outputs to detections."""
    return _repeated(tf.function(detector.decode), (outputs,), outputs["box_codes"].shape[0])


def bare_nms(detector: SSD, outputs: dict[str, tf.Tensor]) -> measure.Work:
    """Return the work of TensorFlow's kernel alone, on boxes and scores that are ready."""
    decoder = detector.decoder
    boxes = box_ops.decode(outputs["box_codes"], detector.anchor_boxes, decoder.scale_factors)
    scores = tf.nn.softmax(outputs["class_logits"])[..., 1:]

    @tf.function
    def suppress(boxes: tf.Tensor, scores: tf.Tensor):
        return tf.image.combined_non_max_suppression(
            boxes[:, :, tf.newaxis],
            scores,
            max_output_size_per_class=decoder.max_per_class,
            max_total_size=decoder.max_detections,
            iou_threshold=decoder.iou_threshold,
            score_threshold=decoder.score_threshold,
            clip_boxes=False,
        )

    return _repeated(suppress, (boxes, scores), boxes.shape[0])


def run(
    recipe: Recipe, *, batch_size: int | None = None, windows: int = 5, seconds: float = 1.0
) -> list[dict[str, Any]]:
    """Measure the decoder of a recipe, an SSD.

    Args:
        recipe: the settings.
        batch_size: images a call; None measures 1 and 8.
        windows: windows of the decoder and of the kernel.
        seconds: length of a window.

    Returns:
        For each batch size a line for either, and how many times the kernel's time the decoder
        takes.

    Raises:
        ValueError: the recipe's detector is no SSD.
    """
    detector = recipe.detector(default_num_classes=NUM_CLASSES)
    if not isinstance(detector, SSD):
        raise ValueError(
            f"the recipe builds a {type(detector).__name__}; this part compares the decoder of an "
            "SSD. Choose such a recipe (--gin_file), or another --part."
        )
    sizes = [batch_size] if batch_size else [1, 8]
    return [line for size in sizes for line in _run(detector, size, windows, seconds)]


def _run(detector: SSD, batch_size: int, windows: int, seconds: float) -> list[dict[str, Any]]:
    anchors = detector.anchor_boxes.numpy()
    outputs = realistic_outputs(anchors, detector.num_classes, batch_size)
    works = {DECODER: decoding(detector, outputs), KERNEL: bare_nms(detector, outputs)}
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
                "anchors": len(anchors),
                **measure.peak_memory(),
            }
        )
    lines.append(
        {
            "part": "postprocess",
            "name": f"time of {DECODER} / time of {KERNEL}",
            **measure.ratio(rates[KERNEL], rates[DECODER]),
            "batch_size": batch_size,
        }
    )
    return lines


def _repeated(function: Callable, arguments: tuple, images: int) -> measure.Work:
    def work(units: int) -> int:
        result = None
        for _ in range(units):
            result = function(*arguments)
        if result is not None:
            tf.nest.flatten(result)[0].numpy()  # Waits for an asynchronous device.
        return units * images

    return work
