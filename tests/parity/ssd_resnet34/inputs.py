"""Learning rate, augmentation and the input pipeline."""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from ssd_centernet.data import pipeline, records
from ssd_centernet.data.augment import ssd as augment_module
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import color
from ssd_centernet.ops import image as image_ops
from ssd_centernet.training.schedules import RunLength, WarmupCosine
from tests.parity.harness import Report, VectorFile, Vectors
from tests.parity.ssd_resnet34 import common

IMAGE_SIZE = (300, 300)
# The strictest reading of "1e-3 of 255": on the scale 0..255.
GREY_ATOL = 1e-3


def learning_rate(vectors: Vectors, report: Report) -> None:
    """Compare learning_rate.npz."""
    file = vectors.npz("learning_rate.npz")
    keys = ("batch_size", "world_size", "warmup_epochs", "base_lr", "k", "num_examples")
    for index, (batch, world, warmup, base, k, examples) in enumerate(
        zip(*(file[key].tolist() for key in keys), strict=True)
    ):
        name = f"learning_rate.npz:{index}"
        steps_per_epoch = -(-examples // (batch * world))
        report.check_exact(
            f"{name} steps_per_epoch", steps_per_epoch, file["steps_per_epoch"][index]
        )
        schedule = WarmupCosine(base, warmup_epochs=warmup, stretch=k)
        run = RunLength(steps_per_epoch, 64 * steps_per_epoch, batch * world)
        steps = file["steps"][index]
        got = [float(schedule(tf.constant(step), run)) for step in steps[steps >= 0]]
        report.check(f"{name} lr", got, file["lr"][index][steps >= 0], rtol=1e-5)


def augment(vectors: Vectors, report: Report) -> None:
    """Compare augment.npz: crops from given draws, the flip and the colour jitter."""
    file = vectors.npz("augment.npz")
    case = 0
    while f"case{case}_image" in file:
        _crop_case(report, file, f"case{case}")
        case += 1
    report.check_true("augment.npz: has six cases", case >= 6, f"{case} cases")
    flipped = box_ops.flip_left_right(tf.constant(file["flip_in_boxes"]))
    report.check("augment.npz:flip_out_boxes", flipped, file["flip_out_boxes"], atol=1e-6)
    image = tf.constant(file["jitter_in_image"].astype(np.float32) / np.float32(255.0))
    factors = file["jitter_factors_brightness_contrast_saturation_hue"]
    got = [color.jitter(image, *tf.unstack(tf.constant(row))) for row in factors]
    report.check("augment.npz:jitter_out_image", got, file["jitter_out_image"], atol=1e-5)
    compiled = tf.function(color.jitter, jit_compile=True)  # As the pipeline runs it.
    got = [compiled(image, *tf.unstack(tf.constant(row))) for row in factors]
    name = "augment.npz:jitter_out_image (compiled by XLA)"
    report.check(name, got, file["jitter_out_image"], atol=1e-5)


def _crop_case(report: Report, file: VectorFile, case: str) -> None:
    name = f"augment.npz:{case}"
    boxes = tf.constant(file[f"{case}_boxes"])
    whole = tf.constant(bool(file[f"{case}_no_crop"]))
    window, accepted = augment_module.choose_crop(
        boxes,
        tf.constant(file[f"{case}_uniform01_width_height_left_top"]),
        tf.constant(file[f"{case}_min_iou"]),
        whole,
    )
    report.check_true(f"{name} accepted", accepted)
    report.check(f"{name}_bounds_yxyx", window, file[f"{case}_bounds_yxyx"], atol=1e-6)
    cut, kept = augment_module.crop_boxes(boxes, window, whole)
    report.check_exact(f"{name}_kept", kept, file[f"{case}_kept"])
    got = tf.boolean_mask(cut, kept)
    report.check(f"{name}_out_boxes", got, file[f"{case}_out_boxes"], atol=1e-6)
    classes = file[f"{case}_classes"][np.asarray(kept)]
    report.check_exact(f"{name}_out_classes", classes, file[f"{case}_out_classes"])
    image = image_ops.crop_and_resize(tf.constant(file[f"{case}_image"]), window, IMAGE_SIZE)
    got = image[::7, ::7]
    report.check(f"{name}_out_image_every7", got, file[f"{case}_out_image_every7"], atol=GREY_ATOL)
    mean = image.numpy().astype(np.float64).mean(axis=(0, 1))
    report.check(f"{name}_out_image_mean", mean, file[f"{case}_out_image_mean"], atol=GREY_ATOL)


def input_pipeline(vectors: Vectors, report: Report) -> None:
    """Compare input_pipeline.npz: records one by one, then the evaluation batches."""
    file = vectors.npz("input_pipeline.npz")
    serialized = []
    while f"record{len(serialized)}" in file:
        serialized.append(file[f"record{len(serialized)}"].tobytes())
    for index, record in enumerate(serialized):
        _check_record(report, file, index, record)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "coco_val.record-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in serialized:
                writer.write(record)
        batches = list(_evaluation_batches(folder))
        _check_evaluation(report, file, batches, len(serialized))


def _check_record(report: Report, file: VectorFile, index: int, record: bytes) -> None:
    example = records.parse_example(tf.constant(record), LabelMap.coco())
    name = f"input_pipeline.npz:decode{index}"
    want = file[f"decode{index}_boxes"]
    report.check(f"{name}_boxes", example["boxes"], want, atol=1e-5)
    classes = tf.cast(example["classes"], tf.float32)[:, tf.newaxis] + 1.0
    report.check_exact(f"{name}_classes", classes, file[f"decode{index}_classes"])
    image = image_ops.decode_image(example["encoded"])
    shape = file[f"decode{index}_image_shape"]
    report.check_exact(f"{name}_image_shape", image.shape, shape)
    want = file[f"decode{index}_image_every5"]
    report.check(f"{name}_image_every5", image[::5, ::5], want, atol=1e-5)


def _evaluation_batches(folder: str):
    return pipeline.evaluation_batches(
        folder,
        split="coco_val",
        label_map=LabelMap.coco(),
        batch_size=2,
        preprocess=common.detector().preprocessing,
        max_boxes=200,
    )


def _check_evaluation(report: Report, file: VectorFile, batches: list, num_records: int) -> None:
    name = "input_pipeline.npz:eval"
    batch = {
        key: np.concatenate([np.asarray(part[key]) for part in batches])
        for key in ("image", "boxes", "classes", "valid", "source_id", "height", "width")
    }
    want_ids = file["eval_source_id"]
    theirs = len(want_ids)
    # Theirs drops the remainder, ours counts every image; see DELIBERATE.
    report.check_exact(
        f"{name}_num_batches_of_2 (theirs: the remainder dropped)",
        num_records // 2,
        file["eval_num_batches_of_2"],
    )
    report.check(f"{name} batches (ours: all images)", len(batches), -(-num_records // 2))
    counted = batch["source_id"] != -1
    report.check(f"{name} images that count", np.count_nonzero(counted), num_records)
    report.check_exact(f"{name}_source_id", batch["source_id"][:theirs], want_ids)
    report.check(f"{name}_boxes", batch["boxes"][:theirs], file["eval_boxes"], atol=1e-5)
    classes = np.where(batch["valid"], batch["classes"] + 1, 0)[:theirs, :, None]
    report.check_exact(f"{name}_classes", classes.astype(np.float32), file["eval_classes"])
    raw_shape = np.stack([batch["height"], batch["width"]], axis=1)[:theirs]
    report.check_exact(f"{name}_raw_shape", raw_shape, file["eval_raw_shape"][:, :2])
    image = batch["image"][:theirs]
    report.check(f"{name}_image_every9", image[:, ::9, ::9], file["eval_image_every9"], atol=1e-5)
    mean = image.astype(np.float64).mean(axis=(1, 2))
    report.check(f"{name}_image_mean", mean, file["eval_image_mean"], atol=1e-5)
    want = file["eval_image_bf16_every9_as_f32"]
    half = tf.cast(tf.cast(image[:, ::9, ::9], tf.bfloat16), tf.float32).numpy()
    # One unit in the last place of bfloat16, which has 8 significant bits.
    unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(want), 1e-30))) - 7)
    report.check(f"{name}_image_bf16_every9 (in units)", half / unit, want / unit, atol=1.0)
