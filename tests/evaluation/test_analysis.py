"""Kinds of errors, confusions and calibration: values worked out by hand, and AP as COCO has it."""

import numpy as np
import pytest

from ssd_centernet.evaluation.analysis import ERRORS, IGNORED, RIGHT, analyse
from ssd_centernet.evaluation.coco import evaluate_rows
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import DetectionRows
from tests.evaluation.scenes import perturbed_rows, scene, truth_as_rows

CUP, DOG = 3, 7


def _truth(*objects, images=2, crowd=()):
    """Objects as (image, category, box); `crowd` are the indices of crowd regions."""
    annotations = [
        {"id": i + 1, "image_id": image, "category_id": category, "bbox": box, "area": 100}
        | {"iscrowd": int(i in crowd)}
        for i, (image, category, box) in enumerate(objects)
    ]
    return CocoGroundTruth.load(
        {
            "images": [{"id": i, "height": 100, "width": 100} for i in range(1, images + 1)],
            "categories": [{"id": CUP, "name": "cup"}, {"id": DOG, "name": "dog"}],
            "annotations": annotations,
        }
    )


def _rows(*rows):
    """Detections as (image, category, box, score)."""
    keys = ("image_id", "category_id", "bbox", "score")
    return DetectionRows.from_list([dict(zip(keys, row, strict=True)) for row in rows])


BOX = [10, 10, 10, 10]
# Shifted by k of 10 pixels the overlap is (10 - k) / (10 + k).
HALF_OFF = [15, 10, 10, 10]  # IoU 1/3
FAR = [60, 60, 10, 10]


@pytest.mark.parametrize(
    ("category", "box", "kind"),
    [
        (CUP, BOX, RIGHT),
        (CUP, [13, 10, 10, 10], RIGHT),  # 7/13 = 0.54
        (CUP, HALF_OFF, "localisation"),
        (CUP, [18, 10, 10, 10], "localisation"),  # 2/18 = 0.11
        (CUP, [19, 10, 10, 10], "background"),  # 1/19 = 0.05
        (DOG, BOX, "class"),
        (DOG, HALF_OFF, "both"),
        (DOG, FAR, "background"),
    ],
)
def test_kind_of_one_detection_of_one_cup(category, box, kind):
    found = analyse(_truth((1, CUP, BOX)), _rows((1, category, box, 0.9)))
    expected = kind if kind == RIGHT else ERRORS.index(kind)
    assert found.kinds.tolist() == [expected]
    # A class or localisation error shows the object, if wrongly: it is not missed as well.
    missed = kind in ("both", "background")
    assert found.counts["missed"] == int(missed)
    assert sum(found.counts.values()) == (kind != RIGHT) + missed


def test_the_same_box_on_another_image_is_background():
    found = analyse(_truth((1, CUP, BOX)), _rows((2, CUP, BOX, 0.9)))
    assert found.counts == dict.fromkeys(ERRORS, 0) | {"background": 1, "missed": 1}


def test_second_detection_of_an_object_is_a_duplicate_and_the_higher_score_is_right():
    rows = _rows((1, CUP, BOX, 0.6), (1, CUP, [11, 10, 10, 10], 0.8))
    found = analyse(_truth((1, CUP, BOX)), rows)
    assert found.rows.scores.tolist() == [0.8, 0.6]
    assert found.kinds.tolist() == [RIGHT, ERRORS.index("duplicate")]
    assert found.costs["duplicate"] == 0  # It stands behind the last object: AP is 1 already.


def test_kind_follows_from_the_object_that_is_overlapped_most():
    truth = _truth((1, CUP, HALF_OFF), (1, DOG, BOX))
    found = analyse(truth, _rows((1, CUP, [11, 10, 10, 10], 0.9)))
    # 6/14 = 0.43 with the cup and 9/11 = 0.82 with the dog.
    assert found.kinds.tolist() == [ERRORS.index("class")]
    assert found.targets.tolist() == [1]


