"""What the sections share: the recipe's detector, and ground truth in our form."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.models.ssd import SSD
from tests.parity.harness import VectorFile

RECIPE = "ssd320_resnet50_fpn"
# The reference has a slot for each of COCO's ids, gaps included.
NUM_CLASSES = 90


@functools.cache
def detector() -> SSD:
    """Build the shipped recipe's detector, float32, once."""
    config.parse([RECIPE])
    try:
        return build_detector(num_classes=NUM_CLASSES)
    finally:
        config.clear()


def ground_truth(file: VectorFile) -> dict[str, np.ndarray]:
    """Read a file's padded ground truth: arguments of `make_targets`, with leading B."""
    valid = np.arange(file["gt_boxes"].shape[1]) < file["num_gt"][:, None]
    return {
        "boxes": file["gt_boxes"],
        "classes": file["gt_classes"].astype(np.int32) - 1,
        "is_crowd": np.zeros_like(valid),
        "valid": valid,
        "weights": file["gt_weights"],
    }


def make_targets(truth: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Match ground truth, of one image or of a batch, to the detector's anchors."""
    tensors = {key: tf.constant(value) for key, value in truth.items()}
    return detector().criterion.make_targets(anchors=detector().anchor_boxes, **tensors)


def one_image(truth: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """Cut one image and its true rows out of padded ground truth."""
    rows = truth["valid"][index]
    return {key: value[index][rows] for key, value in truth.items() if key != "valid"}
