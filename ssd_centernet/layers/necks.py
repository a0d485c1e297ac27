"""Necks: between the backbone's feature levels and the heads, list of levels to list of levels."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSDExtraLevels(keras.layers.Layer):
    """Coarser feature levels behind the backbone's last one: 1x1 then 3x3, bias, ReLU, no norm.

    Source: reference specification ssd_resnet34, section 5.3.
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
        name: str = "extra_levels",
        **kwargs,
    ):
        """Configures the levels.

        Args:
          widths: channels of the 1x1 and of the 3x3 convolution, a pair a level.
          strides: of the 3x3 convolutions. Those of stride 2 are padded SAME; those of stride 1
            are VALID, which shrinks by two cells, as long as there are three (5 -> 3 -> 1 at a
            300 pixel image), else SAME.
          name: of the layer.
          **kwargs: passed to the Keras layer.

        Raises:
          ValueError: `widths` and `strides` differ in length.
        """
        super().__init__(name=name, **kwargs)
        if len(widths) != len(strides):
            raise ValueError(
                f"SSDExtraLevels needs one stride for each level, got {len(widths)} widths and "
                f"{len(strides)} strides."
            )
        self.widths = tuple(tuple(pair) for pair in widths)
        self.strides = tuple(strides)

    def build(self, input_shapes) -> None:
        """Creates the convolutions behind the last of levels [B, h, w, C] of static size."""
        size = tuple(input_shapes[-1][1:3])
        self._reduce, self._expand = [], []
        for index, ((narrow, wide), stride) in enumerate(
            zip(self.widths, self.strides, strict=True)
        ):
            padding = "valid" if stride == 1 and min(size) >= 3 else "same"
            size = tuple(-(-side // stride) for side in size)
            if padding == "valid":
                size = tuple(side - 2 for side in size)
            common = {"activation": "relu", "dtype": self.dtype_policy}
            self._reduce.append(
                keras.layers.Conv2D(narrow, 1, name=f"level{index + 1}_reduce", **common)
            )
            self._expand.append(
                keras.layers.Conv2D(
                    wide, 3, stride, padding, name=f"level{index + 1}_expand", **common
                )
            )
        super().build(input_shapes)

    def call(self, levels: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the given levels and the extra ones behind them, finest first."""
        levels = list(levels)
        features = levels[-1]
        for reduce, expand in zip(self._reduce, self._expand, strict=True):
            features = expand(reduce(features))
            levels.append(features)
        return levels

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "widths": self.widths, "strides": self.strides}
