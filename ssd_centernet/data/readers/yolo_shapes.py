"""Which shapes the numbers of a YOLO line may be: a box, a box with points, a polygon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Fractions are written with about six digits.
ROUNDING = 1e-3
BORDER = 10 * ROUNDING
_FEW_CROSSINGS = 2


def corners_of(box: Sequence[float]) -> tuple[float, ...]:
    """Return left, top, right and bottom of x_center, y_center, width and height."""
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def is_box(box: Sequence[float]) -> bool:
    """Tell whether x, y, width and height are a box inside the image."""
    left, top, right, bottom = corners_of(box)
    inside = min(left, top) >= -BORDER and max(right, bottom) <= 1 + BORDER
    return box[2] > 0 and box[3] > 0 and inside


def is_box_of(numbers: np.ndarray, size: int) -> bool:
    """Tell whether the first four numbers are a box around most points of the others."""
    if not is_box(numbers[:4]):
        return False
    points = numbers[4:].reshape(-1, size)
    if size == 3 and (points[:, 2].min() < 0 or points[:, 2].max() > 2):
        return False
    seen = np.any(points[:, :2] != 0, axis=1) & (points[:, -1] > 0 if size == 3 else True)
    if not seen.any():
        return True
    reach = numbers[2:4] * 0.5 * 1.1
    inside = np.all(np.abs(points[seen, :2] - numbers[:2]) <= reach + ROUNDING, axis=1)
    return bool(inside.mean() > 0.5)


def are_joined_boxes(numbers: np.ndarray) -> bool:
    """Tell whether the numbers may be several lines whose ends are lost, their classes with them.

    Of '0 0.5 0.5 0.2 0.2' and '1 0.3 ...' without a line end, the 1 joins the number before it.
    """
    chunks = numbers.reshape(-1, 4) if len(numbers) % 4 == 0 else ()
    return len(chunks) > 1 and all(map(is_box, chunks))


def has_flags(numbers: np.ndarray) -> bool:
    """Tell whether every third number after the first four is 0, 1 or 2."""
    return bool(np.isin(numbers[6::3], (0.0, 1.0, 2.0)).all())


def polygon_likeness(numbers: np.ndarray) -> float:
    """Tell whether numbers are x y of a polygon's corners.

    Returns:
        1 if they are near each other and edges do not cross; 0.5 if a few edges cross or corners
        stand twice, as masks of several parts have it; 0 for no polygon.
    """
    points = numbers.reshape(-1, 2)
    if points.min() < -BORDER or points.max() > 1 + BORDER:
        return 0.0
    if len(points) > 3 and np.array_equal(points[0], points[-1]):
        points = points[:-1]
    x, y = points.T
    if abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) < 1e-9:
        return 0.0
    if len(points) > 4:
        # A width and a height are no place near the others.
        low, high = points[2:].min(axis=0), points[2:].max(axis=0)
        reach = float((high - low).max())
        if (points[:2] < low - reach).any() or (points[:2] > high + reach).any():
            return 0.0
    crossings = 0 if len(points) > 100 else _count_crossings(points)
    if crossings > _FEW_CROSSINGS:
        return 0.0
    twice = len(np.unique(points, axis=0)) < len(points) < 20
    return 0.5 if crossings or twice else 1.0


def _count_crossings(points: np.ndarray) -> int:
    """Return how many pairs of edges of a closed polygon cross."""
    start, end = points, np.roll(points, -1, axis=0)

    def side(a, b, c):
        cross = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1])
        return np.sign(cross - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0]))

    a, b = start[:, None], end[:, None]
    c, d = start[None], end[None]
    crossing = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return int(crossing.sum()) // 2


def is_parallelogram(numbers: np.ndarray) -> bool:
    """Tell whether eight numbers are the corners of a rectangle that may be turned."""
    points = numbers.reshape(4, 2)
    first, second = points[0] + points[2], points[1] + points[3]
    return bool(np.abs(first - second).max() <= 2 * ROUNDING) and polygon_likeness(numbers) == 1
