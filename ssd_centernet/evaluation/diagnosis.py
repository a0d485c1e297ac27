"""The likely reason for an AP of zero, in one line."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssd_centernet.evaluation.coco import evaluate_rows
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import CocoResult, DetectionRows
from ssd_centernet.plain_text import counted

# Below this AP every reason is looked for.
_NEAR_ZERO = 0.001
# Above this one nothing is misread: large objects alone give a few hundredths to boxes whose axes
# are swapped, or whose corners are taken for sizes.
LOW = 0.1
# Sides of a network's input that boxes may be left in.
_INPUT_SIDES = (256, 300, 320, 384, 416, 448, 512, 608, 640, 768, 800, 1024)
# A repair must reach this AP, and this many times the AP without it.
_CLEARLY_BETTER = 0.02
_TIMES_BETTER = 10.0
_IMAGES_TRIED = 200
# Share of a run before which an AP of 0 says nothing.
_EARLY = 0.3
_LOW_SCORE = 0.05


def diagnose(
    result: CocoResult,
    ground_truth: CocoGroundTruth,
    detections: DetectionRows | Sequence[Mapping[str, Any]] | None = None,
    *,
    done: float = 1.0,
) -> str | None:
    """Explain in one line why AP is near zero, or low because boxes are misread.

    Cheap checks come first; then the detections of up to 200 images are scored again under the
    usual mistakes (swapped coordinates, shifted label map, ...), and the line names the one that
    brings AP back.

    Args:
        result: result of the evaluation.
        ground_truth: its ground truth.
        detections: rows to examine instead of the result's, such as all rows before those with
            unknown ids were removed.
        done: share of its training that the model has behind it; of a model in training only an AP
            near zero is explained.

    Returns:
        A sentence; None if AP is 0.1 or more, or if nothing is wrong at 0.001 or more.
    """
    if result.metrics["AP"] >= (_NEAR_ZERO if done < 1.0 else LOW):
        return None
    if detections is None:
        rows = result.rows
    elif isinstance(detections, DetectionRows):
        rows = detections
    else:
        rows = DetectionRows.from_list(detections)
    if result.metrics["AP"] >= _NEAR_ZERO:
        sentence = _misread(rows, ground_truth)
        return sentence and f"AP is low: {sentence[0].lower()}{sentence[1:]}"
    for check in (_no_truth, _no_detections, _other_images, _other_categories, _bad_boxes):
        sentence = check(rows, ground_truth)
        if sentence:
            return sentence
    return _misread(rows, ground_truth) or _early(done) or _low_scores(rows) or _untrained(rows)


def _early(done: float) -> str | None:
    if done >= _EARLY:
        return None
    return (
        f"An AP of 0 is normal so early, after {100 * done:.0f} % of the run: scores grow before "
        "boxes fit. Watch the loss fall until the next evaluation."
    )


def _no_truth(rows: DetectionRows, truth: CocoGroundTruth) -> str | None:
    if truth.num_objects:
        return None
    return (
        f"AP is undefined: the ground truth has {counted(truth.num_images, 'image')} but no object "
        f"({np.count_nonzero(truth.is_crowd)} crowd regions), so there is nothing to score. Of a "
        "test set without annotations, the detections are what a benchmark asks for; else: are "
        "these the right annotations?"
    )


def _no_detections(rows: DetectionRows, truth: CocoGroundTruth) -> str | None:
    if not len(rows):
        return (
            f"There are no detections on {counted(truth.num_images, 'image')}: the score "
            "threshold is too high for this model, its outputs are not finite, or no detections "
            "were added."
        )
    finite = rows.finite()
    if not finite.any():
        return (
            f"All {counted(len(rows), 'detection')} have boxes or scores that are not finite (NaN)."
        )
    return None


def _other_images(rows: DetectionRows, truth: CocoGroundTruth) -> str | None:
    with_objects = np.unique(truth.object_image_ids[~truth.is_crowd])
    if np.isin(rows.image_ids, with_objects).any():
        return None
    return (
        "No detection lies on an image that has objects: detections have image ids such as "
        f"{_some(rows.image_ids)}, objects {_some(with_objects)}; are these annotations of "
        "another split?"
    )


def _other_categories(rows: DetectionRows, truth: CocoGroundTruth) -> str | None:
    wanted = np.unique(truth.object_category_ids[~truth.is_crowd])
    if np.isin(rows.category_ids, wanted).any():
        return None
    # With few categories a shifted label map ends here too; that reason is the better one.
    if np.isin(rows.category_ids, truth.category_ids).all():
        shifted = _misread(rows, truth)
        if shifted:
            return shifted
    return (
        f"No category is both detected ({_some(rows.category_ids)}) and in the ground truth "
        f"({_some(wanted)}): the label map is the wrong one, or the model detects only a class "
        "that does not occur."
    )


def _bad_boxes(rows: DetectionRows, truth: CocoGroundTruth) -> str | None:
    boxes = rows.boxes[rows.finite()]
    if (boxes[:, 2:] <= 0).any(axis=1).all():
        return (
            f"All {len(boxes)} boxes have no width or no height, for example "
            f"{boxes[0].round(2).tolist()} (x, y, width, height): corners are swapped, or the "
            "decoder gets no box codes."
        )
    if np.abs(boxes).max() <= 2.0 < np.median(truth.boxes[:, 2:]):
        return (
            f"Boxes look like fractions of the image instead of pixels: the largest coordinate "
            f"is {np.abs(boxes).max():.3g}; multiply by the original image's width and height."
        )
    return None


def _low_scores(rows: DetectionRows) -> str | None:
    highest = rows.scores[rows.finite()].max()
    if highest >= _LOW_SCORE:
        return None
    return (
        f"All scores are below {_LOW_SCORE} (the highest is {highest:.3g}): the model has hardly "
        "learned yet, or the scores are those of the background class."
    )


def _untrained(rows: DetectionRows) -> str:
    categories = np.unique(rows.category_ids)
    single = f" (all of category {categories[0]})" if len(categories) == 1 else ""
    return (
        f"The {len(rows)} detections{single} match hardly any object, and no usual mistake in "
        "boxes or label map explains it: the model is probably untrained, or its checkpoint or "
        "input normalisation is not that of the training."
    )


def _misread(rows: DetectionRows, truth: CocoGroundTruth) -> str | None:
    """Score again with each usual mistake repaired; name the one that brings AP back."""
    images = np.intersect1d(rows.image_ids, truth.object_image_ids)[:_IMAGES_TRIED]
    truth = truth.subset(images)
    known = np.isin(rows.image_ids, images) & np.isin(rows.category_ids, truth.category_ids)
    rows = rows.select(known & rows.finite())
    if not len(rows):
        return None
    # On a few images one lucky box gives a few hundredths of AP.
    chance = 0.5 / len(images)
    least = max(_CLEARLY_BETTER, chance, _TIMES_BETTER * _average_precision(rows, truth))
    scores = {
        sentence: _average_precision(repair(rows, truth), truth)
        for sentence, repair in {**_REPAIRS, **_from_inputs(rows)}.items()
    }
    best = max(scores, key=scores.get)
    if scores[best] < least:
        return _wrong_classes(rows, truth, least)
    return f"{best} (AP would be {scores[best]:.3f} on {counted(len(images), 'image')})."


def _wrong_classes(rows: DetectionRows, truth: CocoGroundTruth, least: float) -> str | None:
    """Explain AP near zero if the boxes are right and only the classes are wrong."""
    one = truth.category_ids[0]
    merged = dataclasses.replace(
        truth, object_category_ids=np.full_like(truth.object_category_ids, one)
    )
    blind = dataclasses.replace(rows, category_ids=np.full_like(rows.category_ids, one))
    score = _average_precision(blind, merged)
    if score < least:
        return None
    return (
        f"Boxes fit but classes do not (AP would be {score:.3f} without classes): the label map is "
        "in another order than in training, or the model has not learned the classes yet."
    )


def _average_precision(rows: DetectionRows, truth: CocoGroundTruth) -> float:
    return evaluate_rows(truth, rows).metrics["AP"]


def _with_boxes(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Return a repair that reads the four numbers of each box differently."""
    return lambda rows, truth: dataclasses.replace(rows, boxes=change(rows.boxes))


