"""COCO ground truth: reading and repairing files, and building from decoded records."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssd_centernet.data.readers.coco_entries import (
    CategoryEntry,
    ImageEntry,
    merge_images,
    plain_name,
    read_categories,
    read_images,
)
from ssd_centernet.data.readers.coco_objects import (
    NOT_LISTED,
    CocoObject,
    ObjectReader,
    check_truth,
)
from ssd_centernet.data.readers.json_file import instances, load_json, without_collector
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_whole
from ssd_centernet.evaluation.identity import Identity, numbers_of
from ssd_centernet.evaluation.result import DetectionRows

_EXAMPLES_SHOWN = 5
_NOT_LISTED = "annotations of images that are not listed, left out"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoGroundTruth:
    """Hold the annotations of one split as arrays.

    Use `load` for a COCO json and `from_examples` for decoded records.

    Attributes:
        image_ids: int64 [I], ascending: every image of the split, with objects or without.
        heights: int64 [I], pixels; 0 if the file does not say.
        widths: int64 [I], pixels; 0 if the file does not say.
        categories: one dict with `id` and `name` per category, ascending by id.
        ids: int64 [N], annotation ids, unique and at least 1.
        object_image_ids: int64 [N], the image of each annotation.
        object_category_ids: int64 [N], data set category ids.
        boxes: float64 [N, 4], `x, y, width, height` in pixels of the original image.
        areas: float64 [N], pixels^2: the mask area in COCO, width*height if unknown.
        is_crowd: bool [N].
        notes: what was repaired on loading: sentence -> number of times.
        identity: what the ids in a detections file mean, None for numbers alone.
    """

    image_ids: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    categories: tuple[dict[str, Any], ...]
    ids: np.ndarray
    object_image_ids: np.ndarray
    object_category_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    identity: Identity | None = None

    @classmethod
    def load(cls, source: str | os.PathLike | Mapping[str, Any]) -> "CocoGroundTruth":
        """Read a COCO annotation file as the converter does; repair what makes COCO's tools fail.

        A missing `iscrowd` becomes 0, a missing or zero `area` becomes width*height, annotation
        ids that are missing, repeated or below 1 are renumbered from 1 (the COCO tools read a match
        with annotation 0 as "no match"), annotations of images that are not listed and exact copies
        of an object are left out, and a file that is listed under two ids is one image. Each repair
        is counted in `notes`; the file or dict is never changed. The unit of boxes is
        checked in files only: a dict comes from a program.

        Args:
            source: path of a COCO json, or its content.

        Returns:
            The ground truth of all images that the file lists.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: these are not COCO annotations, an id stands for two images or categories,
                an annotation has no usable box or a category that is not listed, or boxes are in
                another unit or order (`box_units.check_units`).
        """
        with without_collector():
            return cls(**_load(source))

    @classmethod
    def from_examples(
        cls,
        examples: Iterable[Mapping[str, Any]],
        *,
        names: Sequence[str],
        ids: Sequence[int] | None = None,
    ) -> "CocoGroundTruth":
        """Build the ground truth from decoded records, if there is no json.

        Args:
            examples: per image a mapping with `source_id`, `height`, `width` (pixels of the
                original), `boxes` [N, 4] yxyx fractions, `classes` [N] in 0..C-1 and, if known,
                `is_crowd` [N], `area` [N] in pixels^2 and `valid` [N] (False marks padding).
                Examples with a `source_id` of -1 are fillers and skipped.
            names: C class names.
            ids: C data set category ids; 1..C when not given.

        Returns:
            The ground truth of these images.

        Raises:
            ValueError: an image occurs twice, or a class is outside 0..C-1.
        """
        ids = list(range(1, len(names) + 1)) if ids is None else [int(i) for i in ids]
        content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": i, "name": n} for i, n in zip(ids, names, strict=True)],
        }
        for example in examples:
            if int(example["source_id"]) != -1:
                _append_example(content, example, np.asarray(ids))
        return cls.load(content)

    def read_detections(self, rows: Sequence[Any]) -> tuple[DetectionRows, dict[str, int]]:
        """Read detections whose ids may be text, file names or the second id of a file.

        Args:
            rows: mappings in COCO's result format.

        Returns:
            The rows with this ground truth's ids, and notes: sentence -> number of times.

        Raises:
            ValueError: as for `DetectionRows.from_list`, or an id is a text that means no image or
                category of this ground truth.
        """
        if self.identity is None:
            return DetectionRows.from_list(rows), {}
        return self.identity.read_detections(rows)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Return the data set category ids, ascending."""
        return tuple(category["id"] for category in self.categories)

    @property
    def num_images(self) -> int:
        """Return the number of images, including those without objects."""
        return len(self.image_ids)

    @property
    def num_objects(self) -> int:
        """Return the number of annotations that are not crowd regions."""
        return int(np.count_nonzero(~self.is_crowd))

    def positions(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the indices of image ids.

        Args:
            image_ids: integers [K].

        Returns:
            int64 [K]: index into `image_ids`, -1 if the id is not in the ground truth.
        """
        wanted = np.asarray(image_ids, np.int64)
        if not len(self.image_ids):
            return np.full(wanted.shape, -1, np.int64)
        found = np.searchsorted(self.image_ids, wanted).clip(max=len(self.image_ids) - 1)
        return np.where(self.image_ids[found] == wanted, found, -1)

    def subset(self, image_ids: np.ndarray) -> "CocoGroundTruth":
        """Return the ground truth of a selection of images.

        Args:
            image_ids: integers [K], ids of this ground truth.

        Returns:
            A ground truth with these images, their annotations and all categories.
        """
        images = np.isin(self.image_ids, image_ids)
        objects = np.isin(self.object_image_ids, image_ids)
        per_image = ("image_ids", "heights", "widths")
        per_object = ("ids", "object_image_ids", "object_category_ids", "boxes", "areas")
        changes = {name: getattr(self, name)[images] for name in per_image}
        changes |= {name: getattr(self, name)[objects] for name in (*per_object, "is_crowd")}
        return dataclasses.replace(self, **changes)

    def with_small_ids(self, rows: DetectionRows) -> tuple["CocoGroundTruth", DetectionRows]:
        """Return both with ids from 1 where the libraries cannot hold the own ids.

        faster_coco_eval and hotcoco keep ids as floats of 53 bits, so that neighbouring ids of 19
        digits would be one, and hotcoco takes none below 0. The order stays, and with it every
        number of an evaluation.

        Args:
            rows: detections with ids of this ground truth.

        Returns:
            The ground truth and the rows, with the new ids where they are needed.
        """
        all_ids = (self.image_ids, self.ids, np.array(self.category_ids, np.int64))
        if all(ids.min(initial=0) >= 0 and ids.max(initial=0) < 2**53 for ids in all_ids):
            return self, rows
        categories = np.array(self.category_ids, np.int64)

        def images_of(ids: np.ndarray) -> np.ndarray:
            return self.positions(ids) + 1

        def categories_of(ids: np.ndarray) -> np.ndarray:
            return np.searchsorted(categories, ids) + 1

        truth = dataclasses.replace(
            self,
            image_ids=images_of(self.image_ids),
            categories=tuple(
                {**category, "id": place} for place, category in enumerate(self.categories, 1)
            ),
            ids=np.arange(1, len(self.ids) + 1),
            object_image_ids=images_of(self.object_image_ids),
            object_category_ids=categories_of(self.object_category_ids),
        )
        return truth, dataclasses.replace(
            rows,
            image_ids=images_of(rows.image_ids),
            category_ids=categories_of(rows.category_ids),
        )

    def to_coco(self) -> dict[str, list[dict[str, Any]]]:
        """Return a fresh COCO dict of `images`, `categories` and `annotations` (Python scalars)."""
        columns = zip(
            self.ids.tolist(),
            self.object_image_ids.tolist(),
            self.object_category_ids.tolist(),
            self.boxes.tolist(),
            self.areas.tolist(),
            self.is_crowd.astype(int).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        sizes = zip(
            self.image_ids.tolist(), self.heights.tolist(), self.widths.tolist(), strict=True
        )
        return {
            "images": [{"id": i, "height": h, "width": w} for i, h, w in sizes],
            "categories": [dict(category) for category in self.categories],
            "annotations": [dict(zip(keys, column, strict=True)) for column in columns],
        }


def _load(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ground truth."""
    if isinstance(source, Mapping):
        content, origin = source, "the given dict"
    else:
        origin = os.fspath(source)
        content, _ = load_json(source)
    content, report = instances(content, origin), Report()
    images = read_images(content["images"], report, origin, need_names=False)
    files = [plain_name(image.file_name) for image in images]
    owners = merge_images(images, files, report, origin)
    categories = read_categories(content["categories"], report, origin)
    reader = ObjectReader(images, owners, categories, report, origin, strict=True)
    objects = reader.read(content.get("annotations", ()))
    if reader.unknown:
        _refuse_categories(reader.unknown, categories, origin)
    check_truth(objects, images, report, origin, units=not isinstance(source, Mapping))
    image_ids = numbers_of(images, "image ids are not numbers, numbered from 1", report)
    category_ids = numbers_of(categories, "category ids are not numbers, numbered from 1", report)
    owners = np.array(owners, np.int64)
    kept = np.flatnonzero(owners == np.arange(len(owners)))
    order = kept[np.argsort(image_ids[kept], kind="stable")]
    heights, widths = _sizes(images, owners)
    named = [
        {"id": i, "name": c.name} for i, c in zip(category_ids.tolist(), categories, strict=True)
    ]
    notes = _notes(report)
    return {
        "image_ids": image_ids[order],
        "heights": heights[order],
        "widths": widths[order],
        "categories": tuple(sorted(named, key=lambda category: category["id"])),
        "identity": Identity(images, owners, image_ids, categories, category_ids),
        **_columns(objects, image_ids, category_ids, notes),
        "notes": notes,
    }


def _refuse_categories(
    unknown: Mapping[str, Sequence[str]], categories: Sequence[CategoryEntry], origin: str
) -> None:
    named = list(unknown)[:_EXAMPLES_SHOWN]
    known = [category.original_id for category in categories]
    raise ValueError(
        f"{origin}: annotations name category ids [{', '.join(named)}] (first "
        f"{unknown[named[0]][0]}) that 'categories' does not list (it lists {len(known)}: "
        f"{known[:_EXAMPLES_SHOWN]}, ...). Add them to 'categories', or correct 'category_id' of "
        "these annotations."
    )


def _sizes(images: Sequence[ImageEntry], owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return heights and widths; a merged image has the size that any of its entries has."""
    heights = np.array([image.height for image in images], np.int64)
    widths = np.array([image.width for image in images], np.int64)
    for index in np.flatnonzero(owners != np.arange(len(owners))):
        owner = owners[index]
        if not (heights[owner] and widths[owner]):
            heights[owner], widths[owner] = heights[index], widths[index]
    return heights, widths


def _notes(report: Report) -> dict[str, int]:
    notes: dict[str, int] = {}
    for kind, reasons in report.to_dict().items():
        of = {"images": "images: ", "boxes": "annotations: "}.get(kind.split()[-1], "")
        for reason, entry in reasons.items():
            sentence = _NOT_LISTED if reason == NOT_LISTED else of + reason
            if kind.endswith("boxes"):
                sentence += f" (first: {entry['first'][0]})"
            notes[sentence] = notes.get(sentence, 0) + entry["count"]
    return notes


def _columns(
    objects: Sequence[CocoObject],
    image_ids: np.ndarray,
    category_ids: np.ndarray,
    notes: dict[str, int],
) -> dict[str, np.ndarray]:
    """Turn objects into arrays; count in `notes` what they lack."""
    images = np.array([one.image for one in objects], np.int64)
    categories = np.array([one.category for one in objects], np.int64)
    boxes = np.array([one.box for one in objects], np.float64).reshape(len(objects), 4)
    areas = np.array([one.area or 0.0 for one in objects], np.float64)
    with np.errstate(over="ignore"):
        products = boxes[:, 2] * boxes[:, 3]
    replaced = (areas <= 0) & (products > 0)
    _count(notes, "annotations without area, taken as width*height", np.sum(replaced))
    missing = sum(one.is_crowd is None for one in objects)
    _count(notes, "annotations without iscrowd, taken as 0", missing)
    return {
        "ids": _annotation_ids(objects, notes),
        "object_image_ids": image_ids[images],
        "object_category_ids": category_ids[categories],
        "boxes": boxes,
        "areas": np.where(replaced, products, areas),
        "is_crowd": np.array([bool(one.is_crowd) for one in objects], bool),
    }


def _annotation_ids(objects: Sequence[CocoObject], notes: dict[str, int]) -> np.ndarray:
    """Keep the ids if they are unique and at least 1, else number all from 1."""
    ids = [read_whole(one.own_id) for one in objects]
    if all(i is not None and i >= 1 for i in ids) and len(set(ids)) == len(ids):
        return np.array(ids, np.int64)
    _count(notes, "annotations renumbered from 1 (ids missing, repeated or below 1)", len(ids))
    return np.arange(1, len(ids) + 1, dtype=np.int64)


def _count(notes: dict[str, int], sentence: str, number: int) -> None:
    if number:
        notes[sentence] = int(number)


def _append_example(
    content: dict[str, Any], example: Mapping[str, Any], category_ids: np.ndarray
) -> None:
    """Add one decoded record to COCO content, with its boxes in pixels."""
    height, width = int(example["height"]), int(example["width"])
    image_id = int(example["source_id"])
    boxes = np.asarray(example["boxes"], np.float64).reshape(-1, 4)
    classes = np.asarray(example["classes"], np.int64)
    valid = np.asarray(example.get("valid", np.ones(len(boxes), bool)), bool)
    wrong = valid & ((classes < 0) | (classes >= len(category_ids)))
    if wrong.any():
        raise ValueError(
            f"Image {image_id} has class {classes[wrong][0]}, expected 0..{len(category_ids) - 1}. "
            "Do the names belong to these records? Classes never count background."
        )
    content["images"].append({"id": image_id, "height": height, "width": width})
    y, x, bottom, right = (boxes * [height, width, height, width]).T
    pixels = np.stack([x, y, right - x, bottom - y], axis=1)
    crowd = np.asarray(example.get("is_crowd", np.zeros(len(boxes))), int)
    area = np.asarray(example.get("area", np.zeros(len(boxes))), np.float64)
    for i in np.flatnonzero(valid):
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": image_id,
                "category_id": int(category_ids[classes[i]]),
                "bbox": pixels[i].tolist(),
                "area": float(area[i]),
                "iscrowd": int(crowd[i]),
            }
        )
