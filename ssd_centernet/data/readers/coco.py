"""Reader of COCO annotation files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ssd_centernet.data.readers.source import AnnotationSource
from ssd_centernet.data.validate import LISTED, Report
from ssd_centernet.labels import LabelMap


@dataclass
class CocoImage:
    """One image of an annotation file: its id, file, listed size (0 if none) and annotations."""

    image_id: int
    original_id: object
    file_name: str
    width: int
    height: int
    annotations: list[dict] = field(default_factory=list)


@dataclass
class CocoIndex:
    """A whole annotation file: images in the file's order, the label map, what was dropped.

    `upright` says whether boxes refer to pictures turned by their EXIF orientation.
    """

    images: list[CocoImage]
    label_map: LabelMap
    report: Report
    sha256: str
    upright: bool = False


def read_coco(
    annotations: str | os.PathLike | AnnotationSource,
    image_dir: str | os.PathLike,
    *,
    label_map: LabelMap | None = None,
    drop_unknown_categories: bool = False,
) -> CocoIndex:
    """Read a COCO annotation file and check that its parts fit together.

    Image files are not opened. Exact copies of an image or annotation entry are left out and
    counted, and so are annotations whose image is not listed.

    Args:
        annotations: the json file, `instances_*.json`, or what a reader of `data.readers` made.
        image_dir: folder that `file_name` is relative to.
        label_map: the categories to read; None takes all of the file.
        drop_unknown_categories: leave out boxes of categories that the label map does not have.

    Returns:
        The images with their annotations. Boxes are unchecked, in pixels, as in the file.

    Raises:
        FileNotFoundError: if the annotation file or the image folder does not exist.
        ValueError: if the file is not COCO json; a file name leads out of the folder; two files
            have the same image id; or annotations have categories that the label map does not know
            and `drop_unknown_categories` is off.
    """
    if not os.path.isdir(image_dir):
        raise FileNotFoundError(f"The image folder {os.fspath(image_dir)} does not exist.")
    upright, report = False, Report()
    if isinstance(annotations, AnnotationSource):
        content, sha256 = annotations.content, annotations.sha256
        upright, report = annotations.upright, annotations.report
    else:
        content, sha256 = _load(annotations)
    file_map = LabelMap.from_categories(content["categories"])
    if label_map is not None:
        _check_same_names(file_map, label_map)
    images = _read_images(content["images"], report)
    _mend_backslashes(images.values(), image_dir, report)
    _attach(content["annotations"], images, report)
    chosen = label_map or file_map
    _check_categories(images, chosen, report, drop_unknown_categories)
    return CocoIndex(list(images.values()), chosen, report, sha256, upright)


def _load(path: str | os.PathLike) -> tuple[dict, str]:
    with open(path, "rb") as file:
        data = file.read()
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is not valid json: {error}.") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(k), list) for k in keys):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{os.fspath(path)} is not a COCO instances file: expected the lists {keys}, got "
            f"{found}. Caption and results files cannot be converted; use instances_*.json."
        )
    return content, hashlib.sha256(data).hexdigest()


def _check_same_names(file_map: LabelMap, label_map: LabelMap) -> None:
    for category_id, name in zip(file_map.ids, file_map.names, strict=True):
        if category_id not in label_map.ids:
            continue
        expected = label_map.names[label_map.to_class(category_id)]
        if expected != name:
            raise ValueError(
                f"Category {category_id} is {name!r} in the annotations but {expected!r} in the "
                "label map. Give the label map of this data set, or give none to use the file's "
                "own."
            )


def _read_images(entries: list[dict], report: Report) -> dict[object, CocoImage]:
    """Return the images by their id in the file."""
    images: dict[object, CocoImage] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not entry.get("file_name") or entry.get("id") is None:
            raise ValueError(f"Each image needs 'id' and 'file_name', got {entry!r:.200}.")
        original_id, name = entry["id"], str(entry["file_name"])
        check_file_name(name)
        if original_id in images:
            if images[original_id].file_name != name:
                raise ValueError(
                    f"Two files have the image id {original_id!r}, "
                    f"{images[original_id].file_name!r} and {name!r}, so it is not clear which of "
                    "them the annotations belong to. Give each image its own id."
                )
            report.add("dropped images", "listed twice: one copy kept", name)
            continue
        size = (entry.get("width") or 0, entry.get("height") or 0)
        images[original_id] = CocoImage(0, original_id, name, int(size[0]), int(size[1]))
    _number_images(images, report)
    return images


def _mend_backslashes(images: Iterable[CocoImage], image_dir, report: Report) -> None:
    """Read names such as sub\\a.jpg, written on Windows, where the file is sub/a.jpg."""
    for image in images:
        name = image.file_name.replace("\\", "/")
        if name != image.file_name and not os.path.exists(os.path.join(image_dir, image.file_name)):
            report.add("notes", "backslashes in file_name read as folders", image.file_name)
            image.file_name = name


def _number_images(images: dict[object, CocoImage], report: Report) -> None:
    """Give each image an integer id: its own, or 1, 2, ... when some id is not a number."""
    numbers = [_as_integer(original_id) for original_id in images]
    renumber = None in numbers or len(set(numbers)) != len(numbers)
    for position, (image, number) in enumerate(zip(images.values(), numbers, strict=True), 1):
        image.image_id = position if renumber else number
        if renumber:
            report.add("notes", "image ids are not numbers: numbered from 1", image.original_id)


def _as_integer(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value):
        return int(value)
    return None


def check_file_name(name: str) -> None:
    """Raise an error if a file name leads out of the image folder.

    Args:
        name: `file_name` of an annotation file; sub-folders are allowed.

    Raises:
        ValueError: if the name is absolute, has a drive, goes up with .., or has a null byte.
    """
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise ValueError(
            f"file_name {name!r} leads out of the image folder. Names must be relative to "
            "image_dir and without '..'; edit the annotation file or choose another image_dir."
        )


def _attach(annotations: list[dict], images: dict[object, CocoImage], report: Report) -> None:
    """Append each annotation to its image, leaving out exact copies."""
    seen: dict[object, tuple] = {}
    for annotation in annotations:
        annotation.pop("segmentation", None)  # Large, and never read.
        own_id = annotation.get("id")
        image = images.get(annotation.get("image_id"))
        if image is None:
            report.add("dropped boxes", "image_id is not listed", own_id)
            continue
        what = (image.image_id, annotation.get("category_id"), str(annotation.get("bbox")))
        if own_id is not None and own_id in seen:
            if seen[own_id] == what:
                report.add("dropped boxes", "annotation listed twice: one copy kept", own_id)
                continue
            report.add("repaired boxes", "annotation id used twice: given a new number", own_id)
        seen[own_id] = what
        image.annotations.append(annotation)


def _check_categories(
    images: dict[object, CocoImage], label_map: LabelMap, report: Report, drop: bool
) -> None:
    known = set(label_map.ids)
    unknown: dict[object, int] = {}
    for image in images.values():
        kept = []
        for annotation in image.annotations:
            category_id = annotation.get("category_id")
            if category_id in known:
                kept.append(annotation)
                continue
            unknown[category_id] = unknown.get(category_id, 0) + 1
            if drop:
                report.add("dropped boxes", "unknown category", annotation.get("id"))
        image.annotations = kept
    if unknown and not drop:
        listed = ", ".join(f"{i!r} ({n} boxes)" for i, n in list(unknown.items())[:LISTED])
        raise ValueError(
            f"{len(unknown)} category ids of annotations are not in the label map "
            f"({label_map.describe()}): {listed}. Add them to 'categories', give another label "
            "map, or set drop_unknown_categories to leave these boxes out."
        )
