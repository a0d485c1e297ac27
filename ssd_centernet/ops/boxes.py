"""Boxes as `[ymin, xmin, ymax, xmax]` float32 tensors; other layouts are named.

The caller chooses the frame (fractions of an image, or pixels); all boxes of one call must share
it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def _columns(boxes):
    """Split [..., 4] into four [...]; NumPy arrays stay constants of the graph, split once."""
    if isinstance(boxes, np.ndarray):
        return [np.ascontiguousarray(boxes[..., column]) for column in range(4)]
    return tf.unstack(boxes, num=4, axis=-1)


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Compute box areas.

    Args:
        boxes: float [..., 4], yxyx.

    Returns:
        float [...], in squared units of the boxes' frame. For inverted boxes the sign has no
        meaning: validate them before.
    """
    ymin, xmin, ymax, xmax = _columns(boxes)
    return (ymax - ymin) * (xmax - xmin)


def _pairwise_intersection(boxes1: tf.Tensor, boxes2: tf.Tensor) -> tf.Tensor:
    # Columns [..., M, 1] against [..., 1, N]: four planes of M x N, never a tensor of M x N x 4.
    ymin1, xmin1, ymax1, xmax1 = tf.split(boxes1, 4, axis=-1)
    ymin2, xmin2, ymax2, xmax2 = _columns(boxes2[..., tf.newaxis, :, :])
    height = tf.nn.relu(tf.minimum(ymax1, ymax2) - tf.maximum(ymin1, ymin2))
    width = tf.nn.relu(tf.minimum(xmax1, xmax2) - tf.maximum(xmin1, xmin2))
    return height * width


def iou(boxes1: tf.Tensor, boxes2: tf.Tensor) -> tf.Tensor:
    """Compute the intersection over union of all pairs.

    Args:
        boxes1: float32 [..., M, 4], yxyx.
        boxes2: float32 [..., N, 4], yxyx, same frame; leading dimensions broadcast. Give anchors as
            a NumPy array: their columns are then constants.

    Returns:
        float32 [..., M, N] in [0, 1]; exactly 0 for pairs that do not intersect, including boxes
        without area.

    Source: docs/reference/ssd_resnet34.md, section 4, step 1
    """
    intersection = _pairwise_intersection(boxes1, boxes2)
    union = area(boxes1)[..., :, tf.newaxis] + area(boxes2)[..., tf.newaxis, :] - intersection
    # Two boxes without area give 0 / 0.
    return tf.math.divide_no_nan(intersection, union)


def half_inside(boxes: tf.Tensor, regions: tf.Tensor) -> tf.Tensor:
    """Tell which boxes have at least half of their area inside which region.

    Args:
        boxes: float32 [..., M, 4], yxyx.
        regions: float32 [..., N, 4], yxyx, same frame.

    Returns:
        bool [..., M, N]; False for boxes without area.
    """
    box_area = area(boxes)[..., :, tf.newaxis]
    # Half of a number is exact. A quotient would be made a product with a rounded reciprocal where
    # the boxes are constants, and exactly a half could then be less.
    return (box_area > 0.0) & (_pairwise_intersection(boxes, regions) >= 0.5 * box_area)


def to_center_size(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Split boxes into centres and sizes.

    Args:
        boxes: float [..., 4], yxyx.

    Returns:
        `(ycenter, xcenter, height, width)`, each float [...].
    """
    ymin, xmin, ymax, xmax = tf.unstack(boxes, num=4, axis=-1)
    height, width = ymax - ymin, xmax - xmin
    return ymin + height / 2.0, xmin + width / 2.0, height, width


def from_center_size(
    ycenter: tf.Tensor, xcenter: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Join centres and sizes, each float [...], into yxyx boxes, float [..., 4]."""
    half_height, half_width = height / 2.0, width / 2.0
    return tf.stack(
        [ycenter - half_height, xcenter - half_width, ycenter + half_height, xcenter + half_width],
        axis=-1,
    )


def clip(boxes: tf.Tensor, window: tf.Tensor | tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)):
    """Clip yxyx boxes, float [..., 4], to a yxyx window, float [4] (the unit square)."""
    window = tf.convert_to_tensor(window, boxes.dtype)
    low = tf.concat([window[:2], window[:2]], axis=0)
    high = tf.concat([window[2:], window[2:]], axis=0)
    return tf.clip_by_value(boxes, low, high)


def flip_left_right(boxes: tf.Tensor) -> tf.Tensor:
    """Mirror yxyx boxes, float [..., 4], fractions of the image, about the vertical axis."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, num=4, axis=-1)
    return tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=-1)


def encode(
    boxes: tf.Tensor,
    anchors: tf.Tensor,
    scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    epsilon: float = 1e-8,
) -> tf.Tensor:
    """Encode boxes as offsets from anchors.

    Args:
        boxes: float32 [..., A, 4], yxyx.
        anchors: float32 [A, 4], yxyx, same frame.
        scale_factors: factors of (ty, tx, th, tw); the reciprocals of the "variances" 0.1, 0.1,
            0.2, 0.2.
        epsilon: added to all four sizes, so that boxes without area stay finite.

    Returns:
        float32 [..., A, 4]: (ty, tx, th, tw).

    Source: docs/reference/ssd_resnet34.md, section 3
    """
    ycenter, xcenter, height, width = to_center_size(boxes)
    anchor_y, anchor_x, anchor_height, anchor_width = to_center_size(anchors)
    # On both sides, as published: a box that equals its anchor still gives exact zeros.
    height, width = height + epsilon, width + epsilon
    anchor_height, anchor_width = anchor_height + epsilon, anchor_width + epsilon
    factor_y, factor_x, factor_h, factor_w = scale_factors
    return tf.stack(
        [
            factor_y * (ycenter - anchor_y) / anchor_height,
            factor_x * (xcenter - anchor_x) / anchor_width,
            factor_h * tf.math.log(height / anchor_height),
            factor_w * tf.math.log(width / anchor_width),
        ],
        axis=-1,
    )


def decode(
    codes: tf.Tensor,
    anchors: tf.Tensor,
    scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    max_log_size: float | None = None,
) -> tf.Tensor:
    """Decode offsets from anchors into boxes; the inverse of `encode` without its epsilon.

    Args:
        codes: float32 [..., A, 4]: (ty, tx, th, tw).
        anchors: float32 [A, 4] or [..., A, 4], yxyx.
        scale_factors: as in `encode`.
        max_log_size: bound on |ln(size / anchor size)|, so that sizes stay finite; None for no
            bound.

    Returns:
        float32 [..., A, 4], yxyx, in the anchors' frame, not clipped.

    Source:
        docs/reference/ssd_resnet34.md, section 3
        docs/reference/ssd_vgg16.md, section 7
    """
    ty, tx, th, tw = tf.unstack(codes, num=4, axis=-1)
    anchor_y, anchor_x, anchor_height, anchor_width = to_center_size(anchors)
    factor_y, factor_x, factor_h, factor_w = scale_factors
    log_height, log_width = th / factor_h, tw / factor_w
    if max_log_size is not None:
        # On both sides, as in the original; others bound only the upper one.
        log_height = tf.clip_by_value(log_height, -max_log_size, max_log_size)
        log_width = tf.clip_by_value(log_width, -max_log_size, max_log_size)
    return from_center_size(
        ty / factor_y * anchor_height + anchor_y,
        tx / factor_x * anchor_width + anchor_x,
        tf.exp(log_height) * anchor_height,
        tf.exp(log_width) * anchor_width,
    )
