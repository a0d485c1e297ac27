"""Losses and their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from ssd_centernet.ops import losses as loss_ops
from tests.parity.centernet.common import KEYS_A, KEYS_B, STRIDE
from tests.parity.harness import Report, VectorFile, Vectors

LOSS = {"rtol": 1e-5}
GRADIENT = {"rtol": 1e-4, "atol": 1e-6}
# Both sides take the logarithm of 1 - p in float32, next to the clip.
FOCAL = {"rtol": 1e-5, "atol": 5e-4}
_LOSS_KEYS_A = {"center": "ct_loss", "size": "scale_loss", "offset": "ct_offset_loss"}
_LOSS_KEYS_B = {
    "center": "Loss/object_center",
    "size": "Loss/box/scale",
    "offset": "Loss/box/offset",
}


def losses_a(vectors: Vectors, report: Report) -> None:
    """Compare losses_a.npz: the focal loss alone, then whole batches of two stacks."""
    file = vectors.npz("losses_a.npz")
    _check_focal(report, file)
    for task in _tasks(file):
        counts = file[f"{task}/num_detections"]
        boxes, classes = file[f"{task}/boxes"], file[f"{task}/classes"]
        outputs = []
        while f"{task}/pred/ct_heatmaps/{len(outputs)}" in file:
            stack = len(outputs)
            outputs.append(
                {k: tf.constant(file[f"{task}/pred/{v}/{stack}"]) for k, v in KEYS_A.items()}
            )
        size = _input_size(outputs)
        criterion, made = _targets(
            boxes / np.float32([*size, *size]),
            classes - 1,
            np.arange(boxes.shape[1]) < counts[:, None],
            outputs,
            file[f"{task}/unpad_image_shapes"],
        )
        parts, total, gradients = _losses_and_gradients(criterion, outputs, made)
        for key, theirs in _LOSS_KEYS_A.items():
            _check(report, file, f"{task}/loss/{theirs}", parts[key], LOSS)
        _check(report, file, f"{task}/loss/total_loss", total, LOSS)
        for stack, gradient in enumerate(gradients):
            for key, theirs in KEYS_A.items():
                _check(report, file, f"{task}/grad/{theirs}/{stack}", gradient[key], GRADIENT)


def losses_b(vectors: Vectors, report: Report) -> None:
    """Compare losses_b.npz: whole batches with padding; the reference's parts are weighted."""
    file = vectors.npz("losses_b.npz")
    for task in _tasks(file):
        one_hot, weights = file[f"{task}/class_onehot"], file[f"{task}/weights"]
        outputs = [{k: tf.constant(file[f"{task}/pred/{v}"]) for k, v in KEYS_B.items()}]
        criterion, made = _targets(
            file[f"{task}/boxes_normalized"],
            one_hot.argmax(axis=-1),
            one_hot.any(axis=-1),
            outputs,
            file[f"{task}/true_image_shapes"],
            weights=weights,
        )
        parts, total, gradients = _losses_and_gradients(criterion, outputs, made)
        for key, theirs in _LOSS_KEYS_B.items():
            got = criterion.loss_weights[key] * parts[key]
            _check(report, file, f"{task}/loss/{theirs}", got, LOSS)
        _check(report, file, f"{task}/loss/total", total, LOSS)
        for key, theirs in KEYS_B.items():
            _check(report, file, f"{task}/grad/{theirs}", gradients[0][key], GRADIENT)


def _check(report: Report, file: VectorFile, key: str, got, tolerance: dict) -> None:
    report.check(f"{file.name}:{key}", got, file[key], **tolerance)


def _tasks(file: VectorFile) -> list[str]:
    tasks = []
    while any(f"task{len(tasks)}/{key}" in file for key in ("boxes", "boxes_normalized")):
        tasks.append(f"task{len(tasks)}")
    return tasks


def _check_focal(report: Report, file: VectorFile) -> None:
    logits, weights = tf.constant(file["focal/pred"]), tf.constant(file["focal/weights"])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = loss_ops.penalty_reduced_focal(logits, tf.constant(file["focal/target"])) * weights
        total = tf.reduce_sum(loss)
    _check(report, file, "focal/loss", loss, FOCAL)
    _check(report, file, "focal/grad_of_sum", tape.gradient(total, logits), GRADIENT)


def _input_size(outputs: list[dict]) -> tuple[int, int]:
    return tuple(STRIDE * side for side in outputs[0]["center"].shape[1:3])


def _targets(boxes, classes, valid, outputs: list[dict], shapes, weights=None):
    """Make the criterion and the targets of a batch of fractions and unpadded shapes."""
    criterion = CenterNetLoss(boxes.shape[1])
    size = _input_size(outputs)
    made = criterion.make_targets(
        tf.constant(boxes),
        tf.constant(classes, tf.int32),
        tf.zeros(classes.shape, tf.bool),
        num_classes=outputs[0]["center"].shape[-1],
        image_size=size,
        output_size=tuple(outputs[0]["center"].shape[1:3]),
        valid=tf.constant(valid),
        extent=tf.constant(shapes[:, :2] / np.float32(size), tf.float32),
        weights=None if weights is None else tf.constant(weights),
    )
    return criterion, made


def _losses_and_gradients(criterion: CenterNetLoss, outputs: list[dict], made: dict):
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        parts = criterion(outputs, made)
        total = tf.add_n([criterion.loss_weights[key] * part for key, part in parts.items()])
    gradients = tape.gradient(total, outputs, unconnected_gradients="zero")
    dense = tf.nest.map_structure(tf.convert_to_tensor, gradients)
    return parts, total, dense
