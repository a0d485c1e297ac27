"""What a COCO json says of its objects beside `bbox`: areas and outlines that boxes must fit.

A box of corners passes for one of sizes wherever it stays inside its picture. Its area, or the
polygon of the same object, then tells which of the two it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

# Fewer objects than this, or a smaller share, may fit another reading by accident.
_ENOUGH, _SHARE = 3, 0.01
# More boxes than this share that do not fit their outlines are worth a note.
_MANY = 0.05
_CORNERS = "the last two numbers are the right and bottom corner, not width and height"


def check_areas(
    boxes: np.ndarray, areas: np.ndarray, where: Callable[[int], str], source: str
) -> None:
    """Refuse boxes whose areas show that they are corners.

    Args:
        boxes: float64 [N, 4], x, y, width and height as they were read.
        areas: float64 [N], what the file calls their areas; not a number where it says nothing.
        where: names the place of a box.
        source: name of the file.

    Raises:
        ValueError: at least three boxes, and 1 % of those that have an area, have exactly the area
            between two corners, and not that of width times height.
    """
    x, y, w, h = boxes.T
    known = np.isfinite(areas) & (areas > 0)
    inside = known & (w > x) & (h > y) & (x > 0) & (y > 0)
    with np.errstate(over="ignore"):  # Numbers of 300 digits are for others to refuse.
        between, counted, sides = (w - x) * (h - y), (w - x + 1) * (h - y + 1), w * h
    fits = np.isclose(areas, between, rtol=1e-3) | np.isclose(areas, counted, rtol=1e-3)
    chosen = inside & fits & ~np.isclose(areas, sides, rtol=0.02)
    if chosen.sum() < max(_ENOUGH, _SHARE * known.sum()):
        return
    index = int(np.flatnonzero(chosen)[0])
    raise ValueError(
        f"{source}: {int(chosen.sum())} of {int(known.sum())} boxes have the area between two "
        f"corners: for example {where(index)} has bbox {_numbers(boxes[index])} and area "
        f"{areas[index]:.6g}, but width times height are {w[index] * h[index]:.6g}. Expected "
        f"[x, y, width, height] in pixels. Likely: {_CORNERS}. Correct the boxes, or the areas."
    )


def check_outlines(
    boxes: np.ndarray, outlines: np.ndarray, where: Callable[[int], str], source: str
) -> str:
    """Refuse boxes whose outlines show that their numbers stand in another order.

    Args:
        boxes: float64 [N, 4], x, y, width and height as they were read.
        outlines: float64 [N, 4], the same of the boxes around the polygons or masks.
        where: names the place of a box.
        source: name of the file.

    Returns:
        A note on boxes that do not fit their outlines for no known reason; '' if there are few.

    Raises:
        ValueError: at least three boxes, and 1 % of them, fit only if they are read otherwise.
    """
    wrong = ~_near(boxes, outlines)
    x, y, w, h = boxes.T
    readings = {
        _CORNERS: (x, y, w - x, h - y),
        "the numbers are y, x, height, width": (y, x, h, w),
        "the numbers are the top, left, bottom and right corner": (y, x, h - y, w - x),
        "the numbers are left, right, top, bottom": (x, w, y - x, h - w),
        "the first two numbers are the centre of the box, not its left top corner": (
            x - w / 2,
            y - h / 2,
            w,
            h,
        ),
    }
    for cause, columns in readings.items():
        chosen = wrong & _near(np.stack(columns, axis=1), outlines)
        if chosen.sum() >= max(_ENOUGH, _SHARE * len(boxes)):
            index = int(np.flatnonzero(chosen)[0])
            raise ValueError(
                f"{source}: {int(chosen.sum())} of {len(boxes)} boxes that were compared with "
                f"their segmentation do not fit it: for example {where(index)} has bbox "
                f"{_numbers(boxes[index])}, but the box around its segmentation is "
                f"{_numbers(outlines[index])}. Expected [x, y, width, height] in pixels. Likely: "
                f"{cause}. Correct the boxes; without bbox, those around the segmentation are "
                "taken."
            )
    if wrong.sum() < max(_ENOUGH, _MANY * len(boxes)):
        return ""
    index = int(np.flatnonzero(wrong)[0])
    return f"{where(index)}, {int(wrong.sum())} of {len(boxes)} compared"


def _near(boxes: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Return which boxes are those around their outlines but for rounding, bool [N]."""
    slack = np.maximum(2.5, 0.1 * outlines[:, 2:].max(axis=1, keepdims=True, initial=0))
    ends, others = boxes[:, :2] + boxes[:, 2:], outlines[:, :2] + outlines[:, 2:]
    near = (np.abs(boxes[:, :2] - outlines[:, :2]) <= slack) & (np.abs(ends - others) <= slack)
    return near.all(axis=1)


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in values)}]"
