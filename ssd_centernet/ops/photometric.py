"""Changes of the colours of pictures of bytes, as Pillow makes them, in graphs."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Of red, green and blue in a grey level, in parts of 2**16 (ITU-R 601).
_GREY = (19595, 38470, 7471)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiply uint8 [H, W, 3] by a factor: 0 is black, 1 changes nothing."""
    return _look_up(image, _blended(0.0, _levels(), factor))


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Spread uint8 [H, W, 3] around its mean grey level: 0 is this grey, 1 changes nothing."""
    mean = tf.floor(tf.reduce_mean(tf.cast(_grey(image), tf.float32)) + 0.5)
    return _look_up(image, _blended(mean, _levels(), factor))


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Change the saturation of uint8 [H, W, 3]: 0 is grey, 1 changes nothing."""
    return _blended(tf.cast(_grey(image), tf.float32), tf.cast(image, tf.float32), factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Sharpen uint8 [H, W, 3]: 0 is smoothed, 1 changes nothing; the border stays as it is."""
    pixels = tf.cast(image, tf.float32)
    rows, columns = (tf.shape(image)[axis] - 2 for axis in (0, 1))

    def inner() -> tf.Tensor:
        # Nine neighbours of weight 1, and 4 more of the pixel itself.
        middle = pixels[1:-1, 1:-1]
        around = [pixels[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
        smooth = tf.floor((tf.add_n(around) + 4.0 * middle) / 13.0 + 0.5)
        changed = _blended(smooth, middle, factor)
        sides = [image[1:-1, :1], changed, image[1:-1, -1:]]
        return tf.concat([image[:1], tf.concat(sides, axis=1), image[-1:]], axis=0)

    result = tf.cond((rows > 0) & (columns > 0), inner, lambda: image)
    return tf.ensure_shape(result, [None, None, 3])


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the highest bits, 0..8, of uint8 [H, W, 3]."""
    lost = tf.bitwise.left_shift(1, 8 - bits)
    return tf.cast(tf.cast(image, tf.int32) // lost * lost, tf.uint8)


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert the values of uint8 [H, W, 3] that are not below a threshold, 0..256."""
    return tf.where(tf.cast(image, tf.float32) < threshold, image, 255 - image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Use all values of each channel of uint8 [H, W, 3] about equally often."""

    def table(counts: tf.Tensor) -> tf.Tensor:
        last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0))
        step = (tf.reduce_sum(counts) - counts[last]) // 255
        before = tf.cumsum(counts, exclusive=True) + step // 2
        equal = tf.clip_by_value(before // tf.maximum(step, 1), 0, 255)
        return tf.where(step > 0, equal, tf.range(256))

    return _look_up_channels(image, table)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretch each channel of uint8 [H, W, 3] so that it reaches from 0 to 255."""

    def table(counts: tf.Tensor) -> tf.Tensor:
        places = tf.range(256)
        low = tf.reduce_min(tf.where(counts > 0, places, 255))
        high = tf.reduce_max(tf.where(counts > 0, places, 0))
        # Whole numbers, so that the largest value becomes 255 and not what is just below it.
        stretched = (places - low) * 255 // tf.maximum(high - low, 1)
        return tf.where(high > low, tf.clip_by_value(stretched, 0, 255), places)

    return _look_up_channels(image, table)


def _levels() -> tf.Tensor:
    return tf.range(256, dtype=tf.float32)


def _grey(image: tf.Tensor) -> tf.Tensor:
    weighted = tf.reduce_sum(tf.cast(image, tf.int32) * tf.constant(_GREY), axis=2, keepdims=True)
    return tf.bitwise.right_shift(weighted + 2**15, 16)


def _blended(one: tf.Tensor | float, other: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Return one where `factor` is 0, the other where it is 1, and beyond; cut off to uint8."""
    return tf.cast(tf.clip_by_value(one + factor * (other - one), 0.0, 255.0), tf.uint8)


def _look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    return tf.gather(table, tf.cast(image, tf.int32))


def _look_up_channels(image: tf.Tensor, table: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Replace values by a table of each channel, which is made of how often each value occurs."""
    places = tf.cast(image, tf.int32) + tf.constant([0, 256, 512])
    counts = tf.math.bincount(tf.reshape(places, [-1]), minlength=768, maxlength=768)
    tables = tf.concat([table(one) for one in tf.unstack(tf.reshape(counts, [3, 256]))], axis=0)
    return tf.gather(tf.cast(tables, tf.uint8), places)
