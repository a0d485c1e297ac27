"""COCO ground truth: reading and repairing files, and building from decoded records."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssd_centernet.evaluation.result import whole_number

_EXAMPLES_SHOWN = 5


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

    @classmethod
    def load(cls, source: str | os.PathLike | Mapping[str, Any]) -> "CocoGroundTruth":
        """Read a COCO annotation file and repair what makes the COCO tools fail.

        A missing `iscrowd` becomes 0, a missing or zero `area` becomes width*height, annotation
        ids that are missing, repeated or below 1 are renumbered from 1 (the COCO tools read a match
        with annotation 0 as "no match"), and annotations of images that are not listed are left
        out. Each repair is counted in `notes`; the file or dict is never changed.

        Args:
            source: path of a COCO json, or its content.

        Returns:
            The ground truth of all images that the file lists.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: these are not COCO annotations, an image or category id occurs twice, or an
                annotation has no usable box or a category that is not listed.
        """
        content, origin = _read(source)
        images, categories = content["images"], _categories(content["categories"], origin)
        image_ids = _unique_ids(images, "image", origin)
        order = np.argsort(image_ids)
        notes: dict[str, int] = {}
        objects = _objects(content.get("annotations", []), image_ids, categories, notes, origin)
        return cls(
            image_ids=image_ids[order],
            heights=_int_array(images, "height")[order],
            widths=_int_array(images, "width")[order],
            categories=categories,
            notes=notes,
            **objects,
        )

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


def _read(source: str | os.PathLike | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the content of an annotation file and its name for messages."""
    if isinstance(source, Mapping):
        content, origin = source, "the given dict"
    else:
        origin = os.fspath(source)
        try:
            with open(source, encoding="utf-8") as file:
                content = json.load(file)
        except ValueError as error:  # Not JSON, or not text.
            raise ValueError(
                f"{origin} is not valid JSON ({error}). Expected COCO annotations; the file may be "
                "cut off: write or copy it again."
            ) from error
    missing = [
        key
        for key in ("images", "categories")
        if not isinstance(content, Mapping) or not isinstance(content.get(key), list)
    ]
    if missing:
        found = (
            f"keys {sorted(content)}"
            if isinstance(content, Mapping)
            else f"a {type(content).__name__} (a list is a detections file)"
        )
        raise ValueError(
            f"{origin} does not hold COCO annotations: got {found}, expected a dict with lists "
            f"'images', 'categories' and 'annotations'; missing: {missing}."
        )
    return content, origin


def _unique_ids(entries: Sequence[Mapping[str, Any]], kind: str, origin: str) -> np.ndarray:
    """Return the ids of images or categories as int64; refuse repeated or unusable ones."""
    try:
        ids = np.array([whole_number(entry["id"]) for entry in entries], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{origin}: every {kind} needs an integer 'id' ({type(error).__name__}: {error})."
        ) from error
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        repeated = values[counts > 1]
        raise ValueError(
            f"{origin}: {len(repeated)} {kind} ids occur more than once, for example "
            f"{repeated[:_EXAMPLES_SHOWN].tolist()}. Each {kind} must be listed once, or its "
            "objects are counted wrongly. Remove the repeats; were two files joined?"
        )
    return ids


def _categories(entries: Sequence[Mapping[str, Any]], origin: str) -> tuple[dict[str, Any], ...]:
    """Return id and name of each category, ascending by id."""
    ids = _unique_ids(entries, "category", origin).tolist()
    named = [
        {"id": i, "name": str(entry.get("name", i))} for i, entry in zip(ids, entries, strict=True)
    ]
    return tuple(sorted(named, key=lambda category: category["id"]))


