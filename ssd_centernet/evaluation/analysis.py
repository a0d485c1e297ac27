"""The errors of an evaluation: their kinds and cost, confusions, calibration."""

import dataclasses

import numpy as np

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.overlaps import (
    Pairs,
    match,
    overlapping_pairs,
    precision_table,
    ranked,
)
from ssd_centernet.evaluation.result import DetectionRows

IOU_THRESHOLDS = (0.5, 0.75, 0.9)
# Kinds of wrong detections, and at the end the objects without a detection.
ERRORS = ("class", "localisation", "both", "duplicate", "background", "missed")
# Kinds of a detection beside the first five of ERRORS.
RIGHT, IGNORED = -1, -2
_CLASS, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
_FOUND_IOU = 0.5
_BACKGROUND_IOU = 0.1
_SCORE_BINS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Hold the numbers of right and wrong detections, at IoU 0.5, in bins of the score.

    Attributes:
        edges: float64 [B + 1], from 0 to 1.
        right: int64 [B], detections that found an object.
        wrong: int64 [B], detections that did not.
        mean_score: float64 [B], NaN for an empty bin.
        error: expected calibration error, the mean of |share that is right - mean score| over
            detections; NaN without any.
    """

    edges: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    mean_score: np.ndarray
    error: float

    @property
    def precision(self) -> np.ndarray:
        """Return the share of right detections of each bin, float64 [B], NaN for an empty one."""
        return _ratio(self.right, self.right + self.wrong)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """Hold each detection of an evaluation with its kind, and their totals.

    A detection is right if it is matched with an object of its class at IoU 0.5. For any other, the
    object that it overlaps most decides its kind: `class` (IoU 0.5 or more, another class),
    `duplicate` (0.5 or more, its own class, already found by a higher score), `localisation`
    (0.1 to 0.5, its own class), `both` (0.1 to 0.5, another class) or `background` (below 0.1). An
    object is `missed` if no detection found it and none is a `class` or `localisation` error on it.

    Attributes:
        names: C class names.
        num_objects: int64 [C]; crowd regions are not counted.
        rows: the N detections that count, highest score first.
        kinds: int64 [N], index into `ERRORS`, or RIGHT, or IGNORED (inside a crowd region).
        targets: int64 [N], the object that a detection found or overlaps most, -1 for none.
        precision: float64 [3, C, 101], at `IOU_THRESHOLDS` and 101 recalls, NaN without objects.
        counts: kind of `ERRORS` -> number of errors with any score.
        shown_counts: the same among the detections of `score_threshold` or more.
        costs: kind -> how much AP50 would rise without it, 0..1.
        score_threshold: the lowest score of a shown detection; by default F1 over all classes is
            highest there.
        shown: precision, recall and F1 at that score.
        confusion: int64 [C + 1, C + 1], rows are truth and columns detections of at least that
            score; the last of either is background.
        calibration: calibration of the scores.
        missed: bool [M], objects that no detection of at least that score found.
    """

    names: tuple[str, ...]
    num_objects: np.ndarray
    rows: DetectionRows
    kinds: np.ndarray
    targets: np.ndarray
    precision: np.ndarray
    counts: dict[str, int]
    shown_counts: dict[str, int]
    costs: dict[str, float]
    score_threshold: float
    shown: dict[str, float]
    confusion: np.ndarray
    calibration: Calibration
    missed: np.ndarray

    @property
    def num_shown(self) -> int:
        """Return how many detections have at least `score_threshold`."""
        return int(np.count_nonzero(self.rows.scores >= self.score_threshold))

    @property
    def average_precision(self) -> np.ndarray:
        """Return AP of each class at each of `IOU_THRESHOLDS`, float64 [3, C]."""
        return self.precision.mean(axis=2)


def analyse(
    truth: CocoGroundTruth,
    rows: DetectionRows,
    *,
    score_threshold: float | None = None,
    max_detections: int = 100,
) -> Analysis:
    """Analyse the errors of an evaluation.

    Args:
        truth: the ground truth of the split.
        rows: finite detections of its images and categories.
        score_threshold: lowest score of a detection that counts in confusions and `shown_counts`;
            None takes the one with the highest F1.
        max_detections: most detections of one class that count in one image.

    Returns:
        The analysis. Its AP at IoU 0.5 and 0.75 are COCO's.
    """
    rows, ranks = ranked(rows, max_detections)
    ids = np.array(truth.category_ids, np.int64)
    classes = np.searchsorted(ids, rows.category_ids)
    object_classes = np.searchsorted(ids, truth.object_category_ids)
    num_objects = np.bincount(object_classes[~truth.is_crowd], minlength=len(ids))
    pairs = overlapping_pairs(truth, rows, _BACKGROUND_IOU)
    alike = classes[pairs.rows] == object_classes[pairs.objects]
    tables, found = [], None
    for threshold in IOU_THRESHOLDS:
        matched = match(pairs.select(alike), ranks, truth.is_crowd, threshold)
        counted = ~_in_crowd(matched, truth)
        hits = (matched >= 0)[counted]
        tables.append(precision_table(hits, classes[counted], num_objects))
        found = matched if found is None else found
    pairs = pairs.select(~truth.is_crowd[pairs.objects])
    kinds, targets = _kinds(found, pairs, classes, object_classes, truth)
    if score_threshold is None:
        score_threshold = _best_threshold(rows.scores, kinds, num_objects.sum())
    shown = rows.scores >= score_threshold
    return Analysis(
        names=tuple(category["name"] for category in truth.categories),
        num_objects=num_objects,
        rows=rows,
        kinds=kinds,
        targets=targets,
        precision=np.stack(tables),
        counts=_counts(kinds, targets, truth),
        shown_counts=_counts(kinds[shown], targets[shown], truth),
        costs=_costs(kinds, targets, classes, object_classes, num_objects, truth),
        score_threshold=score_threshold,
        shown=_scores_of(kinds[shown], num_objects.sum()),
        confusion=_confusion(kinds, targets, pairs, shown, classes, object_classes, truth),
        calibration=_calibration(rows.scores, kinds),
        missed=_not_found(kinds[shown], targets[shown], truth),
    )


def _in_crowd(matched: np.ndarray, truth: CocoGroundTruth) -> np.ndarray:
    """Return bool [N]: detections that were matched with a crowd region."""
    inside = np.zeros(len(matched), bool)
    inside[matched >= 0] = truth.is_crowd[matched[matched >= 0]]
    return inside


def _kinds(found, pairs: Pairs, classes, object_classes, truth) -> tuple[np.ndarray, np.ndarray]:
    """Return kind and object of each detection."""
    kinds = np.full(len(found), _BACKGROUND, np.int64)
    targets = np.full(len(found), -1, np.int64)
    # If it overlaps two objects equally, the one of its own class counts.
    nearest = pairs.best(pairs.ious, classes[pairs.rows] == object_classes[pairs.objects])
    alike = classes[nearest.rows] == object_classes[nearest.objects]
    close = nearest.ious >= _FOUND_IOU
    kinds[nearest.rows] = np.select(
        [close & alike, close, alike], [_DUPLICATE, _CLASS, _LOCALISATION], _BOTH
    )
    targets[nearest.rows] = nearest.objects
    ignored = _in_crowd(found, truth)
    right = (found >= 0) & ~ignored
    kinds[right], kinds[ignored] = RIGHT, IGNORED
    targets[right], targets[ignored] = found[right], -1
    return kinds, targets


def _not_found(kinds, targets, truth: CocoGroundTruth) -> np.ndarray:
    """Return bool [M]: objects, crowd regions aside, that no detection found."""
    missed = ~truth.is_crowd
    missed[targets[kinds == RIGHT]] = False
    return missed


def _missed(kinds, targets, truth: CocoGroundTruth) -> np.ndarray:
    """Return bool [M]: objects not found that no class or localisation error explains."""
    missed = _not_found(kinds, targets, truth)
    missed[targets[np.isin(kinds, (_CLASS, _LOCALISATION))]] = False
    return missed


def _counts(kinds, targets, truth: CocoGroundTruth) -> dict[str, int]:
    numbers = [int(np.count_nonzero(kinds == kind)) for kind in range(5)]
    numbers.append(int(_missed(kinds, targets, truth).sum()))
    return dict(zip(ERRORS, numbers, strict=True))


def _costs(
    kinds, targets, classes, object_classes, num_objects, truth: CocoGroundTruth
) -> dict[str, float]:
    """Return how much AP50 rises if all errors of a kind are corrected."""

    def ap50(kinds, classes, num_objects) -> float:
        counted = kinds != IGNORED
        table = precision_table(kinds[counted] == RIGHT, classes[counted], num_objects)
        return float(np.nanmean(table)) if (num_objects > 0).any() else 0.0

    before = ap50(kinds, classes, num_objects)
    costs = {}
    for kind, name in enumerate(ERRORS[:5]):
        # Without its error a detection is gone, or is right where its object is still free.
        mended = np.where(kinds == kind, IGNORED, kinds)
        moved = classes.copy()
        if kind in (_CLASS, _LOCALISATION):
            free = _not_found(kinds, targets, truth)
            wrong = np.flatnonzero(kinds == kind)
            wrong = wrong[free[targets[wrong]]]
            # The highest score comes first and takes the object.
            wrong = wrong[np.unique(targets[wrong], return_index=True)[1]]
            mended[wrong] = RIGHT
            moved[wrong] = object_classes[targets[wrong]]
        costs[name] = ap50(mended, moved, num_objects) - before
    missed = _missed(kinds, targets, truth)
    fewer = num_objects - np.bincount(object_classes[missed], minlength=len(num_objects))
    # A class with all objects missed would then be perfect, not without a value.
    gained = np.count_nonzero((num_objects > 0) & (fewer == 0))
    with_objects = max(np.count_nonzero(num_objects > 0), 1)
    remaining = np.count_nonzero(fewer > 0)
    after = (ap50(kinds, classes, fewer) * remaining + gained) / with_objects
    costs["missed"] = float(after - before)
    return costs


def _best_threshold(scores, kinds, num_objects: int) -> float:
    """Return the score threshold with the highest F1; 0.5 if nothing is right."""
    counted = kinds != IGNORED
    right = np.cumsum(kinds[counted] == RIGHT)
    if not len(right) or not right[-1]:
        return 0.5
    scores = scores[counted]
    # Equal scores are shown together.
    last = np.append(scores[1:] != scores[:-1], True)
    f1 = 2 * right / (np.arange(len(right)) + 1 + num_objects)
    return float(scores[last][np.argmax(f1[last])])


def _scores_of(kinds, num_objects: int) -> dict[str, float]:
    right, shown = np.count_nonzero(kinds == RIGHT), np.count_nonzero(kinds != IGNORED)
    precision = right / shown if shown else float("nan")
    recall = right / num_objects if num_objects else float("nan")
    f1 = 2 * right / (shown + num_objects) if shown + num_objects else float("nan")
    return {"precision": precision, "recall": recall, "F1": f1}


def _confusion(kinds, targets, pairs: Pairs, shown, classes, object_classes, truth) -> np.ndarray:
    """Pair detections with objects, of the same class first and then by overlap; count classes."""
    free_row = shown & (kinds != IGNORED)
    free_object = ~truth.is_crowd
    right = free_row & (kinds == RIGHT)
    matrix = np.zeros([len(truth.categories) + 1] * 2, np.int64)
    np.add.at(matrix, (object_classes[targets[right]], classes[right]), 1)
    free_row[right] = False
    free_object[targets[right]] = False
    left = pairs.select((pairs.ious >= _FOUND_IOU) & free_row[pairs.rows])
    left = left.select(np.argsort(-left.ious, kind="stable"))
    for row, one in zip(left.rows.tolist(), left.objects.tolist(), strict=True):
        if free_row[row] and free_object[one]:
            matrix[object_classes[one], classes[row]] += 1
            free_row[row] = free_object[one] = False
    np.add.at(matrix, (-1, classes[free_row]), 1)
    np.add.at(matrix, (object_classes[free_object], -1), 1)
    return matrix


def _calibration(scores, kinds) -> Calibration:
    scores, right = scores[kinds != IGNORED], kinds[kinds != IGNORED] == RIGHT
    bins = (scores * _SCORE_BINS).astype(np.int64).clip(0, _SCORE_BINS - 1)
    hits = np.bincount(bins[right], minlength=_SCORE_BINS)
    every = np.bincount(bins, minlength=_SCORE_BINS)
    sums = np.bincount(bins, weights=scores, minlength=_SCORE_BINS)
    error = float(np.abs(hits - sums).sum() / len(scores)) if len(scores) else float("nan")
    return Calibration(
        edges=np.linspace(0.0, 1.0, _SCORE_BINS + 1),
        right=hits,
        wrong=every - hits,
        mean_score=_ratio(sums, every),
        error=error,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
