"""CenterNet's decoder, from maps to `Detections` in float32."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.decoder_base import Decoder
from ssd_centernet.ops import heatmaps, nms, voting


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class CenterNetDecoder(Decoder):
    """Return the peaks of the last stack's heatmap, best first; as published, all of them.

    Source: docs/reference/centernet.md, section 4
    """

    def __init__(
        self,
        max_detections: int = 100,
        *,
        score_threshold: float = 0.0,
        kernel_size: int = 3,
        iou_threshold: float | None = None,
        vote_iou: float | None = None,
        test_time: Sequence[str | float] = (),
        name: str = "decoder",
        **kwargs,
    ):
        """Configure the decoder.

        Args:
            max_detections: D, largest number of detections per image.
            score_threshold: detections must have a higher score, in [0, 1); the default keeps all
                peaks.
            kernel_size: side, in cells, of the neighbourhood in which a peak is the largest; odd.
            iou_threshold: of two boxes of a class with a greater IoU the worse is left out, in
                (0, 1]; None suppresses no boxes, as published.
            vote_iou: each detection moves to the mean of the boxes that the cells of its
                neighbourhood have and that overlap its own by at least this IoU, weighted by their
                scores for its class, see `ops.voting`; None, as published, keeps its own box. It
                needs `CenterNetHead.regression = "sides"`.
            test_time: ('flip',) detects on the mirrored image too and joins both, in twice the
                time; numbers, as in ('flip', 0.75, 1.5), are factors of the network's input at
                which the image is looked at too; (), as published, looks once.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `kernel_size` is even or not positive, or `iou_threshold` out of range.
        """
        super().__init__(test_time=test_time, name=name, **kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"CenterNetDecoder.kernel_size must be odd, so that a cell is in the middle of its "
                f"neighbourhood, got {kernel_size!r}; the published value is 3."
            )
        self.max_detections = max_detections
        self.score_threshold = score_threshold
        self.kernel_size = kernel_size
        if iou_threshold is not None and not 0 < iou_threshold <= 1:
            raise ValueError(
                f"CenterNetDecoder.iou_threshold must be above 0 and at most 1, or None for no "
                f"suppression, got {iou_threshold!r}."
            )
        self.iou_threshold = iou_threshold
        self.vote_iou = self.check_vote_iou(vote_iou)

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
            outputs: for each stack `center` [B, h, w, C], and `offset` and `size` [B, h, w, 2] or
                `sides` [B, h, w, 4], float32; only the last one is decoded.
            score_threshold: replaces that of the constructor.
            iou_threshold: replaces `iou_threshold`; without effect if that is None.
            portable_pairs: has no effect: TFLite and ONNX have all operations used here.

        Returns:
            Detections: `boxes` float32 [B, D, 4], yxyx, fractions of the network's input, clipped
            to it; `scores` [B, D] descending, 0 beyond `count`; `classes` int32 [B, D] in 0..C-1;
            `count` int32 [B]. D is smaller if the map has fewer places.
        """
        del portable_pairs
        least = self.score_threshold if score_threshold is None else score_threshold
        # Earlier stacks serve only for training.
        maps = outputs[-1]
        _, height, width, num_classes = maps["center"].shape
        # Of the scores, not of the logits: the plateau's width is one of scores.
        peaks = heatmaps.keep_peaks(tf.sigmoid(maps["center"]), self.kernel_size)
        count = min(self.max_detections, height * width * num_classes)
        scores, cells, classes = heatmaps.top_peaks(peaks, count)
        limits = tf.constant([height, width, height, width], tf.float32)
        if "sides" in maps:
            sides = heatmaps.gather_cells(maps["sides"], cells)
            boxes = tf.clip_by_value(heatmaps.boxes_from_sides(sides, cells), 0.0, limits)
        else:
            boxes = heatmaps.decode_boxes(
                cells,
                heatmaps.gather_cells(maps["offset"], cells),
                heatmaps.gather_cells(maps["size"], cells),
                (height, width),
            )
        boxes /= limits
        if self.vote_iou is not None:
            if "sides" not in maps:
                raise ValueError(
                    "CenterNetDecoder.vote_iou needs the boxes of the cells around a centre: set "
                    "CenterNetHead.regression = 'sides' and a criterion that teaches them, such as "
                    "TTFLoss, or vote_iou = None."
                )
            # Before the suppression: what finds the same object then has nearly the same box.
            boxes = voting.vote_of_cells(
                {"boxes": boxes, "classes": classes},
                cells,
                maps,
                score_threshold=least,
                vote_iou=self.vote_iou,
                kernel_size=self.kernel_size,
            )["boxes"]
        if self.iou_threshold is not None:
            kept, number = nms.fixed_shape_nms(
                boxes,
                scores,
                classes,
                score_threshold=least,
                iou_threshold=self.iou_threshold if iou_threshold is None else iou_threshold,
                max_detections=count,
            )
            return nms.gather_detections(boxes, scores, classes, kept, number)
        found = scores > least
        return {
            "boxes": boxes,
            # Where an image has fewer peaks, the rest are cells of score 0 with boxes of their own.
            "scores": tf.where(found, scores, 0.0),
            "classes": classes,
            "count": tf.reduce_sum(tf.cast(found, tf.int32), axis=-1),
        }
