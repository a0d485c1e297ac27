"""Matching of detections and objects by COCO's rules, in whole arrays."""

import dataclasses

import numpy as np

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import DetectionRows

RECALLS = np.linspace(0.0, 1.0, 101)
# Number of detections paired with objects at once; it bounds the memory.
_CHUNK = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """Hold overlapping pairs of a detection and an object of one image.

    Attributes:
        rows: int64 [P], index of the detection.
        objects: int64 [P], index of the object.
        ious: float64 [P]; with a crowd region the share of the detection inside it.
    """

    rows: np.ndarray
    objects: np.ndarray
    ious: np.ndarray

    def select(self, keep: np.ndarray) -> "Pairs":
        """Return the pairs chosen by a mask or by indices."""
        return Pairs(rows=self.rows[keep], objects=self.objects[keep], ious=self.ious[keep])

    def best(self, *keys: np.ndarray) -> "Pairs":
        """Return one pair per detection: the largest by `keys`, the first key first.

        Args:
            *keys: [P] each. Of equal pairs the last object wins, as in COCO.
        """
        order = np.lexsort((self.objects, *keys[::-1], self.rows))
        rows = self.rows[order]
        last = np.append(rows[1:] != rows[:-1], True) if len(rows) else np.zeros(0, bool)
        return self.select(order[last])


def ranked(rows: DetectionRows, limit: int) -> tuple[DetectionRows, np.ndarray]:
    """Sort detections by score and keep those that count.

    Args:
        rows: N detections.
        limit: largest number of one class in one image.

    Returns:
        The rows [M], the highest score first, and int64 [M], the rank of each among those of its
        image and class, from 0.
    """
    rows = rows.select(np.lexsort((np.arange(len(rows)), rows.image_ids, -rows.scores)))
    order = np.lexsort((np.arange(len(rows)), rows.category_ids, rows.image_ids))
    group = np.stack([rows.image_ids[order], rows.category_ids[order]])
    first = np.append(True, (group[:, 1:] != group[:, :-1]).any(axis=0))[: len(rows)]
    starts = np.flatnonzero(first)
    ranks = np.zeros(len(rows), np.int64)
    ranks[order] = np.arange(len(rows)) - starts[np.cumsum(first) - 1]
    keep = ranks < limit
    return rows.select(keep), ranks[keep]


def overlapping_pairs(truth: CocoGroundTruth, rows: DetectionRows, least: float) -> Pairs:
    """Find all pairs of a detection and an object of any class on the same image.

    Args:
        truth: the objects.
        rows: the detections.
        least: smallest overlap of a pair, above 0.

    Returns:
        The pairs; their indices are those of `rows` and of the objects of `truth`.
    """
    by_image = np.argsort(truth.object_image_ids, kind="stable")
    images = truth.object_image_ids[by_image]
    parts = []
    for begin in range(0, len(rows), _CHUNK):
        ids = rows.image_ids[begin : begin + _CHUNK]
        low, high = np.searchsorted(images, ids), np.searchsorted(images, ids, side="right")
        count = high - low
        row = np.repeat(np.arange(len(ids)), count)
        offset = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        objects = by_image[low[row] + offset]
        row = row + begin
        ious = _ious(rows.boxes[row], truth.boxes[objects], truth.is_crowd[objects])
        parts.append(Pairs(rows=row, objects=objects, ious=ious).select(ious >= least))
    if not parts:
        none = np.zeros(0, np.int64)
        return Pairs(rows=none, objects=none, ious=np.zeros(0))
    fields = [field.name for field in dataclasses.fields(Pairs)]
    return Pairs(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in fields})


def match(
    pairs: Pairs, ranks: np.ndarray, is_crowd: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """Match detections with objects; the highest score of an image and class chooses first.

    Args:
        pairs: the pairs of the same class.
        ranks: int64 [N], rank of each detection in its image and class.
        is_crowd: bool [M], of each object; crowd regions take any number of detections.
        iou_threshold: least overlap, 0..1.

    Returns:
        int64 [N]: index of the object, -1 for none.
    """
    pairs = pairs.select(pairs.ious >= min(iou_threshold, 1 - 1e-10))
    pairs = pairs.select(np.argsort(ranks[pairs.rows], kind="stable"))
    bounds = np.searchsorted(ranks[pairs.rows], np.arange(ranks.max(initial=-1) + 2))
    found = np.full(len(ranks), -1, np.int64)
    taken = np.zeros(len(is_crowd), bool)
    # Detections of one rank belong to different images or classes: they share no object.
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        one = pairs.select(slice(begin, end))
        one = one.select(~taken[one.objects] | is_crowd[one.objects])
        one = one.best(~is_crowd[one.objects], one.ious)
        found[one.rows] = one.objects
        taken[one.objects] = True
    return found


def precision_table(hits: np.ndarray, classes: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """Compute the precision of every class at COCO's 101 recalls.

    Args:
        hits: bool [N], whether a detection found an object; the highest score first.
        classes: int [N], 0..C-1.
        num_objects: [C].

    Returns:
        float64 [C, 101]: the highest precision at this recall or above, 0 if it is never reached,
        NaN for a class without objects. The mean of a row is its AP.
    """
    table = np.full((len(num_objects), len(RECALLS)), np.nan)
    for index in np.flatnonzero(num_objects > 0):
        right = np.cumsum(hits[classes == index])
        precision = right / (np.arange(len(right)) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(right / num_objects[index], RECALLS)
        table[index] = np.append(envelope, 0.0)[place]
    return table


def _ious(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return the overlap of each of P pairs of boxes, xywh."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = np.prod((high - low).clip(min=0), axis=1)
    area, other_area = np.prod(boxes[:, 2:], axis=1), np.prod(others[:, 2:], axis=1)
    whole = np.where(crowd, area, area + other_area - shared)
    return np.divide(shared, whole, out=np.zeros(len(shared)), where=whole > 0)
