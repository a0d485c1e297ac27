"""What limits on the number of detections cost: objects that no detection can count for."""

from __future__ import annotations

import math

import numpy as np

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth

COCO_LIMIT = 100
# COCO averages precision over these levels of recall.
_RECALL_LEVELS = np.linspace(0.0, 1.0, 101)


def limit_notes(truth: CocoGroundTruth, limit: int) -> dict[str, int]:
    """Tell how many images have more objects of a class than detections of it count.

    Args:
        truth: the ground truth of a split.
        limit: most detections of one class that count in one image.

    Returns:
        Sentence -> number of images, as notes of a result; empty where the limit costs nothing.
    """
    images, classes, counts = _objects_by_image_and_class(truth)
    beyond = counts > limit
    if not beyond.any():
        return {}
    reached = np.minimum(counts, limit)
    share = reached.sum() / counts.sum()
    ids = np.array(truth.category_ids, np.int64)
    columns = np.searchsorted(ids, classes)
    sums = (np.bincount(columns, values, len(ids)) for values in (reached, counts))
    found, present = (values[np.bincount(columns, minlength=len(ids)) > 0] for values in sums)
    # A level of recall above what can be reached has precision 0.
    bound = np.searchsorted(_RECALL_LEVELS, found / present, side="right").mean() / 101
    where = "image has" if (number := len(np.unique(images[beyond]))) == 1 else "images have"
    whose = "COCO's limit" if limit == COCO_LIMIT else "--max_detections"
    sentence = (
        f"{where} more than {limit} objects of a class, and no more than {limit} detections of a "
        f"class count in an image ({whose}): {_percent(share)} of the objects can be found at all, "
        f"and AP cannot pass {_rounded_up(bound)}; --max_detections={counts.max()} counts for all"
    )
    return {sentence: number}


def detector_notes(truth: CocoGroundTruth, kept: int, limit: int) -> dict[str, int]:
    """Tell where the detector's own limit is lower than the objects, or than what counts.

    Args:
        truth: the ground truth of a split.
        kept: most detections of all classes together that the detector keeps of an image.
        limit: most detections of one class that count in one image.

    Returns:
        Sentence -> number, as notes of a result; empty where the limit costs nothing.
    """
    of_image = np.unique(truth.object_image_ids[~truth.is_crowd], return_counts=True)[1]
    short = of_image > kept
    how = "its decoder's max_detections, such as --gin_params='SSDDecoder.max_detections = N'"
    notes = {}
    if short.any():
        share = np.minimum(of_image, kept).sum() / of_image.sum()
        where = "image has" if short.sum() == 1 else "images have"
        notes[
            f"{where} more objects than the {kept} detections that the detector keeps of an image: "
            f"{_percent(share)} of the objects can be found at all. What raises this is {how}"
        ] = int(short.sum())
    elif limit > COCO_LIMIT and kept < limit:
        notes[
            f"detections are what the detector keeps of an image, fewer than the {limit} that "
            f"count. What raises this is {how}"
        ] = kept
    return notes


def _objects_by_image_and_class(
    truth: CocoGroundTruth,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image ids, category ids and numbers of objects, crowd regions left out."""
    keep = ~truth.is_crowd
    ids = np.array(truth.category_ids, np.int64)
    images = truth.positions(truth.object_image_ids[keep])
    classes = np.searchsorted(ids, truth.object_category_ids[keep])
    # One number for both: pairs of them would be sorted ten times as slowly.
    found, counts = np.unique(images * len(ids) + classes, return_counts=True)
    places, columns = np.divmod(found, max(len(ids), 1))
    return truth.image_ids[places], ids[columns], counts


def _percent(share: float) -> str:
    # Rounded down: 100 % is all of them.
    return f"{math.floor(1000 * share) / 10:g} %"


def _rounded_up(bound: float) -> str:
    digits = 2 if bound <= 0.99 else 3
    return f"{math.ceil(round(bound * 10**digits, 9)) / 10**digits:.{digits}f}"
