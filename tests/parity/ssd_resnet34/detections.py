"""Decoding, ranking, suppression, COCO rows and the metric."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.evaluation.coco import CocoEvaluator, CocoGroundTruth
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import boxes as box_ops
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_resnet34 import common

BACKGROUND_BOOST = {"dense": 0.0, "sparse": 8.0, "none": 12.0}
SCORE_ATOL = 1e-6
BOX_ATOL = 1e-5


def detections(vectors: Vectors, report: Report) -> None:
    """Compare detections.npz."""
    file = vectors.npz("detections.npz")
    for kind in BACKGROUND_BOOST:
        outputs = _outputs(report, file, kind)
        _check_decoding(report, file, kind, outputs)
        found = {key: value.numpy() for key, value in common.detector().decode(outputs).items()}
        for image in range(2):
            _check_image(report, file, kind, image, found)
        rows = _evaluator(file, kind, found)
        if kind == "sparse":
            _check_metric(report, file, rows)


def _outputs(report: Report, file: VectorFile, kind: str) -> dict[str, tf.Tensor]:
    shape = (2, common.NUM_ANCHORS)
    logits = common.normal(file[f"{kind}_logits_seed"], (*shape, common.NUM_CLASSES + 1))
    codes = common.normal(file[f"{kind}_boxes_seed"], (*shape, 4), 0.5)
    logits[..., 0] += np.float32(BACKGROUND_BOOST[kind])
    if kind == "sparse":
        places, classes = file["sparse_boost_image_anchor"], file["sparse_boost_class"]
        # One after the other in float32: an entry may repeat.
        for (image, anchor), label, boost in zip(
            places, classes, file["sparse_boost_value"], strict=True
        ):
            logits[image, anchor, label] += boost
    common.check_inputs(report, file, kind, logits, codes)
    return {"class_logits": tf.constant(logits), "box_codes": tf.constant(codes)}


def _check_decoding(report: Report, file: VectorFile, kind: str, outputs: dict) -> None:
    name = f"detections.npz:{kind}"
    boxes = box_ops.decode(outputs["box_codes"], common.detector().anchor_boxes)
    report.check(
        f"{name}_decoded_every4", boxes[:, ::4], file[f"{kind}_decoded_every4"], atol=BOX_ATOL
    )
    probabilities = tf.nn.softmax(outputs["class_logits"])
    found = tf.math.top_k(tf.transpose(probabilities, [0, 2, 1]), k=200)
    scores, indices = (values.numpy().swapaxes(1, 2)[..., ::4] for values in found)
    want = file[f"{kind}_topk_indices_every4"].astype(np.int32)
    report.check(
        f"{name}_topk_scores_every4", scores, file[f"{kind}_topk_scores_every4"], atol=SCORE_ATOL
    )
    # Where the score of their anchor is ours at that rank, the two have only changed places.
    theirs = np.take_along_axis(probabilities.numpy()[..., ::4], want, axis=1)
    report.check_exact(
        f"{name}_topk_indices_every4",
        indices,
        want,
        allowed=np.abs(theirs - scores) <= SCORE_ATOL,
        reason=f"scores agree to {SCORE_ATOL:g}",
    )


def _check_image(report: Report, file: VectorFile, kind: str, image: int, found: dict) -> None:
    name = f"detections.npz:{kind}"
    want_boxes, want_labels, want_scores = (
        file[f"{kind}_det_{part}_{image}"] for part in ("boxes", "labels", "scores")
    )
    rows = file[f"{kind}_coco_rows_{image}"]
    count = int(found["count"][image])
    if want_labels[0] == 0:  # The reference's dummy row, see DELIBERATE.
        report.check(f"{name}_det_*_{image} count (theirs: the dummy row)", count, 0)
        dummy = len(rows) == 1 and rows[0, 5] == want_scores[0] == -1e5 and not want_boxes.any()
        report.check_true(f"{name}_coco_rows_{image} (theirs: the dummy row)", dummy)
        return
    scores = found["scores"][image, :count]
    report.check_true(f"{name} image {image}: scores descend", np.all(np.diff(scores) <= 0))
    labels, boxes = found["classes"][image, :count] + 1, found["boxes"][image, :count]
    pairs = _pair(want_labels, want_scores, want_boxes, labels, scores, boxes)
    if not report.check(f"{name}_det_labels_{image}", len(labels), len(want_labels)):
        return
    report.check_exact(f"{name}_det_labels_{image} sorted", labels[pairs], want_labels)
    report.check(f"{name}_det_scores_{image}", scores[pairs], want_scores, atol=SCORE_ATOL)
    report.check(f"{name}_det_boxes_{image}", boxes[pairs], want_boxes, atol=BOX_ATOL)
    got_rows = _coco_rows(file, image, found).rows
    table = np.column_stack(
        [got_rows.image_ids, got_rows.boxes, got_rows.scores, got_rows.category_ids]
    )[pairs]
    # Boxes are compared as fractions of the image: their tolerance knows no pixels.
    height, width, _ = file["raw_shape"][image]
    scale = np.array([1, width, height, width, height, 1, 1], np.float64)
    table, rows = table / scale, rows / scale
    report.check_exact(f"{name}_coco_rows_{image} ids", table[:, [0, 6]], rows[:, [0, 6]])
    report.check(f"{name}_coco_rows_{image} bbox", table[:, 1:5], rows[:, 1:5], atol=BOX_ATOL)
    report.check(f"{name}_coco_rows_{image} score", table[:, 5], rows[:, 5], atol=SCORE_ATOL)


def _pair(want_labels, want_scores, want_boxes, labels, scores, boxes) -> np.ndarray:
    """Find our row for each of theirs: same label, score within tolerance, nearest box."""
    free = np.ones(len(labels), bool)
    pairs = np.zeros(len(want_labels), int)
    for row in np.lexsort((want_scores, want_labels)):
        near = free & (labels == want_labels[row])
        near &= np.abs(scores - want_scores[row]) <= SCORE_ATOL
        if not near.any():
            near = free if free.any() else ~free
        distance = np.abs(boxes - want_boxes[row]).max(axis=1) + np.abs(scores - want_scores[row])
        pairs[row] = np.argmin(np.where(near, distance, np.inf))
        free[pairs[row]] = False
    return pairs


def _ground_truth(file: VectorFile) -> CocoGroundTruth:
    images = [
        {"id": int(identity), "height": int(height), "width": int(width)}
        for identity, (height, width, _) in zip(file["source_id"], file["raw_shape"], strict=True)
    ]
    columns = [
        file[f"sparse_gt_{key}"].tolist()
        for key in ("image_id", "category_id", "bbox_xywh", "area", "iscrowd")
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": c, "bbox": b, "area": a, "iscrowd": crowd}
        for i, (image, c, b, a, crowd) in enumerate(zip(*columns, strict=True), 1)
    ]
    return CocoGroundTruth.load(
        {
            "images": images,
            "annotations": annotations,
            "categories": LabelMap.coco().to_categories(),
        }
    )


def _evaluator(file: VectorFile, kind: str, found: dict) -> CocoEvaluator:
    evaluator = CocoEvaluator(_ground_truth(file), category_ids=LabelMap.coco().ids)
    shapes = file["raw_shape"]
    evaluator.add(file["source_id"], shapes[:, 0], shapes[:, 1], found)
    return evaluator


def _coco_rows(file: VectorFile, image: int, found: dict):
    evaluator = CocoEvaluator(_ground_truth(file), category_ids=LabelMap.coco().ids)
    one = slice(image, image + 1)
    shapes = file["raw_shape"][one]
    evaluator.add(
        file["source_id"][one], shapes[:, 0], shapes[:, 1], {k: v[one] for k, v in found.items()}
    )
    return evaluator.compute()


def _check_metric(report: Report, file: VectorFile, evaluator: CocoEvaluator) -> None:
    result = evaluator.compute()
    names = [f"COCO/{name}" for name in result.metrics]
    report.check_exact("detections.npz:sparse_metric_names", names, file["sparse_metric_names"])
    values = list(result.metrics.values())
    report.check(
        "detections.npz:sparse_metric_values", values, file["sparse_metric_values"], atol=1e-6
    )
