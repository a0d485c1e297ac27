"""Matching of ground truth to anchors, for one image or a batch."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.native import calls, library
from ssd_centernet.ops import boxes as box_ops

# Larger than any row number: the minimum over rows if there are none.
_NO_ROW = 2**31 - 1


def match(
    similarity: tf.Tensor,
    valid: tf.Tensor | None = None,
    *,
    matched_threshold: float = 0.5,
    unmatched_threshold: float | None = None,
    force_match: bool | tf.Tensor = True,
    last_claim_wins: bool = False,
) -> tf.Tensor:
    """Match every anchor to at most one ground-truth row.

    An anchor takes the row of largest similarity (the first on ties) if that is at least
    `matched_threshold`. With `force_match` every valid row also takes its best anchor (the first on
    ties), even below the threshold; a row without any overlap takes anchor 0. If several rows claim
    one anchor, the lowest row wins, or with `last_claim_wins` the highest.

    Args:
        similarity: float32 [..., M, A], usually IoU in [0, 1]; M may be 0.
        valid: bool [..., M]; rows of padding are False. None means all are valid.
        matched_threshold: smallest similarity of a match.
        unmatched_threshold: anchors whose best similarity is at least this but below
            `matched_threshold` are ignored; None ignores no anchors.
        force_match: whether every valid row gets its best anchor; a bool [..., M] sets it per row.
        last_claim_wins: whether the highest row that claims an anchor gets it.

    Returns:
        int32 [..., A]: row index, or -1 for unmatched and -2 for ignored anchors.

    Source:
        docs/reference/ssd_resnet34.md, section 4
        docs/reference/ssd_vgg16.md, section 8
    """
    if valid is not None:
        # Below every real similarity, so that padding wins no anchor, and is argmax of none.
        similarity = tf.where(valid[..., tf.newaxis], similarity, -1.0)
    row_ids = tf.range(tf.shape(similarity)[-2], dtype=tf.int32)
    # Reductions and comparisons run vectorised, which argmax along the rows does not. Without a row
    # the maximum is -inf, so nothing matches.
    best = tf.reduce_max(similarity, axis=-2, keepdims=True)
    is_best = similarity == best
    best_row = tf.reduce_min(tf.where(is_best, row_ids[:, tf.newaxis], _NO_ROW), axis=-2)
    best = best[..., 0, :]
    # An overlap of exactly the threshold is a match.
    matches = tf.where(best >= matched_threshold, best_row, -1)
    if unmatched_threshold is not None:
        ignored = (best >= unmatched_threshold) & (best < matched_threshold)
        matches = tf.where(ignored, -2, matches)
    # By identity: it may be a tensor, whose value only the graph knows.
    if force_match is False:
        return matches
    if force_match is not True:
        valid = force_match if valid is None else valid & force_match
    if last_claim_wins:
        # The lowest of the negated rows is the highest row.
        forced = _forced_rows(similarity, valid, -row_ids)
        return tf.where(forced < _NO_ROW, -forced, matches)
    forced = _forced_rows(similarity, valid, row_ids)
    return tf.where(forced < _NO_ROW, forced, matches)


def _forced_rows(similarity: tf.Tensor, valid: tf.Tensor | None, row_ids: tf.Tensor) -> tf.Tensor:
    """Return, per anchor, the lowest id of the rows that have it as best anchor, else `_NO_ROW`."""
    # The first of equal anchors; anchor 0 for a row without any overlap, as published.
    best_anchor = tf.argmax(similarity, axis=-1, output_type=tf.int32)
    if valid is not None:
        # No anchor has the number -1, so such a row claims none.
        best_anchor = tf.where(valid, best_anchor, -1)
    anchors = similarity.shape[-1] or tf.shape(similarity)[-1]
    # One image: M updates instead of the M x A comparisons below, which a batch needs.
    if similarity.shape.rank == 2 and valid is None:
        free = tf.fill([anchors], _NO_ROW)
        return tf.tensor_scatter_nd_min(free, best_anchor[:, tf.newaxis], row_ids)
    claims = best_anchor[..., tf.newaxis] == tf.range(anchors, dtype=tf.int32)
    return tf.reduce_min(tf.where(claims, row_ids[:, tf.newaxis], _NO_ROW), axis=-2)


def find_targets(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    anchors: tf.Tensor,
    *,
    objects: tf.Tensor | None = None,
    regions: tf.Tensor | None = None,
    matched_threshold: float = 0.5,
    force_match: bool | tf.Tensor = True,
    last_claim_wins: bool = False,
    scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Match objects with anchors and make the targets: `match`, then `assign_targets`.

    One image is left to the compiled operation where that is in use.

    Args:
        boxes: float32 [..., M, 4], yxyx, fractions of the network's input or pixels.
        classes: int32 [..., M], in 0..C-1.
        anchors: float32 [A, 4], yxyx, same frame; a NumPy array is fastest.
        objects: bool [..., M], which rows are matched; None: all.
        regions: bool [..., M], rows in which background anchors are ignored (`inside_regions`);
            None: no row.
        matched_threshold: see `match`.
        force_match: see `match`.
        last_claim_wins: see `match`.
        scale_factors: of the box code.

    Returns:
        `(matches, class_targets, box_targets)`: int32 [..., A], int32 [..., A] with -1 for ignored
        anchors, float32 [..., A, 4].
    """
    if library.active() and len(boxes.shape) == 2:
        every = tf.ones_like(classes, tf.bool)
        counted = every if objects is None else objects
        return calls.match(
            boxes,
            classes,
            anchors,
            objects=counted,
            forced=counted & force_match,
            regions=tf.zeros_like(every) if regions is None else regions,
            matched_threshold=matched_threshold,
            last_claim_wins=last_claim_wins,
            scale_factors=scale_factors,
        )
    matches = match(
        box_ops.iou(boxes, anchors),
        objects,
        matched_threshold=matched_threshold,
        force_match=force_match,
        last_claim_wins=last_claim_wins,
    )
    class_targets, box_targets = assign_targets(
        boxes, classes, anchors, matches, scale_factors=scale_factors
    )
    if regions is not None:
        # An anchor that an object has claimed stays that object's, even inside a crowd.
        ignored = inside_regions(anchors, boxes, regions) & (matches < 0)
        class_targets = tf.where(ignored, -1, class_targets)
    return matches, class_targets, box_targets


