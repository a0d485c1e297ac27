"""Augmentation, learning rates and throughput summary of both CenterNets."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records
from ssd_centernet.data.augment.centernet import CropPadAugment, SquareCropAugment
from ssd_centernet.data.augment.common import has_area
from ssd_centernet.labels import LabelMap
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import color, crops
from ssd_centernet.ops import image as image_ops
from ssd_centernet.training import performance
from ssd_centernet.training.schedules import RunLength, StepDecay, WarmupCosineSteps
from tests.parity.harness import Report, VectorFile, Vectors

GREY_ATOL = 2e-3
NORMALIZED_ATOL = 1e-4
BOX_ATOL = 1e-5
PIXEL_ATOL = 1e-3
# Of which `image_sum_left` is the sum.
_LEFT_COLUMNS = 10
_NEUTRAL = {"hue": 0.0, "contrast": 1.0, "saturation": 1.0, "brightness": 0.0}


def augment_a(vectors: Vectors, report: Report) -> None:
    """Compare augment_a.npz: colours, square crops and the evaluation path."""
    file = vectors.npz("augment_a.npz")
    _colors(report, file, "augment_a.npz")
    border = crops.square_crop_border(tf.constant(file["crop_border/size"]))
    report.check_exact("augment_a.npz:crop_border", border, file["crop_border/border"])
    for index in range(_cases(report, file, "square_crop/{}/scale", 4)):
        _square_crop(report, file, f"square_crop/{index}")
    for index in range(_cases(report, file, "parse_eval/{}/in_image", 4)):
        _parse_eval(report, file, f"parse_eval/{index}")
        _groundtruths(report, file, f"parse_eval/{index}")


def augment_b(vectors: Vectors, report: Report) -> None:
    """Compare augment_b.npz: colours, flips, crops, paddings and the evaluation path."""
    file = vectors.npz("augment_b.npz")
    _colors(report, file, "augment_b.npz")
    for index in range(_cases(report, file, "flip/{}/u", 2)):
        _flip(report, file, f"flip/{index}")
    for index in range(_cases(report, file, "crop/{}/begin", 4)):
        _crop(report, file, f"crop/{index}")
    for index in range(_cases(report, file, "pad/{}/params", 3)):
        _pad(report, file, f"pad/{index}")
    for index in range(_cases(report, file, "transform/{}/in_image", 5)):
        _transform(report, file, f"transform/{index}")


def lr_a(vectors: Vectors, report: Report) -> None:
    """Compare lr_a.npz: a cosine from step 0 that a linear warm-up joins."""
    file = vectors.npz("lr_a.npz")
    default = int(file["default_total_steps"])
    for name, base, total in (
        ("default_factory", 1e-3, default),
        ("tpu", 1e-3, 140_000),
        ("gpu", 5e-4, 280_000),
    ):
        schedule = WarmupCosineSteps(
            base,
            warmup_learning_rate=0.0,
            warmup_steps=2000,
            shifted=False,
            reference_batch_size=None,
        )
        run = RunLength(steps_per_epoch=924, total_steps=total, global_batch_size=128)
        got = [schedule(tf.constant(step), run) for step in file["steps"]]
        report.check(f"lr_a.npz:{name}", got, file[name], rtol=1e-5, atol=1e-9)


def lr_b(vectors: Vectors, report: Report) -> None:
    """Compare lr_b.npz: decays at 90000 and 120000 of 140000 steps."""
    file = vectors.npz("lr_b.npz")
    schedule = StepDecay(
        1e-3,
        boundaries=(90_000, 120_000),
        unit="steps",
        length=140_000,
        warmup_steps=0,
        reference_batch_size=None,
    )
    run = RunLength(steps_per_epoch=1832, total_steps=140_000, global_batch_size=64)
    got = [schedule(tf.constant(step), run) for step in file["steps"]]
    report.check("lr_b.npz:lr", got, file["lr"], rtol=1e-6)


def summary_b(vectors: Vectors, report: Report) -> None:
    """Compare summary_b.npz: which step times count, and their mean."""
    file = vectors.npz("summary_b.npz")
    for count in (1, 2, 3, 5, 10, 39, 40, 41, 60, 100, 299, 300, 301, 1400):
        times = file[f"{count}/time_record"].tolist()
        batch = int(file[f"{count}/global_batch_size"])
        stats = performance.throughput_summary(times, global_batch_size=batch)["overall_stats"]
        report.check_exact(f"summary_b.npz:{count} batch_size", stats["batch_size"], batch)
        for key in ("throughput_mean", "e2e"):
            want = file[f"{count}/{key}"]
            report.check(f"summary_b.npz:{count}/{key}", stats[key], want, rtol=1e-9)


def _cases(report: Report, file: VectorFile, pattern: str, least: int) -> int:
    count = 0
    while pattern.format(count) in file:
        count += 1
    name = f"{file.name}: has {least} cases of {pattern.format('*')}"
    report.check_true(name, count >= least, f"{count} cases")
    return count


def _colors(report: Report, file: VectorFile, name: str) -> None:
    image = file["image"]
    pixels = tf.constant(image.reshape(-1, 3))
    # As the chains run it: black pixels appended, and compiled.
    filled = tf.pad(pixels, [[0, 1000], [0, 0]])
    compiled = tf.function(color.hue_first_jitter, jit_compile=True)
    for kind in _NEUTRAL:
        for index in range(_cases(report, file, f"adjust_{kind}/{{}}/value", 2)):
            key = f"adjust_{kind}/{index}"
            factors = {**_NEUTRAL, kind: file[f"{key}/value"]}
            factors = {what: tf.constant(value, tf.float32) for what, value in factors.items()}
            count = tf.constant(len(pixels))
            for note, source, function in (
                ("", pixels, color.hue_first_jitter),
                (" (filled up, compiled)", filled, compiled),
            ):
                got = tf.reshape(function(source, count, **factors)[: len(pixels)], image.shape)
                want = file[f"{key}/image"]
                report.check(f"{name}:{key}/image{note}", got, want, atol=GREY_ATOL)


def _square_crop(report: Report, file: VectorFile, case: str) -> None:
    image = tf.constant(file["image"])
    size = tf.constant(image.shape[:2])
    center = tf.constant([file[f"{case}/y_center"], file[f"{case}/x_center"]])
    window, offset, square = crops.square_crop(size, tf.constant(file[f"{case}/scale"]), center)
    canvas = crops.paste(crops.cut(image, window), offset, square[2:])
    name = f"augment_a.npz:{case}"
    report.check(f"{name}/image", canvas, file[f"{case}/image"], atol=GREY_ATOL)
    boxes, kept = crops.crop_boxes(tf.constant(file["boxes"]), crops.frame_of(square, size))
    report.check(f"{name}/boxes", boxes[kept], file[f"{case}/boxes"], atol=BOX_ATOL)
    report.check_exact(f"{name}/labels", file["labels"][kept], file[f"{case}/labels"])
    shape = file[f"{case}/resized_shape"]
    resized = image_ops.resize_and_pad(canvas, tuple(shape[:2].tolist()))
    report.check_exact(f"{name}/resized_shape", resized.shape, shape)
    want = file[f"{case}/resized64"]
    report.check(f"{name}/resized64", resized[::4, ::4], want, atol=GREY_ATOL)


def _parse_eval(report: Report, file: VectorFile, case: str) -> None:
    name = f"augment_a.npz:{case}"
    image = file[f"{case}/in_image"]
    size = tuple(file[f"{case}/output_size"].tolist())
    chain = SquareCropAugment(
        size, flip_probability=0.0, square_crop=False, scales=(1.0, 1.0), jitter=False
    )
    got = _run(chain, image, file[f"{case}/in_boxes"], file[f"{case}/in_classes"])
    preprocessing = Preprocessing(
        size,
        mean=chain.mean,
        std=chain.std,
        scale=chain.scale,
        channels=chain.channels,
        resize="bilinear",
        keep_aspect=True,
    )
    want = file[f"{case}/image"]
    report.check(f"{name}/image", got["image"], want, atol=NORMALIZED_ATOL)
    line = f"{name}/image (Preprocessing)"
    report.check(line, preprocessing(tf.constant(image)), want, atol=NORMALIZED_ATOL)
    rows = len(file[f"{case}/boxes"])
    boxes = got["boxes"] * tf.constant([*size, *size], tf.float32)
    want = file[f"{case}/boxes"]
    report.check(f"{name}/boxes", _padded(boxes, rows, -1), want, atol=PIXEL_ATOL)
    report.check_exact(
        f"{name}/classes", _padded(got["classes"], rows, -1), file[f"{case}/classes"]
    )
    original = tf.constant(image.shape[:2])
    scaled, offset = crops.scaled_crop(original, size, tf.constant(1.0), tf.zeros([2]))
    info = [original, size, scaled / original, offset]
    info = tf.stack([tf.cast(row, tf.float32) for row in info])
    report.check(f"{name}/image_info", info, file[f"{case}/image_info"], rtol=1e-6)
    shape = file[f"{case}/unpad_image_shapes"]
    # Theirs counts the padding as picture here; see DELIBERATE.
    report.check_exact(f"{name}/unpad_image_shapes (theirs: padded)", got["image"].shape, shape)
    report.check(f"{name} extent (ours)", got["extent"] * size, scaled, atol=1e-4)


def _groundtruths(report: Report, file: VectorFile, case: str) -> None:
    """Compare what is evaluated against, by way of a record."""
    truth = f"{case}/groundtruths"
    name = f"augment_a.npz:{truth}"
    image, boxes = file[f"{case}/in_image"], file[f"{case}/in_boxes"]
    count = len(boxes)
    record = records.encode_example(
        {
            "encoded": tf.io.encode_png(image).numpy(),
            "format": "png",
            "filename": "",
            "source_id": int(file[f"{truth}/source_id"]),
            "height": image.shape[0],
            "width": image.shape[1],
            "boxes": boxes,
            "labels": file[f"{case}/in_classes"].tolist(),
            "is_crowd": file[f"{truth}/is_crowds"][:count].astype(bool).tolist(),
        }
    )
    labels = LabelMap([f"class {n}" for n in range(1, 91)])
    example = records.parse_example(tf.constant(record), labels)
    for key in ("source_id", "height", "width"):
        report.check_exact(f"{name}/{key}", example[key], file[f"{truth}/{key}"])
    report.check_exact(f"{name}/num_detections", count, file[f"{truth}/num_detections"])
    # Boxes without area are no ground truth here; see DELIBERATE.
    stay = has_area(tf.constant(boxes)).numpy()
    sides = tf.constant([*image.shape[:2]] * 2, tf.float32)
    for key, got, tolerance in (
        ("boxes", example["boxes"] * sides, {"atol": PIXEL_ATOL}),
        ("classes", example["classes"] + 1, {}),
        ("areas", example["area"], {"rtol": 1e-5, "atol": PIXEL_ATOL}),
        ("is_crowds", tf.cast(example["is_crowd"], tf.int32), {}),
    ):
        want = file[f"{truth}/{key}"][:count][stay]
        report.check(f"{name}/{key}", got, want, **tolerance)


def _flip(report: Report, file: VectorFile, case: str) -> None:
    name = f"augment_b.npz:{case}"
    boxes, image = tf.constant(file["boxes"]), tf.constant(file["image"])
    if file[f"{case}/u"] < CropPadAugment().flip_probability:
        boxes, image = box_ops.flip_left_right(boxes), image_ops.flip_left_right(image)
    report.check(f"{name}/boxes", boxes, file[f"{case}/boxes"], atol=BOX_ATOL)
    left = image.numpy()[:, :_LEFT_COLUMNS].astype(np.float64).sum()
    report.check_exact(f"{name}/image_sum_left", left, file[f"{case}/image_sum_left"])


def _crop(report: Report, file: VectorFile, case: str) -> None:
    name = f"augment_b.npz:{case}"
    image = tf.constant(file["image"])
    window = tf.constant(np.concatenate([file[f"{case}/begin"], file[f"{case}/size"]]))
    frame = crops.frame_of(window, tf.constant(image.shape[:2]))
    overlap = CropPadAugment().min_overlap
    boxes, kept = crops.crop_boxes(tf.constant(file["boxes"]), frame, min_overlap=overlap)
    report.check(f"{name}/boxes", boxes[kept], file[f"{case}/boxes"], atol=BOX_ATOL)
    report.check_exact(f"{name}/labels", file["labels"][kept], file[f"{case}/labels"])
    got = crops.cut(image, window).shape
    report.check_exact(f"{name}/image_shape", got, file[f"{case}/image_shape"])


def _pad(report: Report, file: VectorFile, case: str) -> None:
    name = f"augment_b.npz:{case}"
    image = tf.constant(file["image"])
    params = tf.constant(file[f"{case}/params"])
    size, offset = params[:2], params[2:]
    frame = crops.frame_of(tf.concat([-offset, size], 0), tf.constant(image.shape[:2]))
    boxes = crops.reframe_boxes(tf.constant(file["boxes"]), frame)
    report.check(f"{name}/boxes", boxes, file[f"{case}/boxes"], atol=BOX_ATOL)
    padded = crops.paste(image, offset, size)
    report.check_exact(f"{name}/image_shape", padded.shape, file[f"{case}/image_shape"])
    report.check(f"{name}/image_s8", padded[::8, ::8], file[f"{case}/image_s8"], atol=GREY_ATOL)


def _transform(report: Report, file: VectorFile, case: str) -> None:
    name = f"augment_b.npz:{case}"
    image, boxes = file[f"{case}/in_image"], file[f"{case}/in_boxes"]
    want = file[f"{case}/image"]
    chain = CropPadAugment(
        want.shape[:2], flip_probability=0.0, crop_probability=0.0, jitter=False, max_padding=0
    )
    got = _run(chain, image, boxes, file[f"{case}/in_classes"])
    preprocessing = Preprocessing(
        want.shape[:2],
        mean=chain.mean,
        std=chain.std,
        scale=chain.scale,
        channels=chain.channels,
        resize="legacy_bilinear",
        keep_aspect=True,
    )
    report.check(f"{name}/image", got["image"], want, atol=GREY_ATOL)
    line = f"{name}/image (Preprocessing)"
    report.check(line, preprocessing(tf.constant(image)), want, atol=GREY_ATOL)
    shape = [*(got["extent"].numpy() * want.shape[:2]), 3]
    report.check(f"{name}/true_image_shape", shape, file[f"{case}/true_image_shape"], atol=1e-4)
    rows = len(file[f"{case}/boxes"])
    padded = _padded(got["boxes"], rows, 0)
    report.check(f"{name}/boxes", padded, file[f"{case}/boxes"], atol=BOX_ATOL)
    classes = _padded(got["classes"] - 1, rows, -1)
    report.check_exact(f"{name}/class_index", classes, file[f"{case}/class_index"])
    weights = _padded(tf.ones(tf.shape(got["classes"])), rows, 0)
    report.check_exact(f"{name}/weights", weights, file[f"{case}/weights"])
    count = len(got["boxes"])
    report.check_exact(f"{name} count", count, file[f"{case}/num_groundtruth_boxes"])


def _run(chain, image, boxes, classes) -> dict:
    example = {key: tf.constant(value) for key, value in (("boxes", boxes), ("classes", classes))}
    return chain({**example, "image": tf.constant(image)}, tf.constant([0, 0]))


def _padded(values, rows: int, filler: int) -> np.ndarray:
    values = np.asarray(values)[:rows]
    padding = [(0, rows - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, padding, constant_values=filler)
