"""COCO bounding box evaluation over all images of a split.

This is the only module that imports pycocotools or faster_coco_eval, and only when they are used.
"""

import contextlib
import importlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

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
from ssd_centernet.evaluation.summary import (
    objects_by_area,
    per_class,
    probes,
    same_bits,
    summarize,
)

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

BACKENDS = ("faster_coco_eval", "pycocotools")

_CLASSES = {
    "faster_coco_eval": ("faster_coco_eval:COCO", "faster_coco_eval:COCOeval_faster"),
    "pycocotools": ("pycocotools.coco:COCO", "pycocotools.cocoeval:COCOeval"),
}
_INSTALL = {
    "faster_coco_eval": "pip install --upgrade faster-coco-eval",
    "pycocotools": "pip install --upgrade 'pycocotools>=2.0.8'",
}
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
            backend: `auto` (faster_coco_eval where installed), `faster_coco_eval` or
                `pycocotools`. All give the same bits.

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
    ) -> None:
        """Add the detections of one batch; images with a source id of -1 are fillers.

        Args:
            source_ids: integers [B], image ids of the ground truth, or -1.
            heights: [B], pixels of the original images.
            widths: [B], pixels of the original images.
            detections: a mapping or an object with `boxes` [B, D, 4] yxyx fractions of the
                original image, `scores` [B, D], `classes` [B, D] in 0..C-1 and `count` [B], the
                number of leading detections that are real.

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
        rows = self._rows(source_ids, sizes.astype(np.float64), images, fields)
        self._parts.append(rows)
        self._seen[positions] = True
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
        return evaluate_rows(
            self.ground_truth,
            DetectionRows.concatenate(self._parts),
            max_detections=self.max_detections,
            backend=self.backend,
            notes=notes,
        )

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
        images: np.ndarray,
        fields: dict[str, np.ndarray],
    ) -> DetectionRows:
        """Select the real detections of the real images and turn them into COCO rows."""
        real = np.arange(fields["scores"].shape[1]) < fields["count"][images, None]
        index, slot = np.nonzero(real)
        index = images[index]
        classes = fields["classes"][index, slot].astype(np.int64)
        wrong = (classes < 0) | (classes >= len(self._category_ids))
        if wrong.any():
            raise ValueError(
                f"Image {source_ids[index[wrong][0]]} has a detection of class "
                f"{classes[wrong][0]}, expected 0..{len(self._category_ids) - 1}. Classes never "
                "count background: does num_classes of the model match the label map?"
            )
        # The extent is taken in float32, before scaling in float64, as the original does.
        boxes = fields["boxes"][index, slot][:, [1, 0, 3, 2]]
        top_left = boxes[:, :2] * sizes[index, ::-1]
        extent = (boxes[:, 2:] - boxes[:, :2]) * sizes[index, ::-1]
        return DetectionRows(
            image_ids=source_ids[index],
            category_ids=self._category_ids[classes],
            boxes=np.concatenate([top_left, extent], axis=1),
            scores=fields["scores"][index, slot].astype(np.float64),
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
        backend: `auto`, `faster_coco_eval` or `pycocotools`.
        notes: more notes for the result, added to those of the ground truth.

    Returns:
        The result; AP is 0 without any detection, and -1 only without any object.

    Raises:
        ValueError: image or category ids are not in the ground truth.
        ImportError: the backend is missing or broken.
    """
    check_known_images(rows.image_ids, ground_truth, "The detections")
    check_known_categories(rows.category_ids, ground_truth, "The detections")
    limits = (1, 10, checked_limit(max_detections))
    finite = rows.finite()
    all_notes = dict(ground_truth.notes) | dict(notes or {})
    if not finite.all():
        rows = rows.select(finite)
        first = f"(first: row {np.flatnonzero(~finite)[0]})"
        sentence = f"detections were not finite (NaN or infinite), left out {first}"
        all_notes[sentence] = int((~finite).sum())
    all_notes |= limit_notes(ground_truth, limits[-1])
    precision, recall, name = _match(ground_truth, rows, limits, backend)
    return CocoResult(
        metrics=summarize(precision, recall, limits),
        per_class=per_class(precision, ground_truth, rows),
        rows=rows,
        num_images=ground_truth.num_images,
        backend=name,
        max_detections=limits[-1],
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
        backend: `auto`, `faster_coco_eval` or `pycocotools`.
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


def _load_backend(backend: str) -> tuple[type, type, str]:
    """Import the classes of a backend; `auto` takes the first that works."""
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected 'auto' or one of {BACKENDS}.")
    failures = []
    for name in BACKENDS if backend == "auto" else (backend,):
        try:
            dataset, evaluation = (_attribute(target) for target in _CLASSES[name])
            return dataset, evaluation, name
        # A wheel built for another NumPy fails with ValueError ("numpy.dtype size changed") or
        # AttributeError rather than ImportError.
        except (ImportError, ValueError, AttributeError, RuntimeError) as error:
            failures.append(f"{name}: {type(error).__name__}: {error} -> {_INSTALL[name]}")
    raise ImportError(
        "COCO evaluation needs pycocotools (or the faster faster-coco-eval), built for the "
        f"installed NumPy {np.__version__}. Tried, and what to run:\n  " + "\n  ".join(failures)
    )


def _attribute(target: str) -> type:
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def _match(
    ground_truth: CocoGroundTruth, rows: DetectionRows, limits: tuple[int, ...], backend: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return precision [T, R, K, A, M], recall [T, K, A, M] and the name of the backend."""
    dataset_class, evaluation_class, name = _load_backend(backend)
    if not ground_truth.num_images or not ground_truth.categories:
        shape = (len(ground_truth.categories), 4, 3)
        return -np.ones((10, 101, *shape)), -np.ones((10, *shape)), name
    ground_truth, rows = ground_truth.with_small_ids(rows)
    truth = ground_truth.to_coco()
    found = truth | {"annotations": _annotation_dicts(rows)}
    # Both libraries print progress, which would mix with the caller's output.
    with contextlib.redirect_stdout(io.StringIO()):
        datasets = []
        for content in (truth, found):
            dataset = dataset_class()
            dataset.dataset = content
            dataset.createIndex()
            datasets.append(dataset)
        evaluation = evaluation_class(*datasets, iouType="bbox")
        evaluation.params.imgIds = ground_truth.image_ids.tolist()
        evaluation.params.catIds = list(ground_truth.category_ids)
        evaluation.params.maxDets = list(limits)
        counts = objects_by_area(ground_truth, evaluation.params.areaRng)
        usual = np.asarray(evaluation.params.recThrs)
        probe_levels = probes(counts)
        levels = np.union1d(usual, probe_levels)
        evaluation.params.recThrs = levels
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], np.float64)
    recall = np.asarray(evaluation.eval["recall"], np.float64)
    category, area = np.indices(counts.shape)
    at_probes = precision[:, np.searchsorted(levels, probe_levels), category, area]
    precision = precision[:, np.searchsorted(levels, usual)]
    return same_bits(precision, at_probes), recall, name


def _annotation_dicts(rows: DetectionRows) -> list[dict[str, Any]]:
    """Return rows as annotations, in the form that a result file has once it is read.

    The libraries' `loadRes` would fail on an empty list and make a polygon of every box.
    """
    annotations = rows.to_list()
    areas = (rows.boxes[:, 2] * rows.boxes[:, 3]).tolist()
    for number, (annotation, area) in enumerate(zip(annotations, areas, strict=True), start=1):
        annotation["id"] = number
        annotation["area"] = area
        annotation["iscrowd"] = 0
    return annotations
