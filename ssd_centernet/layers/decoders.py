"""Decoders, from raw outputs to `Detections` in float32."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.decoder_base import Decoder
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import nms, standard_nms, voting

# This number of pairs fills the detections of nearly every image.
_FIRST_PAIRS = 1024
# So many of the best pairs vote in `SigmoidSSDDecoder`, whose threshold hardly any pair misses.
VOTING_PAIRS = _FIRST_PAIRS


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSDDecoder(Decoder):
    """Softmax, box decoding and per-class non-maximum suppression.

    The defaults are those of SSD300 ResNet-34; the VGG-16 recipes bind others.

    Source:
        docs/reference/ssd_resnet34.md, section 13
        docs/reference/ssd_vgg16.md, sections 7 and 13
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        *,
        iou_threshold: float = 0.5,
        inclusive: bool = True,
        max_detections: int = 200,
        max_per_class: int | None = 200,
        max_log_size: float | None = None,
        clip: bool = False,
        drop_empty: bool = False,
        scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        candidate_sizes: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096),
        vote_iou: float | None = None,
        test_time: Sequence[str | float] = (),
        name: str = "decoder",
        **kwargs,
    ):
        """Configure the decoder.

        Args:
            score_threshold: detections must have a higher score, in [0, 1).
            iou_threshold: two boxes of a class with at least this IoU are one object, in (0, 1].
            inclusive: whether two boxes with exactly this IoU are one object too.
            max_detections: D, largest number of detections per image.
            max_per_class: largest number of candidates of a class in the suppression; None for all.
            max_log_size: bound on |ln(size / anchor size)| of decoded boxes; None for no bound.
            clip: whether to clip boxes to the image before the suppression.
            drop_empty: whether to drop boxes without area.
            scale_factors: factors of the box code (ty, tx, th, tw).
            candidate_sizes: numbers of anchors to decode per image, ascending: the first one that
                suffices is used, otherwise all anchors; those above half of all are left out. It
                changes only the speed, not the result; () makes a graph without branches that
                decodes all.
            vote_iou: each detection moves to the mean of the boxes of its class above the threshold
                with at least this IoU, weighted by score, see `ops.voting`; None, as published,
                keeps its own box.
            test_time: ('flip',) detects on the mirrored image too and joins both, in twice the
                time; numbers, as in ('flip', 0.75, 1.5), are factors of the network's input at
                which the image is looked at too; (), as published, looks once.
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(test_time=test_time, name=name, **kwargs)
        _check_fractions(score_threshold=score_threshold, iou_threshold=iou_threshold)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.inclusive = inclusive
        self.max_detections = max_detections
        self.max_per_class = max_per_class
        self.max_log_size = max_log_size
        self.clip = clip
        self.drop_empty = drop_empty
        self.scale_factors = tuple(scale_factors)
        self.candidate_sizes = tuple(candidate_sizes)
        self.vote_iou = self.check_vote_iou(vote_iou)

    def call(
        self,
        outputs: dict[str, tf.Tensor],
        anchors: tf.Tensor,
        *,
        score_threshold: float | tf.Tensor | None = None,
        iou_threshold: float | tf.Tensor | None = None,
        portable_pairs: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Decode a batch.

        Args:
            outputs: `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4].
            anchors: float32 [A, 4], yxyx, fractions of the image.
            score_threshold: replaces that of the constructor.
            iou_threshold: replaces that of the constructor.
            portable_pairs: None decodes with TensorFlow's own kernels. A number uses only
                operations of TFLite and ONNX, on this many best pairs of anchor and class. The
                result is the same if these fill the detections, or if no more pairs are above the
                threshold.

        Returns:
            Detections: `boxes` float32 [B, D, 4], fractions of the image, inside it only if `clip`
                is on; `scores` [B, D] descending; `classes` int32 [B, D] in 0..C-1; `count` int32
                [B].
        """
        least = self.score_threshold if score_threshold is None else score_threshold
        overlap = self.iou_threshold if iou_threshold is None else iou_threshold
        probabilities, codes = tf.nn.softmax(outputs["class_logits"]), outputs["box_codes"]
        if portable_pairs is not None:
            pairs = max(portable_pairs, self.max_detections)
            return self._decode_portably(probabilities, codes, anchors, pairs, least, overlap)
        # Most anchors are background: only the others are decoded.
        counts = nms.count_candidates(probabilities[..., 0], least)
        # To gather more than half of the anchors saves nothing.
        sizes = [size for size in self.candidate_sizes if 2 * size <= probabilities.shape[1]]
        limits = {"score_threshold": least, "iou_threshold": overlap}
        return self._decode_enough(counts, probabilities, codes, anchors, sizes, limits)

    def scores(self, logits: tf.Tensor) -> tf.Tensor:
        """Turn logits float32 [B, A, C + 1] into the scores [B, A, C] of the classes."""
        return tf.nn.softmax(logits)[..., 1:]

    def _decode_enough(
        self, counts, probabilities, codes, anchors, sizes, limits
    ) -> dict[str, tf.Tensor]:
        """Decode as many anchors as the image with the most candidates needs.

        Each number has its own branch with static shapes: an accelerator compiles a few graphs
        instead of one per number of candidates.
        """
        if not sizes:
            return self._decode(probabilities, codes, anchors, limits)

        def decode_first():
            kept, valid = nms.first_candidates(counts, sizes[0])
            scores = tf.gather(probabilities, kept, batch_dims=1)
            # Anchor 0 fills up the rest, with scores of 0, which are above no threshold.
            scores = tf.where(valid[..., tf.newaxis], scores, 0.0)
            kept_codes = tf.gather(codes, kept, batch_dims=1)
            return self._decode(scores, kept_codes, tf.gather(anchors, kept), limits)

        return tf.cond(
            # The last count is that of all candidates of an image.
            tf.reduce_max(counts[:, -1]) <= sizes[0],
            decode_first,
            lambda: self._decode_enough(counts, probabilities, codes, anchors, sizes[1:], limits),
        )

    def _decode(self, probabilities, codes, anchors, limits) -> dict[str, tf.Tensor]:
        """Decode probabilities [B, K, C + 1] and codes of K anchors."""
        boxes, scores = self._candidates(probabilities, codes, anchors)
        found = nms.multiclass_nms(
            boxes,
            scores,
            max_detections=self.max_detections,
            max_per_class=self.max_per_class,
            inclusive=self.inclusive,
            **limits,
        )
        if self.vote_iou is None:
            return found
        return voting.vote(
            found,
            boxes,
            scores,
            score_threshold=limits["score_threshold"],
            vote_iou=self.vote_iou,
            branches=bool(self.candidate_sizes),
        )

    def _decode_portably(
        self, probabilities, codes, anchors, pairs, score_threshold, iou_threshold
    ) -> dict[str, tf.Tensor]:
        """Decode with operations of other runtimes; see `portable_pairs` of `call`."""
        # All anchors are decoded, as a portable graph has one shape for all images.
        boxes, all_scores = self._candidates(probabilities, codes, anchors)
        scores, indices, classes = nms.best_pairs(all_scores, pairs)
        boxes = tf.gather(boxes, indices, batch_dims=1)
        found = standard_nms.suppress(
            boxes,
            scores,
            classes,
            num_classes=all_scores.shape[-1],
            score_threshold=score_threshold,
            iou_threshold=nms.just_below(iou_threshold) if self.inclusive else iou_threshold,
            max_detections=self.max_detections,
            max_entering=self.max_per_class,
        )
        if self.vote_iou is None:
            return found
        limits = {"score_threshold": score_threshold, "vote_iou": self.vote_iou}
        return voting.vote_of_pairs(found, boxes, scores, classes, **limits)

    def _candidates(self, probabilities, codes, anchors) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode boxes [B, K, 4] and their scores [B, K, C] for the suppression."""
        scores = probabilities[..., 1:]
        boxes = self.decode_boxes(codes, anchors)
        if self.drop_empty:
            height, width = tf.unstack(boxes[..., 2:] - boxes[..., :2], axis=-1)
            solid = tf.logical_and(height > 0.0, width > 0.0)
            # A score of 0 is above no threshold: no candidate, and no shape that depends on values.
            scores = tf.where(solid[..., tf.newaxis], scores, 0.0)
        return boxes, scores

    def decode_boxes(self, codes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Decode box codes float32 [..., 4] from anchors of the same shape, yxyx fractions."""
        boxes = box_ops.decode(codes, anchors, self.scale_factors, self.max_log_size)
        return box_ops.clip(boxes) if self.clip else boxes


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SigmoidSSDDecoder(Decoder):
    """Sigmoid scores, box decoding and per-class non-maximum suppression, then clipping.

    Nearly every anchor has a score above the published threshold for nearly every class, so only
    the best pairs of anchor and class are used. Only better pairs can suppress a pair: as soon as
    these fill the detections, the result is that of all pairs. If they do not, four times as many
    are used.

    Source: docs/reference/ssd320_resnet50_fpn.md, section 11
    """

    def __init__(
        self,
        score_threshold: float = 1e-8,
        *,
        iou_threshold: float = 0.6,
        max_detections: int = 100,
        max_per_class: int = 100,
        pre_nms_top_k: int | None = None,
        scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        vote_iou: float | None = None,
        test_time: Sequence[str | float] = (),
        name: str = "decoder",
        **kwargs,
    ):
        """Configure the decoder.

        Args:
            score_threshold: detections must have a higher score, in [0, 1).
            iou_threshold: two boxes of a class with a greater IoU are one object, in (0, 1].
            max_detections: D, largest number of detections per image.
            max_per_class: largest number of boxes of a class after the suppression, including those
                outside the image, which are dropped later.
            pre_nms_top_k: number of best pairs of anchor and class in the suppression; None uses as
                many as give the result of all.
            scale_factors: factors of the box code (ty, tx, th, tw).
            vote_iou: each detection moves to the mean of the clipped boxes of its class above the
                threshold with at least this IoU, weighted by score, see `ops.voting`; those among
                the best 1024 pairs of anchor and class vote. None, as published, keeps its own box.
            test_time: ('flip',) detects on the mirrored image too and joins both, in twice the
                time; numbers, as in ('flip', 0.75, 1.5), are factors of the network's input at
                which the image is looked at too; (), as published, looks once.
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(test_time=test_time, name=name, **kwargs)
        _check_fractions(score_threshold=score_threshold, iou_threshold=iou_threshold)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.max_per_class = max_per_class
        self.pre_nms_top_k = pre_nms_top_k
        self.scale_factors = tuple(scale_factors)
        self.vote_iou = self.check_vote_iou(vote_iou)

    def call(
        self,
        outputs: dict[str, tf.Tensor],
        anchors: tf.Tensor,
        *,
        score_threshold: float | tf.Tensor | None = None,
        iou_threshold: float | tf.Tensor | None = None,
        portable_pairs: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Decode a batch.

        Args:
            outputs: `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4].
            anchors: float32 [A, 4], yxyx, fractions of the image.
            score_threshold: replaces that of the constructor.
            iou_threshold: replaces that of the constructor.
            portable_pairs: see `SSDDecoder`.

        Returns:
            Detections: `boxes` float32 [B, D, 4], fractions of the image, clipped to it; `scores`
            [B, D] descending, ties by lower class, then by lower anchor; `classes` int32 [B, D] in
            0..C-1; `count` int32 [B].
        """
        limits = {
            "score_threshold": self.score_threshold if score_threshold is None else score_threshold,
            "iou_threshold": self.iou_threshold if iou_threshold is None else iou_threshold,
        }
        all_scores, codes = self.scores(outputs["class_logits"]), outputs["box_codes"]
        if portable_pairs is not None:
            pairs = self.pre_nms_top_k or max(portable_pairs, self.max_detections)
            return self._decode(all_scores, codes, anchors, pairs, limits, portable=True)[0]
        if self.pre_nms_top_k is not None:
            return self._decode(all_scores, codes, anchors, self.pre_nms_top_k, limits)[0]
        # 1024, 4096, ... and at last all pairs, which are exact whatever comes out.
        all_pairs = all_scores.shape[1] * all_scores.shape[2]
        sizes = [_FIRST_PAIRS]
        while sizes[-1] < all_pairs:
            sizes.append(4 * sizes[-1])
        sizes[-1] = all_pairs
        return self._decode_enough(all_scores, codes, anchors, sizes, limits)

    def scores(self, logits: tf.Tensor) -> tf.Tensor:
        """Turn logits float32 [B, A, C + 1] into the scores [B, A, C] of the classes."""
        return tf.sigmoid(logits[..., 1:])

    def _decode_enough(self, all_scores, codes, anchors, sizes, limits) -> dict[str, tf.Tensor]:
        """Decode as many of the best pairs as give the result of all pairs.

        Each size has its own branch, so that all its shapes are static.
        """
        found, exact = self._decode(all_scores, codes, anchors, sizes[0], limits)
        if len(sizes) == 1:
            return found
        return tf.cond(
            exact,
            lambda: found,
            lambda: self._decode_enough(all_scores, codes, anchors, sizes[1:], limits),
        )

    def _decode(
        self, all_scores, codes, anchors, k, limits, *, portable: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Decode the best k pairs; return detections, and whether all pairs would give the same."""
        least = limits["score_threshold"]
        scores, indices, classes = nms.best_pairs(all_scores, k)
        codes = tf.gather(codes, indices, batch_dims=1)
        boxes = box_ops.decode(codes, tf.gather(anchors, indices), self.scale_factors)
        # Whole boxes suppress, clipped ones are given out, as published. A box outside the image
        # suppresses and counts for its class too, and is left out after that.
        clipped = box_ops.clip(boxes)
        if portable:
            found = standard_nms.suppress(
                boxes,
                scores,
                classes,
                num_classes=all_scores.shape[-1],
                max_detections=self.max_detections,
                max_kept=self.max_per_class,
                clip_after=True,
                **limits,
            )
        else:
            positions, count = nms.greedy_nms(
                boxes,
                classes,
                scores > least,
                num_classes=all_scores.shape[-1],
                iou_threshold=limits["iou_threshold"],
                max_detections=self.max_detections,
                max_per_class=self.max_per_class,
                counted=box_ops.area(clipped) > 0.0,
            )
            found = nms.gather_detections(clipped, scores, classes, positions, count)
        if self.vote_iou is not None:
            # As many in each branch, so that other images of the batch change nothing.
            voters = (one[:, :VOTING_PAIRS] for one in (clipped, scores, classes))
            found = voting.vote_of_pairs(
                found, *voters, score_threshold=least, vote_iou=self.vote_iou
            )
        # Pairs that were not looked at score no more than the last one that was: they cannot
        # displace a detection, and below the threshold they are none.
        exact = (found["count"] == self.max_detections) | (scores[:, -1] <= least)
        return found, tf.reduce_all(exact)


def _check_fractions(**thresholds: float) -> None:
    """Raise an error for a threshold outside 0..1, such as one in percent."""
    for name, value in thresholds.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} of the decoder is {value}; expected a number from 0 to 1.")
