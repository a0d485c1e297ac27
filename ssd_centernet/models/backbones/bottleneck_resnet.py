"""ResNet v1 with bottleneck blocks, as in the published detectors: without a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import BatchNorm
from ssd_centernet.models.backbones.base import Backbone

_ACTIVATIONS = ("relu", "relu6")
_POOL_PADDINGS = ("same", "symmetric")
_STRIDES = ("1x1", "3x3")


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class BottleneckResNet(Backbone):
    """ResNet v1 of bottleneck blocks; the defaults are SSD320's slim ResNet-50.

    A group begins with every second pixel of the group before. That is the published ResNet v1,
    whose stride is in the first 1x1 convolution and in the shortcut. It is also the slim network of
    dense features, which drops pixels after a group; levels are taken before that.

    torchvision's ResNets, often called v1.5, are `stride_in="3x3"`, `activation="relu"`,
    `pool_padding="symmetric"`.

    CenterNet's ResNet-101, which comes from Keras, is `blocks=(3, 4, 23, 3)`, `activation="relu"`,
    `use_bias=True`, `pool_padding="symmetric"`, `norm_momentum=0.99`, `norm_epsilon=1.001e-5`,
    `kernel_initializer="glorot_uniform"`, `output_levels=(2, 3, 4, 5)`.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, sections 3.1 and 3.4
        docs/reference/centernet.md, section 1.2
        Deep Residual Learning for Image Recognition (arXiv:1512.03385)
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3),
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int = 64,
        output_levels: Sequence[int] = (3, 4, 5),
        activation: str = "relu6",
        use_bias: bool = False,
        stride_in: str = "1x1",
        pool_padding: str = "same",
        norm_momentum: float = 0.997,
        norm_epsilon: float = 1e-5,
        kernel_initializer: str | dict | keras.initializers.Initializer | None = None,
        name: str = "bottleneck_resnet",
        **kwargs,
    ):
        """Build the network.

        Args:
            blocks: number of bottleneck blocks of each group; (3, 4, 23, 3) makes ResNet-101.
            widths: channels of each group's 3x3 convolutions, a quarter of the group's output
                channels.
            stem_width: channels of the 7x7 stem.
            output_levels: levels (log2 of the stride) to return; group g gives level g + 1.
            activation: "relu" or "relu6", for the stem and inside the blocks. After the sum of a
                block and its shortcut there is always a plain ReLU.
            use_bias: whether convolutions add a bias before the normalisation.
            stride_in: which convolution of a group's first block strides, "1x1" (the first) or
                "3x3". Weights of the one fit the other in shape, and mean something else.
            pool_padding: padding of the stem's 3x3 pooling: "same" pads at the end first,
                "symmetric" pads one cell on every side.
            norm_momentum: momentum of the moving statistics.
            norm_epsilon: epsilon of batch normalisation.
            kernel_initializer: an initializer of Keras or its name; None means a normal of
                deviation 0.03, truncated at two deviations.
            name: name of the model.
            **kwargs: passed to the Keras model.

        Raises:
            ValueError: a setting has a value not named here, or `blocks`, `widths` and
                `output_levels` do not fit together.
        """
        _check(blocks, widths, output_levels)
        _check_choices(activation, pool_padding, stride_in)
        initializer = keras.initializers.serialize(
            keras.initializers.get(kernel_initializer or _default_initializer())
        )
        config = {
            "blocks": tuple(blocks),
            "widths": tuple(widths),
            "stem_width": stem_width,
            "output_levels": tuple(output_levels),
            "activation": activation,
            "use_bias": use_bias,
            "stride_in": stride_in,
            "pool_padding": pool_padding,
            "norm_momentum": norm_momentum,
            "norm_epsilon": norm_epsilon,
            "kernel_initializer": initializer,
        }
        builder = _Builder(
            conv={"use_bias": use_bias},
            initializer=initializer,
            norm={"momentum": norm_momentum, "epsilon": norm_epsilon},
            ceiling=6.0 if activation == "relu6" else None,
        )
        images = keras.Input((None, None, 3), name="image")
        features = builder.stem(images, stem_width, pool_padding)
        outputs = {}
        for group, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
            if group + 1 > max(output_levels):
                break
            if group > 1 and stride_in == "1x1":
                # Both paths of a first block read the same pixels. A pooling, because the kernel
                # gradient of a strided 1x1 convolution overruns its memory in TensorFlow 2.20 on
                # CPUs at some sizes.
                features = keras.layers.MaxPooling2D(1, 2, name=f"group{group}_subsample")(features)
            for block in range(1, count + 1):
                name_ = f"group{group}_block{block}"
                stride = 2 if stride_in == "3x3" and group > 1 and block == 1 else 1
                features = builder.block(features, width, block == 1, name_, stride)
            if group + 1 in output_levels:
                outputs[str(group + 1)] = features
        super().__init__(inputs=images, outputs=outputs, name=name, **kwargs)
        self._config = config
        self._conv_norm_names = tuple(builder.names)
        self._name_blocks(builder.block_names)

    @property
    def conv_norm_layers(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """Return all (convolution, norm) pairs: stem; per block projection (if any), 1, 2, 3."""
        return [
            (self.get_layer(f"{name}_conv"), self.get_layer(f"{name}_norm"))
            for name in self._conv_norm_names
        ]


def _default_initializer() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.03)


