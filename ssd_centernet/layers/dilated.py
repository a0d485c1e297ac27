"""A dilated convolution without the detour of Keras' own."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.ops.dilation import dilated_conv2d


@keras.saving.register_keras_serializable(package="ssd_centernet")
class DilatedConv2D(keras.layers.Conv2D):
    """Keras' convolution with a dilation, stride 1 and padding that keeps the size.

    Settings, names and weights are those of Keras' layer, and so are outputs and gradients within
    rounding: see `dilated_conv2d` for what differs.

    Source: docs/reference/ssd_vgg16.md, section 2
    """

    def build(self, input_shape) -> None:
        """Make the weights.

        Raises:
            ValueError: settings of Keras' layer that this one does not know.
        """
        rates, odd = set(self.dilation_rate), all(side % 2 for side in self.kernel_size)
        plain = (self.padding, self.data_format, *self.strides, self.groups)
        if plain != ("same", "channels_last", 1, 1, 1) or len(rates) > 1 or not odd:
            raise ValueError(
                f"{self.name}: expected padding='same', strides=1, groups=1, channels last, a "
                "kernel of odd sides and one dilation for both, got "
                f"padding={self.padding!r}, strides={self.strides}, groups={self.groups}, "
                f"{self.data_format}, kernel_size={self.kernel_size} and "
                f"dilation_rate={self.dilation_rate}. Use keras.layers.Conv2D for those."
            )
        super().build(input_shape)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve [B, h, w, C] with [K, K, C, D], see `dilated_conv2d`."""
        return dilated_conv2d(inputs, kernel, self.dilation_rate[0])
