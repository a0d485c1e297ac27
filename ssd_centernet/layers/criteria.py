"""Criteria: loss parts by name, from raw outputs and ground truth, in float32."""

from __future__ import annotations

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.ops import box_losses, matching
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import losses as loss_ops

HUBER = "huber"
BOX_LOSSES = (HUBER, *box_losses.KINDS)
# Of an anchor's size; a wild code could overflow, and its gradient would not be finite.
_MAX_LOG_SIZE = 4.135166556742356  # ln(1000 / 16), as in other libraries.
CROWD_MODES = ("object", "drop", "ignore")
NORMALIZERS = ("image", "batch")


class AnchorCriterion(Float32Layer):
    """The base of criteria that match objects with anchors, which learn their class and box."""

    def __init__(
        self,
        matched_threshold: float,
        *,
        crowd: str,
        scale_factors: tuple[float, float, float, float],
        class_loss_weight: float,
        box_loss_weight: float,
        box_loss: str,
        **kwargs,
    ):
        """Note the settings, which `MultiBoxLoss` explains.

        Raises:
            ValueError: `crowd` or `box_loss` is not one of its choices, or a weight is below 0.
        """
        super().__init__(**kwargs)
        self.check_choice("crowd", crowd, CROWD_MODES)
        self.check_choice("box_loss", box_loss, BOX_LOSSES)
        self.check_factors(class_loss_weight=class_loss_weight, box_loss_weight=box_loss_weight)
        self.matched_threshold = matched_threshold
        self.crowd = crowd
        self.scale_factors = tuple(scale_factors)
        self.class_loss_weight = class_loss_weight
        self.box_loss_weight = box_loss_weight
        self.box_loss = box_loss

    @property
    def loss_weights(self) -> dict[str, float]:
        """Return the factor of each loss part in the total."""
        return {"class": self.class_loss_weight, "box": self.box_loss_weight}

    def _overlap_losses(self, outputs: dict, targets: dict) -> tf.Tensor:
        """Return the loss of each anchor's box by its overlap, [B, A], 0 without an object."""
        if "anchors" not in outputs:
            raise ValueError(
                f"box_loss={self.box_loss!r} compares boxes, so outputs must hold 'anchors', "
                "float32 [A, 4], yxyx in pixels, as those of SSD do; it holds "
                f"{sorted(outputs)}."
            )
        anchors, positives = outputs["anchors"], (targets["classes"] > 0)[..., tf.newaxis]
        # Before anything is computed: what an anchor without an object says may not be finite.
        codes = tf.where(positives, outputs["box_codes"], 0.0)
        boxes = box_ops.decode(codes, anchors, self.scale_factors, _MAX_LOG_SIZE)
        goals = box_ops.decode(targets["boxes"], anchors, self.scale_factors)
        return box_losses.overlap_loss(boxes, goals, self.box_loss)

    def _match(
        self, boxes, classes, is_crowd, anchors, valid, **options
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the object of each anchor, -1 without one, and its targets; -1 is ignored."""
        objects, regions = valid, None
        if self.crowd != "object":
            objects = ~is_crowd if valid is None else valid & ~is_crowd
        if self.crowd == "ignore":
            regions = is_crowd if valid is None else valid & is_crowd
        return matching.find_targets(
            boxes,
            classes,
            anchors,
            objects=objects,
            regions=regions,
            matched_threshold=self.matched_threshold,
            scale_factors=self.scale_factors,
            **options,
        )


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
        name: str = "multi_box_loss",
        **kwargs,
    ):
        """Configure the criterion.

        Args:
            matched_threshold: smallest IoU at which an anchor belongs to an object.
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
            name=name,
            **kwargs,
        )
        self.check_choice("normalizer", normalizer, NORMALIZERS)
        self.negatives_per_positive = negatives_per_positive
        self.negatives_of_empty_image = negatives_of_empty_image
        self.mine_matched = mine_matched
        self.normalizer = normalizer
        self.last_claim_wins = last_claim_wins

    def make_targets(
        self,
        boxes: tf.Tensor,
        classes: tf.Tensor,
        is_crowd: tf.Tensor,
        anchors: tf.Tensor,
        valid: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Match ground truth to anchors, for one image or (with leading B) a batch.

        Args:
            boxes: float32 [..., M, 4], yxyx, fractions of the network's input or its pixels.
            classes: int32 [..., M], 0..C-1.
            is_crowd: bool [..., M].
            anchors: float32 [A, 4], yxyx, same frame; a NumPy array is fastest.
            valid: bool [..., M], False for padding; None counts all rows.

        Returns:
            `classes` int32 [..., A], 0 for background, class + 1 for objects, -1 for ignored;
            `boxes` float32 [..., A, 4] box codes; `num_matched` int32 [...].
        """
        matches, class_targets, box_targets = self._match(
            boxes, classes, is_crowd, anchors, valid, last_claim_wins=self.last_claim_wins
        )
        return {
            "classes": class_targets,
            "boxes": box_targets,
            "num_matched": tf.reduce_sum(tf.cast(matches >= 0, tf.int32), axis=-1),
        }

    def call(self, outputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor]) -> dict:
        """Compute the unweighted loss parts of a batch.

        Args:
            outputs: `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4]; and
                `anchors` float32 [A, 4], yxyx in pixels, for another `box_loss` than "huber".
            targets: result of `make_targets`, with leading B.

        Returns:
            `class` and `box`, float32 scalars: sums over anchors, divided according to
            `normalizer`.
        """
        class_targets = targets["classes"]
        positives = class_targets > 0
        num_matched = targets["num_matched"]
        # Ignored anchors, -1, count as background here and get weight 0 below.
        cross_entropy = loss_ops.softmax_cross_entropy(
            outputs["class_logits"], tf.maximum(class_targets, 0)
        )
        weights = self.class_weights(cross_entropy, class_targets, num_matched)
        if self.box_loss == HUBER:
            errors = outputs["box_codes"] - targets["boxes"]
            distance = tf.reduce_sum(loss_ops.huber(errors), axis=-1)
            # A mined anchor has no box to learn.
            distance = tf.where(positives, distance, 0.0)
        else:
            distance = self._overlap_losses(outputs, targets)
        parts = {"class": weights * cross_entropy, "box": distance}
        # At least 1: the sums of an image without objects are 0 and stay so.
        normalizer = tf.cast(tf.maximum(num_matched, 1), tf.float32)
        if self.normalizer == "batch":
            total = tf.reduce_sum(normalizer)
            return {name: tf.reduce_sum(part) / total for name, part in parts.items()}
        return {
            name: tf.reduce_mean(tf.reduce_sum(part, axis=1) / normalizer)
            for name, part in parts.items()
        }

    def class_weights(
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
        counts = self.negatives_per_positive * num_matched
        if self.negatives_of_empty_image:
            counts = tf.where(num_matched > 0, counts, self.negatives_of_empty_image)
        positives = class_targets > 0
        # Ignored anchors are ranked as positives are, after all negatives with a loss; those that
        # are picked all the same are taken out below.
        mined = loss_ops.hard_negative_mask(
            cross_entropy, class_targets != 0, counts, negatives_only=not self.mine_matched
        )
        mined = mined & (class_targets >= 0)
        return tf.cast(positives, tf.float32) + tf.cast(mined, tf.float32)
