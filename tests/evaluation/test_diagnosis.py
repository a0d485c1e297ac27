import dataclasses

import numpy as np
import pytest

from ssd_centernet.evaluation.coco import (
    CocoEvaluator,
    CocoGroundTruth,
    DetectionRows,
    evaluate_rows,
)
from ssd_centernet.evaluation.diagnosis import diagnose
from tests.evaluation.scenes import mini_annotations, scene, truth_as_rows


@pytest.fixture
def truth():
    """Return 40 images with a dozen categories, objects far apart and away from the corner."""
    rng = np.random.default_rng(0)
    content = scene(40, 12)
    for annotation in content["annotations"]:
        x, y = rng.uniform(60, 150), rng.uniform(50, 70)
        annotation["bbox"] = [x, y, rng.uniform(8, 40), rng.uniform(12, 25)]
        del annotation["area"]
    return CocoGroundTruth.load(content)


def explain(truth: CocoGroundTruth, rows: DetectionRows) -> str:
    result = evaluate_rows(truth, rows)
    assert result.metrics["AP"] < 0.001
    sentence = diagnose(result, truth)
    assert sentence is not None and "\n" not in sentence
    return sentence


def with_boxes(rows: DetectionRows, columns) -> DetectionRows:
    return dataclasses.replace(rows, boxes=np.stack(columns, axis=1))


def only(truth: CocoGroundTruth, keep: np.ndarray) -> CocoGroundTruth:
    """Return the ground truth with some of its objects."""
    names = ("ids", "object_image_ids", "object_category_ids", "boxes", "areas", "is_crowd")
    return dataclasses.replace(truth, **{name: getattr(truth, name)[keep] for name in names})


def test_a_good_result_needs_no_words(truth):
    rows = truth_as_rows(truth)
    assert diagnose(evaluate_rows(truth, rows), truth) is None


def test_nothing_to_measure():
    truth = CocoGroundTruth.load(scene(2) | {"annotations": []})
    rows = truth_as_rows(CocoGroundTruth.load(scene(2)))
    assert "AP is undefined: the ground truth has 2 images but no object" in explain(truth, rows)


def test_no_detections(truth):
    result = CocoEvaluator(truth).compute()
    assert "There are no detections on 40 images" in diagnose(result, truth)


def test_not_finite(truth):
    rows = truth_as_rows(truth)
    result = evaluate_rows(truth, dataclasses.replace(rows, scores=rows.scores * np.nan))
    sentence = diagnose(result, truth, dataclasses.replace(rows, scores=rows.scores * np.nan))
    assert f"All {len(rows)} detections have boxes or scores that are not finite" in sentence


def test_other_images(truth):
    rows = truth_as_rows(truth)
    result = CocoEvaluator(truth).compute()
    elsewhere = dataclasses.replace(rows, image_ids=rows.image_ids + 1000).to_list()
    sentence = diagnose(result, truth, elsewhere)
    assert "No detection lies on an image that has objects" in sentence
    assert "1001, 1002, 1003, 1004, 1005, ..." in sentence


def test_other_categories(truth):
    only_first = truth_as_rows(truth).select(truth.object_category_ids == 1)
    others = truth.object_category_ids != 1
    without_first = only(truth, others)
    # Moved away, so that no shift of the label map could make them fit.
    far = dataclasses.replace(only_first, boxes=only_first.boxes * [0, 0, 0.1, 0.1])
    sentence = explain(without_first, far)
    assert "No category is both detected (1) and in the ground truth (3, 5, 7" in sentence


def test_degenerate_boxes(truth):
    rows = truth_as_rows(truth)
    x, y, w, h = rows.boxes.T
    assert "no width or no height" in explain(truth, with_boxes(rows, (x, y, w * 0, h)))


def test_fractions_instead_of_pixels(truth):
    rows = truth_as_rows(truth)
    fractions = dataclasses.replace(rows, boxes=rows.boxes / [200, 100, 200, 100])
    assert "look like fractions" in explain(truth, fractions)


def test_swapped_axes(truth):
    rows = truth_as_rows(truth)
    x, y, w, h = rows.boxes.T
    sentence = explain(truth, with_boxes(rows, (y, x, h, w)))
    assert "they are y, x, height, width, expected x, y, width, height" in sentence
    assert "AP would be 1.000" in sentence


def test_corners_in_both_orders(truth):
    rows = truth_as_rows(truth)
    x, y, w, h = rows.boxes.T
    assert "corners x1, y1, x2, y2" in explain(truth, with_boxes(rows, (x, y, x + w, y + h)))
    assert "corners y1, x1, y2, x2" in explain(truth, with_boxes(rows, (y, x, y + h, x + w)))


def test_centers(truth):
    rows = truth_as_rows(truth)
    x, y, w, h = rows.boxes.T
    sentence = explain(truth, with_boxes(rows, (x + w / 2, y + h / 2, w, h)))
    assert "begin with their centre, expected the upper left corner" in sentence


def test_height_and_width_exchanged(truth):
    rows = truth_as_rows(truth)
    exchanged = dataclasses.replace(rows, boxes=rows.boxes * [0.5, 2, 0.5, 2])
    assert "scaled with width and height swapped" in explain(truth, exchanged)


