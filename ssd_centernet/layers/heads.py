"""SSD's extra feature levels and its prediction heads."""

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

    def build(self, input_shape) -> None:
        """Creates the convolutions for features [B, h, w, C] of static size."""
        size = tuple(input_shape[1:3])
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
        super().build(input_shape)

    def call(self, features: tf.Tensor) -> list[tf.Tensor]:
        """Returns the extra levels, finest first; the input is not among them."""
        levels = []
        for reduce, expand in zip(self._reduce, self._expand, strict=True):
            features = expand(reduce(features))
            levels.append(features)
        return levels

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "widths": self.widths, "strides": self.strides}


@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSDHead(keras.layers.Layer):
    """Predicts class logits and box codes of every anchor, with kernels of each level's own.

    Source: reference specification ssd_resnet34, section 5.4.
    """

    def __init__(
        self,
        num_logits: int,
        *,
        boxes_per_cell: Sequence[int],
        name: str = "head",
        **kwargs,
    ):
        """Configures the head.

        Args:
          num_logits: K, classes with background.
          boxes_per_cell: anchors of each cell, one number a level.
          name: of the layer.
          **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.num_logits = num_logits
        self.boxes_per_cell = tuple(boxes_per_cell)

    def build(self, input_shapes) -> None:
        """Creates one pair of 3x3 convolutions a level.

        Raises:
          ValueError: the network has another number of levels than the anchors.
        """
        if len(input_shapes) != len(self.boxes_per_cell):
            raise ValueError(
                f"The network gives {len(input_shapes)} feature levels and the anchors are set for "
                f"{len(self.boxes_per_cell)}; make the anchors' `aspect_ratios` and `scales` fit."
            )
        common = {"padding": "same", "dtype": self.dtype_policy}
        self._class_convs, self._box_convs = [], []
        for level, count in enumerate(self.boxes_per_cell):
            self._class_convs.append(
                keras.layers.Conv2D(count * self.num_logits, 3, name=f"class{level}", **common)
            )
            self._box_convs.append(keras.layers.Conv2D(count * 4, 3, name=f"box{level}", **common))
        super().build(input_shapes)

    def call(self, levels: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Predicts on feature maps [B, h, w, C].

        Returns:
          `class_logits` float32 [B, A, K] and `box_codes` float32 [B, A, 4]; anchors in the order
          level, row, column, shape.
        """
        logits, codes = [], []
        for level, class_conv, box_conv in zip(
            levels, self._class_convs, self._box_convs, strict=True
        ):
            logits.append(_flatten(class_conv(level), self.num_logits))
            codes.append(_flatten(box_conv(level), 4))
        return {"class_logits": tf.concat(logits, axis=1), "box_codes": tf.concat(codes, axis=1)}

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_logits": self.num_logits,
            "boxes_per_cell": self.boxes_per_cell,
        }


def _flatten(maps: tf.Tensor, depth: int) -> tf.Tensor:
    """Reshapes [B, h, w, n * depth] to float32 [B, h * w * n, depth]: all after this is exact."""
    _, rows, columns, channels = maps.shape
    return tf.cast(tf.reshape(maps, [-1, rows * columns * channels // depth, depth]), tf.float32)
