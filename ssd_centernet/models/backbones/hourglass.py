"""Stacked hourglass networks, as in CenterNet."""

from __future__ import annotations

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import PopulationBatchNorm
from ssd_centernet.layers.upsampling import UpsampleAdd
from ssd_centernet.models.backbones.base import Backbone
from ssd_centernet.models.backbones.conv_norm import ConvNormBuilder

# Residual blocks of each stage, and its channels in multiples of the width.
SPECIFICATIONS = {
    10: ((1, 1), (2, 2)),
    20: ((1, 2, 2), (2, 2, 3)),
    32: ((2, 2, 2, 2), (2, 2, 3, 3)),
    52: ((2, 2, 2, 2, 2, 4), (2, 2, 3, 3, 3, 4)),
    100: ((4, 4, 4, 4, 4, 8), (2, 2, 3, 3, 3, 4)),
}


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class Hourglass(Backbone):
    """Stacked hourglasses; the defaults are CenterNet's Hourglass-104, two of 52 layers each.

    Each hourglass gives one map of stride 4: `"2_0"`, `"2_1"`, ... are the intermediate ones, for
    supervision, and `"2"` is the last. Images may have any size; if a side is not a multiple of `4
    * 2 ** (stages - 1)`, the upsampled maps are cut to size.

    Source:
        docs/reference/centernet.md, section 1.1
        Stacked Hourglass Networks for Human Pose Estimation (arXiv:1603.06937)
        CornerNet: Detecting Objects as Paired Keypoints (arXiv:1808.01244)
    """

    def __init__(
        self,
        model_id: int = 52,
        *,
        num_stacks: int = 2,
        width: int = 128,
        norm_momentum: float = 0.1,
        norm_epsilon: float = 1e-5,
        name: str = "hourglass",
        **kwargs,
    ):
        """Build the network.

        Args:
            model_id: layers of each hourglass: 10, 20, 32, 52 or 100.
            num_stacks: number of hourglasses, one after the other.
            width: channels of the stem; those of the stages are multiples of it.
            norm_momentum: momentum of the moving statistics. The published 0.1 keeps nine tenths of
                the last batch; 0.9 or more suits small batches better.
            norm_epsilon: epsilon of batch normalisation.
            name: name of the model.
            **kwargs: passed to the Keras model.

        Raises:
            ValueError: `model_id` is unknown, or there is no hourglass.
        """
        if model_id not in SPECIFICATIONS:
            raise ValueError(
                f"Hourglass.model_id must be one of {tuple(SPECIFICATIONS)}, got {model_id!r}. "
                "Hourglass-104 is model_id 52 with num_stacks 2."
            )
        if num_stacks < 1:
            raise ValueError(f"Hourglass.num_stacks must be 1 or more, got {num_stacks!r}.")
        blocks, multiples = SPECIFICATIONS[model_id]
        builder = _Builder(
            PopulationBatchNorm,
            momentum=norm_momentum,
            epsilon=norm_epsilon,
            zero_last_gamma=False,
        )
        stages = tuple((n, width * m) for n, m in zip(blocks, multiples, strict=True))
        channels = 2 * width
        images = keras.Input((None, None, 3), name="image")
        features = builder.conv_norm(images, width, 7, 2, "stem")
        features = builder.basic_block(features, channels, 2, "stem_res")
        outputs = {}
        for stack in range(num_stacks):
            prefix = f"hourglass{stack}"
            taken = builder.hourglass(features, stages, prefix)
            taken = builder.conv_norm(taken, channels, 3, 1, f"{prefix}_out")
            last = stack == num_stacks - 1
            outputs["2" if last else f"2_{stack}"] = taken
            if not last:
                features = builder.merge(features, taken, channels, prefix)
        super().__init__(inputs=images, outputs=outputs, name=name, **kwargs)
        self._name_blocks(builder.block_names)
        self._config = {
            "model_id": model_id,
            "num_stacks": num_stacks,
            "width": width,
            "norm_momentum": norm_momentum,
            "norm_epsilon": norm_epsilon,
        }


class _Builder(ConvNormBuilder):
    """Add the parts of hourglasses."""

    def blocks(
        self, inputs: tf.Tensor, count: int, inner: int, outer: int, stride: int, name: str
    ) -> tf.Tensor:
        """Add `count` residual blocks of `inner` channels, with `outer` in the last."""
        for block in range(count):
            filters = outer if block == count - 1 else inner
            inputs = self.basic_block(inputs, filters, stride, f"{name}_block{block + 1}")
            stride = 1
        return inputs

    def hourglass(
        self, inputs: tf.Tensor, stages: tuple[tuple[int, int], ...], prefix: str, stage: int = 0
    ) -> tf.Tensor:
        """Go down through the stages from `stage` and back up, with skips beside them."""
        (count, filters), *deeper = stages[stage:]
        prefix_here = f"{prefix}_stage{stage + 1}"
        if not deeper:
            return self.blocks(inputs, count, filters, filters, 1, f"{prefix_here}_inner")
        below = deeper[0][1]
        skip = self.blocks(inputs, count, filters, filters, 1, f"{prefix_here}_skip")
        down = self.blocks(inputs, count, below, below, 2, f"{prefix_here}_down")
        inner = self.hourglass(down, stages, prefix, stage + 1)
        up = self.blocks(inner, count, below, filters, 1, f"{prefix_here}_up")
        return UpsampleAdd(name=f"{prefix_here}_add")([up, skip])

    def merge(self, before: tf.Tensor, taken: tf.Tensor, channels: int, prefix: str) -> tf.Tensor:
        """Make the input of the next hourglass from this one's input and output."""
        skip = self.conv_norm(before, channels, 1, 1, f"{prefix}_merge_skip", relu=False)
        features = self.conv_norm(taken, channels, 1, 1, f"{prefix}_merge_out", relu=False)
        merged = keras.layers.Add(name=f"{prefix}_merge_add")([skip, features])
        merged = keras.layers.ReLU(name=f"{prefix}_merge_relu")(merged)
        return self.basic_block(merged, channels, 1, f"{prefix}_merge_res")
