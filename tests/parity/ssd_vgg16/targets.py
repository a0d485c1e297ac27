"""Anchors, matching and losses with their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.ops import anchors as anchor_ops
from ssd_centernet.ops import boxes as box_ops
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_vgg16 import common

CASES = range(8)
PIXEL_ATOL = 1e-4
# What the boxes of the vectors keep away from every threshold.
IOU_ATOL = 2e-5
# Overlaps that agree to this may change places where boxes are given as fractions.
TIE = 1e-6
# Percentages of the image: second and last level, first level.
PERCENTAGES = {300: ((15, 90), 7), 512: ((10, 90), 4)}


def anchors(vectors: Vectors, report: Report) -> None:
    """Compare anchors.npz."""
    file = vectors.npz("anchors.npz")
    for side in common.SIDES:
        detector = common.detector(side)
        layer, name = detector.anchors, f"anchors.npz:s{side}"
        boxes = common.to_xyxy(detector.anchor_boxes, side)
        want = file[f"s{side}_anchors"]
        report.check(f"{name}_anchors", boxes, want, atol=PIXEL_ATOL)
        pixels = detector._pixel_anchors[:, [1, 0, 3, 2]]
        report.check_exact(f"{name}_anchors (those that boxes are matched with)", pixels, want)
        counts = np.array(layer.boxes_per_cell)
        report.check_exact(f"{name}_num_base", counts, file[f"s{side}_num_base"])
        cells = np.array([rows * columns for rows, columns in detector.feature_sizes])
        want = file[f"s{side}_num_per_level"]
        report.check_exact(f"{name}_num_per_level", cells * counts, want)
        (low, high), first = PERCENTAGES[side]
        sizes = anchor_ops.sizes_of_percentages(
            side, (low, high), num_levels=len(counts), first=first
        )
        report.check_exact(f"{name} sizes of the recipe", layer.scales, sizes)
        report.check_exact(f"{name}_base_sizes", sizes[:-1], file[f"s{side}_base_sizes"])
        ratios = np.sqrt(np.divide(sizes[1:], sizes[:-1]))
        report.check(f"{name}_scale2", ratios, file[f"s{side}_scale2"], rtol=1e-7)
        starts = np.cumsum([0, *(cells * counts)[:-1]])
        first_cells = np.concatenate(
            [boxes[s : s + n] for s, n in zip(starts, counts, strict=True)]
        )
        # The reference keeps them around the cell's centre, or around the origin.
        want = file[f"s{side}_base_anchors"]
        report.check(f"{name}_base_anchors", first_cells, want, atol=PIXEL_ATOL)
    _check_torchvision(report, file)


def _check_torchvision(report: Report, file: VectorFile) -> None:
    """Compare with anchors whose sizes, but not centres, are clipped to the image."""
    boxes = tf.constant(common.detector(300).anchor_boxes)
    ycenter, xcenter, height, width = box_ops.to_center_size(boxes)
    height, width = tf.minimum(height, 1.0), tf.minimum(width, 1.0)
    got = tf.stack([xcenter, ycenter, width, height], axis=-1)
    want = file["tv300_cxcywh_norm"]
    report.check("anchors.npz:tv300_cxcywh_norm", got, want, atol=PIXEL_ATOL / 300)
    corners = box_ops.from_center_size(ycenter, xcenter, height, width)
    got, want = common.to_xyxy(corners, 300), file["tv300_anchors"]
    report.check("anchors.npz:tv300_anchors", got, want, atol=PIXEL_ATOL)


def targets(vectors: Vectors, report: Report) -> None:
    """Compare targets.npz: every case in pixels, in fractions, and all as one padded batch."""
    file = vectors.npz("targets.npz")
    for side in common.SIDES:
        examples = [_ground_truth(file, side, case) for case in CASES]
        for case, (boxes, classes, crowd) in enumerate(examples):
            prefix = f"s{side}_img{case}"
            overlaps = _check_overlaps(report, file, prefix, side, boxes[~crowd])
            _check_case(report, file, prefix, _match(side, boxes, classes, crowd))
            _check_fractions(report, file, prefix, side, examples[case], overlaps)
        longest = max(len(boxes) for boxes, _, _ in examples)
        padded = [
            np.stack([_padded(example[part], longest) for example in examples]) for part in range(3)
        ]
        valid = np.arange(longest) < np.array([len(boxes) for boxes, _, _ in examples])[:, None]
        batch = _match(side, *padded, valid)
        for case in CASES:
            got = {key: value[case] for key, value in batch.items()}
            _check_case(report, file, f"s{side}_img{case}", got, " (in a padded batch)")


def _ground_truth(file: VectorFile, side: int, case: int) -> tuple:
    """Return boxes, classes and is_crowd: the reference's ignored boxes are our crowd regions."""
    prefix = f"s{side}_img{case}"
    boxes, ignored = file[f"{prefix}_boxes"], file[f"{prefix}_ignore"]
    classes = file[f"{prefix}_classes"].astype(np.int32)
    return (
        np.concatenate([boxes, ignored])[:, [1, 0, 3, 2]],
        np.concatenate([classes, np.zeros(len(ignored), np.int32)]),
        np.arange(len(boxes) + len(ignored)) >= len(boxes),
    )


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    margin = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, margin)


