"""The feature pyramid between a backbone's levels and a head."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import ConfiguredLayer
from ssd_centernet.layers.normalization import BatchNorm
from ssd_centernet.layers.strided import Conv2D
from ssd_centernet.layers.upsampling import UpsampleAdd


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class FPN(ConfiguredLayer):
    """Feature pyramid: a top-down path through the backbone's levels, and coarser levels after it.

    The backbone's levels are projected to one width and summed from the coarsest down, each with
    the enlarged level above it. A 3x3 convolution smooths all but the coarsest. The coarser levels
    are 3x3 convolutions of stride 2, one after the other.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, sections 3.2 and 3.4
        Feature Pyramid Networks for Object Detection (arXiv:1612.03144)
    """

    def __init__(
        self,
        width: int = 256,
        *,
        min_level: int = 3,
        max_level: int = 7,
        smooth_top: bool = False,
        norm_momentum: float = 0.997,
        norm_epsilon: float = 1e-3,
        kernel_stddev: float = 0.03,
        name: str = "fpn",
        **kwargs,
    ):
        """Configure the pyramid.

        Args:
            width: channels of all levels.
            min_level: log2 of the stride of the backbone's finest level.
            max_level: log2 of the stride of the coarsest level returned.
            smooth_top: whether to smooth the backbone's coarsest level too. In the published
                network it is the projection alone, without normalisation and activation.
            norm_momentum: momentum of the moving statistics.
            norm_epsilon: epsilon of batch normalisation.
            kernel_stddev: deviation of the normal, truncated at two deviations, that kernels are
                drawn from.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `min_level` is above `max_level`.
        """
        super().__init__(name=name, **kwargs)
        if max_level < min_level:
            raise ValueError(f"FPN.min_level={min_level} is above FPN.max_level={max_level}.")
        self.width = width
        self.min_level = min_level
        self.max_level = max_level
        self.smooth_top = smooth_top
        self.norm_momentum = norm_momentum
        self.norm_epsilon = norm_epsilon
        self.kernel_stddev = kernel_stddev

    def build(self, input_shapes) -> None:
        """Create the layers over levels [B, h, w, C], finest first.

        Raises:
            ValueError: the backbone gives more levels than the pyramid has.
        """
        top = self.min_level + len(input_shapes) - 1
        if top > self.max_level:
            raise ValueError(
                f"The backbone gives {len(input_shapes)} levels, but the pyramid has those from "
                f"{self.min_level} to {self.max_level}; correct the backbone's output levels or "
                "the FPN's `min_level` and `max_level`."
            )
        self._laterals = [
            self._conv(f"lateral{level}", 1) for level in range(self.min_level, top + 1)
        ]
        smoothed = range(self.min_level, top + 1 if self.smooth_top else top)
        # Flat lists: Keras saves no layer that is deeper inside.
        self._smooth_convs = [
            self._conv(f"smooth{level}_conv", 3, bias=False) for level in smoothed
        ]
        self._smooth_norms = [self._norm(f"smooth{level}_norm") for level in smoothed]
        # It has no weights, so one is enough for all levels.
        self._add = UpsampleAdd(dtype=self.dtype_policy, name="add")
        coarse = range(top + 1, self.max_level + 1)
        self._coarse_convs = [
            self._conv(f"coarse{level}_conv", 3, stride=2, bias=False) for level in coarse
        ]
        self._coarse_norms = [self._norm(f"coarse{level}_norm") for level in coarse]
        super().build(input_shapes)

    def _conv(self, name: str, kernel: int, *, stride: int = 1, bias: bool = True):
        return Conv2D(
            self.width,
            kernel,
            stride,
            # At stride 2 TensorFlow's SAME pads after the map and, where its side is odd, before it
            # too.
            "same",
            use_bias=bias,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=self.kernel_stddev),
            dtype=self.dtype_policy,
            name=name,
        )

    def _norm(self, name: str):
        return BatchNorm(
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, levels: Sequence[tf.Tensor], training: bool | None = None) -> list[tf.Tensor]:
        """Return the levels from `min_level` to `max_level`, float [B, h, w, width]."""
        merged = [lateral(level) for lateral, level in zip(self._laterals, levels, strict=True)]
        # From the coarsest down, so that each level gets all that are above it.
        for index in range(len(merged) - 2, -1, -1):
            merged[index] = self._add([merged[index + 1], merged[index]])

        # Not strict: unless `smooth_top`, the coarsest level has no convolution here.
        outputs = [
            tf.nn.relu6(norm(conv(features), training=training))
            for conv, norm, features in zip(
                self._smooth_convs, self._smooth_norms, merged, strict=False
            )
        ]
        outputs += merged[len(outputs) :]
        for conv, norm in zip(self._coarse_convs, self._coarse_norms, strict=True):
            # From the level before it as returned: the first one from the projection alone.
            outputs.append(tf.nn.relu6(norm(conv(outputs[-1]), training=training)))
        return outputs
