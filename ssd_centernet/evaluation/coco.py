"""COCO bounding box evaluation over all images of a split."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssd_centernet.evaluation.backends import BACKENDS, match
from ssd_centernet.evaluation.checks import (
    check_known_categories,
    check_known_images,
    check_shapes,
    checked_limit,
)
from ssd_centernet.evaluation.detections_file import read_detections_file
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.limits import COCO_LIMIT, detector_notes, limit_notes
from ssd_centernet.evaluation.result import METRIC_NAMES, CocoResult, DetectionRows
from ssd_centernet.evaluation.summary import per_class, summarize

__all__ = [
    "BACKENDS",
    "METRIC_NAMES",
    "CocoEvaluator",
    "CocoGroundTruth",
    "CocoResult",
    "DetectionRows",
    "evaluate_detections_file",
    "evaluate_rows",
]

_EXAMPLES_SHOWN = 5


class CocoEvaluator:
    """Collect detections batch by batch and score them against a ground truth.

    Every image of the ground truth counts once, with or without detections.
    """

    def __init__(
        self,
        ground_truth: CocoGroundTruth,
        *,
        category_ids: Sequence[int] | None = None,
        max_detections: int = COCO_LIMIT,
        backend: str = "auto",
    ):
        """Prepare an evaluation.

        Args:
            ground_truth: the split that the detections belong to.
            category_ids: C data set category ids, that of class 0 first (`LabelMap.ids`); the
                ground truth's categories ascending by id when not given.
            max_detections: most detections of one class that count in one image, above 10; COCO
                has 100. The name of the ninth metric ends in this number.
            backend: `hotcoco`, `faster_coco_eval` or `pycocotools`, or `auto` for the first of
                these that is installed. All give the same bits.

        Raises:
            ValueError: the ground truth does not list one of the category ids.
        """
        self.ground_truth = ground_truth
        self.max_detections = checked_limit(max_detections)
        self.backend = backend
        ids = ground_truth.category_ids if category_ids is None else category_ids
        self._category_ids = np.array(list(ids), np.int64)
        check_known_categories(self._category_ids, ground_truth, "The label map")
        self.reset()

    def reset(self) -> None:
        """Forget all detections, to begin another pass over the split."""
        self._parts: list[DetectionRows] = []
        self._seen = np.zeros(self.ground_truth.num_images, bool)
        self._other_size = 0
        self._kept: int | None = None  # Detections of an image for which there is room.

    def add(
        self,
        source_ids: np.ndarray,
        heights: np.ndarray,
        widths: np.ndarray,
        detections: Mapping[str, np.ndarray] | Any,
        *,
        limited: bool = True,
    ) -> None:
        """Add the detections of one batch; images with a source id of -1 are fillers.

        Args:
            source_ids: integers [B], image ids of the ground truth, or -1.
            heights: [B], pixels of the original images.
            widths: [B], pixels of the original images.
            detections: a mapping or an object with `boxes` [B, D, 4] yxyx fractions of the
                original image, `scores` [B, D], `classes` [B, D] in 0..C-1 and `count` [B], the
                number of leading detections that are real.
            limited: whether the detector keeps no more than these D detections of an image,
                whatever is on it; notes of the result then say what that costs.

        Raises:
            ValueError: an image is not in the ground truth or was added before, a class is
                outside 0..C-1, or shapes do not fit. The evaluator is then unchanged.
        """
        fields = _fields(detections)
        source_ids = np.asarray(source_ids, np.int64).reshape(-1)
        check_shapes(source_ids, fields)
        images = np.flatnonzero(source_ids != -1)
        positions = self._new_positions(source_ids[images])
        sizes = np.stack([np.asarray(heights).reshape(-1), np.asarray(widths).reshape(-1)], axis=1)
        rows = self._rows(source_ids, sizes.astype(np.float64), fields)
        self._parts.append(rows)
        self._seen[positions] = True
        if limited:
            self._kept = max(self._kept or 0, fields["scores"].shape[1])
        self._other_size += self._count_other_sizes(positions, sizes[images])

    def join(self, gather: Callable[[list], list]) -> None:
        """Join what several processes added, each for its share of the images.

        Args:
            gather: concatenates the lists of all processes, like `Communicator.gather`.

        Raises:
            ValueError: two of them had the same image.
        """
        added = gather([(DetectionRows.concatenate(self._parts), self._seen, self._other_size)])
        parts, seen, other_sizes = zip(*added, strict=True)
        if np.sum(seen, axis=0).max(initial=0) > 1:
            raise ValueError("two processes added the same image; give each its own share.")
        self._parts, self._seen = [*parts], np.any(seen, axis=0)
        self._other_size = sum(other_sizes)

    def compute(self) -> CocoResult:
        """Score what was added.

        Returns:
            The result over all images of the ground truth; an image that was never added counts as
            one without detections, and a note gives their number.
        """
        notes = {
            "images of the ground truth were never added, counted as without detections": int(
                (~self._seen).sum()
            ),
            "images came with another size than the ground truth states (turned by EXIF?)": (
                self._other_size
            ),
        }
        notes = {sentence: count for sentence, count in notes.items() if count}
        if self._kept is not None:
            notes |= detector_notes(self.ground_truth, self._kept, self.max_detections)
        # Ids need no look: `add` has refused what is not in the ground truth.
        rows = DetectionRows.concatenate(self._parts)
        self._parts = [rows]
        return _score(self.ground_truth, rows, self.max_detections, self.backend, notes)

    def _new_positions(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the indices of images in the ground truth; refuse unknown and repeated ones."""
        check_known_images(image_ids, self.ground_truth, "This batch")
        positions = self.ground_truth.positions(image_ids)
        values, counts = np.unique(image_ids, return_counts=True)
        again = np.union1d(image_ids[self._seen[positions]], values[counts > 1])
        if len(again):
            raise ValueError(
                f"{len(again)} images were added twice, for example "
                f"{again[:_EXAMPLES_SHOWN].tolist()}. Each image counts once: run the evaluation "
                "data for one pass without repeat, fill the last batch with source_id -1, and "
                "call reset() before another pass."
            )
        return positions

    def _rows(
        self,
        source_ids: np.ndarray,
        sizes: np.ndarray,
        fields: dict[str, np.ndarray],
    ) -> DetectionRows:
        """Select the real detections of the real images and turn them into COCO rows."""
        slots = fields["scores"].shape[1]
        counts = np.where(source_ids == -1, 0, fields["count"])
        real = np.flatnonzero(np.arange(slots) < counts[:, None])
        index = real // slots
        classes = fields["classes"].reshape(-1)[real].astype(np.int64)
        wrong = (classes < 0) | (classes >= len(self._category_ids))
        if wrong.any():
            raise ValueError(
                f"Image {source_ids[index[wrong][0]]} has a detection of class "
                f"{classes[wrong][0]}, expected 0..{len(self._category_ids) - 1}. Classes never "
                "count background: does num_classes of the model match the label map?"
            )
        # The extent is taken in float32, before scaling in float64, as the original does.
        corners, scale = fields["boxes"].reshape(-1, 4)[real], sizes[index]
        boxes = np.empty((len(corners), 4))
        for column, side in ((0, 1), (1, 0)):
            near, far, pixels = corners[:, side], corners[:, side + 2], scale[:, side]
            np.multiply(near, pixels, out=boxes[:, column])
            np.multiply(far - near, pixels, out=boxes[:, column + 2])
        return DetectionRows(
            image_ids=source_ids[index],
            category_ids=self._category_ids[classes],
            boxes=boxes,
            scores=fields["scores"].reshape(-1)[real].astype(np.float64),
        )

    def _count_other_sizes(self, positions: np.ndarray, sizes: np.ndarray) -> int:
        truth = self.ground_truth
        stated = np.stack([truth.heights[positions], truth.widths[positions]], axis=1)
        return int(((stated != sizes) & (stated > 0)).any(axis=1).sum())


