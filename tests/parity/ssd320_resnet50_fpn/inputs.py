"""Learning rate and augmentation of SSD320 ResNet-50-FPN."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.data.augment.ssd_fpn import SSDFPNAugment
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import crops
from ssd_centernet.training.schedules import RunLength, WarmupCosineSteps
from tests.parity.harness import Report, VectorFile, Vectors

# Name in the vectors -> base, rate of the first step, warm-up, length.
# Source: docs/reference/ssd320_resnet50_fpn.md, section 8
_PUBLISHED = {
    "1": (0.02, 0.0086664, 8000, 100000),
    "4": (0.08, 0.0346656, 2000, 25000),
    "8": (0.16, 0.0693312, 1000, 12500),
    "16": (0.32, 0.1386624, 500, 6250),
    "bench": (0.02, 0.0086664, 400, 1250),
}


def learning_rate(vectors: Vectors, report: Report) -> None:
    """Compare learning_rate.npz."""
    file = vectors.npz("learning_rate.npz")
    for name, (base, first, warmup, total) in _PUBLISHED.items():
        steps, want = file[f"steps_{name}"], file[f"lr_{name}"]
        explicit = WarmupCosineSteps(
            base,
            warmup_learning_rate=first,
            warmup_steps=warmup,
            total_steps=total,
            reference_batch_size=None,
        )
        run = RunLength(steps_per_epoch=1, total_steps=2 * total, global_batch_size=1)
        got = [explicit(tf.constant(step), run) for step in steps]
        report.check(f"learning_rate.npz:lr_{name}", got, want, rtol=1e-5, atol=1e-7)
        if name != "bench":
            run = RunLength(1, total_steps=total, global_batch_size=32 * int(name))
            got = [WarmupCosineSteps()(tf.constant(step), run) for step in steps]
            line = f"learning_rate.npz:lr_{name} (defaults, the run as long as published)"
            report.check(line, got, want, rtol=1e-5, atol=1e-7)


def augmentation(vectors: Vectors, report: Report) -> None:
    """Compare augmentation.npz: crops of given windows, the flip, resize and normalisation."""
    file = vectors.npz("augmentation.npz")
    count = 0
    while f"crop{count}_window_yxhw" in file:
        _crop(report, file, f"crop{count}")
        count += 1
    report.check_true("augmentation.npz: has four crops", count >= 4, f"{count} crops")
    flipped = box_ops.flip_left_right(tf.constant(file["boxes"]))
    report.check("augmentation.npz:flip_boxes", flipped, file["flip_boxes"], atol=1e-6)
    for name, source in (("resize_up", "image"), ("resize_down", "large_image")):
        image = _without_augmentation(file[source])
        got = image[::16, ::16]
        want = file[f"{name}_sample"]
        report.check(f"augmentation.npz:{name}_sample", got, want, atol=1e-2)
        if name == "resize_up":
            key = "resize_up_true_shape"
            report.check_exact(f"augmentation.npz:{key}", [image.shape], file[key])


def _crop(report: Report, file: VectorFile, case: str) -> None:
    boxes = tf.constant(file["boxes"])
    size = tf.constant(file["image"].shape[:2])
    frame = crops.frame_of(tf.constant(file[f"{case}_window_yxhw"]), size)
    cut, kept = crops.crop_boxes(boxes, frame, min_overlap=0.0)
    name = f"augmentation.npz:{case}"
    report.check(f"{name}_boxes", cut[kept], file[f"{case}_boxes"], atol=1e-6)
    for key in ("labels", "weights"):
        report.check_exact(f"{name}_{key}", file[key][kept], file[f"{case}_{key}"])


def _without_augmentation(image) -> tf.Tensor:
    chain = SSDFPNAugment(flip_probability=0.0, crop=False)
    example = {"image": tf.constant(image), "boxes": tf.zeros([0, 4])}
    return chain(example, tf.constant([0, 0]))["image"]
