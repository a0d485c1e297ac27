"""What the measurement of tiles counts as found."""

import pytest

from benchmarks.tiles import iou, shares


def _thing(left, top, side, image_id=1, **fields):
    box = {"bbox": [left, top, side, side], "area": side**2, "image_id": image_id}
    return box | fields


def test_each_box_finds_one_object_and_the_better_box_is_first():
    objects = [_thing(0, 0, 10), _thing(20, 0, 10), _thing(100, 100, 40), _thing(0, 0, 10, 2)]
    found = [
        _thing(0, 0, 10, score=0.2),
        _thing(1, 0, 10, score=0.9),  # The better box for the first object, which it takes.
        _thing(20, 4, 10, score=0.8),  # An IoU of 60 / 140.
        _thing(102, 100, 40, score=0.25),
        _thing(0, 0, 10, 2, score=0.4),
    ]
    assert shares(objects, found) == {
        "small": pytest.approx(2 / 3),
        "larger": 1.0,
        "small >= 0.3": pytest.approx(2 / 3),
        "larger >= 0.3": 0.0,
        "right": pytest.approx(2 / 3),
    }
    nothing = shares(objects, [])
    assert set(nothing.values()) == {0.0}


def test_iou_by_hand():
    assert iou([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
    assert iou([0, 0, 10, 10], [10, 0, 10, 10]) == 0.0
