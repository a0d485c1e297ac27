"""SSD's crops by overlap: a larger canvas, the search for a window, boxes in its frame."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ssd_centernet.data.augment.common import spaced_seed
from ssd_centernet.data.augment.ssd import centers_inside
from ssd_centernet.native import calls, library
from ssd_centernet.ops import boxes as box_ops

# Windows tried with one bound before another bound is drawn.
_ATTEMPTS = 50
# Bounds searched together; see `data/augment/ssd.py`, whose limit of turns this has too.
_BOUNDS_PER_TURN = 4
_MAX_TURNS = 250


def expansion(
    size: tf.Tensor, uniforms: tf.Tensor, *, probability: float = 0.5, max_ratio: float = 4.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Place a picture on a larger canvas.

    Args:
        size: int32 [2], (height, width) of the picture in pixels.
        uniforms: float32 [4] in [0, 1): whether to expand, the ratio, the vertical and the
            horizontal place.
        probability: chance of an expansion.
        max_ratio: largest ratio of the canvas' sides to the picture's.

    Returns:
        `(canvas, offset)`, int32 [2] each: the canvas' (height, width), and the picture's upper
        left corner (y, x) on it.

    Source: docs/reference/ssd_vgg16.md, section 11.3
    """
    sides = tf.cast(size, tf.float32)
    expanded = sides * (1.0 + uniforms[1] * (max_ratio - 1.0))
    expanded = tf.where(uniforms[0] < probability, expanded, sides)
    offset = uniforms[2:] * (expanded - sides)
    return tf.cast(expanded, tf.int32), tf.cast(offset, tf.int32)


def windows_of(uniforms: tf.Tensor, size: tf.Tensor, min_extent: float = 0.3) -> tf.Tensor:
    """Turn uniform draws into crop windows.

    Args:
        uniforms: float32 [..., 4] in [0, 1): of height, width, top and left.
        size: int32 [2], (height, width) of the picture in pixels.
        min_extent: smallest height and width as fractions of the picture's.

    Returns:
        float32 [..., 4], yxyx in pixels, not yet cut to whole ones.

    Source: docs/reference/ssd_vgg16.md, section 11.4
    """
    sides = tf.cast(size, tf.float32)
    extents = sides * (min_extent + (1.0 - min_extent) * uniforms[..., :2])
    starts = uniforms[..., 2:] * (sides - extents)
    return tf.concat([starts, starts + extents], axis=-1)


def accepts(
    boxes: tf.Tensor, windows: tf.Tensor, min_iou: tf.Tensor, *, max_aspect_ratio: float = 2.0
) -> tf.Tensor:
    """Tell which crop windows are accepted.

    A window is accepted if neither side is more than `max_aspect_ratio` times the other, it is not
    empty once it is cut to whole pixels, its overlap with every box is at least `min_iou`, and at
    least one box has its centre strictly inside. The last two do not apply to a picture without
    boxes.

    Args:
        boxes: float32 [N, 4], yxyx in pixels, crowd regions among them.
        windows: float32 [..., P, 4], from `windows_of`.
        min_iou: float32 [...], a bound for each P windows.
        max_aspect_ratio: largest ratio of a window's sides in pixels.

    Returns:
        bool [..., P].

    Source: docs/reference/ssd_vgg16.md, section 11.4
    """
    height, width = tf.unstack(windows[..., 2:] - windows[..., :2], axis=-1)
    ratio = height / width
    shaped = tf.logical_and(ratio >= 1.0 / max_aspect_ratio, ratio <= max_aspect_ratio)
    whole = tf.floor(windows)
    shaped &= tf.reduce_all(whole[..., 2:] > whole[..., :2], axis=-1)
    overlaps = box_ops.iou(whole, boxes) >= min_iou[..., tf.newaxis, tf.newaxis]
    centers = tf.reduce_any(centers_inside(boxes, whole), axis=-1)
    centers = tf.logical_or(centers, tf.equal(tf.shape(boxes)[0], 0))
    return shaped & tf.reduce_all(overlaps, axis=-1) & centers


