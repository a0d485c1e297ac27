"""Non-maximum suppression over classes, exact and batched."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops


def count_candidates(background: tf.Tensor, score_threshold: float) -> tf.Tensor:
    """Count the anchors that may have a class above the threshold: a few hundred of thousands.

    Class probabilities sum to 1, so no class exceeds 1 minus background; no candidate is missed.

    Args:
        background: float32 [B, A], probability of background.
        score_threshold: in [0, 1).

    Returns:
        float32 [B, A], whole numbers: the candidates among the anchors up to and including each.
    """
    # Wider than what rounding does to a sum of probabilities.
    candidates = background < 1.0 - score_threshold + 1e-5
    # Counts are exact in float32 up to 2^24, and quicker to add up than integers.
    return tf.cumsum(tf.cast(candidates, tf.float32), axis=1)


def first_candidates(counts: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the first candidates of each image; the shape of the result is static.

    Args:
        counts: result of `count_candidates`.
        k: size of the result, at most A.

    Returns:
        `(indices, valid)`: int32 and bool [B, k]. Indices ascend; after an image's last candidate
        they are 0 and not valid.
    """
    wanted = tf.range(1, k + 1, dtype=counts.dtype)[tf.newaxis]
    # Counts never fall along the anchors, so a binary search finds the n-th candidate: where the
    # count first reaches n.
    indices = tf.searchsorted(counts, tf.tile(wanted, [tf.shape(counts)[0], 1]))
    valid = wanted <= counts[:, -1:]
    return tf.where(valid, indices, 0), valid


def multiclass_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    *,
    score_threshold: float | tf.Tensor = 0.05,
    iou_threshold: float | tf.Tensor = 0.5,
    max_detections: int = 200,
    max_per_class: int | None = 200,
    inclusive: bool = True,
) -> dict[str, tf.Tensor]:
    """Suppress overlapping boxes of the same class and keep the best of all classes.

    A box survives if its score is above `score_threshold`, it is among the `max_per_class` best
    of its class, and its IoU with every better survivor of its class is below `iou_threshold` (or,
    with `inclusive` off, not above it).

    Args:
        boxes: float32 [B, A, 4], yxyx, shared by all classes.
        scores: float32 [B, A, C], without background.
        score_threshold: scores must be strictly greater.
        iou_threshold: an IoU of this or more suppresses.
        max_detections: size D of the output.
        max_per_class: largest number of candidates of a class in the suppression; None for all.
        inclusive: whether an IoU of exactly `iou_threshold` suppresses.

    Returns:
        Detections: `boxes` [B, D, 4], `scores` [B, D] descending, `classes` int32 [B, D], `count`
        int32 [B]; rows from `count` on are zeros.

    Source:
        docs/reference/ssd_resnet34.md, section 13
        docs/reference/ssd_vgg16.md, section 13
    """
    anchors = scores.shape[1]
    # Of what a class keeps, no more than `max_detections` can be among the best of all classes.
    max_kept = max_detections if max_per_class is None else max_per_class
    if max_per_class is not None and (anchors is None or anchors > max_per_class):
        per_class = tf.reduce_sum(tf.cast(scores > score_threshold, tf.int32), axis=1)
        # Rarely a class has more candidates than may enter; only then pay for the ranking.
        scores = tf.cond(
            tf.reduce_any(per_class > max_per_class),
            lambda: _keep_top_k(scores, max_per_class),
            lambda: scores,
        )
    # The kernel drops what lies above its threshold, and never what is equal to it.
    threshold = just_below(iou_threshold) if inclusive else iou_threshold
    # [B, A, 1, 4]: all classes share an anchor's box. Boxes are not clipped here: whether that
    # comes before the suppression or after it changes what overlaps, and is the decoder's choice.
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


def just_below(threshold: float | tf.Tensor) -> float | tf.Tensor:
    """Return the next smaller float32: `>` with it means `>=` with the threshold."""
    if tf.is_tensor(threshold):
        return tf.math.nextafter(threshold, tf.zeros_like(threshold))
    return float(np.nextafter(np.float32(threshold), np.float32(0.0)))


