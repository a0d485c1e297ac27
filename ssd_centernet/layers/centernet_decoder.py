"""CenterNet's decoder, from maps to `Detections` in float32."""

from __future__ import annotations

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.ops import heatmaps


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class CenterNetDecoder(Float32Layer):
    """Return the peaks of the last stack's heatmap, best first; boxes are not suppressed.

    Source: docs/reference/centernet.md, section 4
    """

    def __init__(
        self,
        max_detections: int = 100,
        *,
        score_threshold: float = 0.0,
        kernel_size: int = 3,
        name: str = "decoder",
        **kwargs,
    ):
        """Configure the decoder.

        Args:
            max_detections: D, largest number of detections per image.
            score_threshold: detections must have a higher score, in [0, 1); the default keeps all
                peaks.
            kernel_size: side, in cells, of the neighbourhood in which a peak is the largest; odd.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `kernel_size` is even or not positive.
        """
        super().__init__(name=name, **kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"CenterNetDecoder.kernel_size must be odd, so that a cell is in the middle of its "
                f"neighbourhood, got {kernel_size!r}; the published value is 3."
            )
        self.max_detections = max_detections
        self.score_threshold = score_threshold
        self.kernel_size = kernel_size

    def call(
        self,
        outputs: list[dict[str, tf.Tensor]],
        *,
        score_threshold: float | tf.Tensor | None = None,
        iou_threshold: float | tf.Tensor | None = None,
        portable_pairs: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Decode a batch.

        Args:
            outputs: for each stack `center` [B, h, w, C], `offset` and `size` [B, h, w, 2],
                float32; only the last one is decoded.
            score_threshold: replaces that of the constructor.
            iou_threshold: has no effect, as no boxes are suppressed; other decoders use it.
            portable_pairs: has no effect: TFLite and ONNX have all operations used here.

        Returns:
            Detections: `boxes` float32 [B, D, 4], yxyx, fractions of the network's input, clipped
            to it; `scores` [B, D] descending, 0 beyond `count`; `classes` int32 [B, D] in 0..C-1;
            `count` int32 [B]. D is smaller if the map has fewer places.
        """
        del iou_threshold, portable_pairs
        least = self.score_threshold if score_threshold is None else score_threshold
        # Earlier stacks serve only for training.
        maps = outputs[-1]
        _, height, width, num_classes = maps["center"].shape
        # Of the scores, not of the logits: the plateau's width is one of scores.
        peaks = heatmaps.keep_peaks(tf.sigmoid(maps["center"]), self.kernel_size)
        count = min(self.max_detections, height * width * num_classes)
        scores, cells, classes = heatmaps.top_peaks(peaks, count)
        boxes = heatmaps.decode_boxes(
            cells,
            heatmaps.gather_cells(maps["offset"], cells),
            heatmaps.gather_cells(maps["size"], cells),
            (height, width),
        )
        found = scores > least
        return {
            "boxes": boxes / tf.constant([height, width, height, width], tf.float32),
            # Where an image has fewer peaks, the rest are cells of score 0 with boxes of their own.
            "scores": tf.where(found, scores, 0.0),
            "classes": classes,
            "count": tf.reduce_sum(tf.cast(found, tf.int32), axis=-1),
        }
