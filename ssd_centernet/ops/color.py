"""Changes of colours in hue, saturation and value, for values of any range."""

from __future__ import annotations

import itertools

import tensorflow as tf

# All orders of three channels, the given one first.
CHANNEL_ORDERS: tuple[tuple[int, int, int], ...] = tuple(itertools.permutations(range(3)))

_EPSILON = 1.1920929e-07  # Of float32: keeps the quotients of greys and of black finite.


def to_hsv(red: tf.Tensor, green: tf.Tensor, blue: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Convert channels to hue, saturation and value as OpenCV does for floats.

    Args:
        red: float32 of any shape and range.
        green: float32, same shape.
        blue: float32, same shape.

    Returns:
        `(hue, saturation, value)`, float32: the hue in degrees, 0..360, 0 for greys; the
        saturation, in 0..1 if no channel is negative; the value, the largest channel.

    Source: docs/reference/ssd_vgg16.md, section 11.2
    """
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    third, rest = _turn(red, green, blue, value)
    hue = 120.0 * third + rest * (60.0 / (chroma + _EPSILON))
    hue = tf.where(hue < 0.0, hue + 360.0, hue)
    return hue, chroma / (tf.abs(value) + _EPSILON), value


def from_hsv(hue: tf.Tensor, saturation: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Convert hue, saturation and value, as from `to_hsv`, to `(red, green, blue)`.

    The hue may be any angle, and the saturation may lie outside 0..1.

    Source: docs/reference/ssd_vgg16.md, section 11.2
    """
    return _channels(hue / 60.0, value, value * saturation)


def _turn(red, green, blue, value) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the third of the colour circle, 0.0, 1.0 or 2.0, and what is to be added by chroma.

    Of equal channels red counts before green, and green before blue.
    """
    is_red, is_green = tf.equal(value, red), tf.equal(value, green)
    rest = tf.where(is_red, green - blue, tf.where(is_green, blue - red, red - green))
    return tf.where(is_red, 0.0, tf.where(is_green, 1.0, 2.0)), rest


def _channels(sixths, value, chroma) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return red, green and blue of a hue in sixths of the circle, on any of its rounds."""

    def channel(offset: float) -> tf.Tensor:
        position = sixths + offset
        position -= 6.0 * tf.floor(position / 6.0)
        return value - chroma * tf.clip_by_value(tf.minimum(position, 4.0 - position), 0.0, 1.0)

    # Each channel is the same trapezium over the circle, turned by a third.
    return channel(5.0), channel(3.0), channel(1.0)


def _saturate_and_turn(red, green, blue, saturation, hue) -> tf.Tensor:
    """Change saturation, then hue, in one pass.

    Equal to `tf.image.adjust_saturation` and `adjust_hue` to float32 rounding, outside 0..1 too.
    Saturation leaves hue and value (the largest channel) alone: both need the hue only once.
    """
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    third, rest = _turn(red, green, blue, value)
    sixths = 2.0 * third + rest / tf.where(chroma > 0.0, chroma, 1.0) + 6.0 * hue
    # Saturation is chroma / value: the product keeps hue and value, and its bound is a saturation
    # of 1. A negative value, which jitter makes, has none.
    chroma = tf.minimum(chroma * saturation, tf.maximum(value, 0.0))
    return tf.stack(_channels(sixths, value, chroma), axis=-1)


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
    """Distort the colours of an image as SSD does, without clipping.

    Args:
        image: float32 [..., 3], RGB in 0..255.
        brightness: scalar, added to all channels.
        contrast_first: scalar factor, before the conversion to hue, saturation and value.
        saturation: scalar factor.
        hue: scalar, added in degrees.
        contrast_last: scalar factor, after the conversion back.
        order: int32 scalar, index into `CHANNEL_ORDERS`: the channels that become red, green and
            blue.

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


def jitter(
    image: tf.Tensor,
    brightness: tf.Tensor,
    contrast: tf.Tensor,
    saturation: tf.Tensor,
    hue: tf.Tensor,
) -> tf.Tensor:
    """Apply brightness, contrast, saturation and hue in this order, never clipped.

    Args:
        image: float32 [H, W, 3], RGB in 0..1.
        brightness: scalar to add.
        contrast: scalar factor about the mean of each channel.
        saturation: scalar factor.
        hue: scalar to add, as a fraction of the full circle.

    Returns:
        float32 [H, W, 3]; values outside 0..1 occur.

    Source: docs/reference/ssd_resnet34.md, section 7.3, step 4
    """
    # Channel planes first: compiled code then handles many pixels per instruction. Brightness does
    # not move a pixel against the mean, so that both steps are one multiplication and one addition.
    planes = tf.transpose(image, [2, 0, 1])
    mean = tf.reduce_mean(planes, axis=[1, 2], keepdims=True)
    planes = (planes - mean) * contrast + (mean + brightness)
    return _saturate_and_turn(*tf.unstack(planes), saturation, hue)


def hue_first_jitter(
    pixels: tf.Tensor,
    count: tf.Tensor,
    hue: tf.Tensor,
    contrast: tf.Tensor,
    saturation: tf.Tensor,
    brightness: tf.Tensor,
    *,
    clip_each: bool = True,
) -> tf.Tensor:
    """Apply hue, contrast, saturation and brightness in this order.

    The image is a list of pixels, so that black ones can be appended: code is then compiled for a
    few lengths only, whatever the sizes of images.

    Args:
        pixels: uint8 or float32 [N, 3], RGB in 0..255, black from `count` on.
        count: int scalar, number of pixels of the image.
        hue: scalar to add, as a fraction of the full circle.
        contrast: scalar factor about the mean of each channel.
        saturation: scalar factor.
        brightness: scalar to add, on the 0..1 scale.
        clip_each: whether to clip values after each of the four; False clips only at the end.

    Returns:
        float32 [N, 3] in 0..255; ignore the values of appended pixels.

    Source: docs/reference/centernet.md, section 5.2, steps 2 and 3
    """

    def clip(planes):
        return tf.clip_by_value(planes, 0.0, 1.0) if clip_each else planes

    planes = tf.cast(tf.transpose(pixels), tf.float32) / 255.0
    turned = clip(_saturate_and_turn(*tf.unstack(planes, num=3), 1.0, hue))
    # Appended pixels are still black, and add nothing to the sum.
    mean = tf.reduce_sum(turned, axis=0) / tf.cast(count, tf.float32)
    spread = clip((turned - mean) * contrast + mean)
    saturated = clip(_saturate_and_turn(*tf.unstack(spread, num=3, axis=1), saturation, 0.0))
    return tf.clip_by_value(saturated + brightness, 0.0, 1.0) * 255.0
