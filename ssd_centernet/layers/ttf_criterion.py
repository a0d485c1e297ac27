"""TTFNet's criterion: elliptic heatmaps, and boxes learned around each centre, in float32."""

from __future__ import annotations

from collections.abc import Mapping

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchor_criterion import CROWD_MODES
from ssd_centernet.layers.heatmap_criterion import HeatmapCriterion
from ssd_centernet.ops import box_losses, heatmaps
from ssd_centernet.ops import losses as loss_ops


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class TTFLoss(HeatmapCriterion):
    """CenterNet's focal loss of centres, and an overlap loss of the boxes in all cells near them.

    Peaks are as wide and as high as their objects. The cells around a centre learn the object's box
    too, the farther the less, so that a few epochs teach what takes CenterNet's single cell many.
    It needs `CenterNetHead.regression = "sides"`.

    Source: Training-Time-Friendly Network for Real-Time Object Detection (arXiv:1909.00700)
    """

    def __init__(
        self,
        share: float = 0.54,
        *,
        box_loss: str = "giou",
        crowd: str = "object",
        center_loss_weight: float = 1.0,
        box_loss_weight: float = 5.0,
        class_weights: Mapping[str, float] | None = None,
        name: str = "ttf_loss",
        **kwargs,
    ):
        """Configure the criterion.

        Args:
            share: of an object's height and width that its peak covers, and in which cells learn
                its box, in (0, 1].
            box_loss: "iou", "giou", "diou" or "ciou", see `ops.box_losses`.
            crowd: how to treat crowd regions: "object", "drop" (background), or "ignore" (cells
                inside one are not negatives).
            center_loss_weight: weight of the `center` part in the total.
            box_loss_weight: weight of the `box` part in the total.
            class_weights: factor of the loss at the peaks of a class, by its name, such as
                {'person': 2.0}; other classes have 1.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: a setting is not one of its choices, or out of range.
        """
        super().__init__(class_weights=class_weights, name=name, **kwargs)
        if not 0 < share <= 1:
            raise ValueError(f"TTFLoss.share must be above 0 and at most 1, got {share!r}.")
        self.check_choice("box_loss", box_loss, box_losses.KINDS)
        self.check_choice("crowd", crowd, CROWD_MODES)
        self.check_loss_weights(
            center_loss_weight=center_loss_weight, box_loss_weight=box_loss_weight
        )
        self.share = share
        self.box_loss = box_loss
        self.crowd = crowd
        self.center_loss_weight = center_loss_weight
        self.box_loss_weight = box_loss_weight

    @property
    def loss_weights(self) -> dict[str, float]:
        """Return the factor of each loss part in the total."""
        return {"center": self.center_loss_weight, "box": self.box_loss_weight}

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
    ) -> dict[str, tf.Tensor]:
        """Draw the maps of an image or (with leading B) a batch.

        Args:
            boxes: float32 [..., M, 4], yxyx, fractions of the network's input.
            classes: int32 [..., M], 0..C-1.
            is_crowd: bool [..., M].
            num_classes: C.
            image_size: (height, width) of the network's input in pixels.
            output_size: (h, w) of the maps.
            valid: bool [..., M], False for padding; None counts all rows.
            extent: float32 [..., 2], share (height, width) of the input that the image covers; None
                means all of it. The centres' loss leaves out padding.

        Returns:
            `heatmap` float32 [..., h, w, C]; `cell_weights` float32 [..., h, w], 0 where the
            heatmap is to be ignored; `boxes` float32 [..., h, w, 4], yxyx in cells, the box that a
            cell learns; `box_weights` float32 [..., h, w], 0 where it learns none.
        """
        boxes, classes, is_crowd = map(tf.convert_to_tensor, (boxes, classes, is_crowd))
        if valid is None:
            valid = tf.ones_like(is_crowd)
        fields = [boxes, classes, is_crowd, valid]
        if boxes.shape.rank == 2:
            targets = self.make_targets(
                *(field[tf.newaxis] for field in fields[:3]),
                num_classes=num_classes,
                image_size=image_size,
                output_size=output_size,
                valid=valid[tf.newaxis],
                extent=None if extent is None else extent[tf.newaxis],
            )
            return {key: value[0] for key, value in targets.items()}
        objects = valid if self.crowd == "object" else valid & ~is_crowd
        regions = boxes * tf.constant([*output_size, *output_size], tf.float32)
        # Nothing reads the values of rows without an object; zeros keep them finite.
        in_cells = tf.where(objects[..., tf.newaxis], regions, 0.0)
        weights = tf.cast(objects, tf.float32)
        cells, _, _ = heatmaps.center_targets(in_cells, output_size)
        heatmap = heatmaps.gaussian_heatmap(
            cells,
            (2.0 * heatmaps.elliptic_radii(in_cells, self.share) + 1.0) / 6.0,
            classes,
            weights,
            num_classes=num_classes,
            output_size=output_size,
        )
        crowds = (regions, valid & is_crowd) if self.crowd == "ignore" else None
        pixels = image_size[0] * image_size[1] / (output_size[0] * output_size[1])
        cell_boxes, box_weights = heatmaps.side_targets(
            in_cells, weights, cell_area=pixels, output_size=output_size, share=self.share
        )
        targets = {
            "heatmap": heatmap,
            "cell_weights": heatmaps.counted_cells(heatmap, crowds, extent, image_size),
            "boxes": cell_boxes,
            "box_weights": box_weights,
        }
        # The number of objects is open in the input pipeline, the maps' sizes are not.
        shapes = {"heatmap": (*output_size, num_classes), "boxes": (*output_size, 4)}
        return {
            key: tf.ensure_shape(value, [boxes.shape[0], *shapes.get(key, output_size)])
            for key, value in targets.items()
        }

    def call(self, outputs: list[dict[str, tf.Tensor]], targets: dict[str, tf.Tensor]) -> dict:
        """Compute the unweighted loss parts of a batch.

        Args:
            outputs: for each stack `center` [B, h, w, C] and `sides` [B, h, w, 4], float32.
            targets: result of `make_targets`, with leading B.

        Returns:
            `center`, the sum over the batch divided by its number of peaks (at least 1), and `box`,
            the weighted mean over its cells; float32 scalars, averaged over the stacks.

        Raises:
            ValueError: the head does not predict sides.
        """
        if "sides" not in outputs[0]:
            raise ValueError(
                f"TTFLoss needs 'sides' among the outputs, which has {sorted(outputs[0])}: set "
                "CenterNetHead.regression = 'sides'."
            )
        heatmap, weights = targets["heatmap"], targets["box_weights"]
        peaks = tf.reduce_sum(tf.cast(heatmap == 1.0, tf.float32))
        total = tf.reduce_sum(weights)
        parts = {"center": [], "box": []}
        for output in outputs:
            focal = self.weigh_peaks(
                loss_ops.penalty_reduced_focal(output["center"], heatmap), heatmap
            )
            cell_weights = targets["cell_weights"][..., tf.newaxis]
            parts["center"].append(tf.reduce_sum(focal * cell_weights) / tf.maximum(peaks, 1.0))
            boxes = heatmaps.boxes_from_sides(output["sides"])
            losses = box_losses.overlap_loss(boxes, targets["boxes"], self.box_loss)
            parts["box"].append(tf.math.divide_no_nan(tf.reduce_sum(losses * weights), total))
        return {key: tf.add_n(values) / len(outputs) for key, values in parts.items()}

    def imitation_errors(
        self, output: dict[str, tf.Tensor], taught: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Return the overlap loss of the boxes; see `HeatmapCriterion`."""
        boxes, wanted = (heatmaps.boxes_from_sides(one["sides"]) for one in (output, taught))
        return {"box": box_losses.overlap_loss(boxes, wanted, self.box_loss)}
