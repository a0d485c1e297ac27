"""Pictures to check an export on: from records, or rendered where there are none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.data.synthetic import make_synthetic
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import image as image_ops


def pictures_of_records(
    data_dir: str | os.PathLike,
    split: str,
    label_map: LabelMap,
    count: int,
    *,
    of_all_files: bool = False,
) -> list[np.ndarray]:
    """Read the first images of a split, or the first ones of all its record files.

    Args:
        data_dir: folder of converted data.
        split: what the names of its record files start with.
        label_map: of the data.
        count: how many, at most.
        of_all_files: whether they are taken from the record files in turn.

    Returns:
        uint8 [H, W, 3] each; the same at every call.

    Raises:
        FileNotFoundError: no such data.
    """
    files = shards.find_shards(data_dir, split)
    if of_all_files:
        packed = shards.compression(files)
        serialized = tf.data.Dataset.from_tensor_slices(list(files)).interleave(
            lambda file: tf.data.TFRecordDataset(file, compression_type=packed),
            cycle_length=len(files),
            num_parallel_calls=None,
        )
    else:
        serialized = shards.read_records(files)
    examples = serialized.take(count).map(lambda text: records.parse_example(text, label_map))
    return [image_ops.decode_image(example["encoded"]).numpy() for example in examples]


def spread(items: Sequence, count: int) -> list:
    """Take at most `count` items at even distances, the first one among them."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def rendered_pictures(count: int) -> list[np.ndarray]:
    """Render scenes of shapes, with which random or foreign weights can be checked too.

    Args:
        count: how many, at least 1.

    Returns:
        uint8 [H, W, 3] each, of different sizes; the same at every call.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_synthetic(folder, num_train=1, num_val=count, image_size=(200, 400), seed=11)
        paths = sorted(Path(folder, "val").iterdir())
        return [image_ops.decode_image(tf.io.read_file(str(path))).numpy() for path in paths]
