"""Batches without an input pipeline: the first one of the data for ever, or one of noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet.data.pipeline import training_batches


@gin.register
def fake_batches(
    data_dir: str, *, batches: Callable = training_batches, start_example: int = 0, **options: Any
) -> tf.data.Dataset:
    """Repeat the first training batch, so that reading and augmenting cost nothing.

    A resumed run goes on with the same batch.

    Args:
        data_dir: folder with the record files.
        batches: `training_batches` or a function like it; makes the batch.
        start_example: has no effect.
        **options: arguments of `batches`.

    Returns:
        Dataset of batches with the keys and static shapes of those of `batches`.

    Raises:
        FileNotFoundError: no folder, or no complete set of record files in it.
        ValueError: see `batches`.

    Source: docs/reference/ssd_resnet34.md, section 7.2
    """
    del start_example
    dataset = batches(data_dir, **options)
    return dataset.take(1).cache().repeat().with_options(dataset.options())


def random_batch(
    image_size: tuple[int, int],
    counts: Sequence[int],
    *,
    num_classes: int,
    max_boxes: int | None = None,
    seed: int = 0,
) -> dict[str, tf.Tensor]:
    """Make a batch of noise with random objects, to try or to measure a step without data.

    Args:
        image_size: (height, width) of the network's input.
        counts: how many objects each image has.
        num_classes: C.
        max_boxes: rows of objects, by default as many as the fullest image has. Those beyond an
            image's own hold nonsense: nothing may look at them.
        seed: of noise and objects.

    Returns:
        What a training batch holds, without targets.
    """
    rng = np.random.default_rng(seed)
    size, rows = len(counts), max_boxes or max(counts)
    low = rng.uniform(0.0, 0.6, (size, rows, 2))
    extent = rng.uniform(0.1, 0.4, low.shape)
    return {
        "image": tf.constant(rng.standard_normal((size, *image_size, 3)), tf.float32),
        "extent": tf.ones([size, 2]),
        "boxes": tf.constant(np.concatenate([low, low + extent], axis=-1), tf.float32),
        "classes": tf.constant(rng.integers(0, num_classes, (size, rows)), tf.int32),
        "is_crowd": tf.zeros([size, rows], tf.bool),
        "area": tf.constant(extent.prod(axis=-1) * np.prod(image_size), tf.float32),
        "valid": tf.constant(np.arange(rows) < np.array(counts)[:, np.newaxis]),
        "source_id": tf.range(size, dtype=tf.int64),
        "height": tf.fill([size], image_size[0]),
        "width": tf.fill([size], image_size[1]),
    }
