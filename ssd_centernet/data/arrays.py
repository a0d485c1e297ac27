"""Images and boxes in memory, written as records so that they are trained on like any others."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from ssd_centernet.data.convert import convert_coco
from ssd_centernet.data.readers.source import AnnotationSource, EncodedImages
from ssd_centernet.labels import LabelMap
from ssd_centernet.plain_text import counted

UNITS = ("pixels", "fractions")
# How the four numbers of a box are meant -> where left, top and the other two stand.
ORDERS = ("xyxy", "yxyx", "xywh", "cxcywh")
_NAME = "the arrays"
# Fractions are often rounded.
_BEYOND = 0.01


def write_arrays(
    folder: str | os.PathLike,
    images: Sequence[np.ndarray],
    boxes: Sequence,
    classes: Sequence,
    *,
    label_map: LabelMap,
    units: str,
    order: str,
    is_crowd: Sequence | None = None,
    split: str = "train",
) -> dict:
    """Write images and their boxes as records, with the checks of every conversion.

    Args:
        folder: to write to, see `convert_coco`.
        images: N arrays uint8 [H, W, 3] of any sizes.
        boxes: N arrays [M, 4] of any M, or None for an image without objects.
        classes: N lists of M names of the label map, or of its class numbers 0..C-1.
        label_map: the classes.
        units: 'pixels' or 'fractions' of the image's width and height.
        order: 'xyxy' (left, top, right, bottom), 'yxyx' (top, left, bottom, right), 'xywh' (left,
            top, width, height) or 'cxcywh' (centre, width, height).
        is_crowd: N lists of M booleans; None means that no box is a crowd region.
        split: name of the split.

    Returns:
        The content of `coco_<split>.info.json`.

    Raises:
        ValueError: lengths differ, a class is unknown, or boxes are not in these units or this
            order; names the image, the box and its numbers.
    """
    for name, value, known in (("units", units, UNITS), ("order", order, ORDERS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, known))}.")
    lists = {"boxes": boxes, "classes": classes, "is_crowd": is_crowd}
    for name, values in lists.items():
        if values is not None and len(values) != len(images):
            raise ValueError(
                f"{name} has {counted(len(values), 'entry', 'entries')} for "
                f"{counted(len(images), 'image')}; expected one for each image, which lists those "
                "of all its objects."
            )
    if not len(images):
        raise ValueError("there is no image; give at least one.")
    rows = [_rows(place, boxes[place], classes[place], label_map) for place in range(len(images))]
    crowd = [None] * len(images) if is_crowd is None else is_crowd
    _check_units([box for box, _ in rows], units)
    entries, annotations = [], []
    for place, (image, (box, ids), marks) in enumerate(zip(images, rows, crowd, strict=True)):
        height, width = image.shape[:2]
        entry = {"id": place + 1, "file_name": f"{place}.png", "width": width, "height": height}
        entries.append(entry)
        pixels = _to_xywh(place, box, order) * (
            [width, height, width, height] if units == "fractions" else 1.0
        )
        if marks is not None and len(marks) != len(box):
            raise ValueError(f"image {place} has {len(box)} boxes and {len(marks)} is_crowd.")
        marks = [False] * len(box) if marks is None else marks
        for numbers, category, mark in zip(pixels.tolist(), ids, marks, strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": place + 1, "category_id": category}
                | {"bbox": numbers, "area": numbers[2] * numbers[3], "iscrowd": int(bool(mark))}
            )
    content = {"images": entries, "annotations": annotations}
    content["categories"] = label_map.to_categories()
    names = [entry["file_name"] for entry in entries]
    source = AnnotationSource(_NAME, os.fspath(folder), content, encoded=_encoded(names, images))
    return convert_coco(source, folder, folder, split=split, progress=False)


def _encoded(names: Sequence[str], images: Sequence[np.ndarray]) -> EncodedImages:
    def read() -> Iterator[tuple[str, bytes]]:
        for name, image in zip(names, images, strict=True):
            yield name, tf.io.encode_png(image, compression=1).numpy()

    stats = {
        name: (image.nbytes, zlib.crc32(np.ascontiguousarray(image)))
        for name, image in zip(names, images, strict=True)
    }
    return EncodedImages(stats, read)


def _rows(place: int, boxes, classes, label_map: LabelMap) -> tuple[np.ndarray, list[int]]:
    """Return the boxes [M, 4] of an image and the ids of their classes."""
    try:
        boxes = np.asarray([] if boxes is None else boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the boxes of image {place} are {str(boxes)[:60]}; expected four numbers for each "
            "object. Were boxes and classes exchanged?"
        ) from error
    boxes = boxes.reshape(0, 4) if not boxes.size else boxes
    classes = [] if classes is None else np.asarray(classes).ravel().tolist()
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(classes):
        raise ValueError(
            f"image {place} has boxes of shape {boxes.shape} and {len(classes)} classes; expected "
            "[M, 4] and M."
        )
    bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(bad):
        raise ValueError(f"box {bad[0]} of image {place} is not finite: {_told(boxes[bad[0]])}.")
    ids = []
    for number, value in enumerate(classes):
        if isinstance(value, str) and value in label_map.names:
            ids.append(label_map.ids[label_map.class_of(value)])
        elif not isinstance(value, str | bool) and value in range(label_map.num_classes):
            ids.append(label_map.ids[int(value)])
        else:
            raise ValueError(
                f"box {number} of image {place} has the class {value!r}; expected a name "
                f"({label_map.describe()}) or a number in 0..{label_map.num_classes - 1}."
            )
    return boxes, ids


def _check_units(boxes: Sequence[np.ndarray], units: str) -> None:
    joined = np.concatenate(boxes)
    if not len(joined):
        return
    if units == "pixels" and np.abs(joined).max() <= 1.0:
        raise ValueError(
            f"units='pixels', but all boxes ({len(joined)}) lie in 0..1, such as "
            f"{_told(joined[0])}: they are fractions. Give units='fractions'."
        )
    if units == "fractions" and np.abs(joined).max() > 1.0 + _BEYOND:
        place, number = next(
            (place, int(np.argmax(np.abs(box).max(axis=1))))
            for place, box in enumerate(boxes)
            if len(box) and np.abs(box).max() > 1.0 + _BEYOND
        )
        raise ValueError(
            f"units='fractions', but box {number} of image {place} is "
            f"{_told(boxes[place][number])}. Give units='pixels', or divide by width and height."
        )


def _to_xywh(place: int, boxes: np.ndarray, order: str) -> np.ndarray:
    first, second = boxes[:, :2], boxes[:, 2:]
    if order == "yxyx":
        first, second = first[:, ::-1], second[:, ::-1]
    if order in ("xyxy", "yxyx"):
        backwards = np.flatnonzero((second < first).any(axis=1))
        if len(backwards):
            raise ValueError(
                f"box {backwards[0]} of image {place} is {_told(boxes[backwards[0]])}: as "
                f"order={order!r} it ends before it begins. Is it order='xywh'?"
            )
        second = second - first
    elif order == "cxcywh":
        first = first - second / 2
    return np.concatenate([first, second], axis=1)


def _told(box: np.ndarray) -> str:
    return f"[{', '.join(f'{number:g}' for number in box.tolist())}]"
