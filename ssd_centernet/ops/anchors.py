"""Anchors (SSD's "default boxes") as constants: computed once in float64, used in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def default_boxes(
    image_size: tuple[int, int],
    feature_sizes: Sequence[tuple[int, int]],
    *,
    scales: Sequence[float],
    aspect_ratios: Sequence[Sequence[float]],
    steps: Sequence[tuple[float, float]] | None = None,
    clip: bool = True,
) -> np.ndarray:
    """Compute SSD's default boxes on the cells of every feature level.

    Order: level, row, column, shape; within a cell the square of the level's scale, the square of
    the geometric mean with the next scale, then for each ratio a wide and a tall box.

    Args:
        image_size: (height, width) of the network's input in pixels.
        feature_sizes: (height, width) in cells, one pair per level.
        scales: box sizes as fractions of the image's shorter side, one more than there are levels.
        aspect_ratios: extra ratios of each level, such as (2, 3).
        steps: (vertical, horizontal) spacing of cells in pixels, one pair per level;
            None computes them as image size / feature size.
        clip: whether to clip centres and sizes (not corners) to [0, 1].

    Returns:
        float64 [A, 4]: (ycenter, xcenter, height, width) as fractions of the image.

    Raises:
        ValueError: the arguments have different numbers of levels.

    Source: docs/reference/ssd_resnet34.md, section 2
    """
    levels = len(feature_sizes)
    if len(scales) != levels + 1 or len(aspect_ratios) != levels:
        raise ValueError(
            f"{levels} feature levels need {levels + 1} scales and {levels} lists of aspect "
            f"ratios, got {len(scales)} and {len(aspect_ratios)}; set `scales` and "
            "`aspect_ratios` of the anchors to fit the network."
        )
    if steps is None:
        steps = [(image_size[0] / h, image_size[1] / w) for h, w in feature_sizes]
    if len(steps) != levels:
        raise ValueError(
            f"{levels} feature levels need {levels} steps, got {len(steps)}; set `steps` of the "
            "anchors to fit the network."
        )
    shorter = min(image_size)
    # Squares stay squares in pixels on images that are not square.
    unit = np.array([shorter / image_size[0], shorter / image_size[1]])
    boxes = []
    for level, (rows, columns) in enumerate(feature_sizes):
        shapes = _cell_shapes(scales[level], scales[level + 1], aspect_ratios[level]) * unit
        # By image size / step, as published, and not by the feature size: at 300 pixels the last
        # cells of the 10 x 10 level have their centres beyond the image, where clipping puts them
        # on 1.
        ycenters = (np.arange(rows) + 0.5) / (image_size[0] / steps[level][0])
        xcenters = (np.arange(columns) + 0.5) / (image_size[1] / steps[level][1])
        grid = np.empty((rows, columns, len(shapes), 4))
        # [row, column, shape, 4], flattened in this order: the shape varies fastest.
        grid[..., 0] = ycenters[:, None, None]
        grid[..., 1] = xcenters[None, :, None]
        grid[..., 2:] = shapes
        boxes.append(grid.reshape(-1, 4))
    result = np.concatenate(boxes)
    return np.clip(result, 0.0, 1.0) if clip else result


def pixel_boxes(
    feature_sizes: Sequence[tuple[int, int]],
    *,
    sizes: Sequence[float],
    aspect_ratios: Sequence[Sequence[float]],
    steps: Sequence[tuple[float, float]],
) -> np.ndarray:
    """Compute the boxes of `default_boxes` in pixels, in float32 throughout, never clipped.

    The boxes of the first cell are moved from cell to cell, which gives, bit for bit, the boxes
    that published systems match with: if an object lies inside many anchors of equal area, only
    their rounding decides which is the best.

    Args:
        feature_sizes: (height, width) in cells, one pair per level.
        sizes: sides of the small squares in pixels, one more than there are levels.
        aspect_ratios: extra ratios of each level, such as (2, 3).
        steps: (vertical, horizontal) spacing of cells in pixels, one pair per level.

    Returns:
        float32 [A, 4], yxyx in pixels, in the order of `default_boxes`.

    Source: docs/reference/ssd_vgg16.md, sections 6.2, 6.3 and 16 (targets.npz)
    """
    single, boxes = np.float32, []
    for level, (rows, columns) in enumerate(feature_sizes):
        size, larger = sizes[level], sizes[level + 1]
        # Height over width, so that the wide box, 1 / ratio, comes before the tall one.
        ratios = [1.0, 1.0, *(r for ratio in aspect_ratios[level] for r in (1.0 / ratio, ratio))]
        scales = np.ones(len(ratios), single)
        # The second square has the geometric mean of this level's side and the next one's.
        scales[1] = np.sqrt(larger / size)
        tall = np.sqrt(np.array(ratios, single))
        shapes = [single(size) * side * scales for side in (tall, single(1.0) / tall)]
        center = np.array([[step / 2.0] for step in steps[level]], single)
        half = single(0.5) * np.stack(shapes)
        cell = np.concatenate([center - half, center + half]).T
        shift = np.zeros((rows, columns, 1, 4), single)
        # Places 0 and 2 of a box are its ymin and ymax, 1 and 3 its xmin and xmax.
        shift[..., ::2] = (np.arange(rows) * steps[level][0])[:, None, None, None]
        shift[..., 1::2] = (np.arange(columns) * steps[level][1])[:, None, None]
        boxes.append((shift + cell).reshape(-1, 4))
    return np.concatenate(boxes)


def sizes_of_percentages(
    side: int, percentages: tuple[int, int], *, num_levels: int, first: int
) -> tuple[int, ...]:
    """Compute SSD's box sizes from percentages of the image, in whole pixels at every step.

    Args:
        side: side of the square image in pixels.
        percentages: sizes of the second and the last level; those between are evenly spaced.
        num_levels: L, feature levels, at least 3.
        first: size of the first level in percent.

    Returns:
        L + 1 sizes in pixels: of each level's small square, and one more after the last level.

    Raises:
        ValueError: fewer than 3 levels.

    Source: docs/reference/ssd_vgg16.md, section 6.1
    """
    if num_levels < 3:
        raise ValueError(f"percentages need at least 3 levels, got {num_levels}.")
    low, high = percentages
    step = (high - low) // (num_levels - 2)
    spread = [low + step * index for index in range(num_levels)]
    return tuple(int(side * percent / 100) for percent in (first, *spread))


def _cell_shapes(scale: float, next_scale: float, ratios: Sequence[float]) -> np.ndarray:
    """Return the (height, width) of a cell's boxes as fractions of the shorter side, [n, 2]."""
    mean = np.sqrt(scale * next_scale)
    shapes = [(scale, scale), (mean, mean)]
    for ratio in ratios:
        wide, narrow = scale * np.sqrt(ratio), scale / np.sqrt(ratio)
        shapes += [(narrow, wide), (wide, narrow)]
    return np.array(shapes)


