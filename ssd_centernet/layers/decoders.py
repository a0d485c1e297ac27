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

    Source: reference specification ssd_resnet34, section 13.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        *,
        iou_threshold: float = 0.5,
        max_detections: int = 200,
        max_per_class: int = 200,
        scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        name: str = "decoder",
        **kwargs,
    ):
        """Configures the decoder.

        Args:
          score_threshold: detections must score more, in [0, 1).
          iou_threshold: two boxes of a class with at least this IoU are one object, in (0, 1].
          max_detections: D, detections of an image.
          max_per_class: candidates of a class that enter the suppression.
          scale_factors: of the box code (ty, tx, th, tw).
          name: of the layer.
          **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.max_per_class = max_per_class
        self.scale_factors = tuple(scale_factors)

    def call(self, outputs: dict[str, tf.Tensor], anchors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes a batch.

        Args:
          outputs: `class_logits` float32 [B, A, C + 1] and `box_codes` float32 [B, A, 4].
          anchors: float32 [A, 4], yxyx, fractions of the image.

        Returns:
          Detections: `boxes` float32 [B, D, 4], fractions of the image, not clipped to it;
          `scores` [B, D] descending; `classes` int32 [B, D] in 0..C-1; `count` int32 [B].
        """
        probabilities = tf.nn.softmax(outputs["class_logits"])
        # Most anchors are background: what follows is spent on the others alone.
        kept, valid = nms.candidate_anchors(probabilities[..., 0], self.score_threshold)
        scores = tf.gather(probabilities, kept, batch_dims=1)[..., 1:]
        scores = tf.where(valid[..., tf.newaxis], scores, 0.0)
        codes = tf.gather(outputs["box_codes"], kept, batch_dims=1)
        boxes = box_ops.decode(codes, tf.gather(anchors, kept), self.scale_factors)
        return nms.multiclass_nms(
            boxes,
            scores,
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            max_detections=self.max_detections,
            max_per_class=self.max_per_class,
        )

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
            "max_per_class": self.max_per_class,
            "scale_factors": self.scale_factors,
        }
