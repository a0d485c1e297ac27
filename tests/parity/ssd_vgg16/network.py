"""Parameters, forward passes and gradients of both reference networks."""

from __future__ import annotations

import zlib

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.models.ssd import SSD
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_vgg16 import common

# Position in the reference's sequence of backbone layers -> our layer.
TAPS = {
    3: "conv1_2",
    4: "pool1",
    9: "pool2",
    16: "pool3",
    22: "conv4_3",
    23: "pool4",
    29: "conv5_3",
    30: "pool5",
    32: "conv6",
    34: "conv7",
}
CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)
NUM_PARAMETERS = {300: 34_305_206, 512: 36_038_196}


def reference_variables(detector: SSD) -> dict[str, tf.Variable]:
    """Map the reference's parameter names to our variables, in the reference's order."""
    backbone, neck, head = detector.backbone, detector.neck, detector.head
    layers = {
        f"backbone.features.{index}": layer
        for index, layer in zip(CONVS, backbone.conv_layers, strict=True)
    }
    pairs = zip(neck._reduce, neck._expand, strict=True)
    extra = [layer for pair in pairs for layer in pair]
    layers |= {f"backbone.extra.{index}": layer for index, layer in enumerate(extra)}
    layers["backbone.l2_norm"] = neck._norm
    for kind, convs in (("reg", head._box_convs), ("cls", head._class_convs)):
        layers |= {f"bbox_head.{kind}_convs.{level}": conv for level, conv in enumerate(convs)}
    names = {}
    for name, layer in layers.items():
        if name == "backbone.l2_norm":
            names[f"{name}.weight"] = layer.scale
        else:
            names[f"{name}.weight"], names[f"{name}.bias"] = layer.kernel, layer.bias
    return names


def to_reference(name: str, value) -> np.ndarray:
    """Turn a value or gradient of ours into the reference's layout."""
    value = np.asarray(value)
    value = _permuted(name, value, background_last=True)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value


def from_reference(name: str, value: np.ndarray) -> np.ndarray:
    """Turn the reference's value into our layout."""
    value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    return _permuted(name, value, background_last=False)


def _permuted(name: str, value: np.ndarray, *, background_last: bool) -> np.ndarray:
    """Reorder the output channels of a head: its classes, or the four numbers of a box code."""
    if name.startswith("bbox_head.cls"):
        grouped = value.reshape(*value.shape[:-1], -1, common.NUM_CLASSES + 1)
        grouped = (common.background_last if background_last else common.background_first)(grouped)
    elif name.startswith("bbox_head.reg"):
        grouped = common.swap_code(value.reshape(*value.shape[:-1], -1, 4))
    else:
        return value
    return grouped.reshape(value.shape)


