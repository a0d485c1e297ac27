"""Records as other tools write them, field by field, for the tests of reading them."""

from __future__ import annotations

import functools
import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

BOXES = [[0.1, 0.2, 0.5, 0.6], [0.25, 0.5, 0.75, 1.0]]  # yxyx


@functools.cache
def picture(height: int = 30, width: int = 40, kind: str = "JPEG") -> bytes:
    """A small picture with some structure."""
    rng = np.random.default_rng(height * width)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
    stream = io.BytesIO()
    small.resize((width, height)).save(stream, kind)
    return stream.getvalue()


def feature(values) -> tf.train.Feature:
    """Texts, floats or whole numbers, as their first value says; a Feature as it is."""
    if isinstance(values, tf.train.Feature):
        return values
    values = list(values)
    if values and isinstance(values[0], bytes | str):
        texts = [v.encode() if isinstance(v, str) else v for v in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def record(number: int = 1, boxes=BOXES, labels=(1, 2), texts=("cat", "dog"), **changes) -> bytes:
    """A record of a picture of 40 x 30 pixels, as the Model Garden writes it.

    Args:
        number: its source id.
        boxes: yxyx fractions.
        labels: category ids, or None for none.
        texts: names, or None for none.
        **changes: fields by their names with __ for /, without image/; None leaves one out.
    """
    columns = np.asarray(boxes, float).reshape(-1, 4).T.tolist()
    fields = {
        "encoded": [picture()],
        "format": ["jpeg"],
        "filename": [f"{number}.jpg"],
        "source_id": [str(number)],
        "height": [30],
        "width": [40],
    }
    for side, column in zip(("ymin", "xmin", "ymax", "xmax"), columns, strict=True):
        floats = tf.train.FloatList(value=column)
        fields[f"object/bbox/{side}"] = tf.train.Feature(float_list=floats)
    # An empty list has a kind too.
    if labels is not None:
        fields["object/class/label"] = labels or tf.train.Feature(int64_list=tf.train.Int64List())
    if texts is not None:
        fields["object/class/text"] = texts or tf.train.Feature(bytes_list=tf.train.BytesList())
    fields |= {name.replace("__", "/"): value for name, value in changes.items()}
    made = {f"image/{k}": feature(v) for k, v in fields.items() if v is not None}
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write(path: Path, records, compression: str = "") -> Path:
    """Write a record file; `compression` is '', 'GZIP' or 'ZLIB'."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in records:
            writer.write(one)
    if compression:
        pack = {"GZIP": gzip.compress, "ZLIB": zlib.compress}[compression]
        path.write_bytes(pack(path.read_bytes()))
    return path


def write_labels(folder: Path, names=("cat", "dog"), name: str = "label_map.pbtxt") -> None:
    """Write a label map that numbers names from 1."""
    items = (f"item {{\n  id: {i}\n  name: '{n}'\n}}\n" for i, n in enumerate(names, 1))
    (folder / name).write_text("".join(items))
