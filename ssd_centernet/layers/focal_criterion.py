"""The criterion of one-stage detectors that learn from all anchors: focal loss."""

from __future__ import annotations

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.criteria import HUBER, AnchorCriterion
from ssd_centernet.ops import losses as loss_ops


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class FocalMultiBoxLoss(AnchorCriterion):
    """Focal loss over all anchors and class slots, and Huber on the box codes of objects.

    Background is not a class: its slot, 0, learns that it is never right.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, sections 5 to 7
        Focal Loss for Dense Object Detection (arXiv:1708.02002)
    """

    def __init__(
        self,
        matched_threshold: float = 0.5,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        crowd: str = "object",
        scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        class_loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        box_loss: str = HUBER,
        name: str = "focal_multi_box_loss",
        **kwargs,
    ):
        """Configure the criterion.

        Args:
            matched_threshold: smallest IoU at which an anchor belongs to an object.
            alpha: weight of the slots of true classes in the focal loss, in [0, 1].
            gamma: exponent that lowers the loss of easy examples.
            crowd: how to treat crowd regions: "object" (as in the reference), "drop" (background),
                or "ignore" (anchors mostly inside one are not negatives).
            scale_factors: factors of the box code (ty, tx, th, tw).
            class_loss_weight: weight of the `class` part in the total.
            box_loss_weight: weight of the `box` part in the total.
            box_loss: "huber" compares the four numbers of the codes, as published; "iou", "giou",
                "diou" and "ciou" compare the boxes, see `MultiBoxLoss`.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `crowd` or `box_loss` is not one of its choices, or a weight is below 0.
        """
        super().__init__(
            matched_threshold,
            crowd=crowd,
            scale_factors=scale_factors,
            class_loss_weight=class_loss_weight,
            box_loss_weight=box_loss_weight,
            box_loss=box_loss,
            name=name,
            **kwargs,
        )
        self.alpha = alpha
        self.gamma = gamma

    def make_targets(
        self,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        is_crowd: tf.Tensor,
        anchors: tf.Tensor,
        valid: tf.Tensor | None = None,
        weights: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Match ground truth to anchors, for one image or (with leading B) a batch.

        Every object takes the anchor that overlaps it most; an object without area takes the first
        one.

        Args:
            boxes: float32 [..., M, 4], yxyx, fractions of the network's input.
            classes: int32 [..., M], 0..C-1.
            is_crowd: bool [..., M].
            anchors: float32 [A, 4], yxyx, same frame; a NumPy array is fastest.
            valid: bool [..., M], False for padding; None counts all rows.
            weights: float32 [..., M], at least 0, weights of the objects. An object with weight 0
                takes no anchor below the threshold, and the anchors that it takes do not count.
                None means 1.

        Returns:
            `classes` int32 [..., A], 0 for background, class + 1 for objects, -1 for ignored;
            `boxes` float32 [..., A, 4] box codes; `weights` float32 [..., A], those of the objects,
            1 for background, 0 for ignored.
        """
        force_match = True if weights is None else weights > 0.0
        matches, class_targets, box_targets = self._match(
            boxes, classes, is_crowd, anchors, valid, force_match=force_match
        )
        anchor_weights = tf.ones_like(matches, tf.float32)
        if weights is not None:
            # The weight in front of the rows is that of background, which is row -1.
            margin = [[0, 0]] * (weights.shape.rank - 1) + [[1, 0]]
            rows = tf.pad(weights, margin, constant_values=1.0)
            anchor_weights = tf.gather(rows, matches + 1, batch_dims=matches.shape.rank - 1)
        if self.crowd == "ignore":
            anchor_weights = tf.where(class_targets < 0, 0.0, anchor_weights)
        return {"classes": class_targets, "boxes": box_targets, "weights": anchor_weights}

    def call(self, outputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor]) -> dict:
        """Compute the unweighted loss parts of a batch.

        Args:
            outputs: `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4]; and
                `anchors` float32 [A, 4], yxyx in pixels, for another `box_loss` than "huber".
            targets: result of `make_targets`, with leading B.

        Returns:
            `class` and `box`, float32 scalars: sums over the batch divided by its summed weight of
            matched anchors (at least 1), the Huber losses also by the four numbers of a code.
        """
        weights = targets["weights"]
        # `weights` has background too, for the classes.
        box_weights = tf.where(targets["classes"] > 0, weights, 0.0)
        # Of this process's batch, not of an image: one with few objects then counts little, as
        # published.
        normalizer = tf.maximum(tf.reduce_sum(box_weights), 1.0)
        focal = loss_ops.sigmoid_focal(
            outputs["class_logits"], targets["classes"], alpha=self.alpha, gamma=self.gamma
        )
        if self.box_loss == HUBER:
            # The mean over a code is the published division by its four numbers.
            errors = outputs["box_codes"] - targets["boxes"]
            distance = tf.reduce_mean(loss_ops.huber(errors), axis=-1)
        else:
            distance = self._overlap_losses(outputs, targets)
        return {
            "class": tf.reduce_sum(tf.reduce_sum(focal, axis=-1) * weights) / normalizer,
            "box": tf.reduce_sum(distance * box_weights) / normalizer,
        }
