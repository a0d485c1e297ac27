"""The clean data that inputs of every format hold, and how the converter's output is read."""

from __future__ import annotations

import functools
import io
import json
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.labels import LabelMap
from tests.mutations.judge import Meaning, Outcome

# Name, width, height. No two sides are alike, so that exchanged ones show.
IMAGES = (("one", 64, 40), ("two", 56, 36), ("three", 48, 62), ("four", 60, 44))
CLASSES = ("cat", "dog", "oiseau bleuté")
# Image, class, left, top, width, height in pixels, crowd. Most are far from the left top corner:
# read as corners, or in another order, they pass the border.
OBJECTS = (
    (0, 0, 30, 9, 25, 20, False),
    (0, 1, 36, 20, 22, 17, False),
    (0, 2, 5, 21, 16, 14, False),
    (0, 0, 41, 2, 20, 11, False),
    (1, 1, 29, 12, 24, 20, False),
    (1, 0, 33, 3, 18, 15, False),
    (1, 2, 9, 17, 21, 16, False),
    (2, 2, 22, 33, 19, 26, False),
    (2, 0, 25, 11, 21, 30, False),
    (2, 1, 4, 38, 27, 21, False),
    (3, 1, 31, 18, 26, 24, False),
    (3, 0, 28, 7, 29, 13, False),
    (3, 2, 35, 23, 17, 19, False),
    (3, 1, 2, 26, 23, 15, True),
)


@functools.cache
def picture(number: int, kind: str = "PNG") -> bytes:
    """Return the file of an image of `IMAGES`."""
    _, width, height = IMAGES[number]
    noise = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(stream, kind)
    return stream.getvalue()


def pictures(folder: str) -> dict[str, bytes]:
    """Return path -> bytes of all images."""
    return {f"{folder}/{name}.png": picture(i) for i, (name, _, _) in enumerate(IMAGES)}


def convert(annotations: Path, image_dir: Path | None = None, **options) -> Outcome:
    """Convert annotations as the command does, and read what training and evaluation would see."""
    output = annotations.parent / "mutation-output"
    try:
        info = convert_annotations(
            annotations,
            output,
            image_dir=image_dir,
            num_shards=1,
            workers=1,
            progress=False,
            **options,
        )
        meaning = read_converted(output)
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return Outcome(meaning, info["report"])


def read_converted(folder: Path, prefix: str = "coco_train") -> Meaning:
    """Return what records say; the ground truth beside them must say the same."""
    labels = LabelMap.from_pbtxt(folder / "mscoco_label_map.pbtxt")
    images = {}
    for example in read_examples(folder / f"{prefix}.record-00000-of-00001"):
        name, objects = objects_of(example, labels)
        assert name not in images, f"{name} is in the records twice"
        images[name] = objects
    truth = json.loads((folder / f"{prefix}.annotations.json").read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    told: dict[str, list] = {name: [] for name in names.values()}
    for one in truth["annotations"]:
        label = labels.names[labels.to_class(one["category_id"])]
        told[names[one["image_id"]]].append((label, *one["bbox"], bool(one["iscrowd"])))
    assert told.keys() == images.keys(), f"records have {images.keys()}, the truth {told.keys()}"
    for name, objects in images.items():
        _assert_equal(objects, told[name])
    rounded = {name: tuple(sorted(map(_rounded, objects))) for name, objects in images.items()}
    return Meaning(rounded, labels.names)


def _rounded(one: tuple) -> tuple:
    return one[0], *(round(value, 1) for value in one[1:5]), one[5]


def _assert_equal(objects: list[tuple], others: list[tuple]) -> None:
    assert len(objects) == len(others), f"records have {objects}, the ground truth {others}"
    for one, other in zip(objects, others, strict=True):
        near = np.allclose(one[1:5], other[1:5], atol=0.01)
        assert near and one[::5] == other[::5], f"records have {one}, the ground truth {other}"


def read_examples(path: Path) -> list[tf.train.Example]:
    """Return the Examples of a record file."""
    data, position, found = path.read_bytes(), 0, []
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        found.append(tf.train.Example.FromString(data[position + 12 : position + 12 + length]))
        position += 16 + length
    return found


def objects_of(example: tf.train.Example, labels: LabelMap) -> tuple[str, list[tuple]]:
    """Return the file name and the objects of a record: class, left, top, width, height, crowd."""
    fields = example.features.feature
    width, height = (fields[f"image/{side}"].int64_list.value[0] for side in ("width", "height"))
    sides = ("xmin", "ymin", "xmax", "ymax")
    corners = [fields[f"image/object/bbox/{side}"].float_list.value for side in sides]
    ids = fields["image/object/class/label"].int64_list.value
    crowds = fields["image/object/is_crowd"].int64_list.value
    objects = []
    for label, crowd, x1, y1, x2, y2 in zip(ids, crowds, *corners, strict=True):
        box = (x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height)
        name = labels.names[labels.to_class(label)]
        objects.append((name, *box, bool(crowd)))
    return fields["image/filename"].bytes_list.value[0].decode(), objects


def pick(rng: random.Random, values):
    """Return one of some values."""
    return rng.choice(list(values))
