"""Necks, between backbone and heads: from a list of feature levels to another one."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import ConfiguredLayer
from ssd_centernet.layers.normalization import BatchNorm, L2Norm
from ssd_centernet.layers.strided import Conv2D
from ssd_centernet.layers.upsampling import UpsampleAdd


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSDExtraLevels(ConfiguredLayer):
    """Coarser feature levels after the backbone's last one: 1x1 then 3x3, bias, ReLU, no norm.

    Source: docs/reference/ssd_resnet34.md, section 5.3
    """

    def __init__(
        self,
        widths: Sequence[tuple[int, int]] = (
            (256, 512),
            (256, 512),
            (128, 256),
            (128, 256),
            (128, 256),
        ),
        *,
        strides: Sequence[int] = (2, 2, 2, 1, 1),
        activation: str = "relu",
        name: str = "extra_levels",
        **kwargs,
    ):
        """Configure the levels.

        Args:
            widths: channels of the 1x1 and of the 3x3 convolution, one pair per level.
            strides: strides of the 3x3 convolutions. Those of stride 2 are padded SAME. Those of
                stride 1 are VALID, which takes away two cells, as long as there are three (5 -> 3
                -> 1 with an image of 300 pixels), else SAME.
            activation: "relu" or "relu6", of every convolution.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `widths` and `strides` differ in length, or there is no such `activation`.
        """
        super().__init__(name=name, **kwargs)
        self.check_choice("activation", activation, ("relu", "relu6"))
        self.activation = activation
        if len(widths) != len(strides):
            raise ValueError(
                f"SSDExtraLevels needs one stride for each level, got {len(widths)} widths and "
                f"{len(strides)} strides."
            )
        self.widths = tuple(tuple(pair) for pair in widths)
        self.strides = tuple(strides)

    def build(self, input_shapes) -> None:
        """Create the convolutions after the last of levels [B, h, w, C] of static size."""
        size = tuple(input_shapes[-1][1:3])
        self._reduce, self._expand = [], []
        for index, ((narrow, wide), stride) in enumerate(
            zip(self.widths, self.strides, strict=True)
        ):
            # Sizes are computed too, as a level's padding depends on the size of the map before it.
            padding = "valid" if stride == 1 and min(size) >= 3 else "same"
            size = tuple(-(-side // stride) for side in size)
            if padding == "valid":
                size = tuple(side - 2 for side in size)
            common = {"activation": getattr(tf.nn, self.activation), "dtype": self.dtype_policy}
            self._reduce.append(
                keras.layers.Conv2D(narrow, 1, name=f"level{index + 1}_reduce", **common)
            )
            self._expand.append(
                Conv2D(wide, 3, stride, padding, name=f"level{index + 1}_expand", **common)
            )
        super().build(input_shapes)

    def call(self, levels: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the given levels and the extra ones after them, finest first."""
        levels = list(levels)
        features = levels[-1]
        for reduce, expand in zip(self._reduce, self._expand, strict=True):
            features = reduce(features)
            if expand.padding == "valid" and min(features.shape[1:3]) < 3:
                # Built for larger images: as SAME, so that the level keeps its cells.
                features = tf.pad(features, [(0, 0), (1, 1), (1, 1), (0, 0)])
            features = expand(features)
            levels.append(features)
        return levels


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class VGGExtraLevels(ConfiguredLayer):
    """Coarser levels after VGG-16's last one, padded by hand, and a scaled first level.

    Each level is a 1x1 and a k x k convolution with bias and ReLU. The first level is normalised
    (`L2Norm`) only for the head, not for the rest of the backbone.

    Source: docs/reference/ssd_vgg16.md, sections 2.1, 2.2 and 4
    """

    def __init__(
        self,
        widths: Sequence[tuple[int, int]] = ((256, 512), (128, 256), (128, 256), (128, 256)),
        *,
        kernels: Sequence[int] = (3, 3, 3, 3),
        strides: Sequence[int] = (2, 2, 1, 1),
        paddings: Sequence[int] = (1, 1, 0, 0),
        initial_scale: float | None = 20.0,
        name: str = "extra_levels",
        **kwargs,
    ):
        """Configure the levels; the defaults are those of SSD300.

        Args:
            widths: channels of the 1x1 and of the second convolution, one pair per level.
            kernels: sides of the second convolutions.
            strides: strides of the second convolutions.
            paddings: zeros on each of the four sides before the second convolutions. If the image
                is so small that nothing would be left of a level, it is padded to keep its size.
            initial_scale: initial scale of the first level's `L2Norm`; None leaves that level as it
                is.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: the settings differ in length.
        """
        super().__init__(name=name, **kwargs)
        if not len(widths) == len(kernels) == len(strides) == len(paddings):
            raise ValueError(
                "VGGExtraLevels needs widths, kernels, strides and paddings for the same number of "
                f"levels, got {tuple(widths)}, {tuple(kernels)}, {tuple(strides)} and "
                f"{tuple(paddings)}."
            )
        self.widths = tuple(tuple(pair) for pair in widths)
        self.kernels = tuple(kernels)
        self.strides = tuple(strides)
        self.paddings = tuple(paddings)
        self.initial_scale = initial_scale

    def build(self, input_shapes) -> None:
        """Create the layers after the last of levels [B, h, w, C]."""
        self._reduce, self._expand = [], []
        common = {"activation": "relu", "dtype": self.dtype_policy}
        for level, ((narrow, wide), kernel, stride) in enumerate(
            zip(self.widths, self.kernels, self.strides, strict=True), 1
        ):
            self._reduce.append(
                keras.layers.Conv2D(narrow, 1, name=f"level{level}_reduce", **common)
            )
            self._expand.append(
                keras.layers.Conv2D(wide, kernel, stride, name=f"level{level}_expand", **common)
            )
        self._norm = None if self.initial_scale is None else L2Norm(self.initial_scale)
        super().build(input_shapes)

    def call(self, levels: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the given levels, the first of them scaled, and the extra ones after them."""
        levels = list(levels)
        features = levels[-1]
        if self._norm is not None:
            # `features` is the last level, which stays as the backbone made it.
            levels[0] = tf.cast(self._norm(levels[0]), levels[0].dtype)
        sides = zip(self.kernels, self.paddings, strict=True)
        for reduce, expand, (kernel, padding) in zip(
            self._reduce, self._expand, sides, strict=True
        ):
            margins = [_margin(side, kernel, padding) for side in features.shape[1:3]]
            # Our own zeros: at stride 2 "same" would put none before and one after.
            features = expand(tf.pad(reduce(features), [(0, 0), *margins, (0, 0)]))
            levels.append(features)
        return levels


def _margin(side: int, kernel: int, padding: int) -> tuple[int, int]:
    """Return the zeros before and after a side of a map: k - 1 in all where it is too small."""
    if side + 2 * padding >= kernel:
        return padding, padding
    before = (kernel - 1) // 2
    return before, kernel - 1 - before


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class CenterNetFPN(ConfiguredLayer):
    """A top-down path to a single fine map, narrower at each finer level.

    The coarsest level goes through a 1x1 convolution. Then, level by level: double, add a 1x1
    convolution of the finer level, 3x3 convolution to the next width, batch norm, ReLU.

    Source: docs/reference/centernet.md, section 1.2
    """

    def __init__(
        self,
        widths: Sequence[int] = (256, 128, 64),
        *,
        output_width: int = 64,
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        name: str = "fpn",
        **kwargs,
    ):
        """Configure the path.

        Args:
            widths: channels of the lateral 1x1 convolutions, coarsest first; the coarsest level's
                has as many as the next one.
            output_width: channels of the output map.
            norm_momentum: momentum of the moving statistics.
            norm_epsilon: epsilon of batch normalisation.
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.widths = tuple(widths)
        self.output_width = output_width
        self.norm_momentum = norm_momentum
        self.norm_epsilon = norm_epsilon

    def build(self, input_shapes) -> None:
        """Create the layers over levels [B, h, w, C], finest first, each twice the next's size.

        Raises:
            ValueError: the number of the backbone's levels does not fit the widths.
        """
        if len(input_shapes) != len(self.widths) + 1:
            raise ValueError(
                f"The backbone gives {len(input_shapes)} levels, but CenterNetFPN.widths has "
                f"{len(self.widths)} numbers and needs one level more; correct the backbone's "
                "`output_levels`."
            )
        common = {"dtype": self.dtype_policy}
        self._top = keras.layers.Conv2D(self.widths[0], 1, name="top", **common)
        self._laterals, self._adds, self._smooths, self._norms = [], [], [], []
        for index, width in enumerate(self.widths):
            # Each smoothing already has the next, narrower width, as published.
            after = (*self.widths[1:], self.output_width)[index]
            name = f"lateral{index + 1}"
            self._laterals.append(keras.layers.Conv2D(width, 1, name=name, **common))
            self._adds.append(UpsampleAdd(name=f"add{index + 1}", **common))
            name = f"smooth{index + 1}"
            self._smooths.append(
                keras.layers.Conv2D(after, 3, padding="same", name=f"{name}_conv", **common)
            )
            self._norms.append(
                BatchNorm(
                    momentum=self.norm_momentum,
                    epsilon=self.norm_epsilon,
                    name=f"{name}_norm",
                    **common,
                )
            )
        super().build(input_shapes)

    def call(self, levels: Sequence[tf.Tensor], training: bool | None = None) -> list[tf.Tensor]:
        """Return the only map, with the finest level's size."""
        *finer, coarsest = levels
        features = self._top(coarsest)
        for level, lateral, add, smooth, norm in zip(
            reversed(finer), self._laterals, self._adds, self._smooths, self._norms, strict=True
        ):
            features = smooth(add([features, lateral(level)]))
            features = tf.nn.relu(norm(features, training=training))
        return [features]


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class PassLevels(ConfiguredLayer):
    """Pass the backbone's levels on, for backbones with their own pyramid."""

    def __init__(self, *, name: str = "levels", **kwargs):
        """Configure the layer.

        Args:
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)

    def call(self, levels: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the given levels."""
        return [tf.identity(level) for level in levels]
