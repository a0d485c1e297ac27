"""One TFRecord schema, with the field names of the Object Detection API and Model Garden.

Their shards are read as they are, and their tools can read ours. Writing takes plain
Python values; reading is a pure graph function for `tf.data`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ssd_centernet.data.scan import FLAT, SIDES, SLACK, SLACK_PIXELS
from ssd_centernet.labels import LabelMap

# Ids made from names lie in [2^52, 2^53): above every id that data sets number by hand, and still
# exact as a JSON number (a 64-bit float).
HASHED_ID_START = 1 << 52

_FORMATS = ("jpeg", "png")


def encode_example(example: Mapping) -> bytes:
    """Serialise one image and its objects as a tf.train.Example.

    Args:
        example: a mapping with
            `encoded`: bytes of a JPEG or PNG file;
            `format`: 'jpeg' or 'png';
            `filename`, `source_id`: str (an int source_id is written as its decimal);
            `height`, `width`: int, pixels;
            `boxes`: float [N, 4] yxyx, fractions of the image;
            `labels`: int [N], category ids of the data set (not classes 0..C-1);
            optional, each of length N: `texts` (names), `is_crowd` (bool), `area` (float,
            pixels^2), `difficult` (bool), `weight` (float).

    Returns:
        The serialised Example.

    Raises:
        ValueError: if a list and `boxes` differ in length, or the format is unknown.
    """
    boxes = np.asarray(example["boxes"], np.float32).reshape(-1, 4)
    if example["format"] not in _FORMATS:
        raise ValueError(f"format must be one of {_FORMATS}, got {example['format']!r}.")
    encoded = bytes(example["encoded"])
    features = {
        "image/encoded": _bytes([encoded]),
        "image/format": _bytes([example["format"]]),
        "image/filename": _bytes([example["filename"]]),
        "image/source_id": _bytes([str(example["source_id"])]),
        "image/key/sha256": _bytes([hashlib.sha256(encoded).hexdigest()]),
        "image/height": _ints([example["height"]]),
        "image/width": _ints([example["width"]]),
    }
    for column, name in enumerate(SIDES):
        features[f"image/object/bbox/{name}"] = _floats(boxes[:, column])
    for key, field, make in _OBJECT_LISTS:
        values = example.get(key) if key != "labels" else example["labels"]
        if values is None:
            continue
        if len(values) != len(boxes):
            raise ValueError(
                f"{key!r} has {len(values)} entries but there are {len(boxes)} boxes "
                f"(image {example['source_id']!r}); each box needs one."
            )
        features[field] = make(values)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


# Below a function of whoever reads records, AutoGraph would rewrite all of it: half a second of
# every command that draws or exports pictures.
@tf.autograph.experimental.do_not_convert
def parse_example(serialized: tf.Tensor, lookup: LabelMap | np.ndarray | tf.Tensor) -> dict:
    """Parse one record into an undecoded example; a pure graph function without Python.

    Corners beyond the image by rounding are clipped and boxes without area are left out, so that no
    degenerate box of another tool's records reaches the loss; `scan.summarize` counts them. What is
    no fraction of the image is an error. Missing fields: `is_crowd` is False, `area` is the area
    of the box, height and width are read from the image. A numeric `source_id` is used as it is;
    otherwise the id is a stable hash of source_id, or else of the file name, the sha256 key or the
    image itself, in [2^52, 2^53).

    Args:
        serialized: string scalar, a tf.train.Example.
        lookup: a LabelMap, or int [max id + 1] from category id to class or -1
            (`LabelMap.lookup()`). With a LabelMap, records that hold only
            `image/object/class/text` are read by name.

    Returns:
        A dict of `encoded` string scalar; `boxes` float32 [N, 4] yxyx in [0, 1]; `classes` int32
        [N] in 0..C-1; `is_crowd` bool [N]; `area` float32 [N], pixels^2 of the original image;
        `source_id` int64 scalar; `height`, `width` int32 scalars, pixels.

    Raises:
        tf.errors.InvalidArgumentError: at run time, if a category id or name is not in the label
            map, an object list and the boxes differ in length, or a corner is no fraction. That
            error does not know the file: `scan.summarize` finds the same and names it.

    Source: docs/reference/ssd_resnet34.md, section 7.1 (field names and defaults)
    """
    fields = tf.io.parse_single_example(serialized, _FEATURES)
    height, width = _image_size(fields)
    boxes = tf.stack([fields[f"image/object/bbox/{k}"] for k in SIDES], axis=1)
    _assert_fractions(boxes, fields, height, width)
    boxes = tf.clip_by_value(boxes, 0.0, 1.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    num_boxes = tf.shape(boxes)[0]
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    given_area = fields["image/object/area"]
    # Fill up to one entry a box: all of it where the field is missing, nothing where it is whole.
    area = tf.concat([given_area, (sides[:, 0] * sides[:, 1] * pixels)[tf.size(given_area) :]], 0)
    is_crowd = fields["image/object/is_crowd"] > 0
    is_crowd = tf.concat([is_crowd, tf.zeros([num_boxes - tf.size(is_crowd)], tf.bool)], 0)
    objects = {
        "boxes": boxes,
        "classes": _classes(fields, lookup, num_boxes),
        "is_crowd": is_crowd,
        "area": area,
    }
    return {
        "encoded": fields["image/encoded"],
        **_without_degenerate(objects, sides),
        "source_id": _source_id(fields),
        "height": height,
        "width": width,
    }


def parse_picture(serialized: tf.Tensor) -> dict:
    """Parse what a record says about its picture alone.

    Args:
        serialized: as in `parse_example`.

    Returns:
        A dict of `encoded`, `source_id`, `height`, `width`, as `parse_example` gives them.
    """
    wanted = ("image/encoded", "image/height", "image/width", *_NAMES)
    fields = tf.io.parse_single_example(serialized, {name: _FEATURES[name] for name in wanted})
    height, width = _image_size(fields)
    encoded, source_id = fields["image/encoded"], _source_id(fields)
    return {"encoded": encoded, "source_id": source_id, "height": height, "width": width}


# --- writing ---------------------------------------------------------------------------------


def _bytes(values) -> tf.train.Feature:
    encoded = [v.encode("utf-8") if isinstance(v, str) else v for v in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))


def _ints(values) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))


def _floats(values) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[float(v) for v in values]))


_OBJECT_LISTS = (
    ("labels", "image/object/class/label", _ints),
    ("texts", "image/object/class/text", _bytes),
    ("is_crowd", "image/object/is_crowd", _ints),
    ("area", "image/object/area", _floats),
    ("difficult", "image/object/difficult", _ints),
    ("weight", "image/object/weight", _floats),
)

# --- reading ---------------------------------------------------------------------------------


def _list_of(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


_NAMES = ("image/source_id", "image/filename", "image/key/sha256")
_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    **{name: tf.io.FixedLenFeature([], tf.string, "") for name in _NAMES},
    "image/height": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/width": tf.io.FixedLenFeature([], tf.int64, 0),
    **{f"image/object/bbox/{k}": _list_of(tf.float32) for k in SIDES},
    "image/object/class/label": _list_of(tf.int64),
    "image/object/class/text": _list_of(tf.string),
    "image/object/is_crowd": _list_of(tf.int64),
    "image/object/area": _list_of(tf.float32),
}


def _image_size(fields: dict) -> tuple[tf.Tensor, tf.Tensor]:
    height = tf.cast(fields["image/height"], tf.int32)
    width = tf.cast(fields["image/width"], tf.int32)

    def read() -> tuple[tf.Tensor, tf.Tensor]:
        # The kernel behind decode_png reads JPEG too. This is the slow way, for foreign records.
        shape = tf.shape(tf.io.decode_png(fields["image/encoded"], channels=3))
        return shape[0], shape[1]

    return tf.cond((height > 0) & (width > 0), lambda: (height, width), read)


def _assert_fractions(boxes: tf.Tensor, fields: dict, height: tf.Tensor, width: tf.Tensor) -> None:
    """Fail at run time where corners are no fractions or upside down, NaN included."""
    extent = tf.cast(tf.stack([height, width, height, width]), tf.float32)
    slack = tf.where(extent > 1.0, tf.maximum(SLACK, SLACK_PIXELS / extent), SLACK)
    ordered = boxes[:, 2:] - boxes[:, :2] >= -FLAT
    # Comparisons with NaN are false.
    inside = (boxes >= -slack) & (boxes <= 1.0 + slack)
    tf.debugging.Assert(
        tf.reduce_all(inside) & tf.reduce_all(ordered),
        [
            "Corners ymin, xmin, ymax, xmax of a box are no fractions 0..1 of the picture, or the "
            "larger one stands first. source_id:",
            fields["image/source_id"],
        ],
        name="corners_are_fractions",
    )


def _source_id(fields: dict) -> tf.Tensor:
    text = fields["image/source_id"]

    def hashed() -> tf.Tensor:
        name = text
        for key in ("image/filename", "image/key/sha256", "image/encoded"):
            name = tf.where(tf.equal(name, ""), fields[key], name)
        return HASHED_ID_START + tf.strings.to_hash_bucket_fast(name, HASHED_ID_START)

    # 15 digits stay below the hashed ids.
    is_number = tf.strings.regex_full_match(text, "[0-9]{1,15}")
    return tf.cond(is_number, lambda: tf.strings.to_number(text, tf.int64), hashed)


def _classes(fields: dict, lookup: LabelMap | np.ndarray | tf.Tensor, num_boxes) -> tf.Tensor:
    labels, texts = fields["image/object/class/label"], fields["image/object/class/text"]
    if isinstance(lookup, LabelMap):
        table, described = lookup.lookup(), lookup.describe()
        by_name = (tf.size(labels) == 0) & (tf.size(texts) > 0)
        labels = tf.cond(by_name, lambda: _labels_of(texts, lookup), lambda: labels)
    else:
        table, described = lookup, "given as a lookup vector"
    crowds, areas = (tf.size(fields[f"image/object/{name}"]) for name in ("is_crowd", "area"))
    sizes = tf.stack([tf.size(labels), crowds, areas])
    optional = tf.constant([False, True, True])
    tf.debugging.Assert(
        tf.reduce_all(tf.equal(sizes, num_boxes) | (optional & tf.equal(sizes, 0))),
        [
            "The numbers of class labels, is_crowd or area and boxes of the record differ (these "
            "three, boxes): ",
            sizes,
            num_boxes,
            "source_id:",
            fields["image/source_id"],
        ],
        name="one_label_per_box",
    )
    # One entry of -1 on either side catches every id outside the table.
    table = tf.pad(tf.cast(table, tf.int32), [[1, 1]], constant_values=-1)
    last = tf.cast(tf.size(table) - 1, tf.int64)
    classes = tf.gather(table, tf.clip_by_value(labels + 1, 0, last))
    unknown = tf.reduce_min(tf.where(classes < 0, labels, tf.int64.max))
    # Strings and int32 only: with these the assertion costs no conditional.
    tf.debugging.Assert(
        tf.reduce_all(classes >= 0),
        [
            "Category id ",
            tf.cast(unknown, tf.int32),
            f"is not in the label map ({described}). Use the label map that was written with the "
            "data, or convert the data again. source_id:",
            fields["image/source_id"],
            "class texts of the image:",
            texts,
        ],
        name="category_in_label_map",
    )
    return classes


def _labels_of(texts: tf.Tensor, label_map: LabelMap) -> tf.Tensor:
    """Return category ids int64 [N] of names, -1 for a name that the map does not have."""
    others = label_map.other_names
    names = tf.constant([*label_map.names, *others.values()])
    ids = tf.constant([*label_map.ids, *others], tf.int64)
    matches = tf.equal(texts[:, tf.newaxis], names[tf.newaxis])
    ids = tf.gather(ids, tf.argmax(matches, axis=1))
    return tf.where(tf.reduce_any(matches, axis=1), ids, tf.constant(-1, tf.int64))


def _without_degenerate(objects: dict, sides: tf.Tensor) -> dict:
    """Leave out boxes without area."""
    usable = tf.reduce_all(sides > 0.0, axis=1)
    keys = tuple(objects)
    values = tuple(objects[key] for key in keys)

    def filtered() -> tuple:
        where = tf.where(usable)[:, 0]
        return tuple(tf.gather(value, where) for value in values)

    values = tf.cond(tf.reduce_all(usable), lambda: values, filtered)
    return dict(zip(keys, values, strict=True))