def _int_array(entries: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([int(entry.get(key) or 0) for entry in entries], np.int64)


def _objects(
    annotations: Sequence[Mapping[str, Any]],
    image_ids: np.ndarray,
    categories: tuple[dict[str, Any], ...],
    notes: dict[str, int],
    origin: str,
) -> dict[str, np.ndarray]:
    """Turn annotations into arrays; repair them and count the repairs in `notes`."""
    object_images = _column(annotations, "image_id", origin)
    listed = np.isin(object_images, image_ids)
    _count(notes, "annotations of images that are not listed, left out", np.sum(~listed))
    kept = [annotation for annotation, keep in zip(annotations, listed, strict=True) if keep]
    object_categories = _column(kept, "category_id", origin)
    _check_categories(object_categories, categories, origin)
    boxes = _boxes(kept, origin)
    _count(
        notes,
        "annotations with a box of no width or height, kept (nothing can match them)",
        np.sum((boxes[:, 2:] <= 0).any(axis=1)),
    )
    return {
        "ids": _annotation_ids(kept, notes),
        "object_image_ids": object_images[listed],
        "object_category_ids": object_categories,
        "boxes": boxes,
        "areas": _areas(kept, boxes, notes),
        "is_crowd": _crowd(kept, notes),
    }


def _column(annotations: Sequence[Mapping[str, Any]], key: str, origin: str) -> np.ndarray:
    try:
        return np.array([whole_number(annotation[key]) for annotation in annotations], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{origin}: every annotation needs an integer '{key}' "
            f"({type(error).__name__}: {error})."
        ) from error


def _check_categories(
    object_categories: np.ndarray, categories: tuple[dict[str, Any], ...], origin: str
) -> None:
    known = [category["id"] for category in categories]
    unknown = np.setdiff1d(object_categories, known)
    if len(unknown):
        raise ValueError(
            f"{origin}: annotations name category ids {unknown[:_EXAMPLES_SHOWN].tolist()} that "
            f"'categories' does not list (it lists {len(known)}: {known[:_EXAMPLES_SHOWN]}, ...). "
            "Add them to 'categories', or correct 'category_id' of these annotations."
        )


def _boxes(annotations: Sequence[Mapping[str, Any]], origin: str) -> np.ndarray:
    """Return boxes float64 [N, 4]; refuse anything else."""
    try:
        boxes = np.array([annotation["bbox"] for annotation in annotations], np.float64)
        boxes = boxes.reshape(len(annotations), 4)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{origin}: every annotation needs a 'bbox' of four numbers [x, y, width, height] in "
            f"pixels ({type(error).__name__}: {error})."
        ) from error
    broken = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(broken):
        first = annotations[broken[0]]
        raise ValueError(
            f"{origin}: {len(broken)} annotations have a 'bbox' that is not finite, for example "
            f"annotation {first.get('id')} with {first['bbox']}."
        )
    return boxes


def _annotation_ids(annotations: Sequence[Mapping[str, Any]], notes: dict[str, int]) -> np.ndarray:
    """Keep the ids if they are unique and at least 1, else number all from 1."""
    ids = [annotation.get("id") for annotation in annotations]
    usable = all(type(i) is int and i >= 1 for i in ids) and len(set(ids)) == len(ids)
    if usable:
        return np.array(ids, np.int64)
    _count(notes, "annotations renumbered from 1 (ids missing, repeated or below 1)", len(ids))
    return np.arange(1, len(ids) + 1, dtype=np.int64)


def _areas(
    annotations: Sequence[Mapping[str, Any]], boxes: np.ndarray, notes: dict[str, int]
) -> np.ndarray:
    """Return the areas; width*height if they are missing or not above zero."""
    areas = np.array([annotation.get("area") or 0 for annotation in annotations], np.float64)
    products = boxes[:, 2] * boxes[:, 3]
    replaced = (areas <= 0) & (products > 0)
    _count(notes, "annotations without area, taken as width*height", np.sum(replaced))
    return np.where(replaced, products, areas)


def _crowd(annotations: Sequence[Mapping[str, Any]], notes: dict[str, int]) -> np.ndarray:
    values = [annotation.get("iscrowd") for annotation in annotations]
    missing = sum(value is None for value in values)
    _count(notes, "annotations without iscrowd, taken as 0", missing)
    return np.array([bool(value) for value in values], bool)


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
