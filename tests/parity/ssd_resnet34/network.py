"""Variables, forward passes and optimizer steps of the reference network."""

from __future__ import annotations

import zlib

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.building import build_detector
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.ssd import SSD
from ssd_centernet.runtime import precision
from ssd_centernet.training.schedules import RunLength
from ssd_centernet.training.trainer import Trainer
from ssd_centernet.weights import tf1_variables
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_resnet34 import common

STAGES = {
    "initial_conv": "stem_conv",
    "initial_max_pool": "stem_pool",
    "block_group1": "group1_block3_relu",
    "block_group2": "group2_block4_relu",
    "block_group3": "group3_block6_relu",
}
RECIPE = "ssd300_resnet34"


def reference_variables(detector: SSD) -> dict[str, tf.Variable]:
    """Map the reference's variable names to ours, in the reference's creation order."""
    names = {
        f"resnet34/{name}": variable for name, variable in tf1_variables(detector.backbone).items()
    }
    extra, head = detector.neck, detector.head
    layers = {}
    for index, (reduce, expand) in enumerate(zip(extra._reduce, extra._expand, strict=True), 7):
        layers[f"ssd/block{index}-conv1x1"] = reduce
        layers[f"ssd/block{index}-conv3x3"] = expand
    layers |= {f"ssd/class_net/class-{level}": c for level, c in enumerate(head._class_convs, 3)}
    layers |= {f"ssd/box_net/box-{level}": c for level, c in enumerate(head._box_convs, 3)}
    for name, layer in layers.items():
        names[f"{name}/kernel"], names[f"{name}/bias"] = layer.kernel, layer.bias
    return names


