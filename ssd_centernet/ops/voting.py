"""Box voting: what a suppression keeps moves to the mean of the boxes around it.

Source:
    Object detection via a multi-region & semantic segmentation-aware CNN model (arXiv:1505.01749)
"""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops

# Most images have few detections, of rows for some hundred, so there is a graph for so few: about
# one for four candidates, from 16 to 64. More graphs would cost more than they save, as TensorFlow
# visits the nodes of those that do not run.
_FEWEST, _FEW, _CANDIDATES_OF_ONE = 16, 64, 4
# Up to it each whole number is a float32.
_LARGEST = 2**24


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

    most, candidates = found["boxes"].shape[1], boxes.shape[1] or _FEW * _CANDIDATES_OF_ONE
    few = min(max(candidates // _CANDIDATES_OF_ONE, _FEWEST), _FEW)
    if not branches or few >= most:
        return {**found, "boxes": moved(most)}
    used = tf.reduce_max(found["count"])
    return {**found, "boxes": tf.cond(used <= few, lambda: moved(few), lambda: moved(most))}


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


def vote_of_cells(
    found: dict[str, tf.Tensor],
    cells: tf.Tensor,
    maps: dict[str, tf.Tensor],
    *,
    score_threshold: float | tf.Tensor,
    vote_iou: float,
    kernel_size: int,
) -> dict[str, tf.Tensor]:
    """Do the same with the cells around the one that found an object: each has a box of its own.

    Args:
        found: Detections, `boxes` [B, D, 4] as fractions of the maps.
        cells: int32 [B, D, 2], (y, x), where each was found.
        maps: `center` float32 [B, h, w, C], logits, and `sides` [B, h, w, 4], in cells.
        score_threshold: as in `vote`.
        vote_iou: as in `vote`.
        kernel_size: side of the neighbourhood in cells, odd.

    Returns:
        As `vote`.

    Raises:
        ValueError: the maps are too large.
    """
    _, height, width, num_classes = maps["center"].shape
    if height * width * num_classes > _LARGEST:
        raise ValueError(
            f"Cells vote on maps of {_LARGEST:,} numbers at most; that of {height} x {width} cells "
            f"and {num_classes} classes has {height * width * num_classes:,}. Set "
            "CenterNetDecoder.vote_iou = None, or detect on tiles of the picture (--tiles)."
        )
    edge = kernel_size // 2
    steps = [(y, x) for y in range(-edge, edge + 1) for x in range(-edge, edge + 1)]
    last = tf.constant([height - 1, width - 1], tf.float32)
    # As float32, in which these are exact: on GPUs TensorFlow computes with int32 on the host.
    around = tf.cast(cells, tf.float32)[:, :, tf.newaxis] + tf.constant(steps, tf.float32)
    inside = tf.clip_by_value(around, 0.0, last)
    # Numbers of cells, and of pairs of cell and class: only the class that was found is looked at.
    places = inside[..., 0] * width + inside[..., 1]
    pairs = places * num_classes + tf.cast(found["classes"], tf.float32)[:, :, tf.newaxis]
    sides = tf.reshape(maps["sides"], [-1, height * width, 4])
    sides = tf.gather(sides, tf.cast(places, tf.int64), batch_dims=1)
    logits = tf.reshape(maps["center"], [-1, height * width * num_classes])
    scores = tf.sigmoid(tf.gather(logits, tf.cast(pairs, tf.int64), batch_dims=1))
    # What lies outside the map has no vote.
    scores = tf.where(tf.reduce_all(around == inside, axis=-1), scores, 0.0)
    limits = tf.constant([height, width, height, width], tf.float32)
    middles = inside + 0.5
    boxes = tf.concat([middles - sides[..., :2], middles + sides[..., 2:]], axis=-1)
    boxes = tf.clip_by_value(boxes, 0.0, limits) / limits
    # One row for each detection, which only its own cells move.
    own = found["boxes"][:, :, tf.newaxis]
    moved = _moved(own, boxes, scores[:, :, tf.newaxis], score_threshold, vote_iou)
    return {**found, "boxes": tf.squeeze(moved, axis=2)}


def _moved(own, boxes, of_class, score_threshold, vote_iou) -> tf.Tensor:
    """Move boxes [..., D, 4] by the scores [..., D, K] of candidates for their classes."""
    votes = (of_class > score_threshold) & (box_ops.iou(own, boxes) >= vote_iou)
    weights = tf.where(votes, of_class, 0.0)
    total = tf.reduce_sum(weights, axis=-1, keepdims=True)
    # No matrix product: a GPU would round its factors to the 11 bits of TF32, a quarter of a pixel.
    # One side after the other: numbers that are summed lie next to each other.
    sides = tf.unstack(boxes[..., tf.newaxis, :, :], axis=-1)
    summed = [tf.reduce_sum(weights * side, axis=-1) for side in sides]
    mean = tf.math.divide_no_nan(tf.stack(summed, axis=-1), total)
    # A box without area overlaps nothing, not even itself.
    return tf.where(total > 0.0, mean, own)
