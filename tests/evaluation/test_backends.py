"""The libraries against each other, and all against the reference."""

import contextlib
import copy
import dataclasses
import io
import json
import sys
import types

import numpy as np
import pytest

from ssd_centernet.evaluation.backends import installed, match
from ssd_centernet.evaluation.coco import (
    BACKENDS,
    METRIC_NAMES,
    CocoEvaluator,
    CocoGroundTruth,
    DetectionRows,
    evaluate_rows,
)
from ssd_centernet.evaluation.report import html_report
from tests.evaluation.scenes import (
    hard_scene,
    mini_annotations,
    perturbed_rows,
    scene,
    truth_as_rows,
)
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
    precision = match(truth, rows, (1, 10, 100), "pycocotools")[0][..., 0, -1]
    for number, row in enumerate(slow.per_class):
        of_class = precision[..., number]
        if row["num_objects"]:
            assert (row["AP"], row["AP50"]) == (of_class.mean(), of_class[0].mean())
        else:
            assert np.isnan([row["AP"], row["AP50"]]).all() and (of_class == -1).all()
    assert slow.backend == "pycocotools"
    for name in installed():
        fast = evaluate_rows(truth, rows, backend=name)
        assert fast.backend == name and fast.metrics == slow.metrics
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
    # only place where faster_coco_eval divides differently.
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


@pytest.mark.parametrize("seed", range(0, 120, 10))
def test_equal_bits_on_hard_random_inputs(seed):
    for number in range(seed, seed + 10):
        truth, rows, limit = hard_scene(number)
        # Boxes as large as a float can be overflow in pycocotools too.
        with np.errstate(all="ignore"):
            slow = match(truth, rows, (1, 10, limit), "pycocotools")
            for name in installed():
                fast = match(truth, rows, (1, 10, limit), name)
                np.testing.assert_array_equal(fast[0], slow[0], f"{name}, scene {number}")
                np.testing.assert_array_equal(fast[1], slow[1], f"{name}, scene {number}")


def test_hard_scenes_hold_what_is_hard():
    scenes = [hard_scene(seed) for seed in range(120)]
    truths, found, limits = zip(*scenes, strict=True)
    ids = [truth.image_ids for truth in truths]
    assert min(map(np.min, ids)) < 0 and max(map(np.max, ids)) > 2**53
    assert any(truth.is_crowd.any() for truth in truths)
    assert any(not len(truth.ids) for truth in truths) and any(not len(rows) for rows in found)
    areas = np.concatenate([truth.areas for truth in truths])
    assert {1024.0, np.nextafter(1024.0, 0.0), 9216.0, 1e10} <= {*areas.tolist()}
    assert any(len(np.unique(rows.scores)) < len(rows) / 4 for rows in found if len(rows) > 50)
    for _, rows, limit in scenes:
        pairs = np.stack([rows.image_ids, rows.category_ids])
        if np.unique(pairs, axis=1, return_counts=True)[1].max(initial=0) > limit:
            break
    else:
        pytest.fail("no image has more detections of a class than count")
    assert any(not np.isin(truth.image_ids, truth.object_image_ids).all() for truth in truths)
    assert any((rows.boxes[:, 2:] <= 0).any() for rows in found)


def test_analysis_and_page_do_not_depend_on_the_library():
    truth = CocoGroundTruth.load(scene(6, 3))
    rows = perturbed_rows(truth, 3)
    results = [evaluate_rows(truth, rows, backend=name) for name in installed()]
    named = [dataclasses.replace(result, backend="the library") for result in results]
    pages = {html_report(result, truth, title="a page") for result in named}
    assert len(results) > 1 and len(pages) == 1
    assert len({json.dumps(result.to_dict()) for result in named}) == 1


def test_auto_takes_the_quickest_that_works(monkeypatch):
    truth = CocoGroundTruth.load(scene())
    there = installed()
    assert "pycocotools" in there and there == [name for name in BACKENDS if name in there]
    for name in there:
        assert evaluate_rows(truth, truth_as_rows(truth)).backend == name
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}.coco", None)
    with pytest.raises(ImportError, match="needs one of hotcoco"):
        installed()


def test_a_library_without_what_is_needed_is_passed_over(monkeypatch):
    # As hotcoco before 1.3, which cannot take columns.
    old = types.SimpleNamespace(COCO=type("COCO", (), {}), COCOeval=object)
    monkeypatch.setitem(sys.modules, "hotcoco", old)
    truth = CocoGroundTruth.load(scene())
    assert evaluate_rows(truth, truth_as_rows(truth)).backend in BACKENDS[1:]
    with pytest.raises(ImportError, match=r"from_arrays.*pip install --upgrade 'hotcoco>=1\.3'"):
        evaluate_rows(truth, truth_as_rows(truth), backend="hotcoco")


def test_a_missing_or_broken_library_says_what_to_install(monkeypatch):
    truth = CocoGroundTruth.load(scene())
    for name in BACKENDS[:-1]:
        monkeypatch.setitem(sys.modules, name, None)

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


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_printed(backend, capfd):
    pytest.importorskip(backend)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_reference_rows_give_the_reference_metric(reference, reference_truth, backend):
    pytest.importorskip(backend)
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