def sample_crop(
    boxes: tf.Tensor,
    size: tf.Tensor,
    seed: tf.Tensor,
    *,
    min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0),
    no_crop_probability: float = 1 / 7,
    min_extent: float = 0.3,
    max_aspect_ratio: float = 2.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw a bound and up to 50 windows; repeat until a window is accepted.

    Args:
        boxes: float32 [N, 4], yxyx in pixels, crowd regions among them.
        size: int32 [2], (height, width) of the picture in pixels.
        seed: integer [2], stateless seed.
        min_ious: overlaps; each turn draws one.
        no_crop_probability: chance, in each turn, of keeping the whole picture.
        min_extent: smallest height and width of a window as fractions of the picture's.
        max_aspect_ratio: largest ratio of a window's sides in pixels.

    Returns:
        The window float32 [4], yxyx in whole pixels, and the bound float32 scalar that it was drawn
        with, 1 if the whole picture was kept. After 1000 bounds without success the whole picture
        is kept too.

    Source: docs/reference/ssd_vgg16.md, section 11.4
    """
    seed = spaced_seed(seed)
    if library.active():
        window, bound, _ = calls.find_crop(
            boxes,
            seed,
            size=size,
            min_ious=min_ious,
            no_crop_probability=no_crop_probability,
            min_extent=min_extent,
            max_aspect_ratio=max_aspect_ratio,
        )
        return window, bound
    everything = tf.concat([tf.zeros([2]), tf.cast(size, tf.float32)], axis=0)

    def turn(index, window, bound, done):
        draws = tf.random.stateless_uniform(
            [_BOUNDS_PER_TURN, 2 + 4 * _ATTEMPTS],
            seed=tf.stack([seed[0], seed[1] + tf.cast(index, tf.int64)]),
        )
        keeps = draws[:, 0] < no_crop_probability
        choice = tf.cast(draws[:, 1] * len(min_ious), tf.int32)
        bounds = tf.gather(tf.constant(min_ious, tf.float32), choice)
        uniforms = tf.reshape(draws[:, 2:], [_BOUNDS_PER_TURN, _ATTEMPTS, 4])
        windows = windows_of(uniforms, size, min_extent)
        accepted = accepts(boxes, windows, bounds, max_aspect_ratio=max_aspect_ratio)
        found = tf.reduce_any(accepted, axis=-1) | keeps
        row = tf.argmax(tf.cast(found, tf.int32))
        column = tf.argmax(tf.cast(accepted[row], tf.int32))
        chosen = tf.where(keeps[row], everything, tf.floor(windows[row, column]))
        done = found[row]
        bound = tf.where(done & ~keeps[row], bounds[row], 1.0)
        return index + 1, tf.where(done, chosen, window), bound, done

    _, window, bound, _ = tf.while_loop(
        lambda index, window, bound, done: tf.logical_not(done),
        turn,
        (tf.constant(0), everything, tf.constant(1.0), tf.constant(False)),
        maximum_iterations=_MAX_TURNS,
    )
    return window, bound


def crop_boxes(
    boxes: tf.Tensor, window: tf.Tensor, bound: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut boxes to a window and move them into its frame.

    Args:
        boxes: float32 [N, 4], yxyx in pixels.
        window: float32 [4], yxyx in whole pixels.
        bound: float32 scalar of `sample_crop`; with 1 every box stays as it is.

    Returns:
        Boxes float32 [N, 4] in pixels of the window, and bool [N]: which stay (those whose centre
        is strictly inside).

    Source: docs/reference/ssd_vgg16.md, section 11.4
    """
    whole = bound >= 1.0
    cut = box_ops.clip(boxes, window) - tf.concat([window[:2], window[:2]], axis=0)
    return tf.where(whole, boxes, cut), centers_inside(boxes, window) | whole
