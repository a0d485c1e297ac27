"""One training batch, repeated for ever, to measure a step without its input pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gin
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
