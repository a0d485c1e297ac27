"""Anchors for a data set: clusters of its objects, and a search for what matches most of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_ROUNDS = 3
_FACTORS = (0.7, 0.85, 0.95, 1.05, 1.18, 1.4)


def cluster_sizes(sizes: np.ndarray, number: int, *, seed: int = 0) -> np.ndarray:
    """Cluster boxes by their shape: k-means with 1 - IoU as the distance.

    Args:
        sizes: float [N, 2], height and width, above 0, in any unit.
        number: of clusters, k.
        seed: of the first centres.

    Returns:
        float64 [k, 2], the medians of the clusters, by ascending area; with fewer boxes than
        clusters some are equal.

    Source: YOLO9000: Better, Faster, Stronger (arXiv:1612.08242), section 2
    """
    sizes = np.asarray(sizes, np.float64)
    draw = np.random.default_rng(seed)
    centers = sizes[draw.choice(len(sizes), number, replace=len(sizes) < number)]
    for _ in range(100):
        nearest = _shape_ious(sizes, centers).argmax(axis=1)
        moved = [
            np.median(sizes[nearest == index], axis=0) if (nearest == index).any() else center
            for index, center in enumerate(centers)
        ]
        if np.array_equal(moved, centers):
            break
        centers = np.array(moved)
    return centers[np.argsort(centers.prod(axis=1))]


def _shape_ious(sizes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes with one centre, [N, k]."""
    shared = np.minimum(sizes[:, None], centers).prod(axis=-1)
    return shared / (sizes.prod(axis=1)[:, None] + centers.prod(axis=1) - shared)


def best_overlaps(
    boxes: np.ndarray,
    anchors: np.ndarray,
    feature_sizes: Sequence[tuple[int, int]],
    boxes_per_cell: Sequence[int],
) -> np.ndarray:
    """Compute the IoU of each box with the anchor that fits it best.

    Of the anchors of one shape and level, the one whose centre is nearest overlaps a box most, so
    that one cell of each level is looked at.

    Args:
        boxes: float [N, 4], yxyx fractions of the image.
        anchors: float [A, 4], yxyx fractions, by level, row, column, shape.
        feature_sizes: (height, width) of every level in cells.
        boxes_per_cell: anchors of a cell of every level.

    Returns:
        float64 [N].
    """
    boxes, best, begin = np.asarray(boxes, np.float64), np.zeros(len(boxes)), 0
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for (rows, columns), shapes in zip(feature_sizes, boxes_per_cell, strict=True):
        end = begin + rows * columns * shapes
        grid = anchors[begin:end].astype(np.float64).reshape(rows, columns, shapes, 4)
        begin = end
        ys = (grid[:, 0, 0, 0] + grid[:, 0, 0, 2]) / 2.0
        xs = (grid[0, :, 0, 1] + grid[0, :, 0, 3]) / 2.0
        row = np.abs(centers[:, :1] - ys).argmin(axis=1)
        column = np.abs(centers[:, 1:] - xs).argmin(axis=1)
        near = grid[row, column]  # [N, shapes, 4]
        top = np.maximum(near[..., :2], boxes[:, None, :2])
        bottom = np.minimum(near[..., 2:], boxes[:, None, 2:])
        shared = np.maximum(bottom - top, 0.0).prod(axis=-1)
        union = (near[..., 2:] - near[..., :2]).prod(axis=-1) + areas[:, None] - shared
        best = np.maximum(best, (shared / np.maximum(union, 1e-12)).max(axis=1))
    return best


def search(
    starts: Sequence[Sequence[float]],
    overlaps: Callable[[np.ndarray], np.ndarray | None],
    threshold: float,
) -> np.ndarray:
    """Search the numbers whose anchors match most objects, one number at a time.

    Args:
        starts: numbers to begin with, all above 0; the best end of all of them counts.
        overlaps: computes the best IoU of each object for some numbers, float [N]; None where they
            make no anchors.
        threshold: IoU at which an object is matched.

    Returns:
        The numbers with the largest share of matched objects; of equal ones those with the larger
        mean IoU.
    """

    def score(numbers: np.ndarray) -> float:
        best = overlaps(numbers)
        # A tenth of the mean: more objects come first, a better fit after it.
        return -1.0 if best is None else float((best >= threshold).mean() + 0.1 * best.mean())

    found, highest = np.array(starts[0], np.float64), -np.inf
    for start in starts:
        numbers = np.array(start, np.float64)
        reached = score(numbers)
        for _ in range(_ROUNDS):
            before = reached
            for index in range(len(numbers)):
                for factor in _FACTORS:
                    changed = numbers.copy()
                    changed[index] *= factor
                    value = score(changed)
                    if value > reached:
                        numbers, reached = changed, value
            if reached == before:
                break
        if reached > highest:
            found, highest = numbers, reached
    return found
