"""EfficientNet-Lite0 without its classifier: an EfficientNet for small devices."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import BatchNorm
from ssd_centernet.models.backbones.base import Backbone

# Of each stage: kernel, stride of the first block, expansion, channels.
_STAGES = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)
_STEM_WIDTH = 32
# The last stage of each level, log2 of the stride.
_LAST_STAGES = {1: 1, 2: 2, 3: 3, 4: 5, 5: 7}


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 up to its last block; the defaults give levels "3", "4" and "5".

    Inverted bottlenecks of a 1x1 convolution that widens, a depthwise one and a 1x1 one that
    narrows, each with batch norm. ReLU6 instead of swish and no squeeze-and-excitation, so that it
    can be computed in 8 bits. It has 3.0 million parameters and is published for pixels
    (p - 127) / 128. Layers are named stem_conv, stage1_block1_depthwise_conv, ..., so that
    `train.freeze = ('stem_', 'stage[12]_')` keeps the first ones.

    The published classifier was trained with stochastic depth; here no block is ever left out.

    Source:
        EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (arXiv:1905.11946)
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """

    def __init__(
        self,
        width: float = 1.0,
        *,
        blocks: Sequence[int] = (1, 2, 2, 3, 3, 4, 1),
        output_levels: Sequence[int] = (3, 4, 5),
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        name: str = "efficientnet_lite0",
        **kwargs,
    ):
        """Build the network.

        Args:
            width: factor of all channels: 32 in the stem, 16, 24, 40, 80, 112, 192 and 320 after
                the stages; published weights are for 1.
            blocks: number of blocks of each of the seven stages.
            output_levels: levels (log2 of the stride, 1 to 5) to return; stages after the last of
                them are left out.
            norm_momentum: momentum of the moving statistics.
            norm_epsilon: epsilon of batch normalisation.
            name: name of the model.
            **kwargs: passed to the Keras model.

        Raises:
            ValueError: a level does not exist, `width` leaves a stage without channels, or `blocks`
                does not have seven numbers of at least 1.
        """
        _check(width, blocks, output_levels)
        config = {
            "width": width,
            "blocks": tuple(blocks),
            "output_levels": tuple(output_levels),
            "norm_momentum": norm_momentum,
            "norm_epsilon": norm_epsilon,
        }
        builder = _Builder(momentum=norm_momentum, epsilon=norm_epsilon)
        images = keras.Input((None, None, 3), name="image")
        features = builder.conv_norm(images, _channels(width, _STEM_WIDTH), 3, 2, "stem")
        outputs = {}
        for stage in range(1, _LAST_STAGES[max(output_levels)] + 1):
            kernel, stride, expansion, channels = _STAGES[stage - 1]
            for block in range(1, blocks[stage - 1] + 1):
                features = builder.bottleneck(
                    features,
                    _channels(width, channels),
                    kernel,
                    stride if block == 1 else 1,
                    expansion,
                    f"stage{stage}_block{block}",
                )
            for level in output_levels:
                if _LAST_STAGES[level] == stage:
                    outputs[str(level)] = features
        super().__init__(inputs=images, outputs=outputs, name=name, **kwargs)
        self._config = config
        self._conv_norm_names = tuple(builder.names)
        self._name_blocks(builder.block_names)

    @property
    def conv_norm_layers(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """Return all (convolution, norm) pairs: stem; per block expand, depthwise, project.

        The first block expands nothing; convolutions named `..._depthwise_conv` are depthwise.
        """
        return [
            (self.get_layer(f"{name}_conv"), self.get_layer(f"{name}_norm"))
            for name in self._conv_norm_names
        ]


def _check(width: float, blocks: Sequence[int], output_levels: Sequence[int]) -> None:
    """Raise ValueError for settings that do not make a network."""
    if not output_levels or not set(output_levels) <= set(_LAST_STAGES):
        raise ValueError(
            f"EfficientNetLite0 has the levels {tuple(_LAST_STAGES)}, got "
            f"output_levels={tuple(output_levels)}."
        )
    if len(blocks) != len(_STAGES) or min(blocks) < 1:
        raise ValueError(
            f"EfficientNetLite0.blocks needs a number of blocks, at least 1, for each of "
            f"{len(_STAGES)} stages, got {tuple(blocks)}."
        )
    if width * min(channels for *_, channels in _STAGES) < 1:
        raise ValueError(
            f"EfficientNetLite0.width must be at least 1/16, so that every stage has channels, got "
            f"{width}."
        )


def _channels(width: float, channels: int) -> int:
    return int(width * channels)


# Normal with variance 2 / fan_out, not truncated; that of a depthwise kernel counts one channel.
def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


class _Builder:
    """Add layers and remember the order in which their weights are created."""

    def __init__(self, **norm):
        self._norm = norm
        self.names: list[str] = []
        self.block_names: list[str] = []

    def conv_norm(
        self,
        inputs: tf.Tensor,
        filters: int | None,
        kernel: int,
        stride: int,
        name: str,
        *,
        activate: bool = True,
    ) -> tf.Tensor:
        """Add a convolution, depthwise if `filters` is None, batch norm and, if asked, ReLU6."""
        self.names.append(name)
        # "same" as in TensorFlow: with stride 2 an even side is padded at its end alone.
        common = {"padding": "same", "use_bias": False, "name": f"{name}_conv"}
        if filters is None:
            conv = keras.layers.DepthwiseConv2D(
                kernel, stride, depthwise_initializer=_initializer(), **common
            )
        else:
            conv = keras.layers.Conv2D(
                filters, kernel, stride, kernel_initializer=_initializer(), **common
            )
        outputs = BatchNorm(name=f"{name}_norm", **self._norm)(conv(inputs))
        return keras.layers.ReLU(6.0, name=f"{name}_relu")(outputs) if activate else outputs

    def bottleneck(
        self, inputs: tf.Tensor, filters: int, kernel: int, stride: int, expansion: int, name: str
    ) -> tf.Tensor:
        """Add an inverted bottleneck, with a shortcut where the shapes agree."""
        self.block_names.append(name)
        outputs = inputs
        if expansion != 1:
            wide = expansion * inputs.shape[-1]
            outputs = self.conv_norm(inputs, wide, 1, 1, f"{name}_expand")
        outputs = self.conv_norm(outputs, None, kernel, stride, f"{name}_depthwise")
        outputs = self.conv_norm(outputs, filters, 1, 1, f"{name}_project", activate=False)
        if stride == 1 and filters == inputs.shape[-1]:
            outputs = keras.layers.Add(name=f"{name}_add")([outputs, inputs])
        return outputs
