"""Files in COCO's result format, read against the ground truth that they are scored with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssd_centernet.data.box_units import check_units
from ssd_centernet.data.readers.json_file import load_json
from ssd_centernet.evaluation.checks import check_known_categories, check_known_images
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import DetectionRows

_COPY = "detections are exact copies of others: each counts as a false one, as in COCO's tools"
_NO_AREA = "detections have a box of no width or height (nothing can match them)"


def read_detections_file(
    source: str | os.PathLike | Sequence[Mapping[str, Any]], truth: CocoGroundTruth
) -> tuple[DetectionRows, dict[str, int]]:
    """Read detections of any tool.

    Args:
        source: path of a json file, or its content.
        truth: the ground truth; gives ids and sizes of the images.

    Returns:
        The rows with the ground truth's ids, and notes: sentence -> number of times.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: these are no detections, their ids are not in the ground truth, or their boxes
            are in another unit or order than x, y, width and height in pixels.
    """
    rows, origin = source, "the detections"
    if isinstance(source, str | os.PathLike):
        origin = os.fspath(source)
        rows, _ = load_json(source, "detections in COCO's result format")
    if not isinstance(rows, list | tuple):
        hint = (
            "It looks like annotations: are the two files swapped?"
            if isinstance(rows, Mapping) and "annotations" in rows
            else "Write a list with one dict per detection."
        )
        raise ValueError(f"{origin}: got a {type(rows).__name__}, expected a list. {hint}")
    try:
        found, notes = truth.read_detections(rows)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error
    check_known_images(found.image_ids, truth, origin)
    check_known_categories(found.category_ids, truth, origin)
    if rows is not source:  # A list comes from a program, which knows its units.
        _check_units(found, truth, origin)
    copies = _copies(found)
    if len(copies):
        notes[f"{_COPY} (first: row {copies[0]})"] = len(copies)
    flat = np.flatnonzero((found.boxes[:, 2:] <= 0).any(axis=1))
    if len(flat):
        notes[f"{_NO_AREA} (first: row {flat[0]})"] = len(flat)
    return found, notes


def _copies(rows: DetectionRows) -> np.ndarray:
    """Return the rows, ascending, that are equal to an earlier one: image, class, box and score."""
    columns = (*rows.boxes.T, rows.scores, rows.category_ids, rows.image_ids)
    order = np.lexsort(columns)
    equal = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        ordered = column[order]
        equal &= ordered[1:] == ordered[:-1]
    return np.sort(order[1:][equal])


def _check_units(rows: DetectionRows, truth: CocoGroundTruth, origin: str) -> None:
    images = truth.positions(rows.image_ids)
    sizes = np.stack([truth.widths[images], truth.heights[images]], axis=1)

    def where(index: int) -> str:
        return f"row {index} (image {rows.image_ids[index]})"

    words = {"where": where, "field": "bbox", "source": origin, "settable": False}
    check_units(rows.boxes, sizes, found=True, **words)
