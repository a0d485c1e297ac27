"""Decoding, suppression, clipping and the cut to the best."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.layers.decoders import SigmoidSSDDecoder
from ssd_centernet.ops import boxes as box_ops
from tests.parity.harness import Report, Vectors
from tests.parity.ssd320_resnet50_fpn import common

ATOL = 1e-5


def detections(vectors: Vectors, report: Report) -> None:
    """Compare detections.npz, with as many pairs as it takes and with all of them."""
    file = vectors.npz("detections.npz")
    detector = common.detector()
    anchors = detector.anchor_boxes.numpy()
    size = len(file["num_detections"])
    logits = np.full(
        (size, len(anchors), common.NUM_CLASSES + 1), file["fill_logit"], dtype=np.float32
    )
    codes = np.zeros((size, len(anchors), 4), np.float32)
    for image in range(size):
        active = file[f"active_index_{image}"]
        logits[image, active] = file[f"active_logits_{image}"]
        codes[image, active] = file[f"active_box_encodings_{image}"]
        got = box_ops.decode(codes[image, active], anchors[active], detector.decoder.scale_factors)
        want = file[f"decoded_active_boxes_{image}"]
        report.check(f"detections.npz:decoded_active_boxes_{image}", got, want, atol=ATOL)
    outputs = {"class_logits": tf.constant(logits), "box_codes": tf.constant(codes)}
    everything = SigmoidSSDDecoder(pre_nms_top_k=logits[0, :, 1:].size)
    for name, found in (
        ("", detector.decode(outputs)),
        (" (all pairs)", everything(outputs, detector.anchor_boxes)),
    ):
        counts, classes = file["num_detections"], file["detection_classes"]
        report.check_exact(f"detections.npz:num_detections{name}", found["count"], counts)
        report.check_exact(f"detections.npz:detection_classes{name}", found["classes"], classes)
        for key in ("boxes", "scores"):
            want = file[f"detection_{key}"]
            report.check(f"detections.npz:detection_{key}{name}", found[key], want, atol=ATOL)
