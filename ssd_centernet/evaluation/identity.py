"""Which image and category of a ground truth the ids in a file of detections mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_centernet.data.readers.coco_entries import (
    CategoryEntry,
    Ids,
    ImageEntry,
    by_file_name,
    find_file_name,
)
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_whole
from ssd_centernet.evaluation.result import DetectionRows

_SECOND_ID = "detections of the second id of a file, left out: its first id has detections too"
_FILE_NAME = "detections whose image_id is a file name"


def numbers_of(
    entries: Sequence[ImageEntry | CategoryEntry], sentence: str, report: Report
) -> np.ndarray:
    """Return the ids of listed entries as int64, or 1, 2, ... if some id is no number.

    Args:
        entries: images or categories.
        sentence: note for the report if they are numbered.
        report: counts them.
    """
    numbers = Ids(entry.original_id for entry in entries).numbers
    if None not in numbers and len(set(numbers)) == len(numbers):
        return np.array(numbers, np.int64)
    for entry in entries:
        report.add("notes", sentence, entry.original_id)
    return np.arange(1, len(entries) + 1, dtype=np.int64)


class Identity:
    """Find images by id, file name or its stem, and categories by id or name.

    Args:
        images: the listed images.
        owners: int64 [I], for each the position of the first one with its file.
        image_ids: int64 [I], the number of each.
        categories: the listed categories.
        category_ids: int64 [C], the number of each.
    """

    def __init__(
        self,
        images: Sequence[ImageEntry],
        owners: np.ndarray,
        image_ids: np.ndarray,
        categories: Sequence[CategoryEntry],
        category_ids: np.ndarray,
    ) -> None:
        self._images = Ids(image.original_id for image in images)
        # Texts alone: a former number could be the new one of another image.
        former = {i.former_id: n for n, i in enumerate(images) if isinstance(i.former_id, str)}
        self._names = {**by_file_name(images), **former}
        self._listed = [image.file_name for image in images]
        self._owners, self._image_ids = owners.tolist(), image_ids.tolist()
        self._categories = Ids(category.original_id for category in categories)
        count = Counter(category.name for category in categories)
        self._category_names = {c.name: i for i, c in enumerate(categories) if count[c.name] == 1}
        self._category_ids = category_ids.tolist()

    def images_by_name(self) -> dict[str, int]:
        """Return the number of each image by its `file_name` as it is listed."""
        ids = (self._image_ids[owner] for owner in self._owners)
        return {name: number for name, number in zip(self._listed, ids, strict=True) if name}

    def names_by_image(self) -> dict[int, str]:
        """Return the `file_name` of each image by its number: the first one that is listed."""
        return {number: name for name, number in reversed(self.images_by_name().items())}

    def read_detections(self, rows: Sequence[Any]) -> tuple[DetectionRows, dict[str, int]]:
        """Read rows in COCO's result format; see `CocoGroundTruth.read_detections`."""
        entries: list[int] = []  # The listed image of each row, -1 for an unknown number.
        named = 0

        def image_id(value: Any) -> int | None:
            nonlocal named
            index = self._images.find(value)
            if index < 0 and isinstance(value, str):
                index = find_file_name(self._names, value)
                named += index >= 0
            number = read_whole(value) if index < 0 else self._image_ids[self._owners[index]]
            entries.append(index)
            return number

        found = DetectionRows.from_list(rows, image_id=image_id, category_id=self._category_id)
        notes = {_FILE_NAME: named} if named else {}
        owners = np.array([*self._owners, -1])
        second = np.array(entries, np.int64) != owners[entries] if entries else np.zeros(0, bool)
        second &= np.array(entries, np.int64) >= 0
        if second.any():
            again = second & np.isin(found.image_ids, found.image_ids[~second])
            found = found.select(~again)
            if again.any():
                notes[_SECOND_ID] = int(again.sum())
        return found, notes

    def _category_id(self, value: Any) -> int | None:
        index = self._categories.find(value)
        if index < 0 and isinstance(value, str):
            index = self._category_names.get(value, -1)
        return read_whole(value) if index < 0 else self._category_ids[index]
