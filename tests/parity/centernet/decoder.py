"""Peaks, boxes and scores."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import heatmaps
from tests.parity.centernet.common import KEYS_A, STRIDE
from tests.parity.harness import Report, Vectors

SCORE_ATOL = 1e-6
# Of the optional suppression, constants in the reference.
NMS_SCORE, NMS_DIOU = 0.1, 0.4
_KEYS_B = {"center": "object_center", "offset": "box_offset", "size": "box_scale"}
_TIE = "two scores one rounding apart"


def decoder_a(vectors: Vectors, report: Report) -> None:
    """Compare decoder_a.npz: boxes in pixels of the network's input, classes from 1."""
    file = vectors.npz("decoder_a.npz")
    for case in map(str, file["case_names"]):
        maps = {key: file[f"{case}/{theirs}"] for key, theirs in KEYS_A.items()}
        found = _decode(maps, file[f"{case}/k"])
        height, width = (STRIDE * side for side in maps["center"].shape[1:3])
        boxes = found["boxes"] * np.float32([height, width, height, width])
        if file[f"{case}/use_nms"]:
            boxes, scores = _suppress(_class_scores(maps, found["cells"]), boxes)
            found = {**found, "scores": scores, "count": (scores > 0).sum(axis=-1)}
        name = f"{file.name}:{case}/out"
        want = file[f"{case}/out/confidence"]
        near = _near_ties(want)
        report.check(f"{name}/confidence", found["scores"], want, atol=SCORE_ATOL)
        got, want = found["classes"] + 1, file[f"{case}/out/classes"]
        report.check_exact(f"{name}/classes", got, want, allowed=near, reason=_TIE)
        want = file[f"{case}/out/boxes"]
        excused = (near & (got != file[f"{case}/out/classes"]))[..., None]
        report.check(f"{name}/boxes", np.where(excused, want, boxes), want, atol=1e-3)
        want = file[f"{case}/out/num_detections"]
        report.check_exact(f"{name}/num_detections", found["count"], want)


def decoder_b(vectors: Vectors, report: Report) -> None:
    """Compare decoder_b.npz: boxes as fractions of the image, classes from 0."""
    file = vectors.npz("decoder_b.npz")
    for case in map(str, file["case_names"]):
        maps = {key: file[f"{case}/{theirs}"] for key, theirs in _KEYS_B.items()}
        found = _decode(maps, file[f"{case}/k"])
        size = np.float32([*maps["center"].shape[1:3]])
        extent = file[f"{case}/true_image_shapes"][:, :2] / (STRIDE * size)
        scale = np.concatenate([extent, extent], axis=-1)[:, None].astype(np.float32)
        boxes = box_ops.clip(tf.constant(found["boxes"] / scale)).numpy()
        name = f"{file.name}:{case}/out"
        want_scores = file[f"{case}/out/detection_scores"]
        near = _near_ties(want_scores)
        report.check(f"{name}/detection_scores", found["scores"], want_scores, atol=SCORE_ATOL)
        got, want = found["classes"], file[f"{case}/out/detection_classes"]
        report.check_exact(f"{name}/detection_classes", got, want, allowed=near, reason=_TIE)
        excused = (near & (got != want))[..., None]
        strided = found["boxes"] * np.concatenate([size, size])
        multiclass = _class_scores(maps, found["cells"])
        for key, value, tolerance in (
            ("detection_boxes", boxes, 1e-5),
            ("detection_boxes_strided", strided, 1e-5 * max(size)),
            ("detection_multiclass_scores", multiclass, SCORE_ATOL),
        ):
            want = file[f"{case}/out/{key}"]
            report.check(f"{name}/{key}", np.where(excused, want, value), want, atol=tolerance)
        want = file[f"{case}/out/num_detections"]
        report.check_exact(f"{name}/num_detections", found["count"], want)


def _decode(maps: dict[str, np.ndarray], count) -> dict[str, np.ndarray]:
    """Decode with the layer, and add the cells of the detections."""
    outputs = {key: tf.constant(value) for key, value in maps.items()}
    # What an intermediate stack says must not matter.
    nonsense = {key: tf.ones_like(value) for key, value in outputs.items()}
    found = CenterNetDecoder(int(count))([nonsense, outputs])
    peaks = heatmaps.keep_peaks(tf.sigmoid(outputs["center"]))
    cells = heatmaps.top_peaks(peaks, found["scores"].shape[1])[1]
    return {key: value.numpy() for key, value in (found | {"cells": cells}).items()}


def _near_ties(scores: np.ndarray) -> np.ndarray:
    """Find scores that differ from a neighbour's by one rounding, which may swap the two."""
    gap = np.abs(np.diff(scores, axis=1))
    close = (gap > 0) & (gap <= np.spacing(scores[:, :-1]))
    result = np.zeros(scores.shape, bool)
    result[:, :-1] |= close
    result[:, 1:] |= close
    return result


def _class_scores(maps: dict[str, np.ndarray], cells: np.ndarray) -> np.ndarray:
    """Gather the scores of all classes at cells, [B, D, C]."""
    return heatmaps.gather_cells(
        tf.sigmoid(tf.constant(maps["center"])), tf.constant(cells)
    ).numpy()


def _suppress(class_scores: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Restate the reference's optional suppression over our candidates.

    It reads corners as if they were centre and size, and what is suppressed still suppresses.

    Returns:
        Boxes [B, D, 4] and scores [B, D], zeros after those that are left.

    Source: docs/reference/centernet.md, section 4
    """
    best = class_scores.max(axis=-1)
    best[best <= NMS_SCORE] = 0.0
    kept_boxes, kept_scores = np.zeros_like(boxes), np.zeros_like(best)
    for image, scores in enumerate(best):
        ranked = [i for i in np.argsort(-scores, kind="stable") if scores[i] > 0]
        misread = np.concatenate(
            [
                boxes[image, :, :2] - boxes[image, :, 2:] / 2.0,
                boxes[image, :, :2] + boxes[image, :, 2:] / 2.0,
            ],
            axis=-1,
        )
        kept = [
            candidate
            for rank, candidate in enumerate(ranked)
            if not np.any(_diou(misread[candidate], misread[ranked[:rank]]) > NMS_DIOU)
        ]
        kept_boxes[image, : len(kept)] = boxes[image, kept]
        kept_scores[image, : len(kept)] = scores[kept]
    return kept_boxes, kept_scores


def _diou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute IoU less the squared distance of centres over that of the hull's corners."""
    overlap = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = np.prod(np.maximum(overlap, 0.0), axis=-1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=-1)
    iou = intersection / np.maximum(area - intersection, 1e-12)
    offset = (box[:2] + box[2:] - others[:, :2] - others[:, 2:]) / 2.0
    hull = np.maximum(box[2:], others[:, 2:]) - np.minimum(box[:2], others[:, :2])
    return iou - (offset**2).sum(axis=-1) / np.maximum((hull**2).sum(axis=-1), 1e-12)
