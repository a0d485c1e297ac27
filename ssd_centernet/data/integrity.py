"""Search for damaged records in a data folder."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import image as image_ops


def find_corrupt_records(data_dir: str, *, split: str, label_map: LabelMap) -> list[str]:
    """Read, parse and decode every record and name those that fail.

    TensorFlow's own errors do not name the file; call this after such an error to find the file.

    Args:
        data_dir: folder with the record files.
        split: what the names of the record files start with.
        label_map: from the data set's category ids to classes.

    Returns:
        One line for each record that fails: file, number of the record, reason.
    """
    problems = []
    for path in shards.find_shards(data_dir, split):
        number, iterator = 0, iter(tf.data.TFRecordDataset(path))
        while True:
            try:
                serialized = next(iterator)
                image_ops.decode_image(records.parse_example(serialized, label_map)["encoded"])
            except StopIteration:
                break
            except tf.errors.DataLossError as error:
                problems.append(f"{path}: record {number} and those after it: {error.message}")
                break
            except tf.errors.OpError as error:
                problems.append(f"{path}: record {number}: {error.message}")
            number += 1
    return problems