def corners(center_size: np.ndarray) -> np.ndarray:
    """Convert (ycenter, xcenter, height, width) to yxyx corners, any float dtype, [..., 4]."""
    center, half = center_size[..., :2], center_size[..., 2:] / 2.0
    return np.concatenate([center - half, center + half], axis=-1)


def multiscale_anchors(
    image_size: tuple[int, int],
    feature_sizes: Sequence[tuple[int, int]],
    *,
    min_level: int = 3,
    anchor_scale: float = 4.0,
    aspect_ratios: Sequence[float] = (1.0, 2.0, 0.5),
    scales_per_octave: int = 2,
) -> np.ndarray:
    """Compute anchors of equal shapes on all levels of a pyramid, scaled with the stride.

    Order: level, row, column, aspect ratio, scale. Cells begin at half a stride if the stride
        divides the image's side, else at 0, separately for each axis. As in `pixel_boxes`, float32
        numbers in pixels give, bit for bit, the boxes that published systems match with.

    Args:
        image_size: (height, width) of the network's input in pixels.
        feature_sizes: (height, width) in cells, one pair per level.
        min_level: log2 of the first level's stride; each level has twice the stride of the one
            before.
        anchor_scale: side of the smallest square as a multiple of the stride.
        aspect_ratios: width / height of the shapes, at constant area.
        scales_per_octave: number of sizes from one level to the next.

    Returns:
        float32 [A, 4], yxyx as fractions of the image; corners may lie outside [0, 1].

    Source: docs/reference/ssd320_resnet50_fpn.md, section 4
    """
    # Ratio outside, scale inside: (r1 s1, r1 s2, r2 s1, ...).
    ratios = np.sqrt(np.repeat(np.asarray(aspect_ratios, np.float32), scales_per_octave))
    octaves = (2.0 ** (np.arange(scales_per_octave) / scales_per_octave)).astype(np.float32)
    sides = np.tile(octaves, len(aspect_ratios))
    boxes = []
    for level, (rows, columns) in enumerate(feature_sizes, min_level):
        stride = np.float32(2**level)
        # At 320 pixels level 7 has a stride of 128 and begins at 0, the others at half a stride.
        begin = [stride / 2 if side % stride == 0 else np.float32(0.0) for side in image_size]
        base = np.float32(anchor_scale) * stride
        grid = np.empty((rows, columns, len(sides), 4), np.float32)
        grid[..., 0] = (begin[0] + stride * np.arange(rows, dtype=np.float32))[:, None, None]
        grid[..., 1] = (begin[1] + stride * np.arange(columns, dtype=np.float32))[None, :, None]
        grid[..., 2] = sides / ratios * base
        grid[..., 3] = sides * ratios * base
        boxes.append(grid.reshape(-1, 4))
    # A product with the rounded reciprocal; a quotient differs in the last bit.
    scale = np.float32(1.0) / np.tile(np.asarray(image_size, np.float32), 2)
    return corners(np.concatenate(boxes)) * scale
