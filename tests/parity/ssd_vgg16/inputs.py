"""Learning rates, updates, colours, resizing and boxes that follow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.data.augment.ssd_vgg import SSDVGGAugment
from ssd_centernet.models.weight_decay import add_weight_decay
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import color
from ssd_centernet.ops import image as image_ops
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import RunLength, StepDecay
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_vgg16 import common

PASSES = 5  # Of the images in one epoch of the reference.
WEIGHT_DECAY = 5e-4
COLOR_ATOL = 1e-2


def schedule(vectors: Vectors, report: Report) -> None:
    """Compare schedule.npz: rates of three settings, and a trace of the optimizer."""
    file = vectors.npz("schedule.npz")
    steps, length = file["iterations"], int(file["iters_per_epoch"])
    for key, batch, settings in (
        ("lr_8dev", 64, {}),
        ("lr_1dev", 8, {}),
        ("lr_fp16cfg", 64, {"warmup_steps": 1000, "warmup_ratio": 0.1}),
    ):
        rate = StepDecay(**settings)
        run = RunLength(length // PASSES, 24 * length, batch)
        got = [float(rate.exact(tf.constant(step), run)) for step in steps]
        report.check(f"schedule.npz:{key}", got, file[key], rtol=1e-9)
        got = [float(rate(tf.constant(step), run)) for step in steps]
        name = f"schedule.npz:{key} (in float32, as the step uses it)"
        report.check(name, got, file[key], rtol=6e-8)
    weights = tf.Variable(file["sgd_w0"])
    optimizer, trace = Momentum(), []
    optimizer.build([weights])
    for gradient, rate in zip(file["sgd_grads"], file["sgd_lrs"], strict=True):
        optimizer.learning_rate = rate
        (total,) = add_weight_decay([tf.constant(gradient)], [weights], [True], WEIGHT_DECAY)
        optimizer.apply_gradients([(total, weights)])
        trace.append(weights.numpy())
    report.check("schedule.npz:sgd_w", trace, file["sgd_w"], atol=1e-6)


def image_ops_section(vectors: Vectors, report: Report) -> None:
    """Compare image_ops.npz."""
    file = vectors.npz("image_ops.npz")
    _check_colors(report, file)
    _check_resize(report, file)
    height, width = file["flip_hw"]
    flipped = box_ops.flip_left_right(tf.constant(common.from_xyxy(file["flip_in"], height, width)))
    got = common.to_xyxy(flipped, height, width)
    report.check("image_ops.npz:flip_out", got, file["flip_out"], atol=1e-3)
    scale = np.tile([300 / width, 300 / height], 2)
    want = file["resize300_scale_factor"]
    report.check("image_ops.npz:resize300_scale_factor", scale, want, rtol=1e-6)
    boxes = box_ops.clip(tf.constant(common.from_xyxy(file["flip_in"], height, width)))
    want = file["resize300_boxes"]
    report.check("image_ops.npz:resize300_boxes", common.to_xyxy(boxes, 300), want, atol=1e-3)


def _check_colors(report: Report, file: VectorFile) -> None:
    bgr = file["bgr"]
    blue, green, red = (tf.constant(bgr[:, index]) for index in range(3))
    hue, saturation, value = color.to_hsv(red, green, blue)
    # The hue of near-greys hangs on the last bits: what comes of it is compared below.
    colorful = np.ptp(bgr, axis=1) > 1e-3 * np.maximum(np.abs(bgr).max(axis=1), 1.0)
    hues = np.where(colorful, hue, file["hsv"][:, 0])
    got = np.stack([hues, saturation, value], axis=1)
    _check_each(report, "image_ops.npz:hsv", got, file["hsv"], bgr)
    for key, turn, factor in (
        ("bgr_roundtrip", 0.0, 1.0),
        ("bgr_sat1.37", 0.0, 1.37),
        ("bgr_hue-15.5", -15.5, 1.0),
    ):
        red, green, blue = color.from_hsv(hue + turn, saturation * factor, value)
        got = np.stack([blue, green, red], axis=1)
        _check_each(report, f"image_ops.npz:{key}", got, file[key], bgr)
        whole = color.distort(
            tf.constant(bgr[:, ::-1]),
            brightness=tf.constant(0.0),
            contrast_first=tf.constant(1.0),
            saturation=tf.constant(factor),
            hue=tf.constant(turn),
            contrast_last=tf.constant(1.0),
            order=tf.constant(0),
        )
        name = f"image_ops.npz:{key} (by distort)"
        _check_each(report, name, whole.numpy()[:, ::-1], file[key], bgr)


def _check_each(report: Report, name: str, got, want, bgr: np.ndarray) -> None:
    """Compare colours in range to the tolerance, others (any size) relative to their size too."""
    inside = np.all((bgr >= 0.0) & (bgr <= 255.0), axis=1)
    report.check(name, got[inside], want[inside], atol=COLOR_ATOL)
    name = f"{name} (out of range)"
    report.check(name, got[~inside], want[~inside], atol=COLOR_ATOL, rtol=1e-4)


def _check_resize(report: Report, file: VectorFile) -> None:
    image = file["img_u8"]
    preprocessing = common.detector(300).preprocessing
    for kind, (height, width) in (("down", (16, 20)), ("up", (64, 75))):
        # Bytes are resized for detection, floats by the augmentation.
        resized = image_ops.resize_bilinear(tf.constant(image), (height, width))
        got, want = tf.round(resized), file[f"resize_u8_{kind}"]
        report.check(f"image_ops.npz:resize_u8_{kind}", got, want, atol=1.0)
        chain = SSDVGGAugment(
            (height, width),
            distort=False,
            expand_probability=0.0,
            crop=False,
            flip_probability=0.0,
        )
        example = {"image": tf.constant(image), "boxes": tf.zeros([0, 4])}
        got = chain(example, tf.constant([0, 0]))["image"] + tf.constant(chain.mean)
        want = file[f"resize_f32_{kind}"]
        report.check(f"image_ops.npz:resize_f32_{kind}", got, want, atol=1e-3)
    got = preprocessing.normalize(tf.constant(image[..., ::-1].astype(np.float32)))
    report.check("image_ops.npz:normalized_rgb", got, file["normalized_rgb"], atol=1e-4)
