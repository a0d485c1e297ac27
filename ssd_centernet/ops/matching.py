"""Matching of ground truth to anchors, for one image or a batch."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops


def match(
    similarity: tf.Tensor,
    valid: tf.Tensor | None = None,
    *,
    matched_threshold: float = 0.5,
    unmatched_threshold: float | None = None,
    force_match: bool = True,
) -> tf.Tensor:
    """Matches every anchor to at most one ground-truth row.

    An anchor takes the row of largest similarity (the first on ties) when that is at least
    `matched_threshold`. With `force_match` every valid row also takes its best anchor (the first
    on ties) whatever the threshold says; where several rows claim one anchor, the lowest row wins.

    Args:
      similarity: float32 [..., M, A], usually IoU in [0, 1]; M may be 0.
      valid: bool [..., M]; rows of padding are False. None means all are valid.
      matched_threshold: smallest similarity of a match.
      unmatched_threshold: anchors whose best similarity is at least this but below
        `matched_threshold` are ignored; None means there is no such band.
      force_match: whether every valid row gets its best anchor.

    Returns:
      int32 [..., A]: row index, or -1 for unmatched and -2 for ignored anchors.

    Source: reference specification ssd_resnet34, section 4.
    """
    if valid is not None:
        # Below every real similarity, so that padding wins no anchor, and is argmax of none.
        similarity = tf.where(valid[..., tf.newaxis], similarity, -1.0)
    rows = tf.shape(similarity)[-2]
    # One row of padding keeps the reductions defined when an image has no ground truth at all.
    padding = [[0, 0]] * (similarity.shape.rank - 2) + [[0, 1], [0, 0]]
    padded = tf.pad(similarity, padding, constant_values=-1.0)
    best_row = tf.argmax(padded, axis=-2, output_type=tf.int32)
    best = tf.reduce_max(padded, axis=-2)
    matches = tf.where(best >= matched_threshold, best_row, -1)
    if unmatched_threshold is not None:
        ignored = (best >= unmatched_threshold) & (best < matched_threshold)
        matches = tf.where(ignored, -2, matches)
    if not force_match:
        return matches
    anchors = similarity.shape[-1] or tf.shape(similarity)[-1]
    best_anchor = tf.argmax(similarity, axis=-1, output_type=tf.int32)
    row_ids = tf.range(rows, dtype=tf.int32)
    if valid is not None:
        best_anchor = tf.where(valid, best_anchor, -1)
    claims = best_anchor[..., tf.newaxis] == tf.range(anchors, dtype=tf.int32)
    claimed_by = tf.where(claims, row_ids[:, tf.newaxis], rows)
    forced = tf.reduce_min(tf.pad(claimed_by, padding, constant_values=2**30), axis=-2)
    return tf.where(forced < rows, forced, matches)


def assign_targets(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    anchors: tf.Tensor,
    matches: tf.Tensor,
    *,
    scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns matches into class and box targets of every anchor.

    Args:
      boxes: float32 [..., M, 4], yxyx, fractions of the network's input.
      classes: int32 [..., M], in 0..C-1; background is never counted.
      anchors: float32 [A, 4], yxyx, same frame.
      matches: int32 [..., A] from `match`.
      scale_factors: of the box code.

    Returns:
      `(class_targets, box_targets)`: int32 [..., A] with 0 for background and class + 1 for
      objects; float32 [..., A, 4] box codes, exact zeros at unmatched anchors.

    Source: reference specification ssd_resnet34, section 4, step 5.
    """
    batch_dims = matches.shape.rank - 1
    positive = matches >= 0
    # A row for "no object" behind the last one: its box equals any anchor's, its class is -1.
    row_padding = [[0, 0]] * batch_dims + [[0, 1]]
    padded_boxes = tf.pad(boxes, [*row_padding, [0, 0]])
    padded_classes = tf.pad(classes, row_padding, constant_values=-1)
    rows = tf.where(positive, matches, tf.shape(boxes)[-2])
    class_targets = tf.gather(padded_classes, rows, axis=-1, batch_dims=batch_dims) + 1
    matched_boxes = tf.gather(padded_boxes, rows, axis=-2, batch_dims=batch_dims)
    matched_boxes = tf.where(positive[..., tf.newaxis], matched_boxes, anchors)
    codes = box_ops.encode(matched_boxes, anchors, scale_factors)
    return class_targets, tf.where(positive[..., tf.newaxis], codes, 0.0)