def assign_targets(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    anchors: tf.Tensor,
    matches: tf.Tensor,
    *,
    scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turn matches into class and box targets for every anchor.

    Args:
        boxes: float32 [..., M, 4], yxyx, fractions of the network's input or pixels.
        classes: int32 [..., M], in 0..C-1; background is never counted.
        anchors: float32 [A, 4], yxyx, same frame.
        matches: int32 [..., A] from `match`.
        scale_factors: factors of the box code.

    Returns:
        `(class_targets, box_targets)`: int32 [..., A] with 0 for background and class + 1 for
        objects; float32 [..., A, 4] box codes, exact zeros at unmatched anchors.

    Source: docs/reference/ssd_resnet34.md, section 4, step 5
    """
    if matches.shape.rank == 1:
        return _assign_one_image(boxes, classes, anchors, matches, scale_factors)
    # As float32, which holds them exactly: GPUs compute int32 in the memory of the host.
    numbers = tf.cast(matches, tf.float32)
    positive = numbers >= 0.0
    # Unmatched anchors gather row 0; their result is replaced at the end.
    rows = tf.cast(tf.maximum(numbers, 0.0), tf.int32)
    following = tf.cast(classes, tf.float32) + 1.0
    class_targets = tf.gather(following, rows, axis=-1, batch_dims=matches.shape.rank - 1)
    matched_boxes = tf.gather(boxes, rows, axis=-2, batch_dims=matches.shape.rank - 1)
    # Encoding an anchor with itself keeps unmatched anchors finite.
    matched_boxes = tf.where(positive[..., tf.newaxis], matched_boxes, anchors)
    codes = box_ops.encode(matched_boxes, anchors, scale_factors)
    return (
        tf.cast(tf.where(positive, class_targets, 0.0), tf.int32),
        tf.where(positive[..., tf.newaxis], codes, 0.0),
    )


def _assign_one_image(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    anchors: tf.Tensor,
    matches: tf.Tensor,
    scale_factors: tuple[float, float, float, float],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Assign the targets of one image; encode only its few matched anchors."""
    # A handful of thousands: the logarithms of the others would be thrown away. Its open shape is
    # no matter here, as single images are matched in the input pipeline.
    positions = tf.where(matches >= 0)
    rows = tf.gather_nd(matches, positions)
    codes = box_ops.encode(tf.gather(boxes, rows), tf.gather_nd(anchors, positions), scale_factors)
    shape = tf.shape(anchors, out_type=tf.int64)
    class_targets = tf.scatter_nd(positions, tf.gather(classes, rows) + 1, shape[:1])
    # A scatter forgets static shapes, and the step needs them.
    class_targets = tf.ensure_shape(class_targets, anchors.shape[:1])
    return class_targets, tf.ensure_shape(tf.scatter_nd(positions, codes, shape), anchors.shape)


def inside_regions(anchors: tf.Tensor, regions: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Tell which anchors lie mostly inside one of the regions, such as crowds.

    Args:
        anchors: float32 [A, 4], yxyx.
        regions: float32 [..., M, 4], yxyx, same frame.
        valid: bool [..., M], which regions count.

    Returns:
        bool [..., A]: whether at least half of the anchor lies in a region.
    """
    # The others become boxes without area, in which nothing lies.
    counted = tf.where(valid[..., tf.newaxis], regions, 0.0)
    return tf.reduce_any(box_ops.half_inside(anchors, counted), axis=-1)
