"""Box voting: what a suppression keeps moves to the mean of the boxes around it.

Source:
    Object detection via a multi-region & semantic segmentation-aware CNN model (arXiv:1505.01749)
"""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops

# Numbers of detections for which there are graphs: most images have few, of rows for some hundred.
_FEW = (16, 64)


def vote(
    found: dict[str, tf.Tensor],
    boxes: tf.Tensor,
    scores: tf.Tensor,
    *,
    score_threshold: float | tf.Tensor,
    vote_iou: float,
    branches: bool = True,
) -> dict[str, tf.Tensor]:
    """Move each detection to the mean of the boxes that overlap it, weighted by their scores.

    Neighbours that find one object miss its sides by different amounts, and their mean misses them
    by less than the box of highest score does. Scores, classes and order stay.

    Args:
        found: Detections, `boxes` [B, D, 4] among those of `boxes`.
        boxes: float32 [B, K, 4], yxyx, the candidates of the suppression, same frame.
        scores: float32 [B, K, C], of each class, without background.
        score_threshold: a candidate votes for a class where its score is strictly greater.
        vote_iou: least IoU of a candidate that votes with the detection, in (0, 1].
        branches: whether the graph has branches for few detections; it changes only the speed.

    Returns:
        `found` with other `boxes`; rows from `count` on are zeros as before.
    """
    by_class = tf.transpose(scores, [0, 2, 1])

    def moved(rows: int) -> tf.Tensor:
        first, rest = tf.split(found["boxes"], [rows, -1], axis=1)
        of_class = tf.gather(by_class, found["classes"][:, :rows], batch_dims=1)
        return tf.concat([_moved(first, boxes, of_class, score_threshold, vote_iou), rest], axis=1)

    most = found["boxes"].shape[1]
    sizes = [n for n in _FEW if n < most] if branches else []
    used = tf.reduce_max(found["count"])
    return {**found, "boxes": _with_enough_rows(used, [*sizes, most], moved)}


def vote_of_pairs(
    found: dict[str, tf.Tensor],
    boxes: tf.Tensor,
    scores: tf.Tensor,
    classes: tf.Tensor,
    *,
    score_threshold: float | tf.Tensor,
    vote_iou: float,
) -> dict[str, tf.Tensor]:
    """Do the same where the candidates are pairs of a box and a class.

    Args:
        found: as in `vote`.
        boxes: float32 [B, K, 4], yxyx.
        scores: float32 [B, K].
        classes: int32 [B, K].
        score_threshold: as in `vote`.
        vote_iou: as in `vote`.

    Returns:
        As `vote`.
    """
    same = found["classes"][:, :, tf.newaxis] == classes[:, tf.newaxis]
    of_class = tf.where(same, scores[:, tf.newaxis], 0.0)
    return {
        **found,
        "boxes": _moved(found["boxes"], boxes, of_class, score_threshold, vote_iou),
    }


def _moved(own, boxes, of_class, score_threshold, vote_iou) -> tf.Tensor:
    """Move boxes [B, D, 4] by the scores [B, D, K] that candidates have for their classes."""
    votes = (of_class > score_threshold) & (box_ops.iou(own, boxes) >= vote_iou)
    weights = tf.where(votes, of_class, 0.0)
    total = tf.reduce_sum(weights, axis=-1, keepdims=True)
    # No matrix product: a GPU would round its factors to the 11 bits of TF32, a quarter of a pixel.
    summed = tf.reduce_sum(weights[..., tf.newaxis] * boxes[:, tf.newaxis], axis=2)
    mean = tf.math.divide_no_nan(summed, total)
    # A box without area overlaps nothing, not even itself.
    return tf.where(total > 0.0, mean, own)


def _with_enough_rows(used: tf.Tensor, sizes: list[int], moved) -> tf.Tensor:
    """Call `moved` with the first size that holds the rows: a branch of static shape for each."""
    if len(sizes) == 1:
        return moved(sizes[0])
    return tf.cond(
        used <= sizes[0],
        lambda: moved(sizes[0]),
        lambda: _with_enough_rows(used, sizes[1:], moved),
    )
