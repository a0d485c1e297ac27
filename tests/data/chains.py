"""What tests of several augmentation chains share."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import Image

BOXES = np.array([[0.1, 0.2, 0.6, 0.7], [0.3, 0.3, 0.9, 0.95]], np.float32)


def pixels(height: int, width: int) -> np.ndarray:
    """Make a smooth picture, uint8 [height, width, 3]."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(small.resize((width, height)))


def make_example(boxes=BOXES, height=60, width=80, encoding=None, image=None) -> dict:
    """Make an example with `image`, or `encoded` as "PNG" or "JPEG"."""
    image = pixels(height, width) if image is None else image
    picture = {"image": tf.constant(image)}
    if encoding:
        data = io.BytesIO()
        Image.fromarray(image).save(data, encoding)
        picture = {"encoded": tf.constant(data.getvalue())}
    count = len(boxes)
    return {
        **picture,
        "boxes": tf.constant(boxes, shape=[count, 4], dtype=tf.float32),
        "classes": tf.range(count),
        "is_crowd": tf.range(count) % 2 == 1,
        "area": tf.range(count, dtype=tf.float32) * 10,
    }


def run_many(chain, example: dict, number: int, first: int = 0) -> dict[str, np.ndarray]:
    """Run a chain with seeds (0, first)...; stacks `image`, `extent` and boxes (NaN: dropped)."""
    count = len(example["boxes"])

    def load(index):
        out = chain(example, tf.stack([tf.constant(0, tf.int64), index]))
        # Classes are row numbers here, which tell where a box came from.
        rows = tf.scatter_nd(out["classes"][:, tf.newaxis], out["boxes"], [count, 4])
        there = tf.scatter_nd(out["classes"][:, tf.newaxis], tf.ones_like(out["classes"]), [count])
        boxes = tf.where(there[:, tf.newaxis] > 0, rows, np.nan)
        return {"image": out["image"], "extent": out.get("extent", tf.ones([2])), "boxes": boxes}

    load = tf.autograph.experimental.do_not_convert(load)  # As the pipeline does.
    data = tf.data.Dataset.range(first, first + number).map(load, num_parallel_calls=2)
    return {key: value.numpy() for key, value in next(iter(data.batch(number))).items()}


def traced_shapes(chain) -> dict[str, tf.TensorShape]:
    """Trace a chain over pictures and objects of unknown number and size."""
    example = make_example(encoding="JPEG")
    signature = {
        key: tf.TensorSpec([None, *value.shape[1:]] if value.shape.rank else [], value.dtype)
        for key, value in example.items()
    }
    function = tf.function(chain, autograph=False).get_concrete_function(
        signature, tf.TensorSpec([2], tf.int64)
    )
    return {key: value.shape for key, value in function.structured_outputs.items()}


def check_boxes_lie_on_their_objects(chain, *, number: int, tolerance: float) -> None:
    """Let a chain move a white rectangle, and measures where it came to lie.

    Args:
        chain: without colour jitter, with neither mean nor deviation.
        number: of seeds.
        tolerance: pixels of the result.
    """
    box = np.array([[0.25, 0.4, 0.75, 0.55]], np.float32)
    image = np.zeros((120, 200, 3), np.uint8)
    image[30:90, 80:110] = 255
    got = run_many(chain, make_example(box, image=image), number)
    seen = 0
    for picture, boxes in zip(got["image"], got["boxes"], strict=True):
        white = picture[..., 0] > 127.5
        if np.isnan(boxes).any():
            continue
        seen += 1
        rows, columns = np.nonzero(white.any(1))[0], np.nonzero(white.any(0))[0]
        if len(rows):
            measured = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
            size = np.tile(picture.shape[:2], 2)
            np.testing.assert_allclose(boxes[0] * size, measured, atol=tolerance)
    assert seen > number / 2
