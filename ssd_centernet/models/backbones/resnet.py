"""ResNet with basic blocks, as in SSD: without a classifier, with any strides."""

from __future__ import annotations

from collections.abc import Sequence

import gin

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import BatchNorm
from ssd_centernet.models.backbones.base import Backbone
from ssd_centernet.models.backbones.conv_norm import ConvNormBuilder


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class ResNet(Backbone):
    """ResNet v1 of basic blocks; the defaults are SSD's ResNet-34 without its last group.

    Group 3 has stride 1, so the only output has stride 8 (38x38 at 300 pixels). The stem and
    the strided convolutions are padded by hand, (k - 1) // 2 before and the rest after.

    Source:
        docs/reference/ssd_resnet34.md, sections 5.1 and 5.2
        Deep Residual Learning for Image Recognition (arXiv:1512.03385)
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6),
        *,
        widths: Sequence[int] = (64, 128, 256),
        strides: Sequence[int] = (1, 2, 1),
        stem_width: int = 64,
        output_groups: Sequence[int] | None = None,
        pool_padding: str = "same",
        activation: str = "relu",
        norm_momentum: float = 0.9,
        norm_epsilon: float = 1e-5,
        name: str = "resnet",
        **kwargs,
    ):
        """Build the network.

        Args:
            blocks: number of basic blocks of each group.
            widths: channels of each group.
            strides: stride of the first block of each group.
            stem_width: channels of the 7x7 stem.
            output_groups: groups (from 1) to return; None means the last one.
            pool_padding: padding of the stem's 3x3 pooling: "same" pads at the end first,
                "symmetric" one cell on every side, as in torchvision.
            activation: "relu" or "relu6", of the stem and of all blocks, after their sums too: with
                "relu6" no map that a convolution reads leaves 0..6.
            norm_momentum: momentum of the moving statistics.
            norm_epsilon: epsilon of batch normalisation.
            name: name of the model.
            **kwargs: passed to the Keras model.

        Raises:
            ValueError: `blocks`, `widths` and `strides` differ in length, or `pool_padding` or
                `activation` has another value.
        """
        if pool_padding not in ("same", "symmetric"):
            raise ValueError(
                f"ResNet.pool_padding must be 'same' or 'symmetric', got {pool_padding!r}."
            )
        if activation not in ("relu", "relu6"):
            raise ValueError(f"ResNet.activation must be 'relu' or 'relu6', got {activation!r}.")
        if not len(blocks) == len(widths) == len(strides):
            raise ValueError(
                "ResNet needs blocks, widths and strides for the same number of groups, got "
                f"{tuple(blocks)}, {tuple(widths)} and {tuple(strides)}."
            )
        config = {
            "blocks": tuple(blocks),
            "widths": tuple(widths),
            "strides": tuple(strides),
            "stem_width": stem_width,
            "output_groups": None if output_groups is None else tuple(output_groups),
            "pool_padding": pool_padding,
            "activation": activation,
            "norm_momentum": norm_momentum,
            "norm_epsilon": norm_epsilon,
        }
        norm = {"momentum": norm_momentum, "epsilon": norm_epsilon}
        ceiling = 6.0 if activation == "relu6" else None
        builder = ConvNormBuilder(BatchNorm, ceiling=ceiling, **norm)
        images = keras.Input((None, None, 3), name="image")
        features = builder.conv_norm(images, stem_width, 7, 2, "stem")
        if pool_padding == "symmetric":
            # After a ReLU zeros are never the maximum.
            features = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(features)
        padding = "same" if pool_padding == "same" else "valid"
        features = keras.layers.MaxPooling2D(3, 2, padding, name="stem_pool")(features)
        groups = {}
        stride = 4
        for group, (count, width, group_stride) in enumerate(
            zip(blocks, widths, strides, strict=True), 1
        ):
            for block in range(1, count + 1):
                block_stride = group_stride if block == 1 else 1
                prefix = f"group{group}_block{block}"
                features = builder.basic_block(features, width, block_stride, prefix)
            stride *= group_stride
            groups[group] = (stride, features)
        chosen = output_groups or (len(blocks),)
        outputs = {str(groups[g][0].bit_length() - 1): groups[g][1] for g in chosen}
        super().__init__(inputs=images, outputs=outputs, name=name, **kwargs)
        self._config = config
        self._conv_norm_names = tuple(builder.names)
        self._name_blocks(builder.block_names)

    @property
    def conv_norm_layers(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """Return all (convolution, norm) pairs in the order of published TF1 checkpoints."""
        return [
            (self.get_layer(f"{name}_conv"), self.get_layer(f"{name}_norm"))
            for name in self._conv_norm_names
        ]
