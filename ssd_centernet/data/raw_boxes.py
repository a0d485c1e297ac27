"""Boxes as annotations have them, for a check of their unit and order."""

from __future__ import annotations

import array

import numpy as np

from ssd_centernet.data.box_units import check_units
from ssd_centernet.data.readers.coco import CocoImage
from ssd_centernet.data.validate import Report
from ssd_centernet.data.values import read_box


class RawBoxes:
    """Boxes as annotations have them, beside the sizes that they refer to."""

    def __init__(self) -> None:
        self._numbers = array.array("d")
        self._places: list[tuple[dict, CocoImage]] = []

    def add(
        self,
        annotation: dict,
        image: CocoImage,
        size: tuple[int, int],
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Add one box.

        Args:
            annotation, image: of the annotations.
            size: width and height of the picture, pixels; zeros if unknown.
            scale: factors from the annotation's pixels to those of `size`.
        """
        bbox = read_box(annotation.get("bbox"))
        if bbox is not None:
            self._numbers.extend((*bbox, size[0] / scale[0], size[1] / scale[1]))
            self._places.append((annotation, image))

    def check(self, source: str, report: Report, scaled: bool = False) -> None:
        """Call `check_units` on all boxes; add what may be wrong to the report."""
        # Formats other than COCO's have fields of other names.
        is_coco = all(annotation.get("where") is None for annotation, _ in self._places[:1])
        numbers = np.array(self._numbers, np.float64).reshape(-1, 6)
        sentences = check_units(
            numbers[:, :4],
            numbers[:, 4:],
            where=lambda i: place_of(*self._places[i]),
            field="bbox" if is_coco else "box",
            source=source,
            scaled=scaled,
        )
        for sentence in sentences:
            if not report.count("notes", sentence):
                report.add("notes", sentence, source)


def place_of(annotation: dict, image: CocoImage) -> str:
    """Name an annotation in messages: where its reader found it, or its id."""
    return annotation.get("where") or f"annotation {annotation.get('id')} of {image.file_name}"
