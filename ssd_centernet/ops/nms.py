"""Non-maximum suppression over classes, exact and batched."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def per_class_top_k(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the best anchors of each class.

    Args:
      scores: float32 [B, A, C].
      k: how many anchors a class, at most A.

    Returns:
      `(scores, indices)`: float32 and int32 [B, k, C], descending, ties by lower index.

    Source: reference specification ssd_resnet34, section 13.
    """
    top_scores, top_indices = tf.math.top_k(tf.transpose(scores, [0, 2, 1]), k=k)
    return tf.transpose(top_scores, [0, 2, 1]), tf.transpose(top_indices, [0, 2, 1])


def candidate_anchors(background: tf.Tensor, score_threshold: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the anchors that can have a class above the threshold, of a few hundred in thousands.

    Class probabilities sum to 1, so none exceeds what background leaves; no candidate is missed.

    Args:
      background: float32 [B, A], probability of background.
      score_threshold: in [0, 1).

    Returns:
      `(indices, valid)`: int32 and bool [B, K] with K the largest number of candidates of an
      image, at least 1. Indices ascend; behind an image's last candidate they are 0 and not valid.
    """
    # Wider than what rounding does to a sum of probabilities.
    candidates = background < 1.0 - score_threshold + 1e-5
    counts = tf.reduce_sum(tf.cast(candidates, tf.int32), axis=1)
    images, anchors = tf.unstack(tf.cast(tf.where(candidates), tf.int32), num=2, axis=1)
    ranks = tf.range(tf.size(images)) - tf.gather(tf.cumsum(counts, exclusive=True), images)
    width = tf.maximum(tf.reduce_max(counts), 1)
    shape = tf.stack([tf.shape(background)[0], width])
    indices = tf.scatter_nd(tf.stack([images, ranks], axis=1), anchors, shape)
    return indices, tf.range(width) < counts[:, tf.newaxis]


def multiclass_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 200,
    max_per_class: int | None = 200,
    inclusive: bool = True,
) -> dict[str, tf.Tensor]:
    """Suppresses overlapping boxes of the same class and keeps the best of all classes.

    A box survives when its score is above `score_threshold`, it is among the `max_per_class` best
    of its class, and its IoU with every better survivor of its class is below `iou_threshold` (or,
    with `inclusive` off, not above it).

    Args:
      boxes: float32 [B, A, 4], yxyx, shared by all classes; A need not be static.
      scores: float32 [B, A, C], without background.
      score_threshold: scores must be strictly greater.
      iou_threshold: an IoU of at least this suppresses.
      max_detections: size D of the output.
      max_per_class: how many candidates of a class enter the suppression; None for all of them.
      inclusive: whether an IoU of exactly `iou_threshold` suppresses.

    Returns:
      Detections: `boxes` [B, D, 4], `scores` [B, D] descending, `classes` int32 [B, D], `count`
      int32 [B]; rows from `count` on are zeros.

    Source: reference specifications ssd_resnet34, section 13; ssd_vgg16, section 13.
    """
    anchors = scores.shape[1]
    # Of what a class keeps, no more than `max_detections` can be among the best of all classes.
    max_kept = max_detections if max_per_class is None else max_per_class
    if max_per_class is not None and (anchors is None or anchors > max_per_class):

        def any_class_is_over() -> tf.Tensor:
            per_class = tf.reduce_sum(tf.cast(scores > score_threshold, tf.int32), axis=1)
            return tf.reduce_any(per_class > max_per_class)

        # Rarely a class has more candidates than may enter; only then pay for the ranking.
        scores = tf.cond(
            tf.cond(tf.shape(scores)[1] > max_per_class, any_class_is_over, lambda: False),
            lambda: _keep_top_k(scores, max_per_class),
            lambda: scores,
        )
    threshold = iou_threshold
    if inclusive:  # The kernel suppresses where IoU > threshold.
        threshold = float(np.nextafter(np.float32(iou_threshold), np.float32(0.0)))
    nmsed = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis, :],
        scores,
        max_output_size_per_class=max_kept,
        max_total_size=max_detections,
        iou_threshold=threshold,
        score_threshold=score_threshold,
        clip_boxes=False,
    )
    return {
        "boxes": nmsed.nmsed_boxes,
        "scores": nmsed.nmsed_scores,
        "classes": tf.cast(nmsed.nmsed_classes, tf.int32),
        "count": nmsed.valid_detections,
    }


def _keep_top_k(scores: tf.Tensor, k: int) -> tf.Tensor:
    """Zeroes all but the k best anchors of each class; ties by lower index."""
    transposed = tf.transpose(scores, [0, 2, 1])
    smallest = tf.math.top_k(transposed, k=k).values[..., -1:]
    above = transposed > smallest
    ties = transposed == smallest
    room = k - tf.reduce_sum(tf.cast(above, tf.int32), axis=-1, keepdims=True)
    kept = above | (ties & (tf.cumsum(tf.cast(ties, tf.int32), axis=-1) <= room))
    return tf.transpose(tf.where(kept, transposed, 0.0), [0, 2, 1])
