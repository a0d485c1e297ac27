"""Colours in hue, saturation and value, for values of any range; nothing is ever clipped."""

from __future__ import annotations

import itertools

import tensorflow as tf

# The orders in which three channels can be put, the given one first.
CHANNEL_ORDERS: tuple[tuple[int, int, int], ...] = tuple(itertools.permutations(range(3)))

_EPSILON = 1.1920929e-07  # Of float32: keeps the quotients of greys and of black finite.


def to_hsv(red: tf.Tensor, green: tf.Tensor, blue: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Convert channels to hue, saturation and value as OpenCV does for floats.

    Args:
        red: float32 of any shape and range.
        green: float32, same shape.
        blue: float32, same shape.

    Returns:
        `(hue, saturation, value)`, float32: the hue in degrees, 0..360, 0 for greys; the saturation
        in 0..1 where no channel is negative; the value, the largest channel.

    Source: docs/reference/ssd_vgg16.md, section 11.2
    """
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    # Of equal channels red counts before green, and green before blue.
    is_red, is_green = tf.equal(value, red), tf.equal(value, green)
    turn = tf.where(is_red, green - blue, tf.where(is_green, blue - red, red - green))
    sector = tf.where(is_red, 0.0, tf.where(is_green, 120.0, 240.0))
    hue = sector + turn * (60.0 / (chroma + _EPSILON))
    hue = tf.where(hue < 0.0, hue + 360.0, hue)
    return hue, chroma / (tf.abs(value) + _EPSILON), value


def from_hsv(hue: tf.Tensor, saturation: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Convert hue, saturation and value, as of `to_hsv`, to `(red, green, blue)`.

    The hue may lie anywhere on the circle's turns, and the saturation outside 0..1.

    Source: docs/reference/ssd_vgg16.md, section 11.2
    """
    chroma = value * saturation

    def channel(offset: float) -> tf.Tensor:
        position = hue / 60.0 + offset
        position -= 6.0 * tf.floor(position / 6.0)
        return value - chroma * tf.clip_by_value(tf.minimum(position, 4.0 - position), 0.0, 1.0)

    # Each channel is the same trapezium over the circle, turned by a third.
    return channel(5.0), channel(3.0), channel(1.0)


def distort(
    image: tf.Tensor,
    *,
    brightness: tf.Tensor,
    contrast_first: tf.Tensor,
    saturation: tf.Tensor,
    hue: tf.Tensor,
    contrast_last: tf.Tensor,
    order: tf.Tensor,
) -> tf.Tensor:
    """Distort the colours of an image as SSD does, without ever clipping.

    Args:
        image: float32 [..., 3], RGB in 0..255.
        brightness: scalar, added to all channels.
        contrast_first: scalar factor, before the conversion to hue, saturation and value.
        saturation: scalar factor.
        hue: scalar, added in degrees.
        contrast_last: scalar factor, after the conversion back.
        order: int32 scalar, index into `CHANNEL_ORDERS`: which channels become red, green and blue.

    Returns:
        float32 [..., 3]; values outside 0..255 occur.

    Source: docs/reference/ssd_vgg16.md, section 11.2
    """
    # Plane by plane: compiled code then handles many pixels per instruction.
    planes = [(plane + brightness) * contrast_first for plane in tf.unstack(image, axis=-1)]
    turned, saturated, value = to_hsv(*planes)
    planes = from_hsv(turned + hue, saturated * saturation, value)
    planes = tf.stack([plane * contrast_last for plane in planes])
    # Three planes change places, instead of three values in every pixel.
    planes = tf.gather(planes, tf.gather(tf.constant(CHANNEL_ORDERS), order))
    return tf.stack(tf.unstack(planes), axis=-1)
