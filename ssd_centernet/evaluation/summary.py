"""The 12 COCO numbers and the table of classes, from arrays of precision and recall."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import METRIC_NAMES, DetectionRows

# Up to this id a table of all ids is quicker than a search.
_FEW_IDS = 100_000


def objects_by_area(ground_truth: CocoGroundTruth, ranges: Sequence[Sequence[float]]) -> np.ndarray:
    """Count the objects of each category in each area range: int64 [K, A], no crowd regions."""
    # Both ends belong to a range, as pycocotools has it.
    low, high = np.array(ranges, np.float64).T[:, :, None]
    areas = ground_truth.areas
    inside = (areas >= low) & (areas <= high) & ~ground_truth.is_crowd
    columns = np.searchsorted(ground_truth.category_ids, ground_truth.object_category_ids)
    size = len(ground_truth.category_ids)
    return np.stack([np.bincount(columns[row], minlength=size) for row in inside], axis=1)


def probes(counts: np.ndarray) -> np.ndarray:
    """Return float64 [K, A]: the recall level of one and a half objects; see `same_bits`."""
    # With n objects, one found gives a recall of 1 / n and two give 2 / n: the level between needs
    # two.
    return 1.5 / np.maximum(counts, 1)


def same_bits(precision: np.ndarray, at_probes: np.ndarray) -> np.ndarray:
    """Give faster_coco_eval's precision the bits of pycocotools.

    pycocotools divides by tp + fp + 2^-52, faster_coco_eval by tp + fp. The quotients differ only
    where tp + fp = 1 and tp = 1: 1 / (1 + 2^-52) against 1. This stays visible if the best
    detection is right and the second wrong; a second right one makes the precision 2 / 2. The
    precision at the recall of one and a half objects shows the case: it is 1 only if the first two
    detections are right. Values of pycocotools pass through unchanged.

    Args:
        precision: float64 [T, R, K, A, M].
        at_probes: float64 [T, K, A, M], the precision at the recall levels of `probes`.

    Returns:
        float64 [T, R, K, A, M].
    """
    # [T, 1, K, A, M]: one answer for all recall levels of a curve.
    one_right = (at_probes < 1.0)[:, None]
    # All other quotients are the same in both: to a tp + fp of 2 or more float64 cannot add 2^-52.
    return np.where((precision == 1.0) & one_right, 1.0 / (1.0 + np.spacing(1.0)), precision)


def _mean(values: np.ndarray) -> float:
    """Return the mean of the defined values; -1 if there are none."""
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else -1.0


def summarize(
    precision: np.ndarray, recall: np.ndarray, limits: tuple[int, ...]
) -> dict[str, float]:
    """Return the 12 numbers; axes end in area (all, small, medium, large) and limit."""
    numbers = [_mean(precision[..., 0, -1])]
    # IoU thresholds are 0.50, 0.55, ...: the first is AP50's and the sixth AP75's.
    numbers += [_mean(precision[t, ..., 0, -1]) for t in (0, 5)]
    numbers += [_mean(precision[..., area, -1]) for area in (1, 2, 3)]
    numbers += [_mean(recall[..., 0, limit]) for limit in (0, 1, 2)]
    numbers += [_mean(recall[..., area, -1]) for area in (1, 2, 3)]
    names = list(METRIC_NAMES)
    names[8] = f"ARmax{limits[-1]}"
    return dict(zip(names, numbers, strict=True))


def per_class(
    precision: np.ndarray, truth: CocoGroundTruth, rows: DetectionRows
) -> tuple[dict[str, Any], ...]:
    """Return one dict per category."""
    ids = np.array(truth.category_ids, np.int64)
    objects = _occurrences(truth.object_category_ids[~truth.is_crowd], ids)
    found = _occurrences(rows.category_ids, ids)
    # [K, T, R]: where the values of a class lie together, the mean of each row has the bits of the
    # mean of the row alone. A class without objects has -1 everywhere, any other nowhere.
    by_class = np.ascontiguousarray(np.moveaxis(precision[..., 0, -1], -1, 0))
    thresholds, levels = by_class.shape[1:]
    averages = by_class.reshape(-1, thresholds * levels).mean(axis=1).tolist()
    at_half = by_class[:, 0].mean(axis=1).tolist()
    return tuple(
        {
            **category,
            "AP": float("nan") if averages[k] < 0 else averages[k],
            "AP50": float("nan") if at_half[k] < 0 else at_half[k],
            "num_objects": int(objects[k]),
            "num_detections": int(found[k]),
        }
        for k, category in enumerate(truth.categories)
    )


def _occurrences(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Count how often each of the ascending ids occurs; there are no other values."""
    if len(ids) and 0 <= ids[0] and ids[-1] < _FEW_IDS:
        return np.bincount(values, minlength=ids[-1] + 1)[ids]
    return np.bincount(np.searchsorted(ids, values), minlength=len(ids))
