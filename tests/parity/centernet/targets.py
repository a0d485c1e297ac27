"""Radius, heatmap and the targets at the centres."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from ssd_centernet.ops import heatmaps
from tests.parity.centernet.common import STRIDE
from tests.parity.harness import Report, VectorFile, Vectors

HEATMAP_ATOL = 1e-5
CELL_ATOL = 1e-4


def targets_a(vectors: Vectors, report: Report) -> None:
    """Compare targets_a.npz; padded rows of the reference are made here, ours have none."""
    file = vectors.npz("targets_a.npz")
    _check_radius(report, file)
    for case in file["case_names"]:
        _check_case_a(report, file, str(case))


def _check_radius(report: Report, file: VectorFile) -> None:
    heights, widths = (tf.constant(column) for column in file["radius/hw"].T)
    for overlap in ("0.7", "0.5", "0.3"):
        key = f"radius/{overlap}"
        got = heatmaps.gaussian_radius(heights, widths, float(overlap))
        want = file[f"{key}/distance"]
        report.check(f"targets_a.npz:{key}/distance", got, want, rtol=1e-4, atol=2e-5)
        got = heatmaps.gaussian_sigma(heights, widths, float(overlap))
        report.check(f"targets_a.npz:{key}/sigma", got, file[f"{key}/sigma"], atol=1e-6)


def _check_case_a(report: Report, file: VectorFile, case: str) -> None:
    name = f"targets_a.npz:{case}"
    size = file[f"{case}/input_size"]
    output_size = tuple(int(side) // STRIDE for side in size)
    boxes, classes = file[f"{case}/boxes"], file[f"{case}/classes"]
    report.check_exact(f"{name} rows", len(boxes), file[f"{case}/max_num_instances"])
    objects = classes > 0
    cells, offsets, sizes = heatmaps.center_targets(
        tf.constant(np.where(objects[:, None], boxes, 0.0) / np.float32(STRIDE)), output_size
    )
    heatmap = heatmaps.gaussian_heatmap(
        cells[tf.newaxis],
        heatmaps.gaussian_sigma(sizes[tf.newaxis, :, 0], sizes[tf.newaxis, :, 1]),
        tf.constant(classes[None] - 1, tf.int32),
        tf.constant(objects[None], tf.float32),
        num_classes=int(file[f"{case}/num_classes"]),
        output_size=output_size,
    )[0].numpy()
    _check_heatmap(report, file, case, heatmap)
    # The reference fills rows without an object as it would a box of (-1, -1, -1, -1) pixels,
    # unless there is no object at all.
    counted = int(file[f"{case}/num_detections"])
    padding = (-1, 0.75) if counted else (0, 0.0)
    rows = objects[:, None]
    want = file[f"{case}/box_indices"]
    report.check_exact(f"{name}/box_indices", np.where(rows, cells, padding[0]), want)
    got = np.where(rows, offsets, padding[1])
    report.check(f"{name}/ct_offset", got, file[f"{case}/ct_offset"], atol=CELL_ATOL)
    got = np.where(rows, sizes, 0.0)
    report.check(f"{name}/size", got, file[f"{case}/size"], atol=CELL_ATOL)
    phantoms = np.arange(len(objects)) < counted
    report.check_exact(f"{name}/box_mask", objects | phantoms, file[f"{case}/box_mask"])


def _check_heatmap(report: Report, file: VectorFile, case: str, heatmap: np.ndarray) -> None:
    name = f"{file.name}:{case}"
    channels = file[f"{case}/heatmap_channels"]
    got = np.nonzero(heatmap.any(axis=(0, 1)))[0]
    report.check_exact(f"{name}/heatmap_channels", got, channels)
    want = file[f"{case}/heatmap_values"]
    report.check(f"{name}/heatmap_values", heatmap[..., channels], want, atol=HEATMAP_ATOL)
    report.check_exact(f"{name} positives", heatmap[..., channels] == 1.0, want == 1.0)
    # Every cell may be off by the tolerance; a thousandth of that is what the sum is given.
    total = heatmap.astype(np.float64).sum()
    slack = HEATMAP_ATOL * 1e-3 * max(want.size, 1)
    report.check(f"{name}/heatmap_sum", total, file[f"{case}/heatmap_sum"], atol=slack)


def targets_b(vectors: Vectors, report: Report) -> None:
    """Compare targets_b.npz: every case alone through the criterion, weights included."""
    file = vectors.npz("targets_b.npz")
    for case in file["case_names"]:
        _check_case_b(report, file, str(case))


def _check_case_b(report: Report, file: VectorFile, case: str) -> None:
    name = f"targets_b.npz:{case}"
    size = tuple(int(side) for side in file[f"{case}/input_size"])
    output_size = tuple(side // STRIDE for side in size)
    boxes, classes = file[f"{case}/boxes_normalized"], file[f"{case}/class_ids"]
    made = CenterNetLoss(len(boxes)).make_targets(
        tf.constant(boxes),
        tf.constant(classes - 1, tf.int32),
        tf.zeros(classes.shape, tf.bool),
        num_classes=int(file[f"{case}/num_classes"]),
        image_size=size,
        output_size=output_size,
        valid=tf.constant(classes > 0),
        weights=tf.constant(file[f"{case}/weights"]),
    )
    _check_heatmap(report, file, case, made["heatmap"].numpy())
    report.check(f"{name}/target_weights", made["weights"], file[f"{case}/target_weights"])
    report.check_true(f"{name} counts all cells", np.all(made["cell_weights"] == 1.0))
    # The reference also fills rows of objects without weight, which no loss reads; the operation
    # below is the one that the criterion calls.
    scale = np.float32([*output_size, *output_size])
    cells, offsets, sizes = heatmaps.center_targets(tf.constant(boxes * scale), output_size)
    batch = np.zeros((len(boxes), 1), np.int32)
    got = np.concatenate([batch, cells], axis=1)
    report.check_exact(f"{name}/indices", got, file[f"{case}/indices"])
    report.check(f"{name}/offsets", offsets, file[f"{case}/offsets"], atol=CELL_ATOL)
    report.check(f"{name}/height_width", sizes, file[f"{case}/height_width"], atol=CELL_ATOL)
    counted = (made["weights"].numpy() > 0)[:, None]
    for key, value in (("cells", cells), ("offsets", offsets), ("sizes", sizes)):
        got, want = made[key], np.where(counted, value, 0)
        report.check_exact(f"{name} {key} of the criterion", got, want)
