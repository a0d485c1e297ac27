"""Anchors, matching and losses with their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.ops import anchors as anchor_ops
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import losses as loss_ops
from ssd_centernet.ops import matching
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_resnet34 import common

# Two overlaps, or two cross entropies, that agree to this may change places.
# Source: docs/reference/ssd_resnet34.md, section 19
TIE = 1e-6


def anchors(vectors: Vectors, report: Report) -> None:
    """Compare anchors.npz."""
    file = vectors.npz("anchors.npz")
    if file is None:
        report.say("anchors.npz is not in the folder: anchors are compared with nothing")
        return
    detector = common.detector()
    layer = detector.anchors
    center_size = anchor_ops.default_boxes(
        detector.image_size,
        detector.feature_sizes,
        scales=[scale / layer.reference_size for scale in layer.scales],
        aspect_ratios=layer.aspect_ratios,
        steps=[(step, step) for step in layer.steps],
        clip=layer.clip,
    )
    corners = detector.anchor_boxes.numpy()
    report.check("anchors.npz:cyxhw_f64", center_size, file["cyxhw_f64"], atol=1e-12)
    corners64 = anchor_ops.corners(center_size)
    report.check("anchors.npz:ltrb_f64", corners64, file["ltrb_f64"], atol=1e-12)
    report.check_exact("anchors.npz:ltrb_f32", corners, file["ltrb_f32"])
    recomputed = tf.stack(box_ops.to_center_size(detector.anchor_boxes), axis=-1)
    want = file["cyxhw_from_f32_corners"]
    report.check_exact("anchors.npz:cyxhw_from_f32_corners", recomputed, want)
    counts = [
        rows * columns * count
        for (rows, columns), count in zip(detector.feature_sizes, layer.boxes_per_cell, strict=True)
    ]
    offsets = np.cumsum([0, *counts])
    report.check_exact("anchors.npz:level_offsets", offsets, file["level_offsets"])


def targets(vectors: Vectors, report: Report) -> None:
    """Compare targets.npz: every case alone and unpadded, then all cases as one padded batch."""
    file = vectors.npz("targets.npz")
    criterion, anchor_boxes = common.detector().criterion, common.detector().anchor_boxes
    counts = file["gt_count"]
    boxes, classes = file["gt_boxes"], file["gt_labels"] - 1
    for index, case in enumerate(file["case_names"]):
        rows = slice(0, int(counts[index]))
        gt_boxes = tf.constant(boxes[index, rows])
        crowd = tf.zeros([counts[index]], tf.bool)
        got = criterion.make_targets(
            gt_boxes, tf.constant(classes[index, rows]), crowd, anchor_boxes
        )
        matches = matching.match(box_ops.iou(gt_boxes, anchor_boxes))
        ambiguous = _ambiguous(boxes[index, rows], anchor_boxes.numpy())
        _check_case(report, file, index, f"targets.npz:{case}", got, matches, ambiguous)
    valid = np.arange(boxes.shape[1]) < counts[:, None]
    batch = criterion.make_targets(
        tf.constant(boxes),
        tf.constant(classes),
        tf.zeros(valid.shape, tf.bool),
        anchor_boxes,
        tf.constant(valid),
    )
    matches = matching.match(box_ops.iou(tf.constant(boxes), anchor_boxes), tf.constant(valid))
    for index, case in enumerate(file["case_names"]):
        got = {key: value[index] for key, value in batch.items()}
        ambiguous = _ambiguous(boxes[index, : counts[index]], anchor_boxes.numpy())
        name = f"targets.npz:{case} (in a padded batch)"
        _check_case(report, file, index, name, got, matches[index], ambiguous)


def _check_case(report, file: VectorFile, index: int, name: str, got, matches, ambiguous) -> None:
    matches, want = np.asarray(matches), file["match"][index]
    same = matches == want
    reason = f"overlaps agree to {TIE:g}"
    report.check_exact(f"{name} match", matches, want, allowed=ambiguous, reason=reason)
    report.check_exact(
        f"{name} classes",
        got["classes"],
        file["classes"][index],
        allowed=ambiguous & ~same,
        reason=reason,
    )
    want_boxes = np.where(same[:, None], file["boxes"][index], 0.0)
    got_boxes = np.where((same | ~ambiguous)[:, None], got["boxes"], 0.0)
    report.check(f"{name} boxes", got_boxes, want_boxes, atol=2e-5)
    # A tie may only shift a positive from one anchor to another, or across the threshold.
    slack = float(np.count_nonzero(~same & ambiguous))
    count = float(got["num_matched"])
    report.check(f"{name} num_positives", count, file["num_positives"][index], atol=slack)


def _ambiguous(boxes: np.ndarray, anchor_boxes: np.ndarray) -> np.ndarray:
    """Find the anchors whose match hangs on float32 rounding, bool [A]."""
    result = np.zeros(len(anchor_boxes), bool)
    if not len(boxes):
        return result
    iou = _iou64(boxes.astype(np.float64), anchor_boxes.astype(np.float64))
    ordered = np.sort(iou, axis=0)
    result |= np.abs(ordered[-1] - 0.5) <= TIE
    if len(boxes) > 1:
        # Exact ties of copies are decided by index, not by rounding.
        gap = ordered[-1] - ordered[-2]
        result |= (ordered[-1] >= 0.5 - TIE) & (gap > 0) & (gap <= TIE)
    best = iou.max(axis=1, keepdims=True)
    close = (iou >= best - TIE) & (best > 0)
    result |= (close & (close.sum(axis=1, keepdims=True) > 1)).any(axis=0)
    return result


def _iou64(boxes: np.ndarray, anchor_boxes: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], anchor_boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], anchor_boxes[None, :, 2:])
    intersection = np.prod(np.maximum(high - low, 0.0), axis=-1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)[:, None]
    union = area + np.prod(anchor_boxes[:, 2:] - anchor_boxes[:, :2], axis=-1) - intersection
    return np.where(intersection > 0, intersection / np.where(union > 0, union, 1.0), 0.0)


def losses(vectors: Vectors, report: Report) -> None:
    """Compare losses.npz: parts, mining and gradients of three cases, and the empty one."""
    file = vectors.npz("losses.npz")
    for case in ("c0", "c1", "c2"):
        _losses_of_case(report, file, case)
    shape = (4, common.NUM_ANCHORS)
    outputs = {
        "class_logits": tf.constant(common.normal(1, (*shape, common.NUM_CLASSES + 1))),
        "box_codes": tf.constant(common.normal(2, (*shape, 4))),
    }
    nothing = {
        "classes": tf.zeros(shape, tf.int32),
        "boxes": tf.zeros((*shape, 4)),
        "num_matched": tf.zeros([shape[0]], tf.int32),
    }
    parts = common.detector().losses_of(outputs, nothing)
    name = "losses.npz:zero_matched_total_class_box"
    total = common.detector().total_loss(parts)
    report.check(f"{name} (ours: 0)", [total, parts["class"], parts["box"]], np.zeros(3))
    report.check_true(f"{name} (reference: NaN)", np.isnan(file[name.split(":")[1]]).all())


def _losses_of_case(report: Report, file: VectorFile, case: str) -> None:
    shape = (4, common.NUM_ANCHORS)
    logits = common.normal(file[f"{case}_logits_seed"], (*shape, common.NUM_CLASSES + 1))
    codes = common.normal(file[f"{case}_boxes_seed"], (*shape, 4), 2.0)
    if case == "c1":
        logits[..., 0] += np.float32(200.0)
        for image, lowered in enumerate(file["c1_lowered_background_anchor_ids"]):
            logits[image, lowered, 0] -= np.float32(200.0)
    if "c2_gt_seed" in file and case == "c2":
        # Only says where the ground truth came from.
        report.say(f"losses.npz:c2_gt_seed is {int(file['c2_gt_seed'])}")
    common.check_inputs(report, file, case, logits, codes)
    outputs = {"class_logits": tf.constant(logits), "box_codes": tf.constant(codes)}
    made = {
        "classes": tf.constant(file[f"{case}_gt_classes"].astype(np.int32)),
        "boxes": tf.constant(file[f"{case}_gt_boxes"]),
        "num_matched": tf.constant(file[f"{case}_num_matched"].astype(np.int32)),
    }
    detector = common.detector()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        parts = detector.losses_of(outputs, made)
    name = f"losses.npz:{case}"
    total = detector.total_loss(parts)
    report.check(f"{name}_total", total, file[f"{case}_total"], rtol=1e-5)
    for part in ("class", "box"):
        report.check(f"{name}_{part}_loss", parts[part], file[f"{case}_{part}_loss"], rtol=1e-5)
    per_image = [
        detector.losses_of(
            {key: value[i : i + 1] for key, value in outputs.items()},
            {key: value[i : i + 1] for key, value in made.items()},
        )["class"]
        for i in range(shape[0])
    ]
    want = file[f"{case}_class_loss_per_image"]
    report.check(f"{name}_class_loss_per_image", per_image, want, rtol=1e-5)
    _check_mining(report, file, case, outputs["class_logits"], made)
    grad_logits = tape.gradient(parts["class"], outputs["class_logits"]).numpy()
    grad_codes = tape.gradient(parts["box"], outputs["box_codes"]).numpy()
    rows = file[f"{case}_grad_logits_rows"]
    got = grad_logits[rows[:, 0], rows[:, 1]]
    report.check(f"{name}_grad_logits", got, file[f"{case}_grad_logits"], atol=1e-7)
    key = f"{case}_grad_logits_abs_sum_per_anchor_every8"
    report.check(
        f"losses.npz:{key}", np.abs(grad_logits[:, ::8]).sum(axis=-1), file[key], atol=1e-7
    )
    want = file[f"{case}_grad_boxes"]
    got = grad_codes if want.shape[1] == shape[1] else grad_codes[:, ::8]
    report.check(f"{name}_grad_boxes", got, want, atol=1e-7)


def _check_mining(report: Report, file: VectorFile, case: str, logits, made: dict) -> None:
    cross_entropy = loss_ops.softmax_cross_entropy(logits, made["classes"])
    key = f"{case}_cross_entropy_every8"
    report.check(f"losses.npz:{key}", cross_entropy[:, ::8], file[key], rtol=1e-5)
    weights = common.detector().criterion.anchor_weights(
        cross_entropy, made["classes"], made["num_matched"]
    )
    got, want = weights.numpy(), file[f"{case}_weight"].astype(np.float32)
    allowed = np.zeros(got.shape, bool)
    if case != "c1":  # c1 is made of exact ties, which have one right order.
        values = np.where(made["classes"].numpy() > 0, 0.0, cross_entropy.numpy())
        for image in range(len(got)):
            differs = got[image] != want[image]
            swapped = values[image][differs]
            if len(swapped) and np.ptp(swapped) <= TIE and got[image].sum() == want[image].sum():
                allowed[image] = differs
    reason = f"cross entropies agree to {TIE:g}"
    report.check_exact(f"losses.npz:{case}_weight", got, want, allowed=allowed, reason=reason)
