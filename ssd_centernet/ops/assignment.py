"""Which anchors learn which object: assignments that look at more than one overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops

# Larger than any row number: the minimum over rows if there are none.
_NO_ROW = 2.0**31


def adaptive(
    boxes: tf.Tensor,
    valid: tf.Tensor,
    anchors: np.ndarray,
    levels: Sequence[tuple[int, int]],
    *,
    cells: int = 9,
) -> tf.Tensor:
    """Assign anchors by a threshold that each object's own candidates set (ATSS).

    The candidates of an object are the anchors of the `cells` cells of each level whose centres are
    nearest. Those are its own whose centre lies inside it and whose IoU is at least the mean plus
    the standard deviation of the IoUs of all its candidates. An object that none passes takes the
    candidate of largest IoU, which the paper leaves without one. An anchor of several objects
    belongs to the one of largest IoU, the first on ties.

    Args:
        boxes: float32 [..., M, 4], yxyx, pixels of the network's input.
        valid: bool [..., M], which rows are objects.
        anchors: float32 [A, 4], yxyx, same frame.
        levels: for each level the number of its anchors, and how many of them share a cell.
        cells: candidates of an object on each level, in cells, at least 1.

    Returns:
        int32 [..., A]: the row of each anchor's object, -1 without one.

    Raises:
        ValueError: the levels do not have as many anchors as there are.

    Source: Bridging the Gap Between Anchor-based and Anchor-free Detection (arXiv:1912.02424)
    """
    counts = [count for count, _ in levels]
    if sum(counts) != anchors.shape[0]:
        raise ValueError(f"levels of {counts} anchors, but there are {anchors.shape[0]} anchors.")
    overlaps = box_ops.iou(boxes, anchors)
    distances = _squared_distances(boxes, anchors)
    candidates, nearest = [], []
    for part, (count, per_cell) in zip(tf.split(distances, counts, -1), levels, strict=True):
        # Ties go to the first anchor, as in `match`.
        picked, numbers = _top(-part, min(cells * per_cell, count))
        nearest.append(numbers + float(sum(counts[: len(nearest)])))
        candidates.append(picked)
    candidates, numbers = tf.concat(candidates, axis=-1), tf.concat(nearest, axis=-1)
    places = tf.cast(numbers, tf.int32)
    of_candidates = tf.gather(overlaps, places, batch_dims=places.shape.rank - 1)
    count = max(int(places.shape[-1]) - 1, 1)
    mean = tf.reduce_mean(of_candidates, axis=-1, keepdims=True)
    # Of a sample, as the authors' code has it.
    deviation = tf.sqrt(tf.reduce_sum((of_candidates - mean) ** 2, -1, keepdims=True) / count)
    passed = candidates & _holds_center(boxes, anchors) & (overlaps >= mean + deviation)
    best = tf.argmax(of_candidates, axis=-1)[..., tf.newaxis]
    best = tf.gather(numbers, best, batch_dims=places.shape.rank - 1) == _numbers_of(overlaps)
    passed |= best & ~tf.reduce_any(passed, axis=-1, keepdims=True)
    passed &= valid[..., tf.newaxis]
    return tf.cast(_own(passed, overlaps), tf.int32)


def task_aligned(
    scores: tf.Tensor,
    overlaps: tf.Tensor,
    candidates: tf.Tensor,
    *,
    top: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    anchor_overlaps: tf.Tensor | None = None,
    anchor_share: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Assign anchors by what the network says of them: score^alpha times IoU^beta (TAL).

    Each object takes the `top` candidates where this is largest and above 0. An anchor of several
    objects belongs to the one of largest IoU, the first on ties. With `anchor_overlaps` the IoU is
    a mean of that of the predicted box and that of the anchor itself, much as in Dynamic Label
    Assignment for Object Detection by Combining Predicted IoUs and Anchor IoUs (arXiv:2201.09396).

    Args:
        scores: float32 [..., M, A], the score of each object's class at each anchor, in [0, 1].
        overlaps: float32 [..., M, A], IoU of each object with the box that each anchor predicts.
        candidates: bool [..., M, A], which anchors an object may take.
        top: anchors an object takes at most, at least 1.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        anchor_overlaps: float32 [..., M, A], IoU of each object with each anchor; None counts the
            predicted boxes alone.
        anchor_share: weight of `anchor_overlaps` in the mean, in [0, 1].

    Returns:
        `(matches, quality)`, constants for the gradient: int32 [..., A], the row of each anchor's
        object, -1 without one; float32 [..., A] in [0, 1], the measure of each matched anchor,
        scaled so that the largest of an object is its largest IoU with a predicted box, 0 without
        an object.

    Source: TOOD: Task-aligned One-stage Object Detection (arXiv:2108.07755), section 3.3
    """
    fits = overlaps
    if anchor_overlaps is not None:
        fits = (1.0 - anchor_share) * overlaps + anchor_share * anchor_overlaps
    measure = tf.pow(scores, alpha) * tf.pow(fits, beta)
    measure = tf.stop_gradient(tf.where(candidates, measure, 0.0))
    matches = _own(_largest(measure, top), fits)
    owned = matches[..., tf.newaxis, :] == _rows_of(measure)
    measure = tf.where(owned, measure, 0.0)
    overlaps = tf.where(owned, tf.stop_gradient(overlaps), 0.0)
    most = tf.reduce_max(measure, axis=-1, keepdims=True)
    scaled = tf.math.divide_no_nan(measure, most) * tf.reduce_max(overlaps, -1, keepdims=True)
    # At most one row of an anchor is not 0.
    return tf.cast(matches, tf.int32), tf.reduce_sum(scaled, axis=-2)