def _keep_top_k(scores: tf.Tensor, k: int) -> tf.Tensor:
    """Zero all but the k best anchors of each class; ties by lower index."""
    # The k-th best score is the bar; of those equal to it, the ones of lowest index fill the room.
    transposed = tf.transpose(scores, [0, 2, 1])
    smallest = tf.math.top_k(transposed, k=k).values[..., -1:]
    above = transposed > smallest
    ties = transposed == smallest
    room = k - tf.reduce_sum(tf.cast(above, tf.int32), axis=-1, keepdims=True)
    kept = above | (ties & (tf.cumsum(tf.cast(ties, tf.int32), axis=-1) <= room))
    # No threshold is below 0, so a score of 0 never enters.
    return tf.transpose(tf.where(kept, transposed, 0.0), [0, 2, 1])


def best_pairs(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Find the pairs of an anchor and a class with the highest scores.

    Args:
        scores: float32 [B, A, C], without background; A and C static.
        k: number of pairs.

    Returns:
        `(scores, anchors, classes)`: float32, int32 and int32 [B, min(k, A * C)], descending, ties
        by lower class, then by lower anchor, which is the order of a stable sort after suppression
        class by class.
    """
    anchors, classes = scores.shape[1:]
    # Classes first, as top_k resolves ties by the lower position.
    of_classes = tf.reshape(tf.transpose(scores, [0, 2, 1]), [-1, classes * anchors])
    best, positions = tf.math.top_k(of_classes, k=min(k, classes * anchors))
    return best, positions % anchors, positions // anchors


def greedy_nms(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    candidates: tf.Tensor,
    *,
    num_classes: int,
    iou_threshold: float,
    max_detections: int,
    max_per_class: int,
    counted: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Keep boxes in the given order; drop those that overlap one kept before.

    All images advance step by step together, up to the last detection that is needed.

    Args:
        boxes: float32 [B, K, 4], yxyx, best first.
        classes: int32 [B, K]; boxes of different classes do not affect each other.
        candidates: bool [B, K]: True for boxes that take part.
        num_classes: C.
        iou_threshold: an IoU above it suppresses.
        max_detections: D.
        max_per_class: largest number of boxes kept per class.
        counted: bool [B, K]: boxes to return; others still suppress and count for their class. None
            means all.

    Returns:
        `(positions, count)`: int32 [B, D] into the K boxes, ascending, 0 from `count` on; int32
        [B].
    """
    size, rows = tf.shape(boxes)[0], tf.shape(boxes)[1]
    counted = tf.ones_like(candidates) if counted is None else counted
    # Whole numbers as float32, in which these are exact: for GPUs TensorFlow compares int32 in the
    # memory of the host, which every round of the loop would wait for.
    classes, places = tf.cast(classes, tf.float32), tf.cast(tf.range(rows), tf.float32)
    numbers = tf.range(num_classes, dtype=tf.float32)
    ranks = tf.range(max_detections, dtype=tf.float32)

    # What the loop carries: `alive` [B, K], boxes neither kept nor dropped yet; `positions` [B, D]
    # and `count` [B], the result so far; `kept_of_class` [B, C], with those that are not counted.
    def unfinished(alive, positions, count, kept_of_class):
        del positions, kept_of_class
        return tf.reduce_any(alive & (count < max_detections)[:, tf.newaxis])

    def step(alive, positions, count, kept_of_class):
        # The best box left in each image. In an image without any it is 0, and `some` is False.
        first = tf.argmax(alive, axis=1, output_type=tf.int32)
        some = tf.gather(alive, first, batch_dims=1)
        taken = some & tf.gather(counted, first, batch_dims=1)
        # Where the next detection goes, as a mask; empty in an image that is full, whose count is
        # D.
        slots = (ranks == count[:, tf.newaxis]) & taken[:, tf.newaxis]
        place = tf.cast(first, tf.float32)[:, tf.newaxis]
        positions = tf.where(slots, place, positions)
        count = tf.minimum(count + tf.cast(taken, tf.float32), max_detections)
        own = tf.gather(classes, first, batch_dims=1)[:, tf.newaxis]
        mine = (own == numbers) & some[:, tf.newaxis]
        kept_of_class += tf.cast(mine, tf.float32)
        full = tf.reduce_any(mine & (kept_of_class >= max_per_class), axis=1)
        overlap = box_ops.iou(tf.gather(boxes, first, batch_dims=1)[:, tf.newaxis], boxes)[:, 0]
        # A class that has its number drops all its other boxes, as if they overlapped.
        dropped = (overlap > iou_threshold) | full[:, tf.newaxis]
        dropped &= classes == own
        # Not by its overlap with itself, which is 0 for a box without area.
        return alive & ~(dropped | (places == place)), positions, count, kept_of_class

    _, positions, count, _ = tf.while_loop(
        unfinished,
        step,
        (
            candidates,
            tf.zeros([size, max_detections]),
            tf.zeros([size]),
            tf.zeros([size, num_classes]),
        ),
    )
    return tf.cast(positions, tf.int32), tf.cast(count, tf.int32)


def fixed_shape_nms(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    classes: tf.Tensor,
    *,
    score_threshold: float | tf.Tensor,
    iou_threshold: float | tf.Tensor,
    max_detections: int,
    max_entering: int | None = None,
    max_kept: int | None = None,
    counted: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Keep what greedy suppression class by class keeps, with products of matrices only.

    TFLite and ONNX have all its operations, and no shape depends on values. The survivors are the
    only solution of "a candidate survives unless a better survivor of its class overlaps it". The
    first round begins with all candidates; each product decides at least the best undecided box,
    and mostly all at once, so a few rounds are enough. This is the Cluster-NMS of Enhancing
    Geometric Factors in Model Learning and Inference for Object Detection and Instance Segmentation
    (arXiv:2005.03572).

    Args:
        boxes: float32 [B, K, 4], yxyx, best first.
        scores: float32 [B, K], descending.
        classes: int32 [B, K].
        score_threshold: scores must be strictly greater.
        iou_threshold: an IoU above it suppresses.
        max_detections: D.
        max_entering: number of best boxes of a class that take part; None for all.
        max_kept: largest number of boxes of a class that survive; None for all.
        counted: bool [B, K], boxes to return; others still suppress and count for their class. None
            means all.

    Returns:
        `(positions, count)`: int32 [B, D] into the K boxes, ascending up to `count`, and int32 [B].
    """
    options = {
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
        "max_detections": max_detections,
        "max_entering": max_entering,
        "max_kept": max_kept,
    }
    fields = (boxes, scores, classes, tf.ones_like(scores, tf.bool) if counted is None else counted)
    half = boxes.shape[1] // 2
    if half < max_detections:
        return _suppress(*fields, **options)
    # The cost grows with the square of the number. What the first half keeps does not depend on the
    # second one, which has no part in the result of nearly every image.
    found = _suppress(*(field[:, :half] for field in fields), **options)
    enough = (found[1] >= max_detections) | (scores[:, half] <= score_threshold)
    return tf.cond(tf.reduce_all(enough), lambda: found, lambda: _suppress(*fields, **options))


def _suppress(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    classes: tf.Tensor,
    counted: tf.Tensor,
    *,
    score_threshold: float | tf.Tensor,
    iou_threshold: float | tf.Tensor,
    max_detections: int,
    max_entering: int | None,
    max_kept: int | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Suppress as `fixed_shape_nms` says, among all boxes at once."""
    size = boxes.shape[1]
    # Converters know no shape of what comes from outside of a branch.
    boxes = tf.reshape(boxes, [-1, size, 4])
    scores, classes, counted = (tf.reshape(x, [-1, size]) for x in (scores, classes, counted))
    same = tf.equal(classes[:, :, tf.newaxis], classes[:, tf.newaxis, :])
    # Row i marks the boxes before i in its class. [B, K, K].
    before = same & tf.constant(np.tril(np.ones((1, size, size), bool), -1))
    candidates = scores > score_threshold
    if max_entering is not None and max_entering < size:
        # The sum is a box's place in its class.
        candidates &= tf.reduce_sum(tf.cast(before, tf.float32), axis=-1) < float(max_entering)
    overlap = before & (box_ops.iou(boxes, boxes) > iou_threshold)
    overlap = tf.cast(overlap, tf.float32)

    def survivors_after(kept: tf.Tensor) -> tf.Tensor:
        return candidates & ~(_sums(overlap, kept) > 0.0)

    # A round that changes nothing is the end: the fixed point is unique. It takes as many rounds as
    # the longest chain of boxes that overlap each other, K at most.
    kept, _ = tf.while_loop(
        lambda kept, last: tf.reduce_any(tf.not_equal(kept, last)),
        lambda kept, last: (survivors_after(kept), kept),
        (survivors_after(candidates), candidates),
    )
    if max_kept is not None and max_kept < size:
        kept &= _sums(tf.cast(before, tf.float32), kept) < float(max_kept)
    kept &= counted
    order = tf.range(size, 0, -1, dtype=tf.int32)
    # The first survivors have the largest numbers; the others are zeros after them.
    ranks = tf.where(kept, order, 0)
    _, positions = tf.math.top_k(ranks, k=min(max_detections, size))
    positions = tf.pad(positions, [[0, 0], [0, max(0, max_detections - size)]])
    count = tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)
    return positions, tf.minimum(count, max_detections)


def _sums(matrix: tf.Tensor, marks: tf.Tensor) -> tf.Tensor:
    """Multiply float32 [B, K, K] with bool [B, K]."""
    return tf.matmul(matrix, tf.cast(marks, tf.float32)[..., tf.newaxis])[..., 0]


def merge_detections(
    first: dict[str, tf.Tensor], second: dict[str, tf.Tensor], iou_threshold: float | tf.Tensor
) -> dict[str, tf.Tensor]:
    """Join two sets of detections of the same images, and suppress what both have found.

    Args:
        first: Detections with `boxes` float32 [B, D, 4], in one frame.
        second: the same, in the same frame.
        iou_threshold: of two boxes of a class with a greater IoU the worse is left out.

    Returns:
        The best D of both; of equal scores those of `first`.
    """
    keys = ("boxes", "scores", "classes")
    boxes, scores, classes = (tf.concat([first[key], second[key]], axis=1) for key in keys)
    scores, order = tf.math.top_k(scores, scores.shape[1])
    boxes, classes = (tf.gather(value, order, batch_dims=1) for value in (boxes, classes))
    positions, count = fixed_shape_nms(
        boxes,
        scores,
        classes,
        score_threshold=0.0,
        iou_threshold=iou_threshold,
        max_detections=first["boxes"].shape[1],
    )
    return gather_detections(boxes, scores, classes, positions, count)


def gather_detections(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    classes: tf.Tensor,
    positions: tf.Tensor,
    count: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Gather the boxes that a suppression kept.

    Args:
        boxes: float32 [B, K, 4].
        scores: float32 [B, K].
        classes: int32 [B, K].
        positions: int32 [B, D], indices into the K boxes.
        count: int32 [B].

    Returns:
        Detections; rows from `count` on are zeros.
    """
    kept = tf.range(positions.shape[1]) < count[:, tf.newaxis]
    return {
        "boxes": tf.where(kept[..., tf.newaxis], tf.gather(boxes, positions, batch_dims=1), 0.0),
        "scores": tf.where(kept, tf.gather(scores, positions, batch_dims=1), 0.0),
        "classes": tf.where(kept, tf.gather(classes, positions, batch_dims=1), 0),
        "count": count,
    }
