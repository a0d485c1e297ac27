"""The libraries that match detections with objects by COCO's rules, all with the same bits.

This is the only module that imports hotcoco, faster_coco_eval or pycocotools, and only when they
are used.
"""

import contextlib
import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import DetectionRows
from ssd_centernet.evaluation.summary import objects_by_area, probes, same_bits

# The quickest first. What pycocotools gives is the metric; the others are here because they give
# the same (tests/evaluation/test_backends.py).
BACKENDS = ("hotcoco", "faster_coco_eval", "pycocotools")
CHOICES = ("auto", *BACKENDS)

# Each name stands for an attribute that the library must have, of any depth.
_NEEDED = {
    "hotcoco": ("hotcoco:COCO", "hotcoco:COCOeval", "hotcoco:COCO.from_arrays"),
    "faster_coco_eval": ("faster_coco_eval:COCO", "faster_coco_eval:COCOeval_faster"),
    "pycocotools": ("pycocotools.coco:COCO", "pycocotools.cocoeval:COCOeval"),
}
_INSTALL = {
    "hotcoco": "pip install --upgrade 'hotcoco>=1.3'",
    "faster_coco_eval": "pip install --upgrade faster-coco-eval",
    "pycocotools": "pip install --upgrade 'pycocotools>=2.0.8'",
}


def match(
    ground_truth: CocoGroundTruth, rows: DetectionRows, limits: Sequence[int], backend: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """Match detections with objects at COCO's ten thresholds of IoU.

    Args:
        ground_truth: the split; all its images count.
        rows: finite detections of its images and categories.
        limits: numbers of detections of one class in one image that count, ascending.
        backend: one of `CHOICES`; `auto` takes the first of `BACKENDS` that is installed and works.

    Returns:
        `(precision, recall, name)`: float64 [T, R, K, A, M] and [T, K, A, M] with T thresholds, R
        recall levels, K categories, A areas (all, small, medium, large) and M limits, -1 where
        there is no object; and the backend that was taken.

    Raises:
        ValueError: the backend is none of `CHOICES`.
        ImportError: it is missing or broken.
    """
    dataset_class, evaluation_class, name = _load(backend)
    if not ground_truth.num_images or not ground_truth.categories:
        shape = (len(ground_truth.categories), 4, len(limits))
        return -np.ones((10, 101, *shape)), -np.ones((10, *shape)), name
    ground_truth, rows = ground_truth.with_small_ids(rows)
    # The libraries print progress, which would mix with the caller's output.
    with contextlib.redirect_stdout(io.StringIO()):
        make = _from_columns if name == "hotcoco" else _from_dicts
        evaluation = evaluation_class(*make(dataset_class, ground_truth, rows), iouType="bbox")
        evaluation.params.imgIds = ground_truth.image_ids.tolist()
        evaluation.params.catIds = list(ground_truth.category_ids)
        evaluation.params.maxDets = list(limits)
        if name == "faster_coco_eval":
            return *_mended(evaluation, ground_truth), name
        return *_accumulated(evaluation), name


def installed() -> list[str]:
    """Return the backends that can be used here, the quickest first.

    Raises:
        ImportError: there is none.
    """
    names = []
    for name in BACKENDS:
        with contextlib.suppress(ImportError):
            names.append(_load(name)[2])
    if not names:
        _load("auto")
    return names


def _load(backend: str) -> tuple[type, type, str]:
    """Import the classes of a backend; `auto` takes the first that works."""
    if backend not in CHOICES:
        raise ValueError(f"backend is {backend!r}, expected one of {CHOICES}.")
    failures = []
    for name in BACKENDS if backend == "auto" else (backend,):
        try:
            dataset, evaluation, *_ = (_attribute(target) for target in _NEEDED[name])
            return dataset, evaluation, name
        # A wheel built for another NumPy fails with ValueError ("numpy.dtype size changed") or
        # AttributeError rather than ImportError.
        except (ImportError, ValueError, AttributeError, RuntimeError) as error:
            failures.append(f"{name}: {type(error).__name__}: {error} -> {_INSTALL[name]}")
    raise ImportError(
        "COCO evaluation needs one of hotcoco, faster-coco-eval and pycocotools, built for the "
        f"installed NumPy {np.__version__}. Tried, the quickest first, and what to run:\n  "
        + "\n  ".join(failures)
    )


def _attribute(target: str) -> Any:
    module, names = target.split(":")
    found = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def _accumulated(evaluation: Any) -> tuple[np.ndarray, np.ndarray]:
    evaluation.evaluate()
    evaluation.accumulate()
    found = evaluation.eval
    return np.asarray(found["precision"], np.float64), np.asarray(found["recall"], np.float64)


def _mended(evaluation: Any, ground_truth: CocoGroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate with faster_coco_eval, and give its precision the bits of pycocotools."""
    counts = objects_by_area(ground_truth, evaluation.params.areaRng)
    usual = np.asarray(evaluation.params.recThrs)
    probe_levels = probes(counts)
    levels = np.union1d(usual, probe_levels)
    evaluation.params.recThrs = levels
    precision, recall = _accumulated(evaluation)
    category, area = np.indices(counts.shape)
    at_probes = precision[:, np.searchsorted(levels, probe_levels), category, area]
    precision = precision[:, np.searchsorted(levels, usual)]
    return same_bits(precision, at_probes), recall


def _from_columns(dataset_class: type, truth: CocoGroundTruth, rows: DetectionRows) -> list:
    """Hand hotcoco the arrays as they are: no Python object is made for a box."""
    dataset = dataset_class.from_arrays(
        [{"id": image_id} for image_id in truth.image_ids.tolist()],
        [dict(category) for category in truth.categories],
        truth.object_image_ids,
        truth.object_category_ids,
        truth.boxes,
        ids=truth.ids,
        area=truth.areas,
        iscrowd=truth.is_crowd.astype(np.int64),
    )
    # The library looks at one image and class at a time, and is quicker where their rows lie
    # together. Rows of one image and class keep their order, which decides between equal scores.
    order = _grouped(rows.image_ids, rows.category_ids)
    table = np.empty((len(rows), 7))
    table[:, 0], table[:, 1:5] = rows.image_ids[order], rows.boxes[order]
    table[:, 5], table[:, 6] = rows.scores[order], rows.category_ids[order]
    return [dataset, dataset.load_res(table)]


def _grouped(images: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Return the order of rows by image and then category, neither below 0; it is stable."""
    span = int(categories.max(initial=0)) + 1
    if int(images.max(initial=0)) < 2**62 // span:
        return np.argsort(images * span + categories, kind="stable")
    return np.lexsort((categories, images))


def _from_dicts(dataset_class: type, truth: CocoGroundTruth, rows: DetectionRows) -> list:
    """Make the two data sets of pycocotools and of what has its form."""
    content = truth.to_coco()
    datasets = []
    for one in (content, content | {"annotations": _annotation_dicts(rows)}):
        dataset = dataset_class()
        dataset.dataset = one
        dataset.createIndex()
        datasets.append(dataset)
    return datasets


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
