"""A convolution with a stride for maps that may be one cell wide."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet._keras import keras


class Conv2D(keras.layers.Conv2D):
    """Keras' convolution, whose gradient is right in bfloat16 on maps of one cell too.

    On CPUs that multiply bfloat16 themselves (AMX, AVX512_BF16), TensorFlow 2.20 leaves most of the
    kernel's gradient unset where a convolution of stride 2 with SAME padding meets a map of width
    1: what lay in that memory before, from nothing to 1e36 or nan, goes into the weights. Padded by
    hand, the same convolution is computed rightly. Other precisions and sizes are Keras' own.

    The class has the name of Keras' own, as `.keras` files name the weights of a list of layers by
    their class.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve [B, h, w, C] with [k, k, C, D]."""
        sides = inputs.shape[1:3]
        plain = set(self.dilation_rate) == {1} and self.data_format == "channels_last"
        padded = plain and self.padding == "same" and max(self.strides) > 1 and 1 in sides.as_list()
        if inputs.dtype != tf.bfloat16 or not padded or not sides.is_fully_defined():
            return super().convolution_op(inputs, kernel)
        margins = [
            _margins(side, size, stride)
            for side, size, stride in zip(sides, self.kernel_size, self.strides, strict=True)
        ]
        inputs = tf.pad(inputs, [(0, 0), *margins, (0, 0)])
        return tf.nn.conv2d(inputs, kernel, self.strides, "VALID")


def _margins(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Cells before and after a side with SAME padding.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    cells = -(-side // stride)
    total = max((cells - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
