"""Pictures put into pictures: sizes, places, blends, and what of a box stays to be seen."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import crops
from ssd_centernet.ops import image as image_ops


def scaled_size(size: tf.Tensor, frame: tf.Tensor | tuple[int, int], scale: tf.Tensor) -> tf.Tensor:
    """Compute the size of a picture that fits a frame, times a factor.

    Args:
        size: int32 [2], (height, width) of the picture in pixels.
        frame: int32 [2], (height, width) in pixels.
        scale: float32 scalar; 1 fits the picture into the frame, with its aspect ratio kept.

    Returns:
        int32 [2], at least 1.
    """
    sides = tf.cast(size, tf.float32)
    share = tf.reduce_min(tf.cast(frame, tf.float32) / sides) * scale
    return tf.cast(tf.maximum(tf.round(sides * share), 1.0), tf.int32)


def resize_to_bytes(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resize an image uint8 [H, W, 3] to `size`, int32 [2], with half-pixel centres."""
    resized = tf.round(image_ops.resize_bilinear(image, size))
    return tf.ensure_shape(tf.cast(resized, tf.uint8), [None, None, 3])


def draw_place(slack: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Draw a whole number from 0 to `slack` for each axis.

    Args:
        slack: int32 [...], >= 0.
        uniforms: float32 [...] in [0, 1).

    Returns:
        int32 [...].
    """
    # A draw just below 1 may be rounded up to the end, which is excluded.
    drawn = tf.cast(uniforms * tf.cast(slack + 1, tf.float32), tf.int32)
    return tf.minimum(drawn, slack)


def blend_at(
    image: tf.Tensor, patch: tf.Tensor, place: tf.Tensor, share: tf.Tensor | float
) -> tf.Tensor:
    """Blend a patch into an image.

    Args:
        image: uint8 [H, W, 3].
        patch: uint8 [h, w, 3]; must fit.
        place: int32 [2], (y, x) of its corner.
        share: of the patch in the result, 0..1: a number or float32 [h, w, 1].

    Returns:
        uint8 [H, W, 3].
    """
    size = tf.shape(patch)[:2]
    (top, left), (bottom, right) = tf.unstack(place), tf.unstack(place + size)
    under = tf.cast(image[top:bottom, left:right], tf.float32)
    mixed = tf.round(under + (tf.cast(patch, tf.float32) - under) * share)
    rows = [image[top:bottom, :left], tf.cast(mixed, tf.uint8), image[top:bottom, right:]]
    result = tf.concat([image[:top], tf.concat(rows, axis=1), image[bottom:]], axis=0)
    return tf.ensure_shape(result, [None, None, 3])


def soft_edge(size: tf.Tensor, width: float) -> tf.Tensor:
    """Make the share of a pasted rectangle: 1 inside, falling towards its border.

    Args:
        size: int32 [2], (height, width) in pixels.
        width: pixels in which it falls; 0 gives a hard edge.

    Returns:
        float32 [height, width, 1]; n pixels from the border (n = 0 is the outermost), it is
        (n + 0.5) / width, at most 1, and at a corner the product of both.
    """

    def ramp(length: tf.Tensor) -> tf.Tensor:
        places = tf.range(tf.cast(length, tf.float32)) + 0.5
        inside = tf.minimum(places, tf.cast(length, tf.float32) - places)
        return tf.minimum(inside / width, 1.0) if width else tf.ones_like(inside)

    return (ramp(size[0])[:, tf.newaxis] * ramp(size[1]))[..., tf.newaxis]


def boxes_at(
    boxes: tf.Tensor,
    window: tf.Tensor,
    size: tf.Tensor,
    place: tf.Tensor,
    canvas: tf.Tensor,
    *,
    min_visible: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Move boxes with a window of their picture that is put on a canvas.

    Args:
        boxes: float32 [N, 4], yxyx fractions of the picture.
        window: int32 [4], (y, x, height, width) in pixels of the picture.
        size: int32 [2], (height, width) of the picture in pixels.
        place: int32 [4], (y, x, height, width): what the window becomes on the canvas, in pixels.
        canvas: int32 [2], (height, width) of the canvas in pixels.
        min_visible: share of a box that must lie in the window for the box to stay.

    Returns:
        Boxes float32 [N, 4] as fractions of the canvas, and bool [N]: which stay.
    """
    inner, kept = crops.crop_boxes(boxes, crops.frame_of(window, size), min_overlap=min_visible)
    kept &= tf.reduce_all(inner[:, 2:] > inner[:, :2], axis=1)
    start, sides = tf.cast(place[:2], tf.float32), tf.cast(place[2:], tf.float32)
    moved = inner * tf.tile(sides, [2]) + tf.tile(start, [2])
    return moved / tf.cast(tf.tile(canvas, [2]), tf.float32), kept


def covered_share(boxes: tf.Tensor, covers: tf.Tensor) -> tf.Tensor:
    """Compute which share of each box some rectangles cover together.

    Args:
        boxes: float32 [N, 4], yxyx.
        covers: float32 [K, 4], in the same frame; they may overlap each other or be empty.

    Returns:
        float32 [N] in 0..1; 0 for a box without area.
    """

    # The edges of the rectangles divide the plane into cells, each of which is covered or not.
    def cells(low: int) -> tuple[tf.Tensor, tf.Tensor]:
        edges = tf.sort(tf.concat([covers[:, low], covers[:, low + 2]], axis=0))
        starts, ends = edges[:-1], edges[1:]
        within = (covers[:, low, tf.newaxis] <= starts) & (ends <= covers[:, low + 2, tf.newaxis])
        ends = tf.minimum(boxes[:, low + 2, tf.newaxis], ends)
        return within, tf.nn.relu(ends - tf.maximum(boxes[:, low, tf.newaxis], starts))

    (in_rows, heights), (in_columns, widths) = cells(0), cells(1)
    both = in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis]
    covered = tf.cast(tf.reduce_any(both, axis=0), tf.float32)
    area = tf.reduce_sum(tf.matmul(heights, covered) * widths, axis=1)
    return tf.clip_by_value(tf.math.divide_no_nan(area, box_ops.area(boxes)), 0.0, 1.0)