def centers_inside(boxes: tf.Tensor, anchors: np.ndarray) -> tf.Tensor:
    """Tell which anchors have their centre inside which box; a box without any gets the nearest.

    Args:
        boxes: float32 [..., M, 4], yxyx, pixels of the network's input.
        anchors: float32 [A, 4], yxyx, same frame.

    Returns:
        bool [..., M, A].
    """
    inside = _holds_center(boxes, anchors)
    distances = _squared_distances(boxes, anchors)
    nearest = distances == tf.reduce_min(distances, axis=-1, keepdims=True)
    return tf.where(tf.reduce_any(inside, axis=-1, keepdims=True), inside, nearest)


def _holds_center(boxes: tf.Tensor, anchors: np.ndarray) -> tf.Tensor:
    """Tell whose centre lies inside the box and not on its border, bool [..., M, A]."""
    y, x = _centers(anchors)
    ymin, xmin, ymax, xmax = tf.split(boxes, 4, axis=-1)
    return (y > ymin) & (y < ymax) & (x > xmin) & (x < xmax)


def _squared_distances(boxes: tf.Tensor, anchors: np.ndarray) -> tf.Tensor:
    """Return the squared distances of centres, [..., M, A]."""
    y, x = _centers(anchors)
    ymin, xmin, ymax, xmax = tf.split(boxes, 4, axis=-1)
    return (0.5 * (ymin + ymax) - y) ** 2 + (0.5 * (xmin + xmax) - x) ** 2


def _centers(anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.5 * (anchors[:, 0] + anchors[:, 2]), 0.5 * (anchors[:, 1] + anchors[:, 3])


def _largest(values: tf.Tensor, count: int) -> tf.Tensor:
    """Tell which are the largest above 0 of each row of [..., A], the first ones on ties.

    Returns:
        bool [..., A]; `count` of a row at most.
    """
    return _top(values, min(count, values.shape[-1]))[0] & (values > 0.0)


def _top(values: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Pick the largest of each row of [..., A], the first ones on ties.

    Numbers of anchors are compared as float32, in which they are exact: GPUs compute those of int32
    in the memory of the host, where a scatter of picks would end too.

    Returns:
        bool [..., A], which they are; float32 [..., count], their numbers, the largest first.
    """
    found = tf.math.top_k(values, count)
    numbers = tf.cast(found.indices, tf.float32)
    least, last = found.values[..., -1:], numbers[..., -1:]
    return (values > least) | ((values == least) & (_numbers_of(values) <= last)), numbers


def _numbers_of(values: tf.Tensor) -> tf.Tensor:
    """Return the numbers of the columns of [..., A], float32 [A]."""
    return tf.constant(np.arange(values.shape[-1], dtype=np.float32))


def _rows_of(values: tf.Tensor) -> tf.Tensor:
    """Return the numbers of the rows of [..., M, A], float32 [M, 1]."""
    return tf.range(tf.cast(tf.shape(values)[-2], tf.float32))[:, tf.newaxis]


def _own(taken: tf.Tensor, overlaps: tf.Tensor) -> tf.Tensor:
    """Give each anchor one of the objects that took it; -1 without one.

    Returns:
        float32 [..., A], whole numbers.
    """
    overlaps = tf.where(taken, overlaps, -1.0)
    # No argmax, which fails without a row.
    is_best = overlaps == tf.reduce_max(overlaps, axis=-2, keepdims=True)
    first = tf.reduce_min(tf.where(is_best, _rows_of(taken), _NO_ROW), axis=-2)
    return tf.where(tf.reduce_any(taken, axis=-2), first, -1.0)
