"""What counts as the same detections, by hand."""

import numpy as np
import pytest

from ssd_centernet.export import parity
from ssd_centernet.export.parity import FLOAT, INT8, Found, ParityError

BOXES = np.array([[0.1, 0.1, 0.5, 0.5], [0.2, 0.6, 0.7, 0.9], [0.3, 0.0, 0.9, 0.4]], np.float32)
SCORES = np.array([0.9, 0.6, 0.3], np.float32)
CLASSES = np.array([1, 0, 1])


def found(boxes=BOXES, scores=SCORES, classes=CLASSES, full=False):
    return Found(boxes=boxes, scores=scores, classes=classes, full=full)


def compare(theirs, tolerance=FLOAT, ours=None, threshold=0.05):
    return parity.compare([(ours or found(), theirs)], tolerance, score_threshold=threshold)


def test_equal_detections_match_on_both_sides():
    result = compare(found())
    assert (result.comparisons, result.compared, result.matched) == (1, 6, 6)
    assert (result.score_difference, result.coordinate_difference, result.iou) == (0, 0, 1)
    parity.check("tflite", result, FLOAT)


def test_differences_within_the_tolerance_are_measured():
    result = compare(found(BOXES + np.float32(5e-5), SCORES * np.float32(1.0005)))
    assert (result.compared, result.matched) == (6, 6)
    assert result.score_difference == pytest.approx(5e-4, rel=0.01)
    assert result.coordinate_difference == pytest.approx(5e-5, rel=0.01)


@pytest.mark.parametrize(
    "theirs",
    [
        found(classes=np.array([0, 0, 1])),
        found(BOXES + np.array([[0.0, 0.0, 0.0, 2e-4], [0] * 4, [0] * 4], np.float32)),
        found(scores=np.array([0.9, 0.605, 0.3], np.float32)),
        found(BOXES[1:], SCORES[1:], CLASSES[1:]),
    ],
    ids=["class", "box", "score", "missing"],
)
def test_one_wrong_detection_is_refused(theirs):
    result = compare(theirs)
    assert result.matched == result.compared - (1 if len(theirs.scores) == 2 else 2)
    with pytest.raises(ParityError, match="onnx does not detect what the model detects.*Nothing"):
        parity.check("onnx", result, FLOAT)


def test_each_detection_is_found_once():
    twice = found(BOXES[[0, 0]], SCORES[[0, 0]], CLASSES[[0, 0]])
    one = found(BOXES[:1], SCORES[:1], CLASSES[:1])
    result = compare(twice, ours=one)
    assert (result.compared, result.matched) == (3, 2)


def test_what_rounding_may_drop_is_not_compared():
    # 0.3 is the threshold to within a thousandth, or the last place of a full list.
    less = found(BOXES[:2], SCORES[:2], CLASSES[:2])
    assert compare(less, threshold=0.2999).matched == compare(less, threshold=0.2999).compared == 4
    full = found(full=True)
    assert compare(full, ours=full).compared == 4
    # A score well above the threshold is missed.
    assert compare(less, threshold=0.2).compared == 5


def test_int8_is_judged_by_its_clear_detections():
    # The third scores less than half of the best, and may be anything.
    moved = found(BOXES + np.float32(0.005), np.array([0.8, 0.66, 0.1], np.float32))
    result = compare(moved, INT8)
    assert (result.compared, result.matched) == (4, 4)
    parity.check("tflite_int8", result, INT8)
    far = found(BOXES + np.float32(0.05))
    with pytest.raises(ParityError, match="8-bit weights"):
        parity.check("tflite_int8", compare(far, INT8), INT8)


def test_nothing_to_compare_is_refused():
    empty = found(BOXES[:0], SCORES[:0], CLASSES[:0])
    with pytest.raises(ParityError, match="cannot be checked.*--check_images"):
        parity.check("tflite", compare(empty, ours=empty), FLOAT)
    alike = found(scores=np.full(3, 0.01, np.float32), full=True)
    with pytest.raises(ParityError, match="cannot be checked"):
        parity.check("tflite", compare(alike, ours=alike, threshold=0.0), FLOAT)


def test_extra_detections_and_zero_boxes():
    flat = found(np.zeros((1, 4), np.float32), SCORES[:1], CLASSES[:1])
    assert compare(flat, ours=flat).matched == 2
    one = found(BOXES[:1], SCORES[:1], CLASSES[:1])
    assert compare(found(), ours=one).matched == 2


def test_a_loss_of_ap_is_refused_above_the_limit():
    limits = {"of_model": 0.605, "images": 200, "max_loss": 0.01}
    parity.check_ap("tflite_full_int8", of_file=0.5951, **limits)
    parity.check_ap("tflite_full_int8", of_file=0.61, **limits)
    message = (
        r"tflite_16x8 loses 1.10 points of AP: 0.5940, the model has 0.6050 on the same 200 im"
    )
    with pytest.raises(ParityError, match=message + r".*--max_ap_loss=0.01 accepts 1 points"):
        parity.check_ap("tflite_16x8", of_file=0.594, **limits)
