"""Limits on detections: what they cost, and the numbers of other limits than COCO's."""

import contextlib
import io
import re

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import BACKENDS, CocoEvaluator, CocoGroundTruth, evaluate_rows
from ssd_centernet.evaluation.limits import detector_notes, limit_notes
from tests.evaluation.scenes import perturbed_rows, scene, truth_as_rows


def crowded(counts, categories=(3,)):
    """A ground truth with so many objects of each category on each image, side by side."""
    images, annotations = [], []
    for number, of_image in enumerate(counts, 1):
        images.append({"id": number, "height": 3000, "width": 3000})
        for category, count in zip(categories, of_image, strict=True):
            for place in range(count):
                box = [40.0 * (place % 60), 40.0 * (place // 60) + 1000 * (category % 3), 30, 30]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                    | {"bbox": box, "area": 900.0, "iscrowd": 0}
                )
    names = [{"id": category, "name": f"c{category}"} for category in categories]
    return {"images": images, "annotations": annotations, "categories": names}


def bound_of(notes):
    (sentence,) = (text for text in notes if "AP cannot pass" in text)
    return notes[sentence], float(re.search(r"AP cannot pass (0\.\d+)", sentence)[1]), sentence


def test_images_with_more_objects_than_count_are_told_with_what_can_be_reached():
    truth = CocoGroundTruth.load(crowded([[256]] * 4))
    images, bound, sentence = bound_of(limit_notes(truth, 100))
    assert (images, bound) == (4, 0.40)
    assert sentence.startswith("images have more than 100 objects of a class")
    assert "39 % of the objects" in sentence and "--max_detections=256" in sentence
    result = evaluate_rows(truth, truth_as_rows(truth))
    assert result.metrics["AP"] == pytest.approx(40 / 101)
    assert f"note: 4 {sentence}" in result.table()
    # With the limit that it names, all of them count.
    whole = evaluate_rows(truth, truth_as_rows(truth), max_detections=256)
    assert whole.metrics["AP"] == 1.0 and not whole.notes
    assert "at most 256 detections" in whole.table() and whole.to_dict()["max_detections"] == 256


@pytest.mark.parametrize(
    ("counts", "categories", "beyond"),
    [([[101], [3]], (1,), 1), ([[150, 40], [20, 180], [0, 5]], (1, 2), 2), ([[400, 1]], (7, 2), 1)],
)
def test_the_bound_is_what_perfect_detections_reach(counts, categories, beyond):
    truth = CocoGroundTruth.load(crowded(counts, categories))
    images, bound, _ = bound_of(limit_notes(truth, 100))
    reached = evaluate_rows(truth, truth_as_rows(truth)).metrics["AP"]
    assert images == beyond
    assert reached <= bound < reached + 0.01


def test_nothing_is_told_where_the_limit_costs_nothing():
    content = crowded([[100], [2]])
    assert limit_notes(CocoGroundTruth.load(content), 100) == {}
    # Crowd regions are no objects.
    many = crowded([[130]])
    for annotation in many["annotations"][50:]:
        annotation["iscrowd"] = 1
    assert limit_notes(CocoGroundTruth.load(many), 100) == {}
    assert limit_notes(CocoGroundTruth.load({**content, "annotations": []}), 100) == {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [11, 30, 250])
def test_other_limits_give_the_numbers_of_pycocotools(backend, limit):
    pytest.importorskip(backend)
    truth = CocoGroundTruth.load(crowded([[40, 7], [23, 90]], (1, 2)))
    rows = perturbed_rows(truth, seed=4, per_object=3)
    result = evaluate_rows(truth, rows, backend=backend, max_detections=limit)
    precision, recall = _by_hand(truth, rows, limit)
    want = {
        "AP": precision[..., 0, -1],
        "AP50": precision[0, ..., 0, -1],
        "APs": precision[..., 1, -1],
        "ARmax1": recall[..., 0, 0],
        f"ARmax{limit}": recall[..., 0, -1],
        "ARs": recall[..., 1, -1],
    }
    for name, values in want.items():
        assert result.metrics[name] == values[values > -1].mean(), name
    assert 0 < result.metrics["AP"] < evaluate_rows(truth, truth_as_rows(truth)).metrics["AP"]
    assert "ARmax100" not in result.metrics


def _by_hand(truth, rows, limit):
    """Precision and recall of pycocotools itself, with nothing of ours between."""
    from pycocotools import coco, cocoeval

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO()
        dataset.dataset = truth.to_coco()
        dataset.createIndex()
        evaluation = cocoeval.COCOeval(dataset, dataset.loadRes(rows.to_list()), "bbox")
        evaluation.params.maxDets = [1, 10, limit]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def test_the_limit_of_the_detector_is_told_where_it_is_lower():
    truth = CocoGroundTruth.load(crowded([[30, 20], [4, 3]], (1, 2)))
    ((sentence, count),) = detector_notes(truth, kept=20, limit=100).items()
    assert count == 1 and "image has more objects than the 20 detections" in sentence
    assert "47.3 % of the objects" in sentence and "max_detections" in sentence  # 27 of 57.
    assert detector_notes(truth, kept=100, limit=100) == {}
    ((sentence, count),) = detector_notes(truth, kept=100, limit=300).items()
    assert count == 100 and "fewer than the 300 that count" in sentence


def test_an_evaluator_knows_what_the_detector_keeps():
    truth = CocoGroundTruth.load(scene(1, 3))
    evaluator = CocoEvaluator(truth)
    none = {"boxes": np.zeros((1, 2, 4)), "scores": np.zeros((1, 2))}
    none |= {"classes": np.zeros((1, 2), int), "count": np.zeros(1, int)}
    evaluator.add([1], [100], [200], none)
    assert any(
        "the 2 detections that the detector keeps" in note for note in evaluator.compute().notes
    )