def evaluate_rows(
    ground_truth: CocoGroundTruth,
    rows: DetectionRows,
    *,
    max_detections: int = COCO_LIMIT,
    backend: str = "auto",
    notes: Mapping[str, int] | None = None,
) -> CocoResult:
    """Score COCO rows over all images of the ground truth.

    Args:
        ground_truth: the split; all its images count.
        rows: detections in pixels; those that are not finite are left out and counted.
        max_detections: most detections of one class that count in one image.
        backend: `auto`, or one of `BACKENDS`, as in `CocoEvaluator`.
        notes: more notes for the result, added to those of the ground truth.

    Returns:
        The result; AP is 0 without any detection, and -1 only without any object.

    Raises:
        ValueError: image or category ids are not in the ground truth.
        ImportError: the backend is missing or broken.
    """
    check_known_images(rows.image_ids, ground_truth, "The detections")
    check_known_categories(rows.category_ids, ground_truth, "The detections")
    limit = checked_limit(max_detections)
    return _score(ground_truth, rows, limit, backend, notes or {})


def _score(
    ground_truth: CocoGroundTruth,
    rows: DetectionRows,
    limit: int,
    backend: str,
    notes: Mapping[str, int],
) -> CocoResult:
    """Score rows whose ids are those of the ground truth."""
    limits = (1, 10, limit)
    finite = rows.finite()
    all_notes = dict(ground_truth.notes) | dict(notes)
    if not finite.all():
        rows = rows.select(finite)
        first = f"(first: row {np.flatnonzero(~finite)[0]})"
        sentence = f"detections were not finite (NaN or infinite), left out {first}"
        all_notes[sentence] = int((~finite).sum())
    all_notes |= limit_notes(ground_truth, limit)
    precision, recall, name = match(ground_truth, rows, limits, backend)
    return CocoResult(
        metrics=summarize(precision, recall, limits),
        per_class=per_class(precision, ground_truth, rows),
        rows=rows,
        num_images=ground_truth.num_images,
        backend=name,
        max_detections=limit,
        notes=all_notes,
    )


def evaluate_detections_file(
    detections_json: str | os.PathLike | Sequence[Mapping[str, Any]],
    annotations_json: str | os.PathLike | Mapping[str, Any],
    backend: str = "auto",
    *,
    max_detections: int = COCO_LIMIT,
) -> CocoResult:
    """Score any file in COCO's result format.

    Args:
        detections_json: a path, or the list itself: dicts with `image_id`, `category_id`, `bbox`
            and `score`; more keys (segmentation) are ignored; an empty list gives AP 0.
        annotations_json: COCO annotations, a path or their content.
        backend: `auto`, or one of `BACKENDS`, as in `CocoEvaluator`.
        max_detections: most detections of one class that count in one image.

    Returns:
        The result over all images of the annotations.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file does not hold COCO results, ids are not in the annotations, or boxes are
            in another unit than pixels.
    """
    ground_truth = CocoGroundTruth.load(annotations_json)
    rows, notes = read_detections_file(detections_json, ground_truth)
    return evaluate_rows(
        ground_truth, rows, backend=backend, max_detections=max_detections, notes=notes
    )


def _fields(detections: Mapping[str, np.ndarray] | Any) -> dict[str, np.ndarray]:
    """Return the four arrays of a mapping, or of an object with these attributes."""
    names = ("boxes", "scores", "classes", "count")
    if isinstance(detections, Mapping):
        return {name: np.asarray(detections[name]) for name in names}
    return {name: np.asarray(getattr(detections, name)) for name in names}