@pytest.mark.parametrize(("step", "words"), [(1, "after"), (-1, "before")])
def test_label_map_shifted_by_one(truth, step, words):
    ids = np.array(truth.category_ids)
    rows = truth_as_rows(truth)
    index = np.searchsorted(ids, rows.category_ids) + step
    inside = (index >= 0) & (index < len(ids))
    shifted = dataclasses.replace(rows, category_ids=ids[index.clip(0, len(ids) - 1)])
    sentence = explain(truth, shifted.select(inside))
    assert f"shifted by one: each detection has the category {words} its own" in sentence
    # 11 of 12 categories come back.
    assert f"AP would be {11 / 12:.3f} on 40 images" in sentence


def test_shift_of_two_categories_is_seen_although_no_category_is_shared():
    truth = CocoGroundTruth.load(scene(4, 2))
    keep = truth.object_category_ids == 1
    rows = truth_as_rows(truth).select(keep)
    other = dataclasses.replace(rows, category_ids=np.full(len(rows), 3))
    content = scene(4, 2)
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 1]
    sentence = explain(CocoGroundTruth.load(content), other)
    assert "shifted by one" in sentence and "AP would be 1.000" in sentence


def test_right_boxes_with_mixed_up_classes(truth):
    ids = np.array(truth.category_ids)
    # One object on each image: no neighbour of another class can fit by chance.
    truth = only(truth, truth.object_category_ids == ids[truth.object_image_ids % len(ids)])
    rows = truth_as_rows(truth)
    mixed = ids[(np.searchsorted(ids, rows.category_ids) + 6) % len(ids)]
    sentence = explain(truth, dataclasses.replace(rows, category_ids=mixed))
    assert "Boxes fit but classes do not" in sentence


def noise(truth: CocoGroundTruth, highest: float) -> DetectionRows:
    """Return boxes in the empty upper left corner."""
    rng = np.random.default_rng(1)
    number = 400
    return DetectionRows(
        image_ids=rng.choice(truth.image_ids, number),
        category_ids=rng.choice(truth.category_ids, number),
        boxes=rng.uniform(1, 8, (number, 4)),
        scores=rng.uniform(0, highest, number),
    )


def test_low_scores(truth):
    assert "All scores are below 0.05" in explain(truth, noise(truth, 0.04))


def test_untrained(truth):
    assert "probably untrained" in explain(truth, noise(truth, 0.9))
    rows = noise(truth, 0.9)
    one = dataclasses.replace(rows, category_ids=np.full(len(rows), 3))
    assert "(all of category 3)" in explain(truth, one)


def test_real_annotations_with_swapped_axes():
    truth = CocoGroundTruth.load(mini_annotations("val"))
    rows = truth_as_rows(truth)
    # Objects on the diagonal survive the swap; without them AP is zero.
    x, y, w, h = rows.boxes.T
    rows = rows.select(np.abs(x + w / 2 - y - h / 2) > np.maximum(w, h))
    swapped = dataclasses.replace(rows, boxes=rows.boxes[:, [1, 0, 3, 2]])
    assert "they are y, x, height, width, expected x, y, width, height" in explain(truth, swapped)


def large_objects():
    """Return objects of all sizes on images of several shapes: a wrong box still overlaps some."""
    rng = np.random.default_rng(3)
    sizes = [(640, 480), (480, 640), (640, 427), (500, 375)]
    content = scene(40, 5)
    for image in content["images"]:
        image["width"], image["height"] = sizes[image["id"] % 4]
    shapes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for annotation in content["annotations"]:
        extent = np.array(shapes[annotation["image_id"]])
        size = extent * np.exp(rng.uniform(np.log(0.05), np.log(0.95), 2))
        low = (extent - size) * rng.uniform(0, 1, 2)
        annotation["bbox"] = [*low.tolist(), *size.tolist()]
        del annotation["area"]
    return CocoGroundTruth.load(content)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("swapped", "they are y, x, height, width"),
        ("corners", "boxes are corners x1, y1, x2, y2"),
        ("input", "in pixels of the network's input, 512 x 512, expected"),
        ("kept", "input, 512 x 512 with the aspect ratio kept"),
    ],
)
def test_mistakes_that_large_objects_hide(mistake, words):
    truth = large_objects()
    rows = truth_as_rows(truth)
    place = truth.positions(rows.image_ids)
    extent = np.stack([truth.widths[place], truth.heights[place]] * 2)
    x, y, w, h = rows.boxes.T
    columns = {
        "swapped": (y, x, h, w),
        "corners": (x, y, x + w, y + h),
        "input": rows.boxes.T * 512 / extent,
        "kept": rows.boxes.T * 512 / extent.max(axis=0),
    }
    wrong = with_boxes(rows, columns[mistake])
    result = evaluate_rows(truth, wrong)
    assert 0.001 < result.metrics["AP"] < 0.1
    sentence = diagnose(result, truth)
    assert sentence.startswith("AP is low: ") and words in sentence
    assert "AP would be 1.000" in sentence
    # While a model is trained its own boxes are not misread.
    assert diagnose(result, truth, done=0.9) is None


def test_an_ap_of_zero_early_in_a_run_is_normal(truth):
    result = evaluate_rows(truth, noise(truth, 0.9))
    early = diagnose(result, truth, done=0.1)
    assert "An AP of 0 is normal so early, after 10 % of the run" in early
    assert "normal so early" not in diagnose(result, truth, done=0.9)
    # What is wrong is told all the same.
    rows = truth_as_rows(truth)
    fractions = dataclasses.replace(rows, boxes=rows.boxes / [200, 100, 200, 100])
    assert "look like fractions" in diagnose(evaluate_rows(truth, fractions), truth, done=0.1)