def recipe_value(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the weights that the vectors were computed with, in the reference's layout."""
    seed = zlib.crc32((salt + name).encode("utf-8")) & 0xFFFFFFFF
    draws = np.random.RandomState(seed).standard_normal(shape)
    if name == "backbone.l2_norm.weight":
        value = 20.0 + 0.5 * draws
    elif name.endswith(".bias"):
        value = 0.05 * draws
    else:
        value = draws * np.sqrt(2.0 / np.prod(shape[1:]))
    return value.astype(np.float32)


def params(vectors: Vectors, report: Report) -> None:
    """Compare params_ssd300.json and params_ssd512.json: names, order, shapes, first values."""
    for side in common.SIDES:
        detector = common.detector(side)
        ours = reference_variables(detector)
        mapped = {variable.ref() for variable in ours.values()}
        complete = len(mapped) == len(ours) == len(detector.trainable_variables)
        complete = complete and len(ours) == len(detector.variables)
        report.check_true(f"params {side}: each of ours has one name and is trained", complete)
        count = sum(int(np.prod(variable.shape)) for variable in ours.values())
        report.check_exact(f"params {side}: how many numbers", count, NUM_PARAMETERS[side])
        file = f"params_ssd{side}.json"
        content = vectors.json(file)
        if content is None:
            report.say(f"{file} is not in the folder: the built-in names are used")
            continue
        report.check_exact(f"{file}:name", list(ours), [entry["name"] for entry in content])
        shapes = {name: to_reference(name, v).shape for name, v in ours.items()}
        want = [str(entry["shape"]) for entry in content]
        report.check_exact(f"{file}:shape", [str(list(s)) for s in shapes.values()], want)
        want = np.array([entry["first"] for entry in content])
        # Those of the visible weights in every folder, or those of the folder's own.
        salts = ("", str(vectors.npz(f"network{side}.npz")["salt"]))
        values = [
            [recipe_value(salt, name, shape).ravel()[:2] for name, shape in shapes.items()]
            for salt in salts
        ]
        got = min(values, key=lambda value: np.abs(np.array(value) - want).max())
        report.check(f"{file}:first", got, want, rtol=1e-6)


def network300(vectors: Vectors, report: Report) -> None:
    """Compare network300.npz."""
    _network(vectors.npz("network300.npz"), report, 300, images=2)


def network512(vectors: Vectors, report: Report) -> None:
    """Compare network512.npz."""
    _network(vectors.npz("network512.npz"), report, 512, images=1)


def _network(file: VectorFile, report: Report, side: int, images: int) -> None:
    salt, detector = str(file["salt"]), common.detector(side)
    for name, variable in reference_variables(detector).items():
        shape = to_reference(name, variable).shape
        variable.assign(from_reference(name, recipe_value(salt, name, shape)))
    seed = zlib.crc32(f"{salt}input{side}".encode()) & 0xFFFFFFFF
    shape = (images, 3, side, side)
    batch = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    report.check_exact(f"{file.name}:input_first4", batch.ravel()[:4], file["input_first4"])
    report.check_exact(f"{file.name}:input_last4", batch.ravel()[-4:], file["input_last4"])
    batch = tf.constant(batch.transpose(0, 2, 3, 1))
    _check_features(file, report, detector, batch)
    targets = [_targets(file, detector, side, image) for image in range(images)]
    targets = {key: tf.stack([made[key] for made in targets]) for key in targets[0]}
    with tf.GradientTape() as tape:
        outputs = detector(batch, training=True)
        parts = detector.losses_of(outputs, targets)
        total = detector.total_loss(parts)
    _check_outputs(file, report, outputs)
    for key, part in (("loss_cls", "class"), ("loss_bbox", "box")):
        report.check(f"{file.name}:{key}", parts[part], file[key], rtol=1e-3)
    named = reference_variables(detector)
    gradients = tape.gradient(total, list(named.values()))
    _check_gradients(file, report, dict(zip(named, gradients, strict=True)))


def _targets(file: VectorFile, detector: SSD, side: int, image: int) -> dict:
    boxes = file[f"gt{image}_boxes"]
    return detector.make_targets(
        tf.constant(common.from_xyxy(boxes, side)),
        tf.constant(file[f"gt{image}_classes"].astype(np.int32)),
        tf.zeros([len(boxes)], tf.bool),
    )


def _check_features(file: VectorFile, report: Report, detector: SSD, batch: tf.Tensor) -> None:
    backbone = detector.backbone
    taps = {f"features{index}": backbone.get_layer(name).output for index, name in TAPS.items()}
    found = keras.Model(backbone.inputs, taps)(batch, training=False)
    features = backbone(batch, training=False)
    levels = detector.neck([features[key] for key in sorted(features, key=int)])
    found |= {f"level{index}": level for index, level in enumerate(levels)}
    for name, values in found.items():
        key = f"feat_{name}"
        shape = file[f"{key}_shape_nhwc"]
        report.check_exact(f"{file.name}:{key}_shape_nhwc", values.shape, shape)
        got, want = values.numpy().ravel()[:: int(file[f"{key}_stride"])], file[key]
        atol = 1e-4 * float(np.abs(want).max())
        report.check(f"{file.name}:{key}", got, want, atol=atol)


def _check_outputs(file: VectorFile, report: Report, outputs: dict) -> None:
    for key, values in (
        ("cls", common.background_last(outputs["class_logits"])),
        ("reg", common.swap_code(outputs["box_codes"])),
    ):
        report.check_exact(f"{file.name}:{key}_shape", values.shape, file[f"{key}_shape"])
        largest = float(file[f"{key}_abs_max"])
        got = np.abs(values).max()
        report.check(f"{file.name}:{key}_abs_max", got, largest, rtol=1e-4)
        got = values.ravel()[:: int(file[f"{key}_stride"])]
        report.check(f"{file.name}:{key}", got, file[key], atol=1e-4 * largest)


def _check_gradients(file: VectorFile, report: Report, gradients: dict) -> None:
    report.check_exact(f"{file.name}:param_names", list(gradients), file["param_names"])
    norms, samples = [], []
    for name, gradient in gradients.items():
        flat = to_reference(name, gradient).ravel()
        norms.append(np.linalg.norm(flat.astype(np.float64)))
        last = len(flat)
        samples.append(flat[[0, last // 3, 2 * last // 3, last - 1]])
    want = file["grad_l2"]
    report.check(f"{file.name}:grad_l2", norms, want, rtol=1e-2)
    scale = want[:, None]
    report.check(
        f"{file.name}:grad_sample (in shares of grad_l2)",
        np.array(samples) / scale,
        file["grad_sample"] / scale,
        atol=1e-2,
    )