def recipe_value(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the weights that the vectors were computed with.

    Source: docs/reference/ssd_resnet34.md, section 19 (network.npz)
    """
    seed = zlib.crc32((salt + name).encode())
    draws = np.random.default_rng(seed).standard_normal(shape)
    value = {
        "kernel": lambda: draws * np.sqrt(2.0 / np.prod(shape[:-1])),
        "bias": lambda: 0.05 * draws,
        "gamma": lambda: 0.5 + 0.1 * draws,
        "beta": lambda: 0.1 * draws,
        "moving_mean": lambda: 0.1 * draws,
        "moving_variance": lambda: 1.0 + 0.1 * np.abs(draws),
    }[name.rsplit("/", 1)[1]]()
    return value.astype(np.float32)


def set_recipe_weights(detector: SSD, salt: str) -> None:
    """Set all variables of a detector."""
    for name, variable in reference_variables(detector).items():
        variable.assign(recipe_value(salt, name, tuple(variable.shape)))


def variables(vectors: Vectors, report: Report) -> None:
    """Compare variables.json: names, order, shapes, types, what is trained."""
    content = vectors.json("variables.json")
    ours = reference_variables(common.detector())
    mapped = {variable.ref() for variable in ours.values()}
    report.check_true(
        "variables: each of ours has one name",
        len(mapped) == len(ours) == len(common.detector().variables),
        f"{len(mapped)} of {len(common.detector().variables)} variables named",
    )
    if content is None:
        report.say("variables.json is not in the folder: the built-in names are used")
        return
    want = content["variables"]
    report.check_exact("variables.json:index", list(range(len(ours))), [v["index"] for v in want])
    report.check_exact("variables.json:name", list(ours), [v["name"] for v in want])
    shapes = [str(list(variable.shape)) for variable in ours.values()]
    report.check_exact("variables.json:shape", shapes, [str(v["shape"]) for v in want])
    types = [variable.dtype.base_dtype.name for variable in ours.values()]
    report.check_exact("variables.json:dtype", types, [v["dtype"] for v in want])
    trained = [variable.trainable for variable in ours.values()]
    report.check_exact("variables.json:trainable", trained, [v["trainable"] for v in want])


def network(vectors: Vectors, report: Report) -> None:
    """Compare network.npz: float32 inference with stage taps, training mode, bfloat16."""
    file = vectors.npz("network.npz")
    salt, detector = str(file["salt"]), common.detector()
    set_recipe_weights(detector, salt)
    named = reference_variables(detector)
    for index, name in enumerate(file["weight_check_names"]):
        got = named[str(name)].numpy().reshape(-1)[:8]
        report.check_exact(f"network.npz:weight_check_{index}", got, file[f"weight_check_{index}"])
    images = common.normal(file["image_seed"], (2, 300, 300, 3))
    report.check_exact("network.npz:image_check", images[:, ::100, ::100], file["image_check"])
    images = tf.constant(images)
    outputs = detector(images, training=False)
    _check_outputs(report, file, "infer", outputs, 1e-4)
    _check_stages(report, file, detector, images)
    _check_head_layout(report, file, detector, images)
    _check_outputs(report, file, "train", detector(images, training=True), 1e-3)
    _check_bfloat16(report, file, salt, images)


def _check_outputs(
    report: Report, file: VectorFile, prefix: str, outputs: dict, atol: float, want: str = ""
) -> None:
    want = want or prefix
    name = f"network.npz:{prefix}" + (f" against {want}" if want != prefix else "")
    logits, codes = outputs["class_logits"], outputs["box_codes"]
    report.check_true(f"{name} is float32", logits.dtype == codes.dtype == tf.float32)
    key = f"{want}_flat_class_every_anchor61"
    report.check(f"{name}_flat_class_every_anchor61", logits[:, ::61], file[key], atol=atol)
    key = f"{want}_flat_box_every_anchor13"
    report.check(f"{name}_flat_box_every_anchor13", codes[:, ::13], file[key], atol=atol)
    detector = common.detector()
    counts = [
        h * w * n
        for (h, w), n in zip(detector.feature_sizes, detector.anchors.boxes_per_cell, strict=True)
    ]
    for kind, values in (("class", logits), ("box", codes)):
        levels = np.split(values.numpy().astype(np.float64), np.cumsum(counts)[:-1], axis=1)
        for statistic in ("mean", "std"):
            key = f"{kind}_{statistic}_per_level"
            got = [getattr(level, statistic)() for level in levels]
            report.check(f"{name}_{key}", got, file[f"{want}_{key}"], atol=atol)


def _check_stages(report: Report, file: VectorFile, detector: SSD, images: tf.Tensor) -> None:
    backbone = detector.backbone
    taps = {stage: backbone.get_layer(layer).output for stage, layer in STAGES.items()}
    for stage, features in keras.Model(backbone.inputs, taps)(images, training=False).items():
        name = f"infer_{stage}"
        report.check_exact(f"network.npz:{name}_shape", features.shape, file[f"{name}_shape"])
        got, want = features[:, ::7, ::7, ::8], file[f"{name}_every7_ch8"]
        report.check(f"network.npz:{name}_every7_ch8", got, want, atol=1e-4)


def _check_head_layout(report: Report, file: VectorFile, detector: SSD, images: tf.Tensor) -> None:
    """Compare the maps before they are reshaped, which checks the order of their channels."""
    (features,) = detector.backbone(images, training=False).values()
    levels = detector.neck([features])
    for level in (3, 5, 8):
        positions = file[f"infer_raw_class_level{level}_pos"]
        for kind, convs in (
            ("class", detector.head._class_convs),
            ("box", detector.head._box_convs),
        ):
            maps = convs[level - 3](levels[level - 3]).numpy()
            got = maps[:, positions][:, :, positions]
            key = f"infer_raw_{kind}_level{level}"
            report.check(f"network.npz:{key}", got, file[key], atol=1e-4)


def _check_bfloat16(report: Report, file: VectorFile, salt: str, images: tf.Tensor) -> None:
    with precision.policy_scope("bf16"):
        detector = SSD(ResNet(), num_classes=common.NUM_CLASSES)
    types = {variable.dtype.base_dtype for variable in detector.variables}
    report.check_true("network.npz:infer_bf16 variables are float32", types == {tf.float32})
    set_recipe_weights(detector, salt)
    outputs = detector(tf.cast(images, tf.bfloat16), training=False)
    for want in ("infer_bf16", "infer"):
        _check_outputs(report, file, "infer_bf16", outputs, 0.06, want)


def train_steps(vectors: Vectors, report: Report) -> None:
    """Compare train_steps.npz: three updates by the trainer's own step, as the recipe sets it."""
    file, targets = vectors.npz("train_steps.npz"), vectors.npz("targets.npz")
    salt = str(vectors.npz("network.npz")["salt"])
    trainer = _recipe_trainer(file)
    detector = trainer.detector
    set_recipe_weights(detector, salt)
    named = reference_variables(detector)
    report.check_exact("train_steps.npz:names", list(named), file["names"])
    start = {name: variable.numpy().astype(np.float64) for name, variable in named.items()}
    batch = _train_batch(file, targets)
    step = tf.function(trainer.train_step)
    for index in range(3):
        metrics = step(batch)
        want = file["loss_before_each_step"][index]
        report.check(f"train_steps.npz:loss step {index + 1}", metrics["total"], want, rtol=1e-4)
        rate = trainer.optimizer.learning_rate
        report.check(f"train_steps.npz:lr_used step {index + 1}", rate, file["lr_used"], rtol=1e-5)
        _check_deltas(report, file, index, named, start)
        if index in (0, 2):
            key = f"values_after_step{index + 1}"
            got = np.stack([v.numpy().reshape(-1)[:8] for v in named.values()])
            report.check(f"train_steps.npz:{key}", got, file[key], atol=1e-4)


def _recipe_trainer(file: VectorFile) -> Trainer:
    """Build the detector and the trainer of the shipped recipe, at the vectors' step."""
    config.parse([RECIPE])
    try:
        detector = build_detector(num_classes=common.NUM_CLASSES)
        optimizer, schedule, weight_decay, freeze = (
            gin.query_parameter(f"train.{name}")
            for name in ("optimizer", "schedule", "weight_decay", "freeze")
        )
        trainer = Trainer(
            detector,
            gin.get_configurable(optimizer.selector)(),
            schedule=gin.get_configurable(schedule.selector)(),
            length=RunLength(steps_per_epoch=10, total_steps=640, global_batch_size=2),
            batch_size=2,
            weight_decay=weight_decay,
            freeze=freeze,
        )
    finally:
        config.clear()
    trainer.step.assign(int(file["start_global_step"]))
    return trainer


def _train_batch(file: VectorFile, targets: VectorFile) -> dict:
    cases = file["target_cases"]
    images = common.normal(file["image_seed"], (2, 300, 300, 3))
    return {
        "image": tf.constant(images),
        "source_id": tf.constant([0, 1], tf.int64),
        "targets": {
            "classes": tf.constant(targets["classes"][cases].astype(np.int32)),
            "boxes": tf.constant(targets["boxes"][cases]),
            "num_matched": tf.constant(targets["num_positives"][cases].astype(np.int32)),
        },
    }


def _check_deltas(report: Report, file: VectorFile, index: int, named: dict, start: dict) -> None:
    deltas = [variable.numpy() - start[name] for name, variable in named.items()]
    got = np.array([np.linalg.norm(delta) for delta in deltas])
    want = file["delta_norm"][index]
    name = f"train_steps.npz:delta_norm step {index + 1}"
    report.check(name, got, want, rtol=5e-3 if index == 0 else 5e-2)
    moved = want > 0
    median = np.median(np.abs(got[moved] / want[moved] - 1.0))
    report.check(f"{name} median relative error", median, 0.0, atol=2e-3)
    frozen = [i for i, n in enumerate(named) if want[i] == 0.0]
    report.check(f"{name} frozen tensors", got[frozen], np.zeros(len(frozen)))
    # The specification names no tolerance for sums. A sum over n elements is off by at most sqrt(n)
    # times the norm of the difference, for which 5 % of the change is allowed as in later steps.
    sums = np.array([delta.sum() for delta in deltas])
    sizes = np.array([delta.size for delta in deltas])
    slack = 5e-2 * want * np.sqrt(sizes)
    error = np.abs(sums - file["delta_sum"][index])
    report.check(
        f"train_steps.npz:delta_sum step {index + 1} (error / slack)",
        error / np.maximum(slack, 1e-30),
        np.zeros_like(error),
        atol=1.0,
    )
