"""Losses of boxes by their overlap: IoU and its generalisations, pair by pair."""

from __future__ import annotations

import math

import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops

KINDS = ("iou", "giou", "diou", "ciou")


def overlap_loss(boxes: tf.Tensor, targets: tf.Tensor, kind: str = "giou") -> tf.Tensor:
    """Compute 1 - IoU of pairs of boxes, and what the kind adds for pairs that do not overlap.

    With C the smallest box around both: `giou` adds the share of C that neither covers, `diou` the
    squared distance of the centres over the squared diagonal of C, and `ciou` beside that
    `v^2 / (1 - IoU + v)` with `v = 4 / pi^2 (atan(w_t / h_t) - atan(w / h))^2`, whose factor
    `v / (1 - IoU + v)` is a constant for the gradient.

    Args:
        boxes: float32 [..., 4], yxyx, in any frame in which both axes have one unit.
        targets: float32 [..., 4], yxyx, same frame.
        kind: "iou", "giou", "diou" or "ciou".

    Returns:
        float32 [...]: `iou` in [0, 1], `giou` and `diou` in [0, 2], `ciou` in [0, 3). Two boxes
        without area at one point have IoU 0.

    Raises:
        ValueError: no such kind.

    Source:
        Generalized Intersection over Union (arXiv:1902.09630)
        Distance-IoU Loss (arXiv:1911.08287)
    """
    check_kind(kind)
    ymin, xmin, ymax, xmax = tf.unstack(boxes, num=4, axis=-1)
    other_ymin, other_xmin, other_ymax, other_xmax = tf.unstack(targets, num=4, axis=-1)
    height = tf.nn.relu(tf.minimum(ymax, other_ymax) - tf.maximum(ymin, other_ymin))
    width = tf.nn.relu(tf.minimum(xmax, other_xmax) - tf.maximum(xmin, other_xmin))
    intersection = height * width
    union = box_ops.area(boxes) + box_ops.area(targets) - intersection
    loss = 1.0 - tf.math.divide_no_nan(intersection, union)
    if kind == "iou":
        return loss
    around_height = tf.maximum(ymax, other_ymax) - tf.minimum(ymin, other_ymin)
    around_width = tf.maximum(xmax, other_xmax) - tf.minimum(xmin, other_xmin)
    if kind == "giou":
        around = around_height * around_width
        return loss + tf.math.divide_no_nan(around - union, around)
    ycenter, xcenter, height, width = box_ops.to_center_size(boxes)
    other_y, other_x, other_height, other_width = box_ops.to_center_size(targets)
    distance = tf.square(ycenter - other_y) + tf.square(xcenter - other_x)
    diagonal = tf.square(around_height) + tf.square(around_width)
    result = loss + tf.math.divide_no_nan(distance, diagonal)
    if kind == "diou":
        return result
    turn = tf.atan2(other_width, other_height) - _angle(width, height)
    shape = 4.0 / math.pi**2 * tf.square(turn)
    share = tf.stop_gradient(tf.math.divide_no_nan(shape, loss + shape))
    return result + share * shape


def check_kind(kind: str) -> None:
    """Refuse a kind that there is not.

    Raises:
        ValueError: names it and those there are.
    """
    if kind not in KINDS:
        raise ValueError(f"the overlap loss must be one of {KINDS}, got {kind!r}.")


def _angle(width: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    """Return atan(w / h); where both are 0 the gradient is 0 and not NaN."""
    empty = (width == 0.0) & (height == 0.0)
    safe = tf.where(empty, 1.0, height)
    return tf.where(empty, 0.0, tf.atan2(width, safe))
