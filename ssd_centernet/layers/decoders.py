"""Decoders: from raw outputs to `Detections`, in float32."""

from __future__ import annotations

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import nms


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSDDecoder(Float32Layer):
    """Softmax, box decoding and per-class non-maximum suppression.

    The defaults are those of SSD300 ResNet-34; the VGG-16 recipes bind others.

    Source: reference specifications ssd_resnet34, section 13; ssd_vgg16, sections 7 and 13.
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
        name: str = "decoder",
        **kwargs,
    ):
        """Configures the decoder.

        Args:
          score_threshold: detections must score more, in [0, 1).
          iou_threshold: two boxes of a class with at least this IoU are one object, in (0, 1].
          inclusive: whether so are two boxes with exactly this IoU.
          max_detections: D, detections of an image.
          max_per_class: candidates of a class that enter the suppression; None for all of them.
          max_log_size: bound on |ln(size / anchor size)| of decoded boxes; None for none.
          clip: whether boxes are clipped to the image, before the suppression.
          drop_empty: whether boxes without area are no candidates.
          scale_factors: of the box code (ty, tx, th, tw).
          name: of the layer.
          **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.inclusive = inclusive
        self.max_detections = max_detections
        self.max_per_class = max_per_class
        self.max_log_size = max_log_size
        self.clip = clip
        self.drop_empty = drop_empty
        self.scale_factors = tuple(scale_factors)

    def call(self, outputs: dict[str, tf.Tensor], anchors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes a batch.

        Args:
          outputs: `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4].
          anchors: float32 [A, 4], yxyx, fractions of the image.

        Returns:
          Detections: `boxes` float32 [B, D, 4], fractions of the image, inside it only with `clip`;
          `scores` [B, D] descending; `classes` int32 [B, D] in 0..C-1; `count` int32 [B].
        """
        probabilities = tf.nn.softmax(outputs["class_logits"])
        # Most anchors are background: what follows is spent on the others alone.
        kept, valid = nms.candidate_anchors(probabilities[..., 0], self.score_threshold)
        scores = tf.gather(probabilities, kept, batch_dims=1)[..., 1:]
        scores = tf.where(valid[..., tf.newaxis], scores, 0.0)
        codes = tf.gather(outputs["box_codes"], kept, batch_dims=1)
        boxes = self.decode_boxes(codes, tf.gather(anchors, kept))
        if self.drop_empty:
            height, width = tf.unstack(boxes[..., 2:] - boxes[..., :2], axis=-1)
            solid = tf.logical_and(height > 0.0, width > 0.0)
            scores = tf.where(solid[..., tf.newaxis], scores, 0.0)
        return nms.multiclass_nms(
            boxes,
            scores,
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            max_detections=self.max_detections,
            max_per_class=self.max_per_class,
            inclusive=self.inclusive,
        )

    def decode_boxes(self, codes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Decodes box codes float32 [..., 4] from anchors of the same shape, yxyx fractions."""
        boxes = box_ops.decode(codes, anchors, self.scale_factors, self.max_log_size)
        return box_ops.clip(boxes) if self.clip else boxes

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "inclusive": self.inclusive,
            "max_detections": self.max_detections,
            "max_per_class": self.max_per_class,
            "max_log_size": self.max_log_size,
            "clip": self.clip,
            "drop_empty": self.drop_empty,
            "scale_factors": self.scale_factors,
        }
