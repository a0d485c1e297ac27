"""Suppression as one operation that other runtimes know: ONNX's NonMaxSuppression."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import nms

_ONE_OPERATION = contextvars.ContextVar("one_operation", default=False)


@contextlib.contextmanager
def one_operation() -> Iterator[None]:
    """Let `suppress` use one operation while graphs are traced, instead of products in a loop."""
    token = _ONE_OPERATION.set(True)
    try:
        yield
    finally:
        _ONE_OPERATION.reset(token)


def suppress(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    classes: tf.Tensor,
    *,
    num_classes: int,
    score_threshold: float | tf.Tensor,
    iou_threshold: float | tf.Tensor,
    max_detections: int,
    max_entering: int | None = None,
    max_kept: int | None = None,
    clip_after: bool = False,
) -> dict[str, tf.Tensor]:
    """Suppress pairs of a box and a class, with operations of TFLite and ONNX.

    Args:
        boxes: float32 [B, K, 4], yxyx, best first.
        scores: float32 [B, K], descending.
        classes: int32 [B, K], 0..C-1; boxes of different classes do not affect each other.
        num_classes: C.
        score_threshold: scores must be strictly greater.
        iou_threshold: an IoU above it suppresses.
        max_detections: D.
        max_entering: number of best boxes of a class that take part; None for all.
        max_kept: largest number of boxes of a class that survive; None for all.
        clip_after: whether boxes are clipped to 0..1 after the suppression. Those without area
            there suppress, and count for their class, and are left out.

    Returns:
        Detections: `boxes` [B, D, 4], `scores` [B, D] descending, `classes` int32 [B, D], `count`
        int32 [B]; rows from `count` on are zeros.
    """
    limits = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    limits |= {"max_detections": max_detections, "max_kept": max_kept}
    if _ONE_OPERATION.get():
        if max_entering is not None and max_entering < boxes.shape[1]:
            scores = _only_first(scores, tf.one_hot(classes, num_classes), max_entering)
        form = _clipped_after if clip_after else _combined
        return form(boxes, scores, tf.one_hot(classes, num_classes), **limits)
    given = box_ops.clip(boxes) if clip_after else boxes
    positions, count = nms.fixed_shape_nms(
        boxes,
        scores,
        classes,
        max_entering=max_entering,
        counted=box_ops.area(given) > 0.0 if clip_after else None,
        **limits,
    )
    return nms.gather_detections(given, scores, classes, positions, count)


def _only_first(scores: tf.Tensor, own: tf.Tensor, number: int) -> tf.Tensor:
    """Return scores [B, K] with zeros for all but the first of each class; own is [B, K, C]."""
    places = tf.reduce_sum(tf.cumsum(own, axis=1, exclusive=True) * own, axis=-1)
    return tf.where(places < float(number), scores, 0.0)


def _combined(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    own: tf.Tensor,
    *,
    max_detections: int,
    max_kept: int | None,
    score_threshold: float | tf.Tensor,
    iou_threshold: float | tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Suppress by TensorFlow's combined operation, which export/onnx_nms.py writes as ONNX's."""
    # ONNX's ranking cannot give more rows than there are pairs.
    more = max(0, max_detections - boxes.shape[1])
    boxes, scores, own = (
        tf.pad(value, [[0, 0], [0, more], *[[0, 0]] * (len(value.shape) - 2)])
        for value in (boxes, scores, own)
    )
    found = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis, :],
        # Each pair with its score for its class, and zeros for the others: [B, K, C].
        own * scores[..., tf.newaxis],
        max_output_size_per_class=boxes.shape[1] if max_kept is None else max_kept,
        max_total_size=max_detections,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        clip_boxes=False,
    )
    return {
        "boxes": found.nmsed_boxes,
        "scores": found.nmsed_scores,
        "classes": tf.cast(found.nmsed_classes, tf.int32),
        "count": found.valid_detections,
    }


def _clipped_after(
    boxes: tf.Tensor, scores: tf.Tensor, own: tf.Tensor, *, max_detections: int, **limits
) -> dict[str, tf.Tensor]:
    """Suppress whole boxes, then clip what is left and leave out what lies outside."""
    # Those outside are among the survivors, so all survivors are asked for.
    size = max(boxes.shape[1], max_detections)
    found = _combined(boxes, scores, own, max_detections=size, **limits)
    clipped = box_ops.clip(found["boxes"])
    inside = tf.where(box_ops.area(clipped) > 0.0, found["scores"], 0.0)
    best, positions = tf.math.top_k(inside, max_detections)
    count = tf.reduce_sum(tf.cast(best > 0.0, tf.int32), axis=1)
    return nms.gather_detections(clipped, found["scores"], found["classes"], positions, count)
