"""What the sections share: the detector, and the inputs that are made from seeds."""

from __future__ import annotations

import functools

import numpy as np

from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.ssd import SSD
from tests.parity.harness import Report, VectorFile

NUM_CLASSES = 80
NUM_ANCHORS = 8732


def normal(seed, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Draw `R(seed, shape, scale)`, float32. Source: docs/reference/ssd_resnet34.md, section 19"""
    return (np.random.default_rng(int(seed)).standard_normal(shape) * scale).astype(np.float32)


def check_inputs(report: Report, vectors: VectorFile, prefix: str, logits, boxes) -> None:
    """Compare samples of the inputs bit for bit: without that no other line means anything."""
    name = f"{vectors.name}:{prefix}"
    report.check(f"{name}_logits_check", logits[:, ::2000, :5], vectors[f"{prefix}_logits_check"])
    report.check(f"{name}_boxes_check", boxes[:, ::2000], vectors[f"{prefix}_boxes_check"])


@functools.cache
def detector() -> SSD:
    """Build the reference network, float32, once."""
    return SSD(ResNet(), num_classes=NUM_CLASSES)
