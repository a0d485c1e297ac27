"""Criteria: loss parts by name, from raw outputs and ground truth, in float32."""

from __future__ import annotations

from collections.abc import Mapping

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchor_criterion import HUBER, AnchorCriterion
from ssd_centernet.ops import imitation
from ssd_centernet.ops import losses as loss_ops

NORMALIZERS = ("image", "batch")


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class MultiBoxLoss(AnchorCriterion):
    """SSD's loss: softmax cross entropy with hard negative mining, and Huber on box codes.

    The defaults are those of SSD300 ResNet-34; the VGG-16 recipes bind others.

    Source:
        docs/reference/ssd_resnet34.md, sections 4 and 6
        docs/reference/ssd_vgg16.md, sections 8 and 9
    """

    def __init__(
        self,
        matched_threshold: float = 0.5,
        *,
        negatives_per_positive: int = 3,
        negatives_of_empty_image: int = 0,
        mine_matched: bool = True,
        normalizer: str = "image",
        last_claim_wins: bool = False,
        crowd: str = "object",
        scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        class_loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        box_loss: str = HUBER,
        assigner: keras.layers.Layer | None = None,
        label_smoothing: float = 0.0,
        class_weights: Mapping[str, float] | None = None,
        name: str = "multi_box_loss",
        **kwargs,
    ):
        """Configure the criterion.

        Args:
            matched_threshold: smallest IoU at which an anchor belongs to an object; without effect
                if there is an `assigner`.
            negatives_per_positive: number of background anchors mined per positive anchor.
            negatives_of_empty_image: number mined if nothing is matched; with 0 (the reference,
                which drops empty images) such an image adds nothing.
            mine_matched: whether matched anchors count a second time if an image has too few
                background anchors to mine.
            normalizer: divisor of the sums over anchors. "image": divide each image's sum by its
                number of matched anchors (at least 1), then take the mean over the batch; "batch":
                divide the sum over the batch by the sum of these numbers.
            last_claim_wins: whether the last of several objects with the same best anchor gets it,
                not the first.
            crowd: how to treat crowd regions: "object" (as in the reference), "drop" (background),
                or "ignore" (anchors mostly inside one are not negatives).
            scale_factors: factors of the box code (ty, tx, th, tw).
            class_loss_weight: weight of the `class` part in the total.
            box_loss_weight: weight of the `box` part in the total.
            box_loss: "huber" compares the four numbers of the codes, as published; "iou", "giou",
                "diou" and "ciou" compare the boxes, see `ops.box_losses`. A box's loss is then at
                most 1 to 3, so a larger `box_loss_weight` such as 2 is usual.
            assigner: layer that decides which anchors learn which object, such as
                `layers.assigners.ATSS` or `TaskAligned`; None matches by `matched_threshold`, as
                published.
            label_smoothing: share of an object's class target that goes to all classes and
                background alike, in [0, 1).
            class_weights: factor of the class loss of the anchors that learn an object, by the name
                of its class, such as {'person': 2.0}; other classes have 1.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `crowd`, `box_loss` or `normalizer` is not one of its choices, or a weight
                is below 0.
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
        self.check_choice("normalizer", normalizer, NORMALIZERS)
        self.check_factors(
            negatives_per_positive=negatives_per_positive,
            negatives_of_empty_image=negatives_of_empty_image,
        )
        self.negatives_per_positive = negatives_per_positive
        self.negatives_of_empty_image = negatives_of_empty_image
        self.mine_matched = mine_matched
        self.normalizer = normalizer
        self.last_claim_wins = last_claim_wins

    def scores(self, logits: tf.Tensor) -> tf.Tensor:
        """Turn logits float32 [B, A, C + 1] into the scores [B, A, C] of the classes."""
        return tf.nn.softmax(logits)[..., 1:]

    def divergence(self, logits: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
        """Compute how far the classes [B, A] are from a teacher's, background among them."""
        return imitation.softmax_divergence(logits, teacher, temperature)

    def _matching_options(self, weights: tf.Tensor | None) -> dict:
        if weights is not None:
            raise ValueError("MultiBoxLoss has no weights of objects; leave them out.")
        return {"last_claim_wins": self.last_claim_wins}

    def _finished(self, matches, class_targets, box_targets, weights) -> dict[str, tf.Tensor]:
        """Return `classes`, `boxes` and `num_matched` int32 [...].

        `classes` int32 [..., A] is 0 for background, class + 1 for objects, -1 for ignored;
        `boxes` float32 [..., A, 4] are box codes.
        """
        del weights
        is_matched = tf.cast(tf.cast(matches, tf.float32) >= 0.0, tf.float32)
        return {
            "classes": class_targets,
            "boxes": box_targets,
            "num_matched": tf.cast(tf.reduce_sum(is_matched, axis=-1), tf.int32),
        }

    def call(self, outputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor]) -> dict:
        """Compute the unweighted loss parts of a batch.

        Args:
            outputs: `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4]; and
                `anchors` float32 [A, 4], yxyx in pixels, for another `box_loss` than "huber" and
                for assigners that look at boxes.
            targets: result of `make_targets`, with leading B.

        Returns:
            `class` and `box`, float32 scalars: sums over anchors, divided according to
            `normalizer`.
        """
        targets = self.assigned(outputs, targets)
        class_targets = targets["classes"]
        positives = loss_ops.as_numbers(class_targets) > 0.0
        num_matched = targets["num_matched"]
        # Ignored anchors, -1, count as background here and get weight 0 below.
        cross_entropy = loss_ops.softmax_cross_entropy(
            outputs["class_logits"], tf.where(positives, class_targets, 0)
        )
        weights = self.anchor_weights(cross_entropy, class_targets, num_matched)
        factors = self.factors_of(class_targets)
        if factors is not None:
            weights *= factors
        if self.label_smoothing:
            # The loss against all slots alike; of background it would raise every score.
            logits = outputs["class_logits"]
            spread = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
            smooth = cross_entropy + self.label_smoothing * (spread - cross_entropy)
            cross_entropy = tf.where(positives, smooth, cross_entropy)
        if self.box_loss == HUBER:
            errors = outputs["box_codes"] - targets["boxes"]
            distance = tf.reduce_sum(loss_ops.huber(errors), axis=-1)
            # A mined anchor has no box to learn.
            distance = tf.where(positives, distance, 0.0)
        else:
            distance = self._overlap_losses(outputs, targets, self.box_loss)
        parts = {"class": weights * cross_entropy, "box": distance}
        # At least 1: the sums of an image without objects are 0 and stay so.
        normalizer = tf.maximum(tf.cast(num_matched, tf.float32), 1.0)
        if self.normalizer == "batch":
            total = tf.reduce_sum(normalizer)
            return {name: tf.reduce_sum(part) / total for name, part in parts.items()}
        return {
            name: tf.reduce_mean(tf.reduce_sum(part, axis=1) / normalizer)
            for name, part in parts.items()
        }

    def anchor_weights(
        self, cross_entropy: tf.Tensor, class_targets: tf.Tensor, num_matched: tf.Tensor
    ) -> tf.Tensor:
        """Return the weights of anchors: 1 for positives, plus 1 for mined ones.

        Args:
            cross_entropy: float32 [B, A].
            class_targets: int32 [B, A].
            num_matched: int32 [B].

        Returns:
            float32 [B, A] in {0, 1, 2}; constant for the gradient.
        """
        matched = tf.cast(num_matched, tf.float32)
        counts = float(self.negatives_per_positive) * matched
        if self.negatives_of_empty_image:
            counts = tf.where(matched > 0.0, counts, float(self.negatives_of_empty_image))
        classes = loss_ops.as_numbers(class_targets)
        # Ignored anchors are ranked as positives are, after all negatives with a loss; those that
        # are picked all the same are taken out below.
        mined = loss_ops.hard_negative_mask(
            cross_entropy, classes != 0.0, counts, negatives_only=not self.mine_matched
        )
        mined = mined & (classes >= 0.0)
        return tf.cast(classes > 0.0, tf.float32) + tf.cast(mined, tf.float32)
