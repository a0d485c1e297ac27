"""Building blocks of residual backbones: convolution, batch norm, ReLU, and blocks of them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from ssd_centernet._keras import keras


class ConvNormBuilder:
    """Add layers to a functional model and remember the order in which weights are created.

    Attributes:
        names: prefixes of the layers so far; `NAME_conv` and `NAME_norm` are the layers.
        block_names: prefixes of the blocks so far; `NAME_...` are the layers.

    Source: Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour (arXiv:1706.02677)
    """

    def __init__(
        self,
        norm: Callable[..., keras.layers.Layer],
        *,
        zero_last_gamma: bool = True,
        ceiling: float | None = None,
        **norm_settings,
    ):
        """Configure the layers to come.

        Args:
            norm: constructor of the normalisation.
            zero_last_gamma: whether the last normalisation of a block begins with gamma 0, so that
                at first the block is its shortcut.
            ceiling: of every ReLU, 6 for ReLU6; None for none.
            **norm_settings: arguments of `norm`.
        """
        self._norm = functools.partial(norm, **norm_settings)
        self._zero_last_gamma = zero_last_gamma
        self._ceiling = ceiling
        self.names: list[str] = []
        self.block_names: list[str] = []

    def conv_norm(
        self,
        inputs: tf.Tensor,
        filters: int,
        kernel: int,
        stride: int,
        name: str,
        *,
        relu: bool = True,
        zero_gamma: bool = False,
    ) -> tf.Tensor:
        """Add a convolution without bias, batch norm and, if asked, ReLU.

        With a stride it is padded by hand, (k - 1) // 2 before and the rest after.
        """
        self.names.append(name)
        if stride > 1 and kernel == 1:
            # Equal to a strided 1x1 convolution, whose kernel gradient overruns its memory in
            # TensorFlow 2.20 on CPUs at some sizes (3 images of 24x24x8) and ends the process.
            inputs = keras.layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(inputs)
            stride = 1
        if stride > 1:
            before = (kernel - 1) // 2
            margin = (before, kernel - 1 - before)
            inputs = keras.layers.ZeroPadding2D((margin, margin), name=f"{name}_pad")(inputs)
        outputs = keras.layers.Conv2D(
            filters,
            kernel,
            stride,
            "same" if stride == 1 else "valid",
            use_bias=False,
            # The published models draw with variance 1 / fan_in, not He's 2 / fan_in.
            kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in"),
            name=f"{name}_conv",
        )(inputs)
        outputs = self._norm(
            gamma_initializer="zeros" if zero_gamma else "ones", name=f"{name}_norm"
        )(outputs)
        return keras.layers.ReLU(self._ceiling, name=f"{name}_relu")(outputs) if relu else outputs

    def basic_block(self, inputs: tf.Tensor, filters: int, stride: int, name: str) -> tf.Tensor:
        """Add two 3x3 convolutions beside a shortcut, which is projected if shapes differ."""
        self.block_names.append(name)
        shortcut = inputs
        if stride != 1 or inputs.shape[-1] != filters:
            shortcut = self.conv_norm(inputs, filters, 1, stride, f"{name}_projection", relu=False)
        outputs = self.conv_norm(inputs, filters, 3, stride, f"{name}_1")
        outputs = self.conv_norm(
            outputs, filters, 3, 1, f"{name}_2", relu=False, zero_gamma=self._zero_last_gamma
        )
        outputs = keras.layers.Add(name=f"{name}_add")([shortcut, outputs])
        return keras.layers.ReLU(self._ceiling, name=f"{name}_relu")(outputs)
