"""Prediction heads: from feature levels to raw float32 outputs."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras


@gin.register
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