def _match(side: int, boxes, classes, crowd, valid=None) -> dict:
    """Make targets in pixels, twice: with the classes, and with each box a class of its own."""
    detector = common.detector(side)
    valid = None if valid is None else tf.constant(valid)
    rows = np.broadcast_to(np.arange(boxes.shape[-2], dtype=np.int32), classes.shape)
    made, numbered = (
        detector.criterion.make_targets(
            tf.constant(boxes),
            tf.constant(labels),
            tf.constant(crowd),
            detector._pixel_anchors,
            valid,
        )
        for labels in (classes, rows)
    )
    return {
        "classes": made["classes"].numpy(),
        "boxes": made["boxes"].numpy(),
        "num_matched": made["num_matched"].numpy(),
        "rows": numbered["classes"].numpy(),
    }


def _check_case(report, file: VectorFile, prefix: str, got: dict, how: str = "") -> None:
    name = f"targets.npz:{prefix}"
    report.check_exact(f"{name}_gt_inds{how}", got["rows"], file[f"{prefix}_gt_inds"])
    want = common.classes_of(file[f"{prefix}_labels"])
    report.check_exact(f"{name}_labels{how}", got["classes"], want)
    positive = np.flatnonzero(got["classes"])
    if not report.check_exact(f"{name}_pos_inds{how}", positive, file[f"{prefix}_pos_inds"]):
        return
    report.check_exact(f"{name} number{how}", got["num_matched"], len(positive))
    codes = common.swap_code(got["boxes"][positive])
    want = file[f"{prefix}_pos_targets"]
    report.check(f"{name}_pos_targets{how}", codes, want, atol=2e-5, rtol=1e-5)
    others = np.delete(got["boxes"], positive, axis=0)
    report.check_true(f"{name} codes of background are zeros{how}", not np.any(others))


def _check_overlaps(report, file: VectorFile, prefix: str, side: int, boxes) -> np.ndarray:
    """Compare each anchor's best overlap, and return all of them, [M, A]."""
    overlaps = box_ops.iou(tf.constant(boxes), common.detector(side)._pixel_anchors).numpy()
    best = overlaps.max(axis=0, initial=0.0)
    key = f"{prefix}_max_iou_stride17"
    report.check(f"targets.npz:{key}", best[::17], file[key], atol=IOU_ATOL)
    key = f"{prefix}_pos_max_iou"
    got = best[file[f"{prefix}_pos_inds"]]
    report.check(f"targets.npz:{key}", got, file[key], atol=IOU_ATOL)
    return overlaps


def _check_fractions(report, file: VectorFile, prefix: str, side, example, overlaps) -> None:
    """Compare what the detector makes of fractions, whose rounding may decide between ties."""
    boxes, classes, crowd = example
    made = common.detector(side).make_targets(
        tf.constant(boxes / np.float32(side)), tf.constant(classes), tf.constant(crowd)
    )
    best = overlaps.max(axis=1, keepdims=True)
    ties = (overlaps >= best - TIE) & ((overlaps >= best - TIE).sum(axis=1, keepdims=True) > 1)
    allowed = ties.any(axis=0) & (overlaps.max(axis=0, initial=0.0) < 0.5)
    want = common.classes_of(file[f"{prefix}_labels"])
    report.check_exact(
        f"targets.npz:{prefix}_labels (from fractions)",
        made["classes"],
        want,
        allowed=allowed,
        reason=f"overlaps of a box agree to {TIE:g}",
    )
    same = made["classes"].numpy() == want
    positive = file[f"{prefix}_pos_inds"]
    same = same[positive]
    codes = common.swap_code(made["boxes"].numpy()[positive][same])
    want = file[f"{prefix}_pos_targets"][same]
    name = f"targets.npz:{prefix}_pos_targets (from fractions)"
    # Twice that of the reference's pixels: fractions are rounded once more.
    report.check(name, codes, want, atol=4e-5, rtol=1e-5)


def losses(vectors: Vectors, report: Report) -> None:
    """Compare losses.npz: explicit numbers, then a batch of SSD300 that is made from a seed."""
    file = vectors.npz("losses.npz")
    made = {
        "classes": common.classes_of(file["mini_labels"]),
        "boxes": common.swap_code(file["mini_targets"]),
    }
    made["num_matched"] = np.count_nonzero(made["classes"], axis=1).astype(np.int32)
    outputs = {
        "class_logits": common.background_first(file["mini_logits"]),
        "box_codes": common.swap_code(file["mini_deltas"]),
    }
    result = _losses(outputs, made)
    _check_losses(report, file, "mini", result, made)
    report.check("losses.npz:mini_gradbox", result["box"], file["mini_gradbox"], atol=1e-6)
    got = result["class"][:, ::4]
    report.check("losses.npz:mini_gradcls", got, file["mini_gradcls"], atol=1e-6)
    selected = np.any(result["class"] != 0, axis=-1)
    report.check_exact("losses.npz:mini_selected", selected, file["mini_selected"])
    _big_losses(report, file)


