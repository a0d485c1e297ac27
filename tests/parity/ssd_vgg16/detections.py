"""Decoding and suppression, of the version that the recipes follow and of a later one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.layers.decoders import SSDDecoder
from ssd_centernet.training.schedules import RunLength, StepDecay
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_vgg16 import common

CASES = range(3)
PIXEL_ATOL = 2e-3
SCORE_ATOL = 1e-6


def detections(vectors: Vectors, report: Report) -> None:
    """Compare detections.npz."""
    file = vectors.npz("detections.npz")
    for side in common.SIDES:
        detector = common.detector(side)
        for case in CASES:
            prefix = f"s{side}_case{case}"
            _check_decoding(report, file, prefix, side)
            found = detector.decode(_outputs(file, prefix, side))
            _check_found(report, file, prefix, found, file[f"{prefix}_ori_hw"])


def v3_variants(vectors: Vectors, report: Report) -> None:
    """Compare v3_variants.npz: boxes without area dropped, a warm-up that ends a step earlier."""
    file, inputs = vectors.npz("v3_variants.npz"), vectors.npz("detections.npz")
    for side in common.SIDES:
        detector = common.detector(side)
        decoder = SSDDecoder.from_config({**detector.decoder.get_config(), "drop_empty": True})
        for case in CASES:
            prefix = f"s{side}_case{case}"
            found = decoder(_outputs(inputs, prefix, side), detector.anchor_boxes)
            _check_found(report, file, prefix, found, inputs[f"{prefix}_ori_hw"])
    schedule = StepDecay(warmup_steps=499)
    run = RunLength(steps_per_epoch=200, total_steps=24000, global_batch_size=64)
    got = [float(schedule.exact(tf.constant(step), run)) for step in file["lr_iterations"]]
    report.check("v3_variants.npz:lr", got, file["lr"], rtol=1e-9)


def _outputs(file: VectorFile, prefix: str, side: int) -> dict[str, tf.Tensor]:
    """Make the raw outputs of one image: background everywhere but in the active rows."""
    anchors = len(common.detector(side).anchor_boxes)
    logits = np.zeros((1, anchors, common.NUM_CLASSES + 1), np.float32)
    codes = np.zeros((1, anchors, 4), np.float32)
    logits[0, :, 0] = 9.0
    active = file[f"{prefix}_active"]
    logits[0, active] = common.background_first(file[f"{prefix}_logits"])
    codes[0, active] = common.swap_code(file[f"{prefix}_deltas"])
    return {"class_logits": tf.constant(logits), "box_codes": tf.constant(codes)}


def _check_decoding(report: Report, file: VectorFile, prefix: str, side: int) -> None:
    detector = common.detector(side)
    anchors = tf.gather(detector.anchor_boxes, file[f"{prefix}_active"])
    codes = common.swap_code(file[f"{prefix}_deltas"])
    boxes = detector.decoder.decode_boxes(tf.constant(codes), anchors)
    name = f"{prefix}_decoded_netscale"
    got = common.to_xyxy(boxes, side)
    report.check(f"detections.npz:{name}", got, file[name], atol=PIXEL_ATOL)


def _check_found(report: Report, file: VectorFile, prefix: str, found: dict, size) -> None:
    count = int(found["count"][0])
    want_boxes, want_scores = file[f"{prefix}_det_boxes"], file[f"{prefix}_det_scores"]
    want_labels = file[f"{prefix}_det_labels"].astype(np.int32)
    name = f"{file.name}:{prefix}"
    if not report.check_exact(f"{name} detections", count, len(want_scores)):
        return
    scores = found["scores"][0, :count].numpy()
    report.check(f"{name}_det_scores", scores, want_scores, atol=SCORE_ATOL)
    boxes = common.to_xyxy(found["boxes"][0, :count], *size)
    labels = found["classes"][0, :count].numpy()
    rows = _pair(want_boxes, want_scores, want_labels, boxes, scores, labels)
    report.check_exact(f"{name}_det_labels", labels[rows], want_labels)
    report.check(f"{name}_det_boxes", boxes[rows], want_boxes, atol=PIXEL_ATOL)


def _pair(want_boxes, want_scores, want_labels, boxes, scores, labels) -> np.ndarray:
    """Find our row for each of theirs: equal scores may have changed places."""
    free, rows = np.ones(len(scores), bool), np.zeros(len(scores), int)
    for index, score in enumerate(want_scores):
        distance = np.abs(boxes - want_boxes[index]).max(axis=1)
        distance += 1e6 * (labels != want_labels[index])
        near = free & (np.abs(scores - score) <= SCORE_ATOL)
        rows[index] = np.argmin(np.where(near if near.any() else free, distance, np.inf))
        free[rows[index]] = False
    return rows
