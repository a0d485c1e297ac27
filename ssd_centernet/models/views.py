"""Detections of several views of each image, joined: mirrored, and at other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ssd_centernet.layers.decoder_base import FLIP, scales_of
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import nms

if TYPE_CHECKING:
    from ssd_centernet.models.detector import Detector

# Images of the network's input and their extent, at one size.
View = tuple[tf.Tensor, tf.Tensor | None]
# Of one object found on two views of an image, where the decoder itself suppresses nothing.
_IOU_OF_VIEWS = 0.6
# Sides are multiples of it, which all levels of a network share.
_MULTIPLE = 32


def sizes_of_views(detector: Detector) -> list[tuple[int, int]]:
    """Return (height, width) in pixels of the views that are asked for beside the detector's own.

    Raises:
        ValueError: a scale leads to the detector's own size, or two to the same one.
    """
    # A detector of one's own need not have a layer that decodes.
    decoder = getattr(detector, "decoder", None)
    own, sizes = tuple(detector.image_size), []
    for scale in scales_of(getattr(decoder, "test_time", ())):
        size = tuple(max(1, round(scale * side / _MULTIPLE)) * _MULTIPLE for side in own)
        if size in (own, *sizes):
            raise ValueError(
                f"{type(decoder).__name__}.test_time has the scale {scale}, which gives images of "
                f"{size} pixels (multiples of {_MULTIPLE}): there is a view of that size already. "
                "Choose another scale, or leave it out."
            )
        sizes.append(size)
    return sizes


def make_views(detector: Detector, images: tf.Tensor) -> list[View]:
    """Prepare images for the views at other sizes, from their own pixels.

    Args:
        detector: whose decoder says which.
        images: uint8 [H, W, 3] or [B, H, W, 3], of any size.

    Returns:
        For each scale of `test_time` float32 [..., h, w, 3] and extent float32 [..., 2], or [2] of
        one image.
    """
    if not (sizes := sizes_of_views(detector)):
        return []
    height, width = tf.unstack(tf.shape(images)[-3:-1])
    views = []
    for size in sizes:
        preparing = detector.at_size(size).preprocessing
        extent = preparing.extent(height, width)
        if images.shape.rank == 4:
            extent = tf.tile(extent[tf.newaxis], [tf.shape(images)[0], 1])
        views.append((preparing(images), extent))
    return views


def detect_views(
    detector: Detector,
    images: tf.Tensor,
    extent: tf.Tensor | None,
    *,
    outputs: Any = None,
    views: Sequence[View] = (),
    limits: dict[str, Any],
) -> dict[str, tf.Tensor]:
    """Detect on all views of images; see `Detector.detect_prepared`."""
    if outputs is None:
        outputs = detector(images, training=False)
    decoder = getattr(detector, "decoder", None)
    asked = getattr(decoder, "test_time", ())
    if not asked:
        return detector.decode(outputs, extent, **limits)
    overlap = limits.get("iou_threshold")
    if overlap is None:
        overlap = getattr(decoder, "iou_threshold", None) or _IOU_OF_VIEWS
    own = (images, extent)
    sizes = sizes_of_views(detector)
    views = views or [(tf.image.resize(images, size), extent) for size in sizes]
    found = None
    for size, view in zip((detector.image_size, *sizes), (own, *views), strict=True):
        seen = _detect(
            detector.at_size(size), view, FLIP in asked, overlap, limits, outputs=outputs
        )
        found = seen if found is None else nms.merge_detections(found, seen, overlap)
        outputs = None
    return found


def _detect(
    detector: Detector, view: View, mirrored: bool, overlap: Any, limits: dict, *, outputs: Any
) -> dict[str, tf.Tensor]:
    """Detect on images of one size, and on their mirror images."""
    images, extent = view
    if outputs is None:
        outputs = detector(images, training=False)
    found = detector.decode(outputs, None, **limits)
    if mirrored:
        turned = tf.reverse(images, [2])
        other = detector.decode(detector(turned, training=False), None, **limits)
        other = {**other, "boxes": box_ops.flip_left_right(other["boxes"])}
        found = nms.merge_detections(found, other, overlap)
    return detector.to_image_frame(found, extent)
