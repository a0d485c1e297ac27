"""Prediction heads, from feature levels to raw float32 outputs."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import ConfiguredLayer
from ssd_centernet.layers.normalization import BatchNorm


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSDHead(ConfiguredLayer):
    """Predict class logits and box codes of every anchor; each level has its own kernels.

    Source: docs/reference/ssd_resnet34.md, section 5.4
    """

    def __init__(
        self,
        num_logits: int,
        *,
        boxes_per_cell: Sequence[int],
        name: str = "head",
        **kwargs,
    ):
        """Configure the head.

        Args:
            num_logits: K, classes with background.
            boxes_per_cell: anchors per cell, one number per level.
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.num_logits = num_logits
        self.boxes_per_cell = tuple(boxes_per_cell)

    def build(self, input_shapes) -> None:
        """Create one pair of 3x3 convolutions per level.

        Raises:
            ValueError: network and anchors differ in their number of levels.
        """
        if len(input_shapes) != len(self.boxes_per_cell):
            raise ValueError(
                f"The network gives {len(input_shapes)} feature levels, but the anchors are set "
                f"for {len(self.boxes_per_cell)}; make the anchors' `aspect_ratios` and `scales` "
                "fit."
            )
        common = {"padding": "same", "dtype": self.dtype_policy}
        self._class_convs, self._box_convs = [], []
        for level, count in enumerate(self.boxes_per_cell):
            self._class_convs.append(
                keras.layers.Conv2D(count * self.num_logits, 3, name=f"class{level}", **common)
            )
            self._box_convs.append(keras.layers.Conv2D(count * 4, 3, name=f"box{level}", **common))
        super().build(input_shapes)

    @property
    def class_layers(self) -> list[keras.layers.Layer]:
        """The layers whose outputs are [..., n * K]: K logits of n anchors."""
        return self._class_convs

    @property
    def box_layers(self) -> list[keras.layers.Layer]:
        """The layers whose outputs are [..., n * 4]: box codes of n anchors."""
        return self._box_convs

    def call(self, levels: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Predict on feature maps [B, h, w, C].

        Returns:
            `class_logits` float32 [B, A, K] and `box_codes` float32 [B, A, 4]; anchors in the order
            level, row, column, shape.
        """
        return self.join_maps(self.predict_maps(levels))

    def predict_maps(self, levels: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Predict on feature maps [B, h, w, C], level by level.

        Returns:
            What the convolutions give, named `class_logits_0`, ..., `box_codes_0`, ...:
            [B, h, w, n * K] and [B, h, w, n * 4] for n anchors in a cell.
        """
        maps = {}
        pairs = zip(levels, self._class_convs, self._box_convs, strict=True)
        # Level by level: the first weights are drawn in the order in which layers are called.
        for number, (level, class_conv, box_conv) in enumerate(pairs):
            maps[f"class_logits_{number}"] = class_conv(level)
            maps[f"box_codes_{number}"] = box_conv(level)
        return maps

    def join_maps(self, maps: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Join what `predict_maps` gives into the outputs of `call`."""
        return _join_levels(maps, self.num_logits)


# What is predicted beside the centres, and its channels.
_REGRESSIONS = {"size": {"offset": 2, "size": 2}, "sides": {"sides": 4}}
# Cells for one unit of a side's raw output: 16 pixels at stride 4, as in TTFNet.
_SIDE_SCALE = 4.0


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class CenterNetHead(ConfiguredLayer):
    """Predict centres, offsets and sizes on each map; each map has its own kernels.

    Every prediction has a 3x3 convolution, ReLU and a 1x1 convolution, all with bias.

    Source: docs/reference/centernet.md, sections 1.1 and 1.2
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int | None = None,
        center_bias: float = -2.19,
        regression: str = "size",
        name: str = "head",
        **kwargs,
    ):
        """Configure the head.

        Args:
            num_classes: C, without background.
            width: channels of the 3x3 convolutions; None means those of the map.
            center_bias: initial bias of the centres' logits; the default is a score of 0.1.
            regression: "size" predicts offset and size of an object in its centre's cell, as
                published, for `CenterNetLoss`; "sides" predicts in each cell the distances to the
                four sides, for `TTFLoss`.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: no such `regression`.
        """
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.width = width
        self.center_bias = center_bias
        self.check_choice("regression", regression, tuple(_REGRESSIONS))
        self.regression = regression

    def build(self, input_shapes) -> None:
        """Create a pair of convolutions for each prediction on each map."""
        # Flat lists: Keras' files leave out layers in lists of lists.
        self._hidden, self._final = [], []
        for stack, shape in enumerate(input_shapes):
            for key, depth in self._depths.items():
                # -2.19 = -ln(0.9 / 0.1): with a score of 0.5 everywhere the first steps would do
                # nothing but push thousands of cells down.
                bias = self.center_bias if key == "center" else 0.0
                self._hidden.append(
                    keras.layers.Conv2D(
                        self.width or shape[-1],
                        3,
                        padding="same",
                        activation="relu",
                        name=f"{key}{stack}_hidden",
                        dtype=self.dtype_policy,
                    )
                )
                self._final.append(
                    keras.layers.Conv2D(
                        depth,
                        1,
                        bias_initializer=keras.initializers.Constant(bias),
                        name=f"{key}{stack}",
                        dtype=self.dtype_policy,
                    )
                )
        super().build(input_shapes)

    def call(self, maps: Sequence[tf.Tensor]) -> list[dict[str, tf.Tensor]]:
        """Predict on feature maps [B, h, w, K].

        Returns:
            For each map `center` [B, h, w, C], logits; and `offset` [B, h, w, 2], (y, x) in cells,
            and `size` [B, h, w, 2], (h, w) in cells; or `sides` [B, h, w, 4], distances from a
            cell's middle to top, left, bottom and right, in cells, above 0; all float32.
        """
        count = len(self._depths)
        return [
            self.join_maps(self._predict(features, slice(first, first + count)))[0]
            for first, features in zip(range(0, len(self._final), count), maps, strict=True)
        ]

    def predict_maps(self, maps: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Predict on the last map, the one that is decoded.

        Returns:
            What the convolutions give, by the names of `call`.
        """
        return self._predict(maps[-1], slice(-len(self._depths), None))

    def join_maps(self, maps: dict[str, tf.Tensor]) -> list[dict[str, tf.Tensor]]:
        """Turn what `predict_maps` gives into the last outputs of `call`."""
        outputs = {key: tf.cast(value, tf.float32) for key, value in maps.items()}
        if "sides" in outputs:
            # Never below 0, and steps of a useful size for objects of tens of cells.
            outputs["sides"] = _SIDE_SCALE * tf.math.softplus(outputs["sides"])
        return [outputs]

    def _predict(self, features: tf.Tensor, layers: slice) -> dict[str, tf.Tensor]:
        """Run some layers, one pair for each of the keys of `_depths`: the order of `build`."""
        pairs = zip(self._depths, self._hidden[layers], self._final[layers], strict=True)
        return {key: final(hidden(features)) for key, hidden, final in pairs}

    @property
    def class_layers(self) -> list[keras.layers.Layer]:
        """The layers whose outputs are [..., C], the centres' logits."""
        return self._final[:: len(self._depths)]

    @property
    def _depths(self) -> dict[str, int]:
        return {"center": self.num_classes, **_REGRESSIONS[self.regression]}


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SharedSSDHead(ConfiguredLayer):
    """Predict class logits and box codes with two towers of convolutions for all levels.

    All levels share the kernels; each level has its own batch norms with their statistics.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, sections 3.3 and 3.4
        Focal Loss for Dense Object Detection (arXiv:1708.02002)
    """

    def __init__(
        self,
        num_logits: int,
        *,
        boxes_per_cell: Sequence[int],
        depth: int = 4,
        width: int = 256,
        class_bias: float = -4.6,
        norm_momentum: float = 0.997,
        norm_epsilon: float = 1e-3,
        kernel_stddev: float = 0.01,
        name: str = "head",
        **kwargs,
    ):
        """Configure the head.

        Args:
            num_logits: K, classes with background.
            boxes_per_cell: anchors per cell, one number per level, all equal.
            depth: number of 3x3 convolutions of each tower.
            width: their channels.
            class_bias: initial bias of the class logits: the logit of how rare an object is (-4.6
                is one in a hundred). It keeps the focal loss small in the first steps.
            norm_momentum: momentum of the moving statistics.
            norm_epsilon: epsilon of batch normalisation.
            kernel_stddev: deviation of the normal that kernels are drawn from.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: levels differ in their number of anchors.
        """
        super().__init__(name=name, **kwargs)
        if len(set(boxes_per_cell)) != 1:
            raise ValueError(
                "A head for all levels needs the same number of anchors on each, got "
                f"boxes_per_cell={tuple(boxes_per_cell)}; use anchors such as MultiscaleAnchors, "
                "or SSDHead."
            )
        self.num_logits = num_logits
        self.boxes_per_cell = tuple(boxes_per_cell)
        self.depth = depth
        self.width = width
        self.class_bias = class_bias
        self.norm_momentum = norm_momentum
        self.norm_epsilon = norm_epsilon
        self.kernel_stddev = kernel_stddev

    def build(self, input_shapes) -> None:
        """Create the towers.

        Raises:
            ValueError: network and anchors differ in their number of levels.
        """
        if len(input_shapes) != len(self.boxes_per_cell):
            raise ValueError(
                f"The network gives {len(input_shapes)} feature levels, but the anchors are set "
                f"for {len(self.boxes_per_cell)}; set the same `min_level` and `max_level` for "
                "the neck and the anchors."
            )
        anchors = self.boxes_per_cell[0]
        # Flat lists, norms by depth, then level: Keras saves no layer that is deeper inside.
        self._class_convs, self._class_norms = self._tower("class")
        self._box_convs, self._box_norms = self._tower("box")
        self._class_predictor = self._conv(
            "class_predictor", anchors * self.num_logits, bias=self.class_bias
        )
        self._box_predictor = self._conv("box_predictor", anchors * 4, bias=0.0)
        super().build(input_shapes)

    def _conv(self, name: str, filters: int, *, bias: float | None):
        return keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=bias is not None,
            kernel_initializer=keras.initializers.RandomNormal(stddev=self.kernel_stddev),
            bias_initializer=keras.initializers.Constant(bias or 0.0),
            dtype=self.dtype_policy,
            name=name,
        )

    def _tower(self, kind: str) -> tuple[list, list]:
        """Create a tower: its convolutions, and for each of them one norm per level."""
        depths, levels = range(1, self.depth + 1), range(len(self.boxes_per_cell))
        convs = [self._conv(f"{kind}{i}_conv", self.width, bias=None) for i in depths]
        norms = [
            BatchNorm(
                momentum=self.norm_momentum,
                epsilon=self.norm_epsilon,
                dtype=self.dtype_policy,
                name=f"{kind}{i}_level{level}_norm",
            )
            for i in depths
            for level in levels
        ]
        return convs, norms

    @property
    def class_layers(self) -> list[keras.layers.Layer]:
        """The layers whose outputs are [..., n * K]: K logits of n anchors."""
        return [self._class_predictor]

    @property
    def box_layers(self) -> list[keras.layers.Layer]:
        """The layers whose outputs are [..., n * 4]: box codes of n anchors."""
        return [self._box_predictor]

    def call(
        self, levels: Sequence[tf.Tensor], training: bool | None = None
    ) -> dict[str, tf.Tensor]:
        """Predict on feature maps [B, h, w, C].

        Returns:
            `class_logits` float32 [B, A, K] and `box_codes` float32 [B, A, 4]; anchors in the order
            level, row, column, shape.
        """
        return self.join_maps(self.predict_maps(levels, training=training))

    def predict_maps(
        self, levels: Sequence[tf.Tensor], training: bool | None = None
    ) -> dict[str, tf.Tensor]:
        """Predict on feature maps level by level; see `SSDHead.predict_maps`."""
        maps = {}
        for key, convs, norms, predictor in (
            ("class_logits", self._class_convs, self._class_norms, self._class_predictor),
            ("box_codes", self._box_convs, self._box_norms, self._box_predictor),
        ):
            for level, features in enumerate(levels):
                # Of the flat list every len(levels)-th norm belongs to this level, one a depth.
                for conv, norm in zip(convs, norms[level :: len(levels)], strict=True):
                    features = tf.nn.relu6(norm(conv(features), training=training))
                maps[f"{key}_{level}"] = predictor(features)
        return maps

    def join_maps(self, maps: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Join what `predict_maps` gives into the outputs of `call`."""
        return _join_levels(maps, self.num_logits)


def _join_levels(maps: dict[str, tf.Tensor], num_logits: int) -> dict[str, tf.Tensor]:
    """Flatten the maps of each kind and put them one after the other, in the order of levels."""
    outputs = {}
    for key, depth in (("class_logits", num_logits), ("box_codes", 4)):
        levels = range(len(maps) // 2)
        flat = [_flatten(maps[f"{key}_{level}"], depth) for level in levels]
        outputs[key] = tf.concat(flat, axis=1)
    return outputs


def _flatten(maps: tf.Tensor, depth: int) -> tf.Tensor:
    """Reshape [B, h, w, n * depth] to float32 [B, h * w * n, depth]: all after this is exact."""
    # Channels are anchor * depth + value, so that a plain reshape gives the order of anchors: row,
    # column, shape. The cast is the border of half precision.
    _, rows, columns, channels = maps.shape
    return tf.cast(tf.reshape(maps, [-1, rows * columns * channels // depth, depth]), tf.float32)
