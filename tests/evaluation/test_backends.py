"""The two libraries against each other, and both against the reference."""

import contextlib
import copy
import io
import json
import sys

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import (
    METRIC_NAMES,
    CocoEvaluator,
    CocoGroundTruth,
    DetectionRows,
    evaluate_rows,
)
from tests.evaluation.scenes import mini_annotations, perturbed_rows, scene, truth_as_rows
from tests.parity import VECTORS


def plain_pycocotools(content: dict, rows: DetectionRows) -> tuple[list[float], list[str]]:
    """Score the way pycocotools' own demo does: the 12 numbers, and the lines it prints of them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows.to_list()), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist(), printed.getvalue().splitlines()[-12:]


def assert_equal_bits(content: dict, rows: DetectionRows) -> None:
    truth = CocoGroundTruth.load(content)
    slow = evaluate_rows(truth, rows, backend="pycocotools")
    numbers, lines = plain_pycocotools(content, rows)
    assert list(slow.metrics.values()) == numbers
    assert slow.coco_lines() == lines and " Average Precision  (AP) @[ IoU=0.50:0.95" in lines[0]
    pytest.importorskip("faster_coco_eval")
    fast = evaluate_rows(truth, rows, backend="faster_coco_eval")
    assert fast.backend == "faster_coco_eval" and slow.backend == "pycocotools"
    assert fast.metrics == slow.metrics
    for mine, other in zip(fast.per_class, slow.per_class, strict=True):
        np.testing.assert_equal(mine, other)


@pytest.mark.parametrize(("split", "seed"), [("val", 0), ("train", 1)])
def test_equal_bits_on_real_ground_truth(split, seed):
    content = mini_annotations(split)
    truth = CocoGroundTruth.load(content)
    assert truth.is_crowd.any()
    rows = perturbed_rows(truth, seed)
    assert 0.05 < evaluate_rows(truth, rows).metrics["AP"] < 0.9
    assert_equal_bits(content, rows)


@pytest.mark.parametrize("seed", range(4))
def test_equal_bits_where_few_detections_count(seed):
    # Few objects per class: often exactly one detection is right before the first wrong one, the
    # only place where the two libraries divide differently.
    content = scene(6, 3)
    rows = perturbed_rows(CocoGroundTruth.load(content), seed, per_object=2)
    assert_equal_bits(content, rows)


def test_equal_bits_with_one_right_detection_of_many_objects():
    # With 150 objects no COCO recall level lies between one and two of them.
    content = scene(150, 1)
    rows = truth_as_rows(CocoGroundTruth.load(content)).select(np.array([0, 1]))
    rows.scores[:] = 0.9, 0.8
    assert_equal_bits(content, rows)
    rows.boxes[1] = 150, 0, 5, 5
    assert_equal_bits(content, rows)
    result = evaluate_rows(CocoGroundTruth.load(content), rows)
    assert result.metrics["AP"] == pytest.approx(1 / 101, abs=1e-12)


def test_equal_bits_with_crowds():
    # Detections inside a crowd region count neither for nor against; a crowd matches many.
    content = scene(3, 2)
    for annotation in content["annotations"][::2]:
        annotation.update(iscrowd=1, bbox=[0, 0, 150, 90], area=13500)
    truth = CocoGroundTruth.load(content)
    rows = perturbed_rows(truth, seed=5, per_object=8)
    assert_equal_bits(content, rows)
    inside = DetectionRows(
        image_ids=np.repeat([1, 2, 3], 2),
        category_ids=np.full(6, 1),
        boxes=np.tile([10.0, 10.0, 20.0, 20.0], (6, 1)),
        scores=np.linspace(0.9, 0.8, 6),
    )
    joined = DetectionRows.concatenate([inside, truth_as_rows(truth)])
    assert evaluate_rows(truth, joined).metrics["AP"] == 1.0


def test_auto_takes_the_fast_one_when_it_works(monkeypatch):
    truth = CocoGroundTruth.load(scene())
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert evaluate_rows(truth, truth_as_rows(truth)).backend == "pycocotools"
    monkeypatch.undo()
    pytest.importorskip("faster_coco_eval")
    assert evaluate_rows(truth, truth_as_rows(truth)).backend == "faster_coco_eval"


def test_a_missing_or_broken_library_says_what_to_install(monkeypatch):
    truth = CocoGroundTruth.load(scene())
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)

    class Broken:
        def __getattr__(self, name):
            raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")

    monkeypatch.setitem(sys.modules, "pycocotools.coco", Broken())
    with pytest.raises(ImportError, match="pip install --upgrade 'pycocotools") as error:
        evaluate_rows(truth, truth_as_rows(truth))
    assert "dtype size changed" in str(error.value)
    assert "pip install --upgrade faster-coco-eval" in str(error.value)
    with pytest.raises(ValueError, match="backend is 'cocoapi'"):
        evaluate_rows(truth, truth_as_rows(truth), backend="cocoapi")


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
def test_nothing_is_printed(backend, capfd):
    if backend == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    truth = CocoGroundTruth.load(scene())
    evaluate_rows(truth, truth_as_rows(truth), backend=backend)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def reference():
    return np.load(VECTORS / "ssd_resnet34" / "detections.npz")


@pytest.fixture
def reference_truth(reference):
    categories = json.loads((VECTORS / "coco_categories.json").read_text())["categories"]
    columns = [
        reference[f"sparse_gt_{key}"].tolist()
        for key in ("image_id", "category_id", "bbox_xywh", "area", "iscrowd")
    ]
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = [
        dict(zip(keys, (number, *values), strict=True))
        for number, values in enumerate(zip(*columns, strict=True), start=1)
    ]
    images = [{"id": 17, "width": 640, "height": 480}, {"id": 42, "width": 500, "height": 333}]
    return CocoGroundTruth.load(
        {"images": images, "categories": categories, "annotations": annotations}
    )


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
def test_reference_rows_give_the_reference_metric(reference, reference_truth, backend):
    if backend == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    table = np.concatenate([reference["sparse_coco_rows_0"], reference["sparse_coco_rows_1"]])
    rows = DetectionRows(
        image_ids=table[:, 0].astype(np.int64),
        category_ids=table[:, 6].astype(np.int64),
        boxes=table[:, 1:5],
        scores=table[:, 5],
    )
    metrics = evaluate_rows(reference_truth, rows, backend=backend).metrics
    names = [name.removeprefix("COCO/") for name in reference["sparse_metric_names"].tolist()]
    assert list(metrics) == names == list(METRIC_NAMES)
    np.testing.assert_allclose(
        list(metrics.values()), reference["sparse_metric_values"], rtol=0, atol=1e-6
    )


def test_reference_detections_become_the_reference_rows(reference, reference_truth):
    found = [[reference[f"sparse_det_{k}_{i}"] for i in (0, 1)] for k in ("boxes", "scores")]
    labels = [reference[f"sparse_det_labels_{i}"] for i in (0, 1)]
    slots = max(len(values) for values in labels)

    def padded(values):
        shape = (slots - len(values), *values.shape[1:])
        return np.concatenate([values, np.zeros(shape, values.dtype)])

    fields = {
        "boxes": np.stack([padded(values) for values in found[0]]),
        "scores": np.stack([padded(values) for values in found[1]]),
        "classes": np.stack([padded(values - 1) for values in labels]),
        "count": np.array([len(values) for values in labels]),
    }
    evaluator = CocoEvaluator(reference_truth)
    shape = reference["raw_shape"]
    evaluator.add(reference["source_id"], shape[:, 0], shape[:, 1], fields)
    result = evaluator.compute()
    table = np.concatenate([reference["sparse_coco_rows_0"], reference["sparse_coco_rows_1"]])
    np.testing.assert_array_equal(result.rows.image_ids, table[:, 0])
    np.testing.assert_array_equal(result.rows.category_ids, table[:, 6])
    np.testing.assert_array_equal(result.rows.boxes, table[:, 1:5])
    np.testing.assert_array_equal(result.rows.scores, table[:, 5])
