"""Anchors, matching, and losses with their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import matching
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd320_resnet50_fpn import common


def anchors(vectors: Vectors, report: Report) -> None:
    """Compare anchors.npz: every size, in order."""
    file = vectors.npz("anchors.npz")
    layer = common.detector().anchors
    index = 0
    while f"size_{index}" in file:
        name = f"anchors.npz:{'x'.join(str(side) for side in file[f'size_{index}'])}"
        size = tuple(file[f"size_{index}"].tolist())
        levels = [
            [-(-side // 2**level) for side in size]
            for level in range(layer.min_level, layer.max_level + 1)
        ]
        report.check_exact(f"{name} feature_shapes", levels, file[f"feature_shapes_{index}"])
        counts = [h * w * n for (h, w), n in zip(levels, layer.boxes_per_cell, strict=True)]
        report.check_exact(f"{name} num_per_level", counts, file[f"num_per_level_{index}"])
        got = layer.generate(size, levels)
        # Exactly: the last bit decides between anchors that overlap an object equally.
        report.check_exact(f"{name} anchors", got, file[f"anchors_{index}"])
        index += 1
    report.check_true("anchors.npz: there are sizes", index)
    got, want = common.detector().anchor_boxes.shape[0], len(file["anchors_0"])
    if common.detector().image_size == tuple(file["size_0"].tolist()):
        report.check_exact("anchors.npz: of the detector", got, want)


def targets(vectors: Vectors, report: Report) -> None:
    """Compare targets.npz: as one padded batch, then every image alone and unpadded."""
    file = vectors.npz("targets.npz")
    truth = common.ground_truth(file)
    matches = _matches(truth)
    report.check_exact("targets.npz:matches", matches, file["matches"])
    batch = common.make_targets(truth)
    _check_targets(report, file, "targets.npz (padded batch)", slice(None), batch)
    for index in range(len(file["num_gt"])):
        alone = common.one_image(truth, index)
        name = f"targets.npz (image {index})"
        report.check_exact(f"{name} matches", _matches(alone), file["matches"][index])
        _check_targets(report, file, name, index, common.make_targets(alone))


def _matches(truth: dict[str, np.ndarray]) -> tf.Tensor:
    detector = common.detector()
    valid = truth.get("valid")
    return matching.match(
        box_ops.iou(tf.constant(truth["boxes"]), detector.anchor_boxes),
        None if valid is None else tf.constant(valid),
        matched_threshold=detector.criterion.matched_threshold,
        force_match=tf.constant(truth["weights"] > 0),
    )


def _check_targets(report: Report, file: VectorFile, name: str, index, made: dict) -> None:
    classes, weights = made["classes"].numpy(), made["weights"].numpy()
    box_weights = np.where(classes > 0, weights, 0.0)
    report.check_exact(f"{name} class_index", classes, file["class_index"][index])
    report.check_exact(f"{name} cls_weights", weights, file["cls_weights"][index])
    want = file["reg_targets"][index]
    report.check(f"{name} reg_targets", made["boxes"], want, rtol=1e-5, atol=1e-4)
    report.check_exact(f"{name} reg_weights", box_weights, file["reg_weights"][index])
    positives = np.count_nonzero(classes > 0, axis=-1)
    report.check_exact(f"{name} num_positive", positives, file["num_positive"][index])
    sums = box_weights.sum(axis=-1)
    report.check(f"{name} sum_reg_weights", sums, file["sum_reg_weights"][index], rtol=1e-6)


def losses(vectors: Vectors, report: Report) -> None:
    """Compare losses.npz: parts and gradients of a batch, and of an image without objects."""
    file = vectors.npz("losses.npz")
    outputs = {
        "class_logits": tf.constant(file["logits_q"].astype(np.float32) / 16),
        "box_codes": tf.constant(file["box_encodings_q"].astype(np.float32) / 256),
    }
    truth = common.ground_truth(file)
    stride = int(file["grad_logits_stride"])
    parts, grad_logits, grad_codes = _with_gradients(outputs, common.make_targets(truth))
    for part, key in (("class", "classification_loss"), ("box", "localization_loss")):
        report.check(f"losses.npz:{key}", parts[part], file[key], rtol=1e-5)
    total = common.detector().total_loss(parts)
    want = file["classification_loss"] + file["localization_loss"]
    report.check("losses.npz: their sum is the total", total, want, rtol=1e-5)
    want = file["grad_logits_sample"]
    got = grad_logits.reshape(-1)[::stride]
    report.check("losses.npz:grad_logits_sample", got, want, rtol=1e-4, atol=1e-8)
    got = np.abs(grad_logits.astype(np.float64)).sum()
    report.check("losses.npz:grad_logits_abs_sum", got, file["grad_logits_abs_sum"], rtol=1e-4)
    flat = grad_codes.reshape(-1)
    where = file["grad_box_nonzero_index"]
    report.check_exact("losses.npz:grad_box_nonzero_index", np.flatnonzero(flat), where)
    want = file["grad_box_nonzero_value"]
    report.check("losses.npz:grad_box_nonzero_value", flat[where], want, rtol=1e-4, atol=1e-8)
    _check_empty(report, file, {key: value[:1] for key, value in outputs.items()}, stride)


def _check_empty(report: Report, file: VectorFile, outputs: dict, stride: int) -> None:
    nothing = {
        "boxes": np.zeros((0, 4), np.float32),
        "classes": np.zeros(0, np.int32),
        "is_crowd": np.zeros(0, bool),
    }
    truth = common.ground_truth(file)
    padded = {key: value[:1] for key, value in truth.items()}
    padded["valid"] = np.zeros_like(padded["valid"])
    for name, case in (("no rows", nothing), ("padding alone", padded)):
        made = common.make_targets(case)
        if "valid" not in case:
            made = {key: value[tf.newaxis] for key, value in made.items()}
        parts, grad_logits, grad_codes = _with_gradients(outputs, made)
        for part, key in (("class", "classification_loss"), ("box", "localization_loss")):
            want = file[f"empty_{key}"]
            report.check(f"losses.npz:empty_{key} ({name})", parts[part], want, rtol=1e-4)
        got, want = grad_logits.reshape(-1)[::stride], file["empty_grad_logits_sample"]
        line = f"losses.npz:empty_grad_logits_sample ({name})"
        report.check(line, got, want, rtol=1e-4, atol=1e-8)
        line = f"losses.npz:empty_grad_box_abs_max ({name})"
        report.check_exact(line, np.abs(grad_codes).max(), file["empty_grad_box_abs_max"])


def _with_gradients(outputs: dict, made: dict) -> tuple[dict, np.ndarray, np.ndarray]:
    """Return the loss parts, d class / d logits and d box / d codes."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        parts = common.detector().losses_of(outputs, made)
    return (
        parts,
        tape.gradient(parts["class"], outputs["class_logits"]).numpy(),
        tape.gradient(parts["box"], outputs["box_codes"]).numpy(),
    )
