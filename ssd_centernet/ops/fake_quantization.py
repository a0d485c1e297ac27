"""Numbers of 8 bits in float32: what a value becomes in a file of integers, with gradients.

A quantized value is `(q - zero_point) * scale` for a whole number q of 8 bits. Kernels have a scale
for each output channel, q in -127..127 and zero point 0. Maps have one scale, q in -128..127 and a
zero point such that 0 is exact: padding stays padding. That is the form of TensorFlow Lite.

Source:
    Quantizing deep convolutional networks for efficient inference: A whitepaper (arXiv:1806.08342)
"""

from __future__ import annotations

import tensorflow as tf

# Whole numbers of a map less one, and the largest of a kernel.
_STEPS, _LARGEST = 255.0, 127.0
# The smallest scale: a map or a channel of zeros would have none.
_SMALLEST = 2.0**-24


def kernel_limits(kernel: tf.Tensor, *, power_of_two: bool = False) -> tf.Tensor:
    """Return the largest value that each output channel of a kernel can have.

    Args:
        kernel: float32 [..., n].
        power_of_two: whether scales are whole powers of 2: the smallest that holds all values.

    Returns:
        float32 [n], 127 scales, above 0; without a gradient.
    """
    axes = list(range(len(kernel.shape) - 1))
    scales = tf.reduce_max(tf.abs(tf.stop_gradient(kernel)), axes) / _LARGEST
    scales = tf.maximum(scales, _SMALLEST)
    return _LARGEST * (_power(scales) if power_of_two else scales)


def quantize_kernel(kernel: tf.Tensor, limits: tf.Tensor) -> tf.Tensor:
    """Round a kernel as a file stores it, each output channel in its own scale.

    Args:
        kernel: float32 [..., n], of 1 to 4 axes.
        limits: float32 [n], as `kernel_limits` gives them.

    Returns:
        The same shape. The gradient passes as if nothing was rounded.
    """
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -limits, limits, num_bits=8, narrow_range=True
    )


def map_limits(
    ranges: tf.Tensor, *, power_of_two: bool = False, symmetric: bool = False
) -> tf.Tensor:
    """Return the lowest and the highest number that a map of 8 bits can have.

    Args:
        ranges: float32 [..., 2], lowest and highest value of a map, at most 0 and at least 0.
        power_of_two: whether the scale is a whole power of 2: the smallest that holds the range.
        symmetric: whether the zero point is 0: limits are -128 and 127 scales.

    Returns:
        float32 [..., 2], 255 scales apart, 0 among the numbers between them.
    """
    low, high = tf.unstack(tf.cast(ranges, tf.float32), axis=-1)
    if symmetric:
        scale = tf.maximum(-low / (_LARGEST + 1.0), high / _LARGEST)
    else:
        scale = (high - low) / _STEPS
    scale = tf.maximum(scale, _SMALLEST)
    scale = _power(scale) if power_of_two else scale
    below = _LARGEST + 1.0 if symmetric else tf.clip_by_value(tf.round(-low / scale), 0.0, _STEPS)
    return tf.stack([-below * scale, (_STEPS - below) * scale], axis=-1)


def quantize_map(values: tf.Tensor, limits: tf.Tensor) -> tf.Tensor:
    """Round a map to 256 numbers.

    Args:
        values: float32, of any shape.
        limits: float32 [2], as `map_limits` gives them.

    Returns:
        The same shape. The gradient passes where a value lies between the limits, and is 0
        elsewhere.
    """
    return tf.quantization.fake_quant_with_min_max_vars(values, limits[0], limits[1], num_bits=8)


def observed_ranges(values: tf.Tensor) -> tf.Tensor:
    """Return the lowest and the highest value, float32 [2]: at most 0, at least 0."""
    values = tf.stop_gradient(values)
    low, high = tf.minimum(tf.reduce_min(values), 0.0), tf.maximum(tf.reduce_max(values), 0.0)
    return tf.stack([low, high])


def moved_ranges(ranges: tf.Tensor, observed: tf.Tensor, momentum: float) -> tf.Tensor:
    """Move ranges towards those of a batch.

    Args:
        ranges: float32 [n, 2]; (0, 0) was never observed, and becomes what is observed now.
        observed: float32 [n, 2], of a batch; what is not finite changes nothing.
        momentum: share of a range that stays.

    Returns:
        float32 [n, 2].
    """
    fresh = tf.reduce_all(ranges == 0.0, axis=-1, keepdims=True)
    moved = tf.where(fresh, observed, ranges + (1.0 - momentum) * (observed - ranges))
    finite = tf.reduce_all(tf.math.is_finite(observed), axis=-1, keepdims=True)
    return tf.where(finite, moved, ranges)


def _power(scales: tf.Tensor) -> tf.Tensor:
    """Return the smallest whole powers of 2 that are not below these scales."""
    # Rounding of the logarithm must not double a scale that is a power already.
    exponents = tf.math.ceil(tf.math.log(scales) / tf.math.log(2.0) - 1e-5)
    return tf.pow(2.0, exponents)
