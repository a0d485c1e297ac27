"""The criterion of one-stage detectors that learn from all anchors: focal loss."""

from __future__ import annotations

from collections.abc import Mapping

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchor_criterion import HUBER, AnchorCriterion
from ssd_centernet.ops import imitation
from ssd_centernet.ops import losses as loss_ops

FOCAL = "focal"
CLASS_LOSSES = (FOCAL, "quality", "varifocal")


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class FocalMultiBoxLoss(AnchorCriterion):
    """Focal loss over all anchors and class slots, and Huber on the box codes of objects.

    Background is not a class: its slot, 0, learns that it is never right.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, sections 5 to 7
        Focal Loss for Dense Object Detection (arXiv:1708.02002)
        Generalized Focal Loss (arXiv:2006.04388)
        VarifocalNet: An IoU-aware Dense Object Detector (arXiv:2008.13367)
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
        assigner: keras.layers.Layer | None = None,
        class_loss: str = FOCAL,
        label_smoothing: float = 0.0,
        class_weights: Mapping[str, float] | None = None,
        name: str = "focal_multi_box_loss",
        **kwargs,
    ):
        """Configure the criterion.

        Args:
            matched_threshold: smallest IoU at which an anchor belongs to an object; without effect
                if there is an `assigner`.
            alpha: weight of the slots of true classes in the focal loss, in [0, 1]; the others have
                1 - alpha, in "varifocal" too.
            gamma: exponent that lowers the loss of easy examples.
            crowd: how to treat crowd regions: "object" (as in the reference), "drop" (background),
                or "ignore" (anchors mostly inside one are not negatives).
            scale_factors: factors of the box code (ty, tx, th, tw).
            class_loss_weight: weight of the `class` part in the total.
            box_loss_weight: weight of the `box` part in the total.
            box_loss: "huber" compares the four numbers of the codes, as published; "iou", "giou",
                "diou" and "ciou" compare the boxes, see `MultiBoxLoss`.
            assigner: layer that decides which anchors learn which object, see `MultiBoxLoss`.
            class_loss: "focal" teaches an object's anchors the score 1, as published. "quality" and
                "varifocal" teach them how well their box fits, so that scores rank by it: the
                quality that the assigner gives, else the IoU of predicted and true box. Anchors
                then count with their quality in the box loss, and the divisor is its sum.
            label_smoothing: share of an object's class target that is taught as background, in
                [0, 1).
            class_weights: factor of the class loss of the anchors that learn an object, by the name
                of its class, such as {'person': 2.0}; other classes have 1.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `crowd`, `box_loss` or `class_loss` is not one of its choices, a weight is
                below 0, or `assigner` is none.
        """
        super().__init__(
            matched_threshold,
            crowd=crowd,
            scale_factors=scale_factors,
            class_loss_weight=class_loss_weight,
            box_loss_weight=box_loss_weight,
            box_loss=box_loss,
            assigner=assigner,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            name=name,
            **kwargs,
        )
        self.check_choice("class_loss", class_loss, CLASS_LOSSES)
        self.class_loss = class_loss
        self.alpha = alpha
        self.gamma = gamma

    def scores(self, logits: tf.Tensor) -> tf.Tensor:
        """Turn logits float32 [B, A, C + 1] into the scores [B, A, C] of the classes."""
        return tf.sigmoid(logits[..., 1:])

    def divergence(self, logits: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
        """Compute how far the classes [B, A] are from a teacher's; no slot is background's."""
        return imitation.sigmoid_divergence(logits[..., 1:], teacher[..., 1:], temperature)

    def _matching_options(self, weights: tf.Tensor | None) -> dict:
        # An object with weight 0 takes no anchor below the threshold.
        return {"force_match": True if weights is None else weights > 0.0}

    def _finished(self, matches, class_targets, box_targets, weights) -> dict[str, tf.Tensor]:
        """Return `classes`, `boxes` and `weights` float32 [..., A].

        `classes` int32 [..., A] is 0 for background, class + 1 for objects, -1 for ignored; `boxes`
        float32 [..., A, 4] are box codes; the weights are those of the objects, 1 for background, 0
        for ignored anchors.
        """
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
                `anchors` float32 [A, 4], yxyx in pixels, unless `box_loss` is "huber", `class_loss`
                "focal" and the assigner does not look at boxes.
            targets: result of `make_targets`, with leading B.

        Returns:
            `class` and `box`, float32 scalars: sums over the batch divided by its summed weight of
            matched anchors (at least 1), the Huber losses also by the four numbers of a code.
        """
        targets = self.assigned(outputs, targets)
        weights = targets["weights"]
        # `weights` has background too, for the classes.
        positives = loss_ops.as_numbers(targets["classes"]) > 0.0
        box_weights = tf.where(positives, weights, 0.0)
        class_losses, quality = self._class_losses(outputs, targets)
        factors = self.factors_of(targets["classes"])
        if factors is not None:
            class_losses *= factors
        if quality is not None:
            box_weights *= quality
        # Of this process's batch, not of an image: one with few objects then counts little, as
        # published.
        normalizer = tf.maximum(tf.reduce_sum(box_weights), 1.0)
        if self.box_loss == HUBER:
            # The mean over a code is the published division by its four numbers.
            errors = outputs["box_codes"] - targets["boxes"]
            distance = tf.reduce_mean(loss_ops.huber(errors), axis=-1)
        else:
            distance = self._overlap_losses(outputs, targets, self.box_loss)
        return {
            "class": tf.reduce_sum(class_losses * weights) / normalizer,
            "box": tf.reduce_sum(distance * box_weights) / normalizer,
        }

    def _class_losses(self, outputs, targets) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the class loss of each anchor, [B, A], and the quality that it teaches, if any."""
        logits, classes = outputs["class_logits"], targets["classes"]
        if self.class_loss == FOCAL:
            settings = {"alpha": self.alpha, "gamma": self.gamma}
            losses = loss_ops.sigmoid_focal(logits, classes, **settings)
            losses = tf.reduce_sum(losses, axis=-1)
            if self.label_smoothing:
                # The loss of the same anchor if nothing were there.
                falsehood = loss_ops.sigmoid_focal(logits, tf.zeros_like(classes), **settings)
                opposite = tf.reduce_sum(falsehood, axis=-1)
                smooth = losses + self.label_smoothing * (opposite - losses)
                losses = tf.where(classes > 0, smooth, losses)
            return losses, None
        quality = targets.get("quality")
        if quality is None:
            quality = 1.0 - self._overlap_losses(outputs, targets, "iou")
            quality = tf.where(classes > 0, tf.stop_gradient(quality), 0.0)
        taught = (1.0 - self.label_smoothing) * quality
        if self.class_loss == "quality":
            return loss_ops.sigmoid_quality(logits, classes, taught, beta=self.gamma), quality
        settings = {"alpha": 1.0 - self.alpha, "gamma": self.gamma}
        return loss_ops.sigmoid_varifocal(logits, classes, taught, **settings), quality