def test_detections_inside_a_crowd_region_are_neither_right_nor_wrong():
    truth = _truth((1, CUP, [0, 0, 50, 50]), (1, CUP, FAR), crowd=[0])
    rows = _rows((1, CUP, BOX, 0.9), (1, CUP, [30, 30, 9, 9], 0.8), (1, CUP, FAR, 0.7))
    found = analyse(truth, rows)
    assert found.kinds.tolist() == [IGNORED, IGNORED, RIGHT]
    assert found.num_objects.tolist() == [1, 0]
    assert sum(found.counts.values()) == 0
    assert found.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert found.calibration.right.sum() == 1 and found.calibration.wrong.sum() == 0


# Four cups on four images; two are found, and before them stands an error of the wanted kind.
CUPS = [(image, CUP, BOX) for image in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("error", "kind", "before", "after"),
    [
        # Precision 1/2 then 2/3 up to recall 1/2: 51 of the 101 recalls have 2/3.
        ((3, CUP, FAR, 0.9), "background", 51 * 2 / 3 / 101, 51 / 101),
        ((3, DOG, HALF_OFF, 0.9), "both", 51 / 101, 51 / 101),
        # Mended it is the third cup found, by the highest score: recall 3/4.
        ((3, CUP, HALF_OFF, 0.9), "localisation", 51 * 2 / 3 / 101, 76 / 101),
        ((3, DOG, BOX, 0.9), "class", 51 / 101, 76 / 101),
    ],
)
def test_cost_of_an_error_is_the_ap50_that_mending_it_brings(error, kind, before, after):
    truth = _truth(*CUPS, images=4)
    found = analyse(truth, _rows(error, (1, CUP, BOX, 0.8), (2, CUP, BOX, 0.7)))
    assert found.counts[kind] == 1
    assert np.nanmean(found.average_precision[0]) == pytest.approx(before)
    assert found.costs[kind] == pytest.approx(after - before)


def test_cost_of_missed_objects_is_the_ap50_without_them():
    found = analyse(_truth(*CUPS, images=4), _rows((1, CUP, BOX, 0.8), (2, CUP, BOX, 0.7)))
    assert found.counts["missed"] == 2
    assert found.costs["missed"] == pytest.approx(1 - 51 / 101)


def test_cost_of_a_class_of_which_all_is_missed():
    found = analyse(_truth((1, CUP, BOX), (2, DOG, BOX)), _rows((1, CUP, BOX, 0.8)))
    assert found.costs["missed"] == pytest.approx(0.5)


def test_mending_a_localisation_error_on_an_object_that_is_found_only_removes_it():
    rows = _rows((1, CUP, HALF_OFF, 0.9), (1, CUP, BOX, 0.8))
    found = analyse(_truth((1, CUP, BOX)), rows)
    assert found.counts["localisation"] == 1
    assert found.costs["localisation"] == pytest.approx(1 - 0.5)


def test_confusion_counts_each_object_and_each_shown_detection_once():
    truth = _truth((1, CUP, BOX), (1, DOG, FAR), (2, DOG, BOX), (2, DOG, FAR))
    rows = _rows(
        (1, CUP, BOX, 0.9),  # cup as cup
        (1, DOG, BOX, 0.95),  # the cup is taken, by the right class: a dog on background
        (1, CUP, FAR, 0.8),  # dog as cup
        (2, DOG, [11, 10, 10, 10], 0.7),  # dog as dog
        (2, CUP, FAR, 0.1),  # below the threshold: the dog stays missed
    )
    found = analyse(truth, rows, score_threshold=0.5)
    # Rows: truth cup, dog, background; columns: detected cup, dog, missed.
    assert found.confusion.tolist() == [[1, 0, 0], [1, 1, 1], [0, 1, 0]]
    assert found.missed.tolist() == [False, True, False, True]
    assert found.num_shown == 4
    assert found.shown_counts == dict.fromkeys(ERRORS, 0) | {"class": 2, "missed": 1}
    assert found.counts == dict.fromkeys(ERRORS, 0) | {"class": 3}


