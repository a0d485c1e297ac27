"""CenterNet's criterion: heatmaps of centres, and offsets and sizes at them, in float32."""

from __future__ import annotations

from collections.abc import Mapping

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchor_criterion import CROWD_MODES
from ssd_centernet.layers.heatmap_criterion import HeatmapCriterion
from ssd_centernet.ops import heatmaps
from ssd_centernet.ops import losses as loss_ops


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class CenterNetLoss(HeatmapCriterion):
    """CenterNet's loss: penalty-reduced focal loss of centres, L1 of offsets and sizes there.

    Source: docs/reference/centernet.md, sections 2 and 3
    """

    def __init__(
        self,
        max_boxes: int = 128,
        *,
        min_overlap: float = 0.7,
        crowd: str = "object",
        center_loss_weight: float = 1.0,
        size_loss_weight: float = 0.1,
        offset_loss_weight: float = 1.0,
        class_weights: Mapping[str, float] | None = None,
        name: str = "centernet_loss",
        **kwargs,
    ):
        """Configure the criterion.

        Args:
            max_boxes: R, rows of an image's targets; further objects are left out.
            min_overlap: IoU of an object and a box at the rim of its peak.
            crowd: how to treat crowd regions: "object" (as in the reference), "drop" (background),
                or "ignore" (cells inside one are not negatives).
            center_loss_weight: weight of the `center` part in the total.
            size_loss_weight: weight of the `size` part in the total.
            offset_loss_weight: weight of the `offset` part in the total.
            class_weights: factor of the loss at the peaks of a class, by its name, such as
                {'person': 2.0}; other classes have 1.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `crowd` is not one of the three, or a weight is below 0.
        """
        super().__init__(class_weights=class_weights, name=name, **kwargs)
        self.check_choice("crowd", crowd, CROWD_MODES)
        self.check_loss_weights(
            center_loss_weight=center_loss_weight,
            size_loss_weight=size_loss_weight,
            offset_loss_weight=offset_loss_weight,
        )
        self.max_boxes = max_boxes
        self.min_overlap = min_overlap
        self.crowd = crowd
        self.center_loss_weight = center_loss_weight
        self.size_loss_weight = size_loss_weight
        self.offset_loss_weight = offset_loss_weight

    @property
    def loss_weights(self) -> dict[str, float]:
        """Return the factor of each loss part in the total."""
        return {
            "center": self.center_loss_weight,
            "size": self.size_loss_weight,
            "offset": self.offset_loss_weight,
        }

    def make_targets(
        self,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        is_crowd: tf.Tensor,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
        valid: tf.Tensor | None = None,
        extent: tf.Tensor | None = None,
        weights: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Draw the heatmap of an image or (with leading B) a batch, and the values at its peaks.

        Args:
            boxes: float32 [..., M, 4], yxyx, fractions of the network's input.
            classes: int32 [..., M], 0..C-1.
            is_crowd: bool [..., M].
            num_classes: C.
            image_size: (height, width) of the network's input in pixels.
            output_size: (h, w) of the heatmap.
            valid: bool [..., M], False for padding; None counts all rows.
            extent: float32 [..., 2], share (height, width) of the input that the image covers; None
                means all of it. The centres' loss leaves out padding.
            weights: float32 [..., M], weights of the objects in [0, 1]; None means 1. With a weight
                below 1 the peak is lower and therefore not a positive.

        Returns:
            `heatmap` float32 [..., h, w, C]; `cell_weights` float32 [..., h, w], 0 where the
            heatmap is to be ignored; `cells` int32 [..., R, 2], (y, x); `offsets` and `sizes`
            float32 [..., R, 2], in cells; `weights` float32 [..., R], 0 where there is no object.
        """
        boxes, classes, is_crowd = map(tf.convert_to_tensor, (boxes, classes, is_crowd))
        single = boxes.shape.rank == 2
        if weights is None:
            weights = tf.ones_like(boxes[..., 0])
        if valid is None:
            valid = tf.ones_like(is_crowd)
        # Classes as float32: on GPUs TensorFlow pads and computes int32 on the host.
        fields = [boxes, tf.cast(classes, tf.float32), is_crowd, valid, weights]
        if single:
            fields = [field[tf.newaxis] for field in fields]
        # Always R rows: the step is compiled for one shape.
        boxes, classes, is_crowd, valid, weights = (self._to_rows(field) for field in fields)
        objects = valid if self.crowd == "object" else valid & ~is_crowd
        weights = tf.where(objects, weights, 0.0)
        scale = tf.constant([*output_size, *output_size], tf.float32)
        # In cells; crowd regions are among them.
        regions = boxes * scale
        # Nothing reads the values of rows without an object; zeros keep them finite.
        counted = (weights > 0.0)[..., tf.newaxis]
        cells, offsets, sizes = heatmaps.center_targets(
            tf.where(counted, regions, 0.0), output_size
        )
        heatmap = heatmaps.gaussian_heatmap(
            cells,
            heatmaps.gaussian_sigma(sizes[..., 0], sizes[..., 1], self.min_overlap),
            classes,
            weights,
            num_classes=num_classes,
            output_size=output_size,
        )
        crowds = (regions, valid & is_crowd) if self.crowd == "ignore" else None
        targets = {
            "heatmap": heatmap,
            "cell_weights": heatmaps.counted_cells(heatmap, crowds, extent, image_size),
            "cells": cells,
            "offsets": offsets,
            "sizes": sizes,
            "weights": weights,
        }
        return {key: value[0] for key, value in targets.items()} if single else targets

    def _to_rows(self, field: tf.Tensor) -> tf.Tensor:
        """Cut or pad [B, M, ...] to [B, R, ...]."""
        field = field[:, : self.max_boxes]
        missing = self.max_boxes - tf.shape(field)[1]
        margin = [[0, 0], [0, missing]] + [[0, 0]] * (field.shape.rank - 2)
        return tf.ensure_shape(
            tf.pad(field, margin), [field.shape[0], self.max_boxes, *field.shape[2:]]
        )

    def call(self, outputs: list[dict[str, tf.Tensor]], targets: dict[str, tf.Tensor]) -> dict:
        """Compute the unweighted loss parts of a batch.

        Args:
            outputs: for each stack `center` [B, h, w, C], `offset` and `size` [B, h, w, 2],
                float32.
            targets: result of `make_targets`, with leading B.

        Returns:
            `center`, `size` and `offset`, float32 scalars: sums over the batch divided by its
            number of objects (at least 1), averaged over the stacks.
        """
        weights, cells = targets["weights"], targets["cells"]
        # Objects of the whole batch, not their weights and not image by image, as published: where
        # there is none the sum over all cells is divided by 1.
        count = tf.reduce_sum(tf.cast(weights > 0.0, tf.float32))
        normalizer = len(outputs) * tf.maximum(count, 1.0)
        parts = {"center": [], "size": [], "offset": []}
        for output in outputs:
            focal = loss_ops.penalty_reduced_focal(output["center"], targets["heatmap"])
            focal = self.weigh_peaks(focal, targets["heatmap"])
            cell_weights = targets["cell_weights"][..., tf.newaxis]
            parts["center"].append(tf.reduce_sum(focal * cell_weights))
            for key, wanted in (("size", targets["sizes"]), ("offset", targets["offsets"])):
                # At the centres' cells alone; rows without an object read cell 0 and weigh nothing.
                errors = tf.abs(heatmaps.gather_cells(output[key], cells) - wanted)
                parts[key].append(tf.reduce_sum(errors * weights[..., tf.newaxis]))
        return {key: tf.add_n(sums) / normalizer for key, sums in parts.items()}

    def imitation_errors(
        self, output: dict[str, tf.Tensor], taught: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Return the L1 distances of `size` and `offset`; see `HeatmapCriterion`."""
        return {
            name: tf.reduce_sum(tf.abs(output[name] - taught[name]), axis=-1)
            for name in ("size", "offset")
        }
