"""Dilated convolutions whose gradients have kernels on every device."""

from __future__ import annotations

import tensorflow as tf


def dilated_conv2d(images: tf.Tensor, kernel: tf.Tensor, rate: int) -> tf.Tensor:
    """Convolve with stride 1 and a dilation, zeros around the images, and keep their size.

    `tf.nn.convolution` rearranges the images into a batch of `rate ** 2` times as many small ones,
    with rows of zeros between them, because TensorFlow has no gradients of dilated convolutions on
    CPUs. Here the convolution is the operation itself; the gradient of the images is a dilated
    convolution with the turned kernel, and that of the kernel a product of matrices for each of its
    positions, over the pixels that it meets.

    Args:
        images: [B, h, w, C], float.
        kernel: [K, K, C, D] with an odd K, of the same dtype.
        rate: distance of neighbouring positions of the kernel in pixels, at least 1.

    Returns:
        [B, h, w, D] of the same dtype.
    """

    @tf.custom_gradient
    def convolve(images, kernel):
        def gradient(upstream):
            turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            of_images = _convolve(upstream, turned, rate)
            return of_images, _kernel_gradient(images, upstream, kernel.shape, rate)

        return _convolve(images, kernel, rate), gradient

    # A variable's gradient would be one of its own dtype, not of the one it is computed in.
    return convolve(tf.convert_to_tensor(images), tf.convert_to_tensor(kernel))


def _convolve(images: tf.Tensor, kernel: tf.Tensor, rate: int) -> tf.Tensor:
    return tf.nn.conv2d(images, kernel, strides=1, padding="SAME", dilations=rate)


def _kernel_gradient(
    images: tf.Tensor, upstream: tf.Tensor, shape: tf.TensorShape, rate: int
) -> tf.Tensor:
    """Return the gradient of the kernel, [K, K, C, D]."""
    products = []
    for row in range(shape[0]):
        rows, rows_above = _meeting(rate * (row - shape[0] // 2))
        for column in range(shape[1]):
            columns, columns_above = _meeting(rate * (column - shape[1] // 2))
            below = tf.reshape(images[:, rows, columns], [-1, shape[2]])
            above = tf.reshape(upstream[:, rows_above, columns_above], [-1, shape[3]])
            products.append(tf.matmul(below, above, transpose_a=True))
    return tf.reshape(tf.stack(products), shape)


def _meeting(offset: int) -> tuple[slice, slice]:
    """Return which pixels of a line, and of the line of outputs, meet at an offset."""
    if offset < 0:
        return slice(None, offset), slice(-offset, None)
    return slice(offset, None), slice(None, -offset or None)