def _losses(outputs: dict, made: dict) -> dict:
    """Compute totals, each image's share, and gradients in the reference's order."""
    criterion = common.detector(300).criterion
    outputs = {key: tf.constant(value) for key, value in outputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        parts = criterion(outputs, made)
        total = common.detector(300).total_loss(parts)
    gradients = tape.gradient(total, outputs)
    counts = np.maximum(made["num_matched"], 1)
    images = []
    for image, count in enumerate(counts):
        one = slice(image, image + 1)
        alone = criterion(
            {key: value[one] for key, value in outputs.items()},
            {key: value[one] for key, value in made.items()},
        )
        # Alone an image is divided by its own count of positives.
        images.append([float(alone[part]) * count / counts.sum() for part in ("class", "box")])
    return {
        "parts": [float(parts["class"]), float(parts["box"])],
        "images": np.array(images),
        "class": common.background_last(gradients["class_logits"]),
        "box": common.swap_code(gradients["box_codes"]),
    }


def _check_losses(report, file: VectorFile, prefix: str, result: dict, made: dict) -> None:
    for column, kind in enumerate(("cls", "bbox")):
        key = f"{prefix}_loss_{kind}_per_image"
        got = result["images"][:, column]
        report.check(f"losses.npz:{key}", got, file[key], rtol=1e-5)
        name = f"losses.npz:{prefix} {kind}, images summed"
        report.check(name, result["parts"][column], file[key].sum(dtype=np.float64), rtol=1e-5)
    normalizer = np.maximum(made["num_matched"], 1).sum()
    key = f"{prefix}_normalizer"
    report.check_exact(f"losses.npz:{key}", normalizer, file[key])


def _big_losses(report: Report, file: VectorFile) -> None:
    logits, deltas = _big_inputs(report, file)
    images = []
    while f"big_img{len(images)}_boxes" in file:
        boxes = file[f"big_img{len(images)}_boxes"]
        classes = file[f"big_img{len(images)}_classes"].astype(np.int32)
        crowd = np.zeros(len(boxes), bool)
        images.append(_match(300, boxes[:, [1, 0, 3, 2]], classes, crowd))
    made = {
        key: np.stack([image[key] for image in images])
        for key in ("classes", "boxes", "num_matched")
    }
    report.check_exact("losses.npz:big_num_pos", made["num_matched"], file["big_num_pos"])
    outputs = {
        "class_logits": common.background_first(logits),
        "box_codes": common.swap_code(deltas),
    }
    result = _losses(outputs, made)
    _check_losses(report, file, "big", result, made)
    parts = result["parts"]
    report.check("losses.npz:big_loss_cls", parts[0], file["big_loss_cls"], rtol=1e-5)
    report.check("losses.npz:big_loss_bbox", parts[1], file["big_loss_bbox"], rtol=1e-5)
    for image in range(len(images)):
        name = f"big_img{image}"
        selected = np.flatnonzero(np.any(result["class"][image] != 0, axis=-1))
        report.check_exact(f"losses.npz:{name}_selected", selected, file[f"{name}_selected"])
        for kind, key in (("class", "gradcls"), ("box", "gradbox")):
            got = result[kind][image][file[f"{name}_{key}_rows"]]
            report.check(f"losses.npz:{name}_{key}", got, file[f"{name}_{key}"], atol=1e-6)
    positives = made["num_matched"]
    report.check_exact("losses.npz:tv_num_pos", positives, file["tv_num_pos"])
    factor = np.maximum(positives, 1).sum() / max(positives.sum(), 1)
    report.check("losses.npz:tv_loss_cls", parts[0] * factor, file["tv_loss_cls"], rtol=1e-5)
    report.check("losses.npz:tv_loss_bbox", parts[1] * factor, file["tv_loss_bbox"], rtol=1e-5)


def _big_inputs(report: Report, file: VectorFile) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.RandomState(int(file["big_seed"]))
    logits = (stream.standard_normal((4, 8732, 81)) * 1.5).astype(np.float32)
    logits[..., 80] += np.float32(4)
    deltas = (stream.standard_normal((4, 8732, 4)) * 0.8).astype(np.float32)
    for key, got in (
        ("big_logits_first8", logits[0, 0, :8]),
        ("big_logits_last8", logits[3, -1, -8:]),
        ("big_deltas_last4", deltas[-1, -1]),
    ):
        report.check_exact(f"losses.npz:{key}", got, file[key])
    total = logits.sum(dtype=np.float64)
    report.check("losses.npz:big_logits_sum", total, file["big_logits_sum"], rtol=1e-9)
    return logits, deltas
