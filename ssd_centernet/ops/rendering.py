"""From decoded pixels to the network's input, for a batch at once and with static shapes.

The operations run on any device and under XLA. What they do is described in the same terms as for
the compiled operation of `native/calls.py`, and they give the same pixels to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from ssd_centernet.ops import color
from ssd_centernet.ops import image as image_ops

# Fields of `places`, see `native.calls.places`: pairs of (y, x).
_FIELDS = 6  # start, length, offset, canvas, scaled, cut
# Of a position in pixels.
_ROUNDING = 1e-3


class _Taps(NamedTuple):
    """The two samples of each position along one side, and the share of the second.

    Attributes:
        places: int32 [B, 2 n], first all lower samples, then all upper ones.
        inside: bool [B, 2 n], False where the fill is meant.
        share: float32 [B, n].
    """

    places: tf.Tensor
    inside: tf.Tensor
    share: tf.Tensor


def render_batch(
    pixels: tf.Tensor,
    sizes: tf.Tensor,
    size: tuple[int, int],
    *,
    flip: tf.Tensor,
    sampling: str,
    places: tf.Tensor | None = None,
    box: tf.Tensor | None = None,
    mirror_picture: bool = False,
    color_kind: str = "none",
    colors: tf.Tensor | None = None,
    clip_each: bool = True,
    fill: Sequence[float] = (0.0, 0.0, 0.0),
    divisor: float = 1.0,
    mean: Sequence[float],
    std: Sequence[float],
    channels: str = "RGB",
) -> tf.Tensor:
    """Sample pixels, change their colours and normalise them.

    Args:
        pixels: uint8 [B, H, W, 3], RGB: each image at the top left, zeros elsewhere.
        sizes: int32 [B, 2], (height, width) of each image in pixels.
        size: (height, width) of the result.
        flip: bool [B], whether to mirror.
        sampling: as in `native.calls.render`, as are the arguments below.
        places: int32 [B, 12].
        box: float32 [B, 4].
        mirror_picture: whether the pixels are mirrored first, not the result last.
        color_kind: "none", "distort", "hue_first" or "jitter".
        colors: float32 [B, K].
        clip_each: of "hue_first".
        fill: colour of the canvas.
        divisor: of the pixels.
        mean: of each channel of the result.
        std: of each channel of the result.
        channels: order of the result, "RGB" or "BGR".

    Returns:
        float32 [B, height, width, 3].
    """
    rows, columns = (
        _crop_taps(sizes[:, side], box[:, side], box[:, side + 2], size[side])
        if sampling == "crop"
        else _resize_taps(tf.reshape(places, [-1, _FIELDS, 2])[..., side], size[side], sampling)
        for side in range(2)
    )
    if mirror_picture:
        # Of the picture: its last column comes first.
        mirrored = sizes[:, 1:] - 1 - columns.places
        chosen = tf.where(flip[:, tf.newaxis], mirrored, columns.places)
        columns = columns._replace(places=tf.where(columns.inside, chosen, columns.places))
    if color_kind in ("distort", "hue_first"):
        pixels = _colored(pixels, sizes, color_kind, colors, clip_each=clip_each)
    images = _sample(pixels, rows, columns, fill)
    if not mirror_picture:
        images = tf.where(_spread(flip), tf.reverse(images, axis=[2]), images)
    if divisor != 1.0:
        images = images / divisor
    if color_kind == "jitter":
        images = tf.vectorized_map(
            lambda one: color.jitter(one[0], *tf.unstack(one[1], num=4)), (images, colors)
        )
    if channels == "BGR":
        images = tf.reverse(images, axis=[-1])
    return image_ops.normalize(images, tuple(mean), tuple(std))


def _spread(values: tf.Tensor) -> tf.Tensor:
    """Turn [B] into [B, 1, 1, 1]."""
    return tf.reshape(values, [-1, 1, 1, 1])


def _sample(pixels: tf.Tensor, rows: _Taps, columns: _Taps, fill: Sequence[float]) -> tf.Tensor:
    """Read the four samples of each pixel of the result and blend them."""
    # Columns first: rows, which lie together in memory, are then repeated more cheaply.
    samples = tf.gather(pixels, columns.places, axis=2, batch_dims=1)
    samples = tf.gather(samples, rows.places, axis=1, batch_dims=1)
    inside = rows.inside[:, :, tf.newaxis] & columns.inside[:, tf.newaxis]
    samples = tf.cast(samples, tf.float32)
    samples = tf.where(inside[..., tf.newaxis], samples, tf.constant(fill, tf.float32))
    left, right = tf.split(samples, 2, axis=2)
    # First along the columns, then along the rows, as the kernels do: last bits depend on it.
    samples = left + (right - left) * columns.share[:, tf.newaxis, :, tf.newaxis]
    upper, lower = tf.split(samples, 2, axis=1)
    return upper + (lower - upper) * rows.share[:, :, tf.newaxis, tf.newaxis]


def _crop_taps(length: tf.Tensor, start: tf.Tensor, end: tf.Tensor, count: int) -> _Taps:
    """Return the taps of `tf.image.crop_and_resize` between two fractions of a side."""
    last = tf.cast(length - 1, tf.float32)[:, tf.newaxis]
    start, end = start[:, tf.newaxis], end[:, tf.newaxis]
    if count > 1:
        places = tf.range(count, dtype=tf.float32)
        positions = start * last + places * ((end - start) * last / (count - 1))
    else:
        positions = 0.5 * (start + end) * last
    # Beyond the picture is the fill; a position at its border may be rounded to either side.
    inside = (positions >= -_ROUNDING) & (positions <= last + _ROUNDING)
    positions = tf.clip_by_value(positions, 0.0, last)
    lower = tf.floor(positions)
    both = tf.cast(tf.concat([lower, tf.math.ceil(positions)], axis=1), tf.int32)
    both = tf.clip_by_value(both, 0, length[:, tf.newaxis] - 1)
    return _Taps(both, tf.concat([inside, inside], axis=1), positions - lower)


def _resize_taps(side: tf.Tensor, count: int, sampling: str) -> _Taps:
    """Return the taps of a resize of a canvas on which a part of the pixels lies."""
    columns = [side[:, index, tf.newaxis] for index in range(_FIELDS)]
    start, length, offset, canvas, scaled, cut = columns
    places = tf.range(count) + cut
    # In float32 a division may become a product with a rounded reciprocal.
    ratio = tf.cast(canvas, tf.float64) / tf.cast(scaled, tf.float64)
    if sampling == "half_pixel_exact":
        exact = (tf.cast(places, tf.float64) + 0.5) * ratio - 0.5
        below = tf.floor(exact)
        share = tf.cast(exact - below, tf.float32)
        low = tf.cast(below, tf.int32)
        high = tf.clip_by_value(low + 1, 0, canvas - 1)
        low = tf.clip_by_value(low, 0, canvas - 1)
    else:
        scale, positions = tf.cast(ratio, tf.float32), tf.cast(places, tf.float32)
        if sampling == "half_pixel":
            positions = (positions + 0.5) * scale - 0.5
        else:
            positions = positions * scale
        below = tf.floor(positions)
        share = positions - below
        high = tf.minimum(tf.cast(tf.math.ceil(positions), tf.int32), canvas - 1)
        low = tf.minimum(tf.maximum(tf.cast(below, tf.int32), 0), high)
    both = tf.concat([low, high], axis=1) - offset
    shown = tf.tile(places < scaled, [1, 2])
    inside = shown & (both >= 0) & (both < length)
    return _Taps(tf.where(inside, both + start, 0), inside, share)


def _colored(
    pixels: tf.Tensor, sizes: tf.Tensor, kind: str, colors: tf.Tensor, *, clip_each: bool
) -> tf.Tensor:
    """Change the colours of all pixels, float32 [B, H, W, 3] in 0..255."""
    if kind == "distort":

        def distort(one: Mapping) -> tf.Tensor:
            names = ("brightness", "contrast_first", "saturation", "hue", "contrast_last")
            values = dict(zip(names, tf.unstack(one[1][:5]), strict=True))
            order = tf.cast(one[1][5], tf.int32)
            return color.distort(tf.cast(one[0], tf.float32), **values, order=order)

        return tf.vectorized_map(distort, (pixels, colors))

    def turn(one: tuple) -> tf.Tensor:
        flat, count, factors = one
        factors = tf.unstack(factors[:4])
        return color.hue_first_jitter(flat, count, *factors, clip_each=clip_each)

    flat = tf.reshape(pixels, [pixels.shape[0] or -1, pixels.shape[1] * pixels.shape[2], 3])
    counts = tf.reduce_prod(sizes, axis=1)
    return tf.reshape(tf.vectorized_map(turn, (flat, counts, colors)), tf.shape(pixels))