def test_calibration_by_hand():
    # Four detections of 0.9 of which three are right, one of 0.22 that is wrong.
    rows = [(image, CUP, BOX, 0.9) for image in (1, 2, 3)]
    rows += [(4, CUP, FAR, 0.9), (4, CUP, FAR, 0.22)]
    calibration = analyse(_truth(*CUPS, images=4), _rows(*rows)).calibration
    assert calibration.edges[18] == pytest.approx(0.9)
    assert (calibration.right[18], calibration.wrong[18]) == (3, 1)
    assert (calibration.right[4], calibration.wrong[4]) == (0, 1)
    assert calibration.precision[[4, 18]].tolist() == [0, 0.75]
    assert np.isnan(calibration.precision[0])
    assert calibration.mean_score[18] == pytest.approx(0.9)
    assert calibration.error == pytest.approx((4 * 0.15 + 0.22) / 5)


def test_threshold_is_where_f1_is_highest():
    rows = _rows((1, CUP, BOX, 0.9), (2, CUP, BOX, 0.6), (3, CUP, FAR, 0.5), (4, CUP, FAR, 0.4))
    found = analyse(_truth(*CUPS, images=4), rows)
    assert found.score_threshold == 0.6
    assert found.shown == pytest.approx({"precision": 1.0, "recall": 0.5, "F1": 2 / 3})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_average_precision_is_that_of_coco(seed):
    content = scene(num_images=12, num_categories=4)
    for annotation in content["annotations"][::5]:
        annotation["iscrowd"] = 1
    truth = CocoGroundTruth.load(content)
    rows = perturbed_rows(truth, seed, per_object=9)
    found, expected = analyse(truth, rows), evaluate_rows(truth, rows)
    values = found.average_precision
    for index, name in ((0, "AP50"), (1, "AP75")):
        assert np.nanmean(values[index]) == pytest.approx(expected.metrics[name], abs=1e-12)
    per_class = [row["AP50"] for row in expected.per_class]
    np.testing.assert_allclose(values[0], per_class, atol=1e-12)
    assert len(set(found.kinds.tolist())) >= 6  # The scene shows most kinds of errors.
    wrong = np.count_nonzero(found.kinds >= 0)
    assert sum(found.counts[name] for name in ERRORS[:5]) == wrong
    # Every object and every detection that is shown stands once in the confusions.
    shown = (found.rows.scores >= found.score_threshold) & (found.kinds != IGNORED)
    assert found.confusion[:-1].sum() == truth.num_objects
    assert found.confusion[:, :-1].sum() == shown.sum()


def test_only_the_100_highest_scores_of_a_class_in_an_image_count():
    truth = _truth((1, CUP, BOX))
    rows = [(1, CUP, FAR, 0.9)] * 100 + [(1, CUP, BOX, 0.5), (1, DOG, BOX, 0.4)]
    found = analyse(truth, _rows(*rows))
    assert len(found.rows) == 101
    assert (
        np.nanmean(found.average_precision[0])
        == evaluate_rows(truth, _rows(*rows)).metrics["AP50"]
        == 0
    )


def test_without_detections_all_is_missed():
    found = analyse(_truth((1, CUP, BOX)), DetectionRows.from_list([]))
    assert found.counts == dict.fromkeys(ERRORS, 0) | {"missed": 1}
    assert found.missed.tolist() == [True]
    assert found.costs["missed"] == 1 and found.costs["class"] == 0
    assert np.isnan(found.calibration.error)


def test_without_objects_all_is_background():
    found = analyse(_truth(), _rows((1, CUP, BOX, 0.9)))
    assert found.counts == dict.fromkeys(ERRORS, 0) | {"background": 1}
    assert np.isnan(found.average_precision).all()
    assert set(found.costs.values()) == {0.0}


def test_objects_as_detections_have_no_errors():
    truth = CocoGroundTruth.load(scene(num_images=3, num_categories=2))
    found = analyse(truth, truth_as_rows(truth))
    assert sum(found.counts.values()) == 0 and set(found.costs.values()) == {0.0}
    assert found.shown == {"precision": 1.0, "recall": 1.0, "F1": 1.0}
    assert np.array_equal(found.confusion, np.diag([3, 3, 0]))
