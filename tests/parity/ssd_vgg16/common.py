"""What the sections share: the recipes' detectors, and the reference's order of things."""

from __future__ import annotations

import functools

import numpy as np

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.models.ssd import SSD

NUM_CLASSES = 80
SIDES = (300, 512)


@functools.cache
def detector(side: int) -> SSD:
    """Build the detector of a shipped recipe, float32, once."""
    config.parse([f"ssd{side}_vgg16"])
    try:
        return build_detector(num_classes=NUM_CLASSES)
    finally:
        config.clear()


def from_xyxy(boxes, height: float, width: float | None = None) -> np.ndarray:
    """Turn pixels x1, y1, x2, y2 [..., 4] into yxyx fractions, float32."""
    width = height if width is None else width
    boxes = np.asarray(boxes, np.float64)[..., [1, 0, 3, 2]]
    return (boxes / np.array([height, width, height, width])).astype(np.float32)


def to_xyxy(boxes, height: float, width: float | None = None) -> np.ndarray:
    """Turn yxyx fractions [..., 4] into pixels x1, y1, x2, y2, float64."""
    width = height if width is None else width
    pixels = np.asarray(boxes, np.float64) * np.array([height, width, height, width])
    return pixels[..., [1, 0, 3, 2]]


def background_first(values) -> np.ndarray:
    """Move the last of the classes, on the last axis, to the front."""
    return np.roll(np.asarray(values), 1, axis=-1)


def background_last(values) -> np.ndarray:
    """Move the first of the classes, on the last axis, to the end."""
    return np.roll(np.asarray(values), -1, axis=-1)


def classes_of(labels) -> np.ndarray:
    """Turn labels with background 80 into class targets with background 0."""
    labels = np.asarray(labels).astype(np.int32)
    return np.where(labels == NUM_CLASSES, 0, labels + 1)


def swap_code(codes) -> np.ndarray:
    """Turn box codes dx, dy, dw, dh [..., 4] into ty, tx, th, tw and back.

    The reference's deltas on the network's side are divided by its deviations already.
    """
    return np.asarray(codes)[..., [1, 0, 3, 2]]
