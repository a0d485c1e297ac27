"""Annotations of a COCO json, read the same for training and for the ground truth of evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssd_centernet.data.box_units import check_units
from ssd_centernet.data.readers.coco_entries import (
    CategoryEntry,
    Ids,
    ImageEntry,
    by_file_name,
    canonical,
    find_file_name,
)
from ssd_centernet.data.readers.coco_evidence import check_areas, check_outlines
from ssd_centernet.data.readers.json_file import shown
from ssd_centernet.data.readers.masks import Box, box_around, box_around_turned
from ssd_centernet.data.readers.source import COPY
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_box, read_flag, read_number

NOT_LISTED = "image_id is not listed"
_NO_AREA = "a box of no width or height, kept (nothing can match it)"
_OUTSIDE = "a box outside of its image, kept (nothing can match it)"
# Segmentations are compared with about this many boxes of a file, areas with ten times as many.
_COMPARED = 2000
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))


class CocoObject(NamedTuple):
    """One annotation: positions of its image and category, and what is known of it.

    `box` is x, y, width, height in pixels; `area` and `is_crowd` are None if the file lacks them.
    """

    image: int
    category: int
    box: tuple[float, float, float, float]
    area: float | None
    is_crowd: bool | None
    own_id: object


class ObjectReader:
    """Read annotations against the listed images and categories.

    Args:
        images: the listed images.
        owners: see `merge_images`.
        categories: the listed categories.
        report: counts what was left out or repaired.
        origin: name of the file in messages.
        strict: refuse an annotation without a usable box or image_id, instead of leaving it out.
    """

    def __init__(
        self,
        images: Sequence[ImageEntry],
        owners: Sequence[int],
        categories: Sequence[CategoryEntry],
        report: Report,
        origin: str,
        *,
        strict: bool = False,
    ) -> None:
        self._images, self._owners, self._categories = images, owners, categories
        self._report, self._origin, self._strict = report, origin, strict
        self._image_ids = Ids(image.original_id for image in images)
        self._category_ids = Ids(category.original_id for category in categories)
        self._image_names = by_file_name(images)
        self._category_names = {c.name: i for i, c in enumerate(categories)}
        if len(self._category_names) < len(categories):  # Names of several mean none of them.
            self._category_names = {}
        # Categories that are not listed: the value -> places of the annotations.
        self.unknown: dict[str, list[str]] = {}

    def read(self, annotations: Sequence[Any]) -> list[CocoObject]:
        """Return the objects in the order of the file, without exact copies.

        Annotations of categories that are not listed are left out, and named in `unknown`.

        Raises:
            ValueError: an entry is no object, or a flag is neither 0 nor 1; areas or segmentations
                show that boxes are in another order; with `strict`, also an annotation without an
                image_id or a usable box.
        """
        objects, seen, report = [], set(), self._report
        outlines: list[tuple[int, Box]] = []
        # Nearly all ids are plain numbers: these need no more than a look into a table.
        images = {n: self._owners[i] for n, i in self._image_ids.plain().items()}
        categories = self._category_ids.plain()
        every = max(1, len(annotations) // _COMPARED)
        for position, annotation in enumerate(annotations):
            if type(annotation) is not dict and not isinstance(annotation, Mapping):
                raise ValueError(
                    f"{self._origin}: entry {position} of 'annotations' is {shown(annotation)}, "
                    "expected an object with image_id, category_id and bbox."
                )
            value = annotation.get("image_id")
            image = images.get(value, -1) if type(value) is int else -1
            if image < 0:
                image = self._find_image(annotation, position)
            if image < 0:
                item = f"{_place(annotation, position)}: {shown(_image_id(annotation))}"
                report.add("dropped boxes", NOT_LISTED, item)
                continue
            value = annotation.get("category_id")
            category = categories.get(value, -1) if type(value) is int else -1
            if category < 0:
                category = self._find_category(annotation, position, image)
            box = self._box(annotation, position, image)
            if box is None or category < 0:
                continue
            crowd = self._is_crowd(annotation, position, image)
            key = (image, category, box, bool(crowd))
            if key in seen:
                report.add("repaired boxes", COPY, self._where(annotation, position, image))
                continue
            seen.add(key)
            if position % every == 0 and annotation.get("segmentation"):
                around = box_around(annotation["segmentation"])
                outlines += [] if around is None else [(len(objects), around)]
            area, own_id = read_number(annotation.get("area")), annotation.get("id")
            objects.append(CocoObject(image, category, box, area, crowd, own_id))
        self._check_evidence(objects, outlines)
        return objects

    def _check_evidence(self, objects: list[CocoObject], outlines: list[tuple[int, Box]]) -> None:
        """Check boxes against areas and outlines, for objects spread over the whole file."""

        def place(one: CocoObject) -> str:
            entry = self._images[one.image]
            return f"annotation {one.own_id} of {entry.file_name or entry.original_id}"

        some = objects[:: max(1, len(objects) // (10 * _COMPARED))]
        areas = np.array([np.nan if one.area is None else one.area for one in some], np.float64)
        boxes = np.array([one.box for one in some], np.float64).reshape(-1, 4)
        check_areas(boxes, areas, lambda i: place(some[i]), self._origin)
        having = [objects[index] for index, _ in outlines]
        boxes = np.array([one.box for one in having], np.float64).reshape(-1, 4)
        others = np.array([around for _, around in outlines], np.float64).reshape(-1, 4)
        note = check_outlines(boxes, others, lambda i: place(having[i]), self._origin)
        if note:
            reason = "bbox is not the box around the segmentation: bbox is used"
            self._report.add("notes", reason, note)

    def _where(self, annotation: Mapping, position: int, image: int) -> str:
        entry = self._images[image]
        name = entry.file_name or f"image {entry.original_id}"
        return f"{_place(annotation, position)} of {name}"

    def _find_image(self, annotation: Mapping, position: int) -> int:
        value = annotation.get("image_id")
        index = self._image_ids.find(value)
        if index >= 0:
            return self._owners[index]
        value = _image_id(annotation)
        if isinstance(value, str):
            index = find_file_name(self._image_names, value)
            if index >= 0:
                reason = "image_id is a file name: matched with file_name"
                item = f"{_place(annotation, position)}: {value}"
                self._report.add("notes", reason, item)
                return self._owners[index]
        if self._strict and canonical(value) is None:
            raise ValueError(
                f"{self._origin}: every annotation needs an integer 'image_id' or a file name, and "
                f"{_place(annotation, position)} has {shown(value)}."
            )
        return -1

    def _find_category(self, annotation: Mapping, position: int, image: int) -> int:
        value = annotation.get("category_id")
        index = self._category_ids.find(value)
        if index >= 0:
            return index
        if isinstance(value, str) and value in self._category_names:
            reason = "category_id is a name: matched with the name of a category"
            item = f"{self._where(annotation, position, image)}: {value}"
            self._report.add("notes", reason, item)
            return self._category_names[value]
        places = self.unknown.setdefault(shown(value), [])
        places.append(self._where(annotation, position, image))
        return -1

    def _box(self, annotation: Mapping, position: int, image: int) -> tuple | None:
        value, report = annotation.get("bbox"), self._report
        if "bbox_mode" in annotation or "bbox_format" in annotation:
            self._check_mode(annotation, position, image)
        box = read_box(value)
        if box is None and isinstance(value, Mapping):
            box = _box_of_corners(value)
        if box is None or not any(box):
            around = box_around(annotation.get("segmentation"))
            if around is None and box is None:
                return self._no_box(annotation, position, image)
            if around is not None:
                reason = "no usable bbox: the box around its polygon or mask is taken"
                report.add("repaired boxes", reason, self._where(annotation, position, image))
                return around
        elif type(value) is not list or len(value) != 4 or str in map(type, value):
            reason = "bbox is an object or text: read as its four numbers"
            item = f"{self._where(annotation, position, image)}: {shown(value)}"
            report.add("repaired boxes", reason, item)
        attributes = annotation.get("attributes")
        degrees = read_number(attributes.get("rotation")) if isinstance(attributes, dict) else 0
        if degrees:
            # CVAT writes the box before it is turned, and the angle beside it.
            reason = "turned box: the upright box around it is taken"
            report.add("repaired boxes", reason, self._where(annotation, position, image))
            return box_around_turned(box, degrees, around="centre")
        return box

    def _check_mode(self, annotation: Mapping, position: int, image: int) -> None:
        """Raise an error if an annotation says that its box is no x, y, width, height in pixels."""
        for key in ("bbox_mode", "bbox_format"):
            mode = str(annotation.get(key, "")).rpartition(".")[2].strip().casefold()
            # 1 is detectron2's number of it.
            if mode not in ("", "none", "1", "xywh", "xywh_abs", "coco"):
                raise ValueError(
                    f"{self._origin}: {self._where(annotation, position, image)} has {key} "
                    f"{shown(annotation[key])}, so its bbox {shown(annotation.get('bbox'))} is not "
                    "x, y, width, height in pixels (xywh; 1 in detectron2). Convert the boxes, and "
                    f"leave {key} out."
                )

    def _no_box(self, annotation: Mapping, position: int, image: int) -> None:
        value = annotation.get("bbox")
        reason = "bbox is not four finite numbers [x, y, width, height]"
        where = self._where(annotation, position, image)
        if self._strict:
            raise ValueError(
                f"{self._origin}: {where}: {reason}, it is {shown(value)}. Every annotation needs "
                "a 'bbox' of four numbers in pixels, or a polygon."
            )
        self._report.add("dropped boxes", reason, f"{where}: {shown(value)}")

    def _is_crowd(self, annotation: Mapping, position: int, image: int) -> bool | None:
        flags = []
        if "ignore" not in annotation and type(annotation.get("iscrowd")) is int:
            flag = annotation["iscrowd"]
            if flag == 0 or flag == 1:
                return flag == 1
        for key in ("iscrowd", "ignore"):
            value = annotation.get(key)
            if value is None or value == "":
                flags.append(None)
                continue
            flag = read_flag(value)
            if flag is None:
                raise ValueError(
                    f"{self._origin}: {self._where(annotation, position, image)} has {key} "
                    f"{shown(value)}, expected 0 or 1 (or true or false). Correct it in the file."
                )
            flags.append(flag)
        crowd, ignored = flags
        if ignored and not crowd:
            reason = "ignore is 1: read as a crowd region"
            self._report.add("notes", reason, self._where(annotation, position, image))
            return True
        return crowd


def _image_id(annotation: Mapping) -> object:
    for key in ("image_id", "file_name", "image_name", "filename"):
        if annotation.get(key) is not None:
            return annotation[key]
    return None


def _place(annotation: Mapping, position: int) -> str:
    own_id = annotation.get("id")
    if own_id is None or isinstance(own_id, (list, dict)):
        return f"entry {position} of 'annotations'"
    return f"annotation {own_id}"


def _box_of_corners(value: Mapping) -> tuple | None:
    fields = {str(key).replace("_", "").lower(): read_number(item) for key, item in value.items()}
    for names in _CORNERS:
        left, top, right, bottom = (fields.get(name) for name in names)
        if None not in (left, top, right, bottom):
            return left, top, right - left, bottom - top
    return None


def check_truth(
    objects: Sequence[CocoObject],
    images: Sequence[ImageEntry],
    report: Report,
    origin: str,
    *,
    units: bool,
) -> None:
    """Refuse boxes of a ground truth that are in another unit or order than pixels.

    Boxes that no detection can match are counted; COCO's own tools keep them too.

    Args:
        objects: with positions in `images`.
        images: the listed images.
        report: counts boxes.
        origin: name of the file in messages.
        units: whether to check the unit of the boxes.

    Raises:
        ValueError: see `check_units`; or there are annotations, but no image is listed.
    """
    strays = report.count("dropped boxes", NOT_LISTED)
    if strays and not images:
        raise ValueError(
            f"{origin}: 'images' is empty, but 'annotations' has {strays} entries. Was the file "
            "cut or filtered? List all images of the split."
        )
    boxes = np.array([one.box for one in objects], np.float64).reshape(len(objects), 4)
    listed = [(image.width, image.height) for image in images]
    sizes = np.array([listed[one.image] for one in objects], np.float64).reshape(-1, 2)

    def where(index: int) -> str:
        one = objects[index]
        name = images[one.image].file_name or f"image {images[one.image].original_id}"
        return f"annotation {one.own_id} of {name}"

    try:
        if units:
            check_units(boxes, sizes, where=where, field="bbox", source=origin, settable=False)
    except ValueError as error:
        raise ValueError(
            f"{error} `ssd_centernet convert --box_units=...` writes annotations in pixels too."
        ) from error
    ends = boxes[:, :2] + boxes[:, 2:]
    flat = (boxes[:, 2:] <= 0).any(axis=1)
    outside = ((boxes[:, :2] >= sizes) | (ends <= 0)).any(axis=1) & (sizes > 0).all(axis=1)
    for reason, chosen in ((_NO_AREA, flat), (_OUTSIDE, outside & ~flat)):
        for index in np.flatnonzero(chosen):
            report.add("repaired boxes", reason, where(int(index)))
