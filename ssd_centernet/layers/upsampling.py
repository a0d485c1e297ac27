"""Enlarging coarse maps to the size of finer ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from ssd_centernet._keras import keras


@keras.saving.register_keras_serializable(package="ssd_centernet")
class UpsampleAdd(keras.layers.Layer):
    """Add a coarse map, doubled by nearest neighbour, to a fine one.

    If a side of the fine map is odd, the last doubled row or column is cut off, so that networks
    take images of any size.

    Source: docs/reference/centernet.md, sections 1.1 and 1.2
    """

    # Whether `resizing` is in force: graphs that are traced then have TensorFlow's resize.
    _resizes = False

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Add maps [B, ceil(h / 2), ceil(w / 2), C] and [B, h, w, C], in this order."""
        coarse, fine = inputs
        if self._resizes:
            return fine + _resized(coarse, fine.shape)
        rows, columns, channels = tf.shape(coarse)[1], tf.shape(coarse)[2], coarse.shape[-1]
        # Rows join the batch, as TFLite has no tensors of six dimensions.
        apart = tf.reshape(coarse, [-1, 1, columns, 1, channels])
        doubled = tf.tile(apart, [1, 2, 1, 2, 1])
        doubled = tf.reshape(doubled, [-1, 2 * rows, 2 * columns, channels])
        size = tf.shape(fine)
        # Static sizes get lost in the cut.
        return fine + tf.ensure_shape(doubled[:, : size[1], : size[2]], fine.shape)

    def compute_output_shape(self, input_shape) -> tf.TensorShape:
        """Return the shape of the fine map."""
        return tf.TensorShape(input_shape[1])

    @classmethod
    @contextlib.contextmanager
    def resizing(cls) -> Iterator[None]:
        """Trace graphs of all layers of this kind with one resize, the same to the bit.

        Accelerators for integers have no tensors of five dimensions. Sizes must be static.
        """
        cls._resizes = True
        try:
            yield
        finally:
            cls._resizes = False


def _resized(coarse: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """Double a map and cut it to the size of another one."""
    doubled = [2 * side for side in coarse.shape[1:3]]
    larger = tf.raw_ops.ResizeNearestNeighbor(images=coarse, size=doubled)
    if doubled == list(shape[1:3]):
        return larger
    return larger[:, : shape[1], : shape[2]]
