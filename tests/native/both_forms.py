"""Random pictures and boxes through the graphs and through the compiled operations."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_centernet.data.augment.centernet import CropPadAugment, SquareCropAugment
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.augment.ssd_fpn import SSDFPNAugment
from ssd_centernet.data.augment.ssd_vgg import SSDVGGAugment
from ssd_centernet.native import library
from ssd_centernet.ops import matching

# Grey levels of 255: what the image may differ by, once its normalisation is undone.
TOLERANCE = 1e-3

CHAINS: dict[str, tuple[type, dict]] = {
    "ssd": (SSDAugment, {"image_size": (60, 75)}),
    "ssd, no jitter": (SSDAugment, {"image_size": (64, 48), "jitter": False}),
    "ssd, no crop": (SSDAugment, {"image_size": (48, 64), "crop": False}),
    "vgg": (SSDVGGAugment, {"image_size": (60, 75)}),
    "vgg, no colours": (
        SSDVGGAugment,
        {"image_size": (75, 40), "distort": False, "std": (2.0, 3.0, 4.0)},
    ),
    "vgg, last": (SSDVGGAugment, {"image_size": (40, 40), "distort_last": True}),
    "fpn": (SSDFPNAugment, {"image_size": (64, 64)}),
    "fpn, no crop": (
        SSDFPNAugment,
        {"image_size": (40, 70), "crop": False, "channels": "BGR", "scale": 2.0},
    ),
    "square": (SquareCropAugment, {"image_size": (64, 64)}),
    "square, wide": (
        SquareCropAugment,
        {
            "image_size": (48, 64),
            "jitter": False,
            "scale": 255.0,
            "mean": (0.4, 0.5, 0.6),
            "std": (0.2, 0.3, 0.2),
        },
    ),
    "scaled": (
        SquareCropAugment,
        {"image_size": (64, 80), "square_crop": False, "scales": (0.5, 2.0), "clip_each": False},
    ),
    "pad": (CropPadAugment, {"image_size": (64, 64)}),
    "pad, wide": (CropPadAugment, {"image_size": (48, 80), "jitter": False, "max_padding": 40}),
}


def make_chain(name: str, **settings) -> Callable:
    """Make a chain of the table, with more settings."""
    kind, own = CHAINS[name]
    return kind(**own, **settings)


def pictures(rng: np.random.Generator, number: int) -> Iterator[dict]:
    """Make examples: smooth, noisy and plain pictures of all sizes, and boxes of all kinds."""
    for _ in range(number):
        height, width = (int(n) for n in rng.integers(1, 160, 2))
        coarse = rng.integers(0, 256, (*rng.integers(1, 40, 2), 3), np.uint8)
        if rng.random() < 0.2:
            coarse[..., 1:] = coarse[..., :1]  # Greys have no hue.
        image = Image.fromarray(coarse).resize((width, height), rng.choice([0, 2]))
        data = io.BytesIO()
        options = {"quality": int(rng.integers(30, 100)), "subsampling": int(rng.integers(3))}
        image.save(data, "JPEG", **options) if rng.random() < 0.7 else image.save(data, "PNG")
        count = int(rng.choice([0, 1, 2, 3, 8]))
        yield {
            "encoded": data.getvalue(),
            "boxes": random_boxes(rng, count),
            "classes": np.arange(count, dtype=np.int32),
            "is_crowd": rng.random(count) < 0.2,
            "area": rng.random(count).astype(np.float32),
        }


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Make float32 [count, 4]; a third lies on a coarse grid, where overlaps are often equal."""
    corners = np.sort(rng.random((count, 2, 2)), axis=1)
    if rng.random() < 0.33:
        corners = np.sort(rng.integers(0, 9, (count, 2, 2)), axis=1) / 8
    return corners.reshape(count, 4).astype(np.float32)


_SIGNATURE = {
    "encoded": tf.TensorSpec([], tf.string),
    "boxes": tf.TensorSpec([None, 4], tf.float32),
    "classes": tf.TensorSpec([None], tf.int32),
    "is_crowd": tf.TensorSpec([None], tf.bool),
    "area": tf.TensorSpec([None], tf.float32),
}


@dataclasses.dataclass
class Difference:
    """What two forms of a chain differ by, of so many images."""

    images: int = 0
    pixels: float = 0.0
    boxes: float = 0.0
    decisions: int = 0


def compare_chain(chain: Callable, number: int, seed: int = 0) -> Difference:
    """Run both forms of a chain, as the input pipeline does, and compare what comes out."""

    def load(form: bool) -> tf.data.Dataset:
        # The same pictures for both.
        rng = np.random.default_rng(seed)
        examples = tf.data.Dataset.from_generator(
            lambda: pictures(rng, number), output_signature=_SIGNATURE
        )

        def call(index, example):
            with library.use(form):
                return chain(example, tf.stack([tf.constant(seed, tf.int64), index]))

        return examples.enumerate().map(call)

    found = Difference()
    to_grey_levels = np.asarray(chain.std) * getattr(chain, "scale", 255.0)
    for graph, compiled in zip(load(False), load(True), strict=True):
        found.images += 1
        same = all(
            np.array_equal(graph[key], compiled[key]) for key in ("classes", "is_crowd", "area")
        )
        found.decisions += not same
        pairs = [("boxes", "boxes")] if same else []
        pairs += [("pixels", "image")]
        for name, key in pairs:
            error = np.abs(graph[key].numpy() - compiled[key].numpy())
            error = error * to_grey_levels if key == "image" else error
            setattr(found, name, max(getattr(found, name), float(np.max(error, initial=0.0))))
        if "extent" in graph:
            found.decisions += not np.array_equal(graph["extent"], compiled["extent"])
    return found


def compare_matching(number: int, seed: int = 0) -> Difference:
    """Match random objects with random anchors in both forms."""
    rng, found = np.random.default_rng(seed), Difference()
    anchors = np.concatenate([random_boxes(rng, 300) for _ in range(6)])

    def run(form, boxes, classes, objects, forced, regions, last):
        with library.use(form):
            return matching.find_targets(
                boxes,
                classes,
                anchors,
                objects=objects,
                regions=regions,
                force_match=forced,
                last_claim_wins=last,
            )

    flags = [tf.TensorSpec([None], tf.bool)] * 3
    signature = [_SIGNATURE["boxes"], _SIGNATURE["classes"], *flags]
    forms = {
        (form, last): tf.function(
            lambda *args, form=form, last=last: run(form, *args, last),
            input_signature=signature,
            autograph=False,
        )
        for form in (False, True)
        for last in (False, True)
    }
    for index in range(number):
        count = int(rng.integers(0, 12))
        boxes = random_boxes(rng, count)
        if count and rng.random() < 0.5:
            picked = rng.integers(0, len(anchors), (count + 1) // 2)
            boxes[: len(picked)] = anchors[picked]
        chosen = [rng.random(count) < share for share in (0.9, 0.8, 0.2)]
        values = (boxes, rng.integers(0, 80, count).astype(np.int32), *chosen)
        graph, compiled = (forms[form, bool(index % 2)](*values) for form in (False, True))
        found.images += 1
        for k in range(2):
            found.decisions += int(np.sum(graph[k].numpy() != compiled[k].numpy()))
        error = np.abs(graph[2].numpy() - compiled[2].numpy())
        error = np.where(np.isfinite(error), error, 0.0)
        found.boxes = max(found.boxes, float(error.max(initial=0.0)))
    return found
