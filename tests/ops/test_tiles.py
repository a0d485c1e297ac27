"""Where tiles lie, by hand, and what holds of every grid."""

import numpy as np
import pytest

from ssd_centernet.ops.tiles import Tiles, visible_shares


def test_tiles_are_the_fewest_and_evenly_spaced():
    grid = Tiles(100, 20).grid(250, 100)
    # (250 - 20) / 80 is 2.9: three rows, and the distance of 75 leaves 25 in common.
    assert grid.rows.tolist() == [[0, 100], [75, 175], [150, 250]]
    assert grid.columns.tolist() == [[0, 100]] and len(grid) == 3
    assert grid.windows.tolist() == [[0, 0, 100, 100], [75, 0, 175, 100], [150, 0, 250, 100]]
    assert Tiles(100, 0).grid(200, 201).columns.tolist() == [[0, 100], [50, 150], [101, 201]]
    assert Tiles(100, 0).grid(40, 200).windows.tolist() == [[0, 0, 40, 100], [0, 100, 40, 200]]
    assert Tiles(100).overlap == 20
    assert Tiles(100).fit_in_one(100, 100) and not Tiles(100).fit_in_one(100, 101)


def test_whatever_is_no_longer_than_the_overlap_lies_in_a_tile():
    draw = np.random.default_rng(0)
    for _ in range(200):
        size = int(draw.integers(16, 90))
        tiles = Tiles(size, int(draw.integers(0, size // 2 + 1)))
        length = int(draw.integers(1, 700))
        spans = tiles.grid(length, 5).rows
        assert spans[0, 0] == 0 and spans[-1, 1] == length
        assert (np.diff(spans, axis=1) == min(size, length)).all()
        assert (spans[:-1, 1] - spans[1:, 0] >= tiles.overlap).all()
        # One tile fewer would not do.
        assert len(spans) == 1 or (len(spans) - 1) * (size - tiles.overlap) + tiles.overlap < length


def test_boxes_at_inner_borders_are_cut_and_those_at_the_pictures_own_are_not():
    grid = Tiles(100, 20).grid(100, 180)  # Columns 0 to 100 and 80 to 180; the margin is 2.
    boxes = np.array(
        [
            [0, 0, 100, 50],  # Touches the picture's own borders alone.
            [10, 60, 20, 97.9],
            [10, 60, 20, 98.1],
            [10, 81.9, 20, 97],
            [10, 82.1, 20, 97],
        ],
        np.float64,
    )
    assert grid.are_cut(boxes[:3], np.array([0, 0, 0])).tolist() == [False, False, True]
    assert grid.are_cut(boxes[3:], np.array([1, 1])).tolist() == [True, False]
    assert grid.count_holding(boxes).tolist() == [1, 1, 0, 1, 2]
    assert grid.touched(boxes)[:, [1, 3]].tolist() == [[0, 1], [0, 2], [0, 2], [0, 2], [0, 2]]


def test_shares_of_boxes_in_a_window():
    boxes = np.array([[10.0, 10, 30, 30], [0, 0, 20, 20], [0, 0, 10, 40], [11, 12, 13, 14]])
    cut, shares = visible_shares(boxes, np.array([10, 10, 50, 50]))
    assert shares.tolist() == [1.0, 0.25, 0.0, 1.0]
    assert cut[[0, 1, 3]].tolist() == [[0, 0, 20, 20], [0, 0, 10, 10], [1, 2, 3, 4]]
    # A third is no number of the machine, and still all of the box is inside.
    assert visible_shares(np.array([[1 / 3, 0, 2 / 3, 0.1]]), np.array([0, 0, 1, 1]))[1] == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((0,), "16 or more, got 0"),
        ((-640,), "16 or more, got -640"),
        ((64.5,), r"whole number of pixels, 16 or more, got 64\.5"),
        ((True,), "got True"),
        ((100, -1), "from 0 to half their size, 50, got -1"),
        ((100, 51), "from 0 to half their size, 50, got 51"),
        ((100, 100), "larger tiles if half of them is too little"),
        ((100, 2.5), r"got 2\.5"),
    ],
)
def test_numbers_out_of_range(given, told):
    with pytest.raises(ValueError, match=told):
        Tiles(*given)


def test_text_is_read():
    assert Tiles.parse("640") == Tiles(640, 128)
    assert Tiles.parse(" 640 , 0") == Tiles(640, 0)
    for text in ("", "a", "640,", "640,1,2", "640x640", "6.4", "²", "99999999999"):
        with pytest.raises(ValueError, match="SIZE or SIZE,OVERLAP in pixels, got"):
            Tiles.parse(text)
    with pytest.raises(ValueError, match="got -5"):
        Tiles.parse("-5")
