"""Reader of COCO annotation files."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from ssd_centernet.data.readers.coco_classes import choose_classes
from ssd_centernet.data.readers.coco_entries import Ids as _Ids
from ssd_centernet.data.readers.coco_entries import (
    ImageEntry,
    merge_images,
    read_categories,
    read_images,
)
from ssd_centernet.data.readers.coco_files import find_files
from ssd_centernet.data.readers.coco_objects import CocoObject, ObjectReader
from ssd_centernet.data.readers.json_file import instances, load_json
from ssd_centernet.data.readers.source import AnnotationSource
from ssd_centernet.data.validate import Report
from ssd_centernet.labels import LabelMap
from ssd_centernet.memory import without_collector


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

    `upright` says whether boxes refer to pictures turned by their EXIF orientation, and
    `has_annotations` whether the file lists annotations at all: that of a test set does not.
    """

    images: list[CocoImage]
    label_map: LabelMap
    report: Report
    sha256: str
    upright: bool = False
    has_annotations: bool = True


def read_coco(
    annotations: str | os.PathLike | AnnotationSource,
    image_dir: str | os.PathLike,
    *,
    label_map: LabelMap | None = None,
    drop_unknown_categories: bool = False,
) -> CocoIndex:
    """Read a COCO annotation file and check that its parts fit together.

    Image files are not opened. Exact copies of an image or an object are left out and counted, and
    so are annotations whose image is not listed. A file that is listed under two ids is one image
    with the objects of both. An annotation without `bbox` has the box around its polygon or mask.

    Args:
        annotations: the json file, `instances_*.json`, or what a reader of `data.readers` made. A
            file without `annotations` (`image_info_*.json`) has images without objects.
        image_dir: folder that `file_name` is relative to. Paths of another machine are found in it
            by their last parts, and never outside it.
        label_map: the categories to read, found by their names; None takes all of the file.
        drop_unknown_categories: leave out boxes of categories that the label map does not have.

    Returns:
        The images with their annotations: `id` as in the file, `category_id` of the label map,
        `bbox` [x, y, width, height], and `area` and `iscrowd` where the file has them. Boxes are
        four finite numbers in pixels and not checked against the image.

    Raises:
        FileNotFoundError: if the annotation file or the image folder does not exist.
        ValueError: if the file is not COCO json; an entry has no usable id or name; two files
            have the same image id; or annotations have categories that the label map does not know
            and `drop_unknown_categories` is off.
    """
    if not os.path.isdir(image_dir):
        raise FileNotFoundError(f"The image folder {os.fspath(image_dir)} does not exist.")
    with without_collector():
        return _read(annotations, image_dir, label_map, drop_unknown_categories)


def _read(annotations, image_dir, label_map: LabelMap | None, drop: bool) -> CocoIndex:
    upright, report, encoded = False, Report(), None
    if isinstance(annotations, AnnotationSource):
        content, sha256, origin = annotations.content, annotations.sha256, annotations.name
        upright, report, encoded = annotations.upright, annotations.report, annotations.encoded
        files = None
    else:
        origin = os.fspath(annotations)
        content, sha256 = load_json(annotations)
        content, files = instances(content, origin), image_dir
    entries = read_images(content["images"], report, origin)
    names = [image.file_name for image in entries]
    if files is not None:
        names = find_files(names, image_dir, report, origin)
    owners = list(range(len(entries)))
    if encoded is None:
        owners = merge_images(entries, names, report, origin)
    categories = read_categories(content["categories"], report, origin)
    if not categories and label_map is not None:
        report.add("notes", "'categories' is empty: ids are those of the label map", origin)
        categories = read_categories(label_map.to_categories(), report, origin)
    reader = ObjectReader(entries, owners, categories, report, origin)
    objects = reader.read(content.get("annotations", ()))
    _count_repeated_ids(objects, report)
    classes = choose_classes(
        categories,
        Counter(one.category for one in objects),
        label_map,
        report,
        origin,
        unknown=reader.unknown,
        drop=drop,
    )
    images = _number(entries, names, owners, report)
    _attach(objects, classes.ids, images, report)
    kept = [image for index, image in enumerate(images) if owners[index] == index]
    index = CocoIndex(kept, classes.label_map, report, sha256, upright)
    index.has_annotations = "annotations" in content
    if not index.has_annotations:
        report.add("notes", "the file lists no 'annotations': images without objects", origin)
    return index


def _attach(
    objects: list[CocoObject], ids: list[int | None], images: list[CocoImage], report: Report
) -> None:
    """Append each object to its image, with the id that its category has in the label map."""
    for one in objects:
        category_id = ids[one.category]
        if category_id is None:
            place = f"annotation {one.own_id} of {images[one.image].file_name}"
            report.add("dropped boxes", "unknown category", place)
        else:
            images[one.image].annotations.append(_annotation(one, category_id))


def _annotation(one: CocoObject, category_id: int) -> dict:
    entry = {"id": one.own_id, "category_id": category_id, "bbox": list(one.box)}
    if one.area is not None:
        entry["area"] = one.area
    if one.is_crowd is not None:
        entry["iscrowd"] = int(one.is_crowd)
    return entry


def _count_repeated_ids(objects: list[CocoObject], report: Report) -> None:
    seen: set[object] = set()
    for one in objects:
        own_id = one.own_id
        if own_id is None or isinstance(own_id, (list, dict)):
            continue
        if own_id in seen:
            report.add("repaired boxes", "annotation id used twice: given a new number", own_id)
        seen.add(own_id)


def _number(
    entries: list[ImageEntry], names: list[str], owners: list[int], report: Report
) -> list[CocoImage]:
    """Give each image an integer id: its own, or 1, 2, ... when some id is not a number."""
    numbers = _Ids(image.original_id for image in entries).numbers
    used = [numbers[i] for i, owner in enumerate(owners) if owner == i]
    reason = ""
    if None in used:
        reason = "image ids are not numbers: numbered from 1"
        bad = (entries[i].original_id for i, number in enumerate(numbers) if number is None)
        if str(next(bad)).strip().lstrip("+-").isdigit():
            reason = "image ids are too large (above 2^63): numbered from 1"
    elif min(used, default=0) < 0:
        reason = "image ids are below 0: numbered from 1"
    elif len(set(used)) < len(used):
        reason = "image ids are one number in two ways of writing: numbered from 1"
    images, place = [], 0
    for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
        own = owners[index] == index
        place += own
        number = place if reason else numbers[index]
        image = CocoImage(number, entry.original_id, name, entry.width, entry.height)
        if own and reason:
            report.add("notes", reason, entry.original_id)
        images.append(image)
    _take_sizes(images, owners)
    return images


def _take_sizes(images: list[CocoImage], owners: list[int]) -> None:
    """Give a merged image the size that only its later entry has."""
    for image, owner in zip(images, owners, strict=True):
        first = images[owner]
        if not (first.width and first.height):
            first.width, first.height = image.width, image.height