def _check(blocks, widths, output_levels) -> None:
    """Raise ValueError for settings that do not make a network."""
    if len(blocks) != len(widths):
        raise ValueError(
            "BottleneckResNet needs blocks and widths for the same number of groups, got "
            f"{tuple(blocks)} and {tuple(widths)}."
        )
    possible = range(2, len(blocks) + 2)
    if not output_levels or not set(output_levels) <= set(possible):
        raise ValueError(
            f"BottleneckResNet of {len(blocks)} groups has the levels {tuple(possible)}, got "
            f"output_levels={tuple(output_levels)}."
        )


def _check_choices(activation: str, pool_padding: str, stride_in: str) -> None:
    for setting, value, choices in (
        ("activation", activation, _ACTIVATIONS),
        ("pool_padding", pool_padding, _POOL_PADDINGS),
        ("stride_in", stride_in, _STRIDES),
    ):
        if value not in choices:
            raise ValueError(f"BottleneckResNet.{setting} must be in {choices}, got {value!r}.")


class _Builder:
    """Add layers of one style and remember the order in which their weights are created."""

    def __init__(self, *, conv: dict, initializer: dict, norm: dict, ceiling: float | None):
        self._conv, self._norm, self._ceiling = conv, norm, ceiling
        self._initializer = initializer
        self.names: list[str] = []
        self.block_names: list[str] = []

    def conv_norm(
        self,
        inputs: tf.Tensor,
        filters: int,
        kernel: int,
        name: str,
        *,
        activate: bool = True,
        strided: bool = False,
    ) -> tf.Tensor:
        """Add convolution, batch norm and, if asked, activation; a strided one is not padded."""
        self.names.append(name)
        outputs = keras.layers.Conv2D(
            filters,
            kernel,
            2 if strided else 1,
            "valid" if strided else "same",
            # A new one for each layer: without a seed an initializer repeats its draw.
            kernel_initializer=keras.initializers.get(self._initializer),
            name=f"{name}_conv",
            **self._conv,
        )(inputs)
        outputs = BatchNorm(name=f"{name}_norm", **self._norm)(outputs)
        if not activate:
            return outputs
        return keras.layers.ReLU(self._ceiling, name=f"{name}_relu")(outputs)

    def stem(self, images: tf.Tensor, width: int, pool_padding: str) -> tf.Tensor:
        """Add a 7x7 convolution and a 3x3 pooling, each with stride 2."""
        features = keras.layers.ZeroPadding2D(3, name="stem_pad")(images)
        features = self.conv_norm(features, width, 7, "stem", strided=True)
        if pool_padding == "symmetric":
            features = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(features)
        padding = "same" if pool_padding == "same" else "valid"
        return keras.layers.MaxPooling2D(3, 2, padding, name="stem_pool")(features)

    def block(
        self, inputs: tf.Tensor, width: int, project: bool, name: str, stride: int
    ) -> tf.Tensor:
        """Add 1x1, 3x3 and widening 1x1 convolution beside a shortcut, projected if asked."""
        self.block_names.append(name)
        shortcut = inputs
        if stride > 1:
            shortcut = keras.layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(shortcut)
        if project:
            shortcut = self.conv_norm(shortcut, 4 * width, 1, f"{name}_projection", activate=False)
        outputs = self.conv_norm(inputs, width, 1, f"{name}_1")
        if stride > 1:
            outputs = keras.layers.ZeroPadding2D(1, name=f"{name}_2_pad")(outputs)
        outputs = self.conv_norm(outputs, width, 3, f"{name}_2", strided=stride > 1)
        outputs = self.conv_norm(outputs, 4 * width, 1, f"{name}_3", activate=False)
        outputs = keras.layers.Add(name=f"{name}_add")([shortcut, outputs])
        return keras.layers.ReLU(name=f"{name}_relu")(outputs)
