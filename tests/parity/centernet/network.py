"""Variables and forward passes of the reference's networks."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

from ssd_centernet.models.centernet import CenterNet
from tests.parity.centernet import common
from tests.parity.harness import Report, VectorFile, Vectors

_HOURGLASSES = ("hg20", "hg52_small", "hg104")
# Files of forward passes: (tolerances of inference, of training mode).
_NETS_A = {
    "net_a_hg20.npz": ({"rtol": 1e-4, "atol": 1e-4}, {"atol": 5e-4}),
    "net_a_hg52.npz": ({"rtol": 1e-4, "atol": 1e-4}, {"atol": 2e-2}),
    "net_a_hg104_full.npz": ({"rtol": 1e-3, "atol": 1e-3}, None),
}


def variables(vectors: Vectors, report: Report) -> None:
    """Compare variables_*.json: names, shapes, what is trained, initial biases."""
    for model in _HOURGLASSES:
        content = vectors.json(f"variables_a_{model}.json")
        if content is not None:
            wanted = content["model"]
            detector = _hourglass(wanted, (wanted["input_size"],) * 2)
            _check_variables(report, f"variables_a_{model}.json", content, detector)
    content = vectors.json("variables_b_resnet101fpn.json")
    if content is not None:
        detector = common.resnet_fpn(content["num_classes"], (128, 128))
        _check_variables(report, "variables_b_resnet101fpn.json", content, detector)


def _hourglass(wanted, size: tuple[int, int]) -> CenterNet:
    keys = ("model_id", "input_channel_dims", "num_hourglasses", "num_classes")
    return common.hourglass(*(int(wanted[key]) for key in keys), size)


def _check_variables(report: Report, name: str, content: dict, detector: CenterNet) -> None:
    named = common.named_variables(detector)
    ours = sorted([n, n.rsplit("/", 1)[1], list(v.shape)] for n, v in named.items())
    want = sorted(content["variables"])
    got = [json.dumps(entry) for entry in ours]
    report.check_exact(f"{name}:variables", got, [json.dumps(entry) for entry in want])
    report.check_exact(f"{name}:num_variables", len(named), content["num_variables"])
    for key, group in (
        ("total_params", detector.variables),
        ("trainable_params", detector.trainable_variables),
    ):
        count = sum(int(np.prod(v.shape)) for v in group)
        report.check_exact(f"{name}:{key}", count, content[key])
    # An earlier section may have set the weights, so a fresh head of the same settings is read.
    head = type(detector.head).from_config(detector.head.get_config())
    head([tf.zeros((1, *shape[1:])) for shape in common.head_input_shapes(detector)])
    own = {v.name: n for n, v in named.items() if n.startswith("head/")}
    biases = {own[v.name]: v.numpy() for v in head.variables if own[v.name].endswith("conv2/bias")}
    for key, value in content["initial_final_bias"].items():
        bias = biases.pop(key if key.endswith("/bias") else f"{key}/conv2/bias")
        report.check_exact(f"{name}:{key}", bias, np.full(bias.shape, value, np.float32))
    report.check_true(f"{name}: no other final biases", not biases, str(list(biases)))


def hourglasses(vectors: Vectors, report: Report) -> None:
    """Compare net_a_*.npz: features and predictions, inference and training mode."""
    for name, (infer, train) in _NETS_A.items():
        file = vectors.npz(name)
        shape = tuple(int(side) for side in file["x_shape"])
        images = np.random.default_rng(int(file["x_seed"])).standard_normal(shape)
        images = images.astype(np.float32)
        total = images.astype(np.float64).sum()
        report.check(f"{name}:x_sum", total, file["x_sum"], atol=1e-6)
        if "x" in file:
            report.check_exact(f"{name}:x", images, file["x"])
        detector = _hourglass(file, shape[1:3])
        named = common.set_weights(detector)
        _check_forward_a(report, file, detector, images, "infer", infer)
        if train is not None:
            _check_forward_a(report, file, detector, images, "train", train)
            _check_moved(report, file, named, train)


def _check_forward_a(
    report: Report, file: VectorFile, detector: CenterNet, images, mode: str, tolerance: dict
) -> None:
    step = int(file["stride"])
    stacks = int(file["num_hourglasses"])
    levels = [*(f"2_{i}" for i in range(stacks - 1)), "2"]
    features = detector.backbone(tf.constant(images), training=mode == "train")
    report.check_exact(f"{file.name}: levels", sorted(features), sorted(levels))
    outputs = detector.head([features[level] for level in levels])
    for index, level in enumerate(levels):
        maps = features[level].numpy()
        key = f"{mode}/feature/{level}"
        _check(report, file, key, maps[:, ::step, ::step, ::step], tolerance)
        if f"{key}/stats" in file:
            _check(report, file, f"{key}/stats", _stats(maps), tolerance)
        for ours, theirs in common.KEYS_A.items():
            got = outputs[index][ours].numpy()
            if ours == "center":
                got = got[:, ::step, ::step, ::step]
            elif step > 1:
                got = got[:, ::2, ::2]
            _check(report, file, f"{mode}/{theirs}/{index}", got, tolerance)


def _check(report: Report, file: VectorFile, key: str, got, tolerance: dict) -> None:
    report.check(f"{file.name}:{key}", got, file[key], **tolerance)


def _stats(maps: np.ndarray) -> list[float]:
    maps = maps.astype(np.float64)
    return [maps.mean(), maps.std(), np.abs(maps).max()]


def _check_moved(report: Report, file: VectorFile, named: dict, tolerance: dict) -> None:
    """Compare the moving statistics behind one training pass."""
    moved = [name for name in named if f"train/after/{name}" in file]
    report.check_true(f"{file.name}: moving statistics are there", moved)
    for name in moved:
        _check(report, file, f"train/after/{name}", named[name].numpy(), tolerance)


def resnet_fpn(vectors: Vectors, report: Report) -> None:
    """Compare net_b_resnet101fpn.npz: preprocessing, levels, map, predictions, moved averages."""
    file = vectors.npz("net_b_resnet101fpn.npz")
    shape = tuple(int(side) for side in file["image_shape"])
    pixels = np.random.default_rng(int(file["image_seed"])).integers(0, 256, shape)
    report.check_exact(f"{file.name}:image_sum", float(pixels.sum()), file["image_sum"])
    detector = common.resnet_fpn(90, shape[1:3])
    images = detector.preprocessing(tf.constant(pixels, tf.uint8))
    _check(report, file, "preprocessed_s8", images[:, ::8, ::8], {"atol": 1e-4})
    images /= file["input_divisor"]
    named = common.set_weights(detector)
    infer, train = {"rtol": 1e-3, "atol": 1e-4}, {"atol": 5e-3}
    levels = detector.backbone(images, training=False)
    for level, maps in levels.items():
        _check(report, file, f"infer/C{level}", maps[:, ::2, ::2, ::16], infer)
        _check(report, file, f"infer/C{level}/stats", _stats(maps.numpy()), infer)
    maps = detector.neck([levels[level] for level in sorted(levels)])
    _check(report, file, "infer/feature", maps[0][:, ::2, ::2, ::2], infer)
    _check(report, file, "infer/feature/stats", _stats(maps[0].numpy()), infer)
    (outputs,) = detector.head(maps)
    _check(report, file, "infer/center", outputs["center"][:, ::2, ::2, ::3], infer)
    _check(report, file, "infer/box_scale", outputs["size"], infer)
    _check(report, file, "infer/box_offset", outputs["offset"], infer)
    levels = detector.backbone(images, training=True)
    maps = detector.neck([levels[level] for level in sorted(levels)], training=True)
    _check(report, file, "train/feature", maps[0][:, ::2, ::2, ::2], train)
    _check_moved(report, file, named, train)