def _shift(step: int) -> Callable:
    """Return a repair that takes the next or previous category of the ground truth."""

    def repair(rows: DetectionRows, truth: CocoGroundTruth) -> DetectionRows:
        ids = np.array(truth.category_ids)
        index = np.searchsorted(ids, rows.category_ids) + step
        inside = (index >= 0) & (index < len(ids))
        shifted = dataclasses.replace(rows, category_ids=ids[index.clip(0, len(ids) - 1)])
        return shifted.select(inside)

    return repair


def _from_corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _from_center(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def _swapped(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, [1, 0, 3, 2]]


def _unexchanged(rows: DetectionRows, truth: CocoGroundTruth) -> DetectionRows:
    """Undo a scaling of x by the height and of y by the width."""
    place = truth.positions(rows.image_ids)
    ratio = truth.widths[place] / np.maximum(truth.heights[place], 1)
    factors = np.stack([ratio, 1 / np.maximum(ratio, 1e-9)] * 2, axis=1)
    return dataclasses.replace(rows, boxes=rows.boxes * factors)


def _from_inputs(rows: DetectionRows) -> dict[str, Callable]:
    """Return the repairs of boxes that are left in pixels of the network's input."""
    farthest = np.quantile((rows.boxes[:, :2] + rows.boxes[:, 2:]).max(axis=1), 0.98)
    # Detections reach the far edges of some image.
    sides = [side for side in _INPUT_SIDES if 0.9 * farthest <= side <= 1.5 * farthest]
    told = "Boxes are in pixels of the network's input, {0} x {0}{1}, expected pixels of the image"
    return {
        told.format(side, " with the aspect ratio kept" if kept else ""): _from_input(side, kept)
        for side in sides
        for kept in (False, True)
    }


def _from_input(side: int, keep_aspect: bool) -> Callable:
    """Return a repair that scales boxes from a square input to the image."""

    def repair(rows: DetectionRows, truth: CocoGroundTruth) -> DetectionRows:
        place = truth.positions(rows.image_ids)
        sizes = np.stack([truth.widths[place], truth.heights[place]] * 2, axis=1) / side
        if keep_aspect:
            sizes = np.broadcast_to(sizes.max(axis=1, keepdims=True), sizes.shape)
        return dataclasses.replace(rows, boxes=rows.boxes * sizes)

    return repair


_REPAIRS: dict[str, Callable[[DetectionRows, CocoGroundTruth], DetectionRows]] = {
    "Box coordinates are in the wrong order: they are y, x, height, width, expected x, y, width, "
    "height": _with_boxes(_swapped),
    "Boxes are corners x1, y1, x2, y2, expected x, y, width, height": _with_boxes(_from_corners),
    "Boxes are corners y1, x1, y2, x2, expected x, y, width, height": _with_boxes(
        lambda boxes: _from_corners(_swapped(boxes))
    ),
    "Boxes begin with their centre, expected the upper left corner": _with_boxes(_from_center),
    "Boxes are scaled with width and height swapped": _unexchanged,
    "The label map is shifted by one: each detection has the category before its own (is "
    "background counted on one side only?)": _shift(1),
    "The label map is shifted by one: each detection has the category after its own (is "
    "background counted on one side only?)": _shift(-1),
}


def _some(values: np.ndarray, number: int = 5) -> str:
    """Name a few of the values."""
    distinct = np.unique(values)
    dots = ", ..." if len(distinct) > number else ""
    return ", ".join(str(value) for value in distinct[:number].tolist()) + dots
