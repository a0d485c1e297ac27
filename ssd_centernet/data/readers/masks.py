"""Boxes around polygons and masks, for annotations that say where an object is in no other way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from ssd_centernet.data.values import read_number, read_whole

Box = tuple[float, float, float, float]


def box_around(segmentation: object) -> Box | None:
    """Return the box around a COCO segmentation.

    Args:
        segmentation: a list of polygons [x1, y1, x2, y2, ...], one such list, a list of points
            [x, y], or a run-length encoded mask (`size` [height, width] and `counts`, a list or
            COCO's compressed text).

    Returns:
        x, y, width and height in pixels, None for anything else or an empty mask.
    """
    if isinstance(segmentation, Mapping):
        return _box_of_mask(segmentation)
    if not isinstance(segmentation, (list, tuple)) or not segmentation:
        return None
    if all(isinstance(part, (list, tuple)) for part in segmentation):
        numbers = list(chain.from_iterable(segmentation))
        if any(len(part) % 2 for part in segmentation):
            return None
    else:
        numbers = list(segmentation)
    values = [read_number(number) for number in numbers]
    if len(values) < 6 or len(values) % 2 or None in values:
        return None
    return box_of_points(list(zip(values[::2], values[1::2], strict=True)))


def box_of_points(points: Sequence[tuple[float, float]]) -> Box:
    """Return x, y, width and height of the smallest upright box around points (x, y)."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def box_around_turned(box: Box, degrees: float, *, around: str) -> Box:
    """Return the upright box around a turned one.

    Args:
        box: x, y, width and height of the box before it is turned.
        degrees: angle, clockwise in a picture whose y axis points down.
        around: 'centre' or 'corner' (left top), which stays in its place.
    """
    x, y, width, height = box
    centre = (x + width / 2, y + height / 2) if around == "centre" else (x, y)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    turned = []
    for corner_x, corner_y in corners:
        dx, dy = corner_x - centre[0], corner_y - centre[1]
        turned.append((centre[0] + dx * cosine - dy * sine, centre[1] + dx * sine + dy * cosine))
    return box_of_points(turned)


def _box_of_mask(mask: Mapping) -> Box | None:
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        return None
    height, width = (read_whole(side) or 0 for side in size)
    if isinstance(counts, (str, bytes)):
        runs = _unpack(counts.encode() if isinstance(counts, str) else counts)
    elif isinstance(counts, (list, tuple)):
        runs = [read_whole(count) for count in counts]
    else:
        return None
    if not runs or height < 1 or None in runs or min(runs) < 0 or sum(runs) != height * width:
        return None
    ends = np.cumsum(runs)
    # Runs go down the columns, and every second one is of the object.
    first, last = ends[0:-1:2], ends[1::2] - 1
    filled = last >= first
    first, last = first[filled], last[filled]
    if not len(first):
        return None
    left, right = int(first[0] // height), int(last[-1] // height)
    # A run that goes on in the next column touches the upper and the lower border.
    whole = first // height != last // height
    top = 0 if whole.any() else int((first % height).min())
    bottom = height - 1 if whole.any() else int((last % height).max())
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)


def _unpack(text: bytes) -> list[int] | None:
    """Return the run lengths of COCO's compressed text: 5 bits a letter, differences of two back.

    Source: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.h (rleToString)
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = letter - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # The sign of the last group.
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs if not shift else None
