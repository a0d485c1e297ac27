"""Detections of tiles become one set, by hand."""

import numpy as np
import pytest

from ssd_centernet.ops.tile_merging import WHOLE, merge_tiles
from ssd_centernet.ops.tiles import Tiles

# Columns 0 to 100, 70 to 170 and 140 to 240, one row; the margin is 2.
GRID = Tiles(100, 30).grid(100, 240)


def _merge(*found, grid=GRID, **options):
    """Merge (xmin, xmax, score, tile[, class[, ymin, ymax]]); return the same without tiles."""
    rows = [(*one, *(0, 20, 40)[len(one) - 4 :]) for one in found]
    boxes = np.array([[y1, x1, y2, x2] for x1, x2, _, _, _, y1, y2 in rows], np.float32)
    columns = (np.array([row[place] for row in rows]) for place in (2, 4, 3))
    boxes, scores, classes = merge_tiles(boxes.reshape(-1, 4), *columns, grid, **options)
    assert (np.diff(scores) <= 0).all()
    return [
        (round(box[1], 3), round(box[3], 3), round(float(score), 4), int(kind))
        for box, score, kind in zip(boxes, scores, classes, strict=True)
    ]


def test_nothing_stays_nothing():
    for method in ("nms", "wbf"):
        assert _merge(method=method) == []


def test_a_part_does_not_survive_beside_the_whole_of_the_next_tile():
    """However good the part, and however little of the object it is."""
    whole = (80, 125, 0.4, 1)
    for left, right, score in ((80, 100, 0.9), (81, 99, 0.3), (95, 100, 0.99)):
        assert _merge(whole, (left, right, score, 0)) == [(80, 125, 0.4, 0)]
    # A part of another class goes too: the next tile has seen what it is.
    assert _merge(whole, (80, 100, 0.9, 0, 1)) == [(80, 125, 0.4, 0)]
    # A tree that the border of the first tile touches, and that the next one holds as well.
    assert _merge((75, 99, 0.9, 0), (76, 100, 0.6, 1)) == [(76, 100, 0.6, 0)]


def test_what_the_next_tile_holds_whole_and_has_not_found_is_no_object():
    assert _merge((80, 100, 0.9, 0)) == []
    # Nobody else has seen this one whole: the border cuts it, and it reaches out of the overlap.
    assert _merge((60, 100, 0.9, 0)) == [(60, 100, 0.9, 0)]
    assert _merge((0, 40, 0.9, 0), (200, 240, 0.8, 2)) == [(0, 40, 0.9, 0), (200, 240, 0.8, 0)]


def test_parts_become_the_box_around_them():
    assert _merge((40, 100, 0.7, 0), (70, 130, 0.8, 1)) == [(40, 130, 0.8, 0)]
    # Across three tiles, though the outer two do not meet.
    parts = [(40, 100, 0.7, 0), (70, 170, 0.9, 1), (140, 220, 0.8, 2)]
    for order in (parts, parts[::-1]):
        assert _merge(*order) == [(40, 220, 0.9, 0)]
    # ... also where the best part is an outer one.
    chain = [(40, 100, 0.9, 0), (70, 170, 0.8, 1), (140, 220, 0.7, 2)]
    assert _merge(*chain) == [(40, 220, 0.9, 0)]
    # Of each tile the best part; a weak one does not make the box larger, and goes as well.
    again = (30, 100, 0.6, 0)
    assert _merge(*parts, again) == [(40, 220, 0.9, 0)]
    assert _merge((40, 100, 0.9, 0), (70, 130, 0.4, 1)) == [(40, 100, 0.9, 0)]


def test_parts_of_two_objects_stay_two():
    # Where both tiles look, one shows rows 20 to 40 and the other 32 to 60.
    found = _merge((40, 100, 0.7, 0), (70, 130, 0.8, 1, 0, 32, 60))
    assert found == [(70, 130, 0.8, 0), (40, 100, 0.7, 0)]
    assert len(_merge((40, 100, 0.7, 0), (70, 130, 0.8, 1, 1))) == 2
    # Tiles without an overlap show nothing in common.
    grid = Tiles(100, 0).grid(100, 200)
    assert len(_merge((40, 100, 0.7, 0), (100, 130, 0.8, 1), grid=grid)) == 2


def test_edges_that_are_a_little_wrong_are_still_the_same_object():
    # It begins at 73; the first tile has it from 69, and so no tile holds that box.
    assert _merge((69, 100, 0.9, 0), (73, 140, 0.5, 1)) == [(69, 140, 0.9, 0)]
    assert _merge((69, 100, 0.5, 0), (73, 140, 0.9, 1)) == [(73, 140, 0.9, 0)]


def test_the_whole_picture_counts_for_what_no_tile_holds():
    small, large = (10, 40, 0.9, WHOLE), (10, 230, 0.5, WHOLE, 0, 5, 95)
    assert _merge(small, large) == [(10, 230, 0.5, 0)]
    # Tiles that the object fills have found its parts.
    parts = [(10, 100, 0.4, 0, 0, 5, 95), (70, 170, 0.3, 1, 0, 5, 95)]
    assert _merge(large, *parts) == [(10, 230, 0.5, 0)]
    # Where a part is the best, the box around it and the whole is one object all the same.
    parts[0] = (10, 100, 0.8, 0, 0, 5, 95)
    assert _merge(large, *parts) == [(10, 230, 0.8, 0)]
    # A small object in front of it is another one.
    assert _merge(large, (20, 50, 0.3, 0)) == [(10, 230, 0.5, 0), (20, 50, 0.3, 0)]


def test_of_what_two_tiles_hold_the_better_box_stays():
    pair = [(74, 94, 0.6, 0), (75, 96, 0.8, 1)]
    assert _merge(*pair) == [(75, 96, 0.8, 0)]
    # Their IoU is 19 / 22.
    assert len(_merge(*pair, iou_threshold=19 / 22)) == 2
    assert len(_merge(*pair, iou_threshold=0.86)) == 1
    assert len(_merge(pair[0], (75, 96, 0.8, 1, 1))) == 2
    # Two boxes of one tile have been through its detector, which let them stay.
    assert len(_merge((74, 94, 0.6, 0), (75, 96, 0.8, 0))) == 2
    assert len(_merge((10, 40, 0.6, 0), (10, 40, 0.8, 0))) == 2


def test_boxes_are_fused_by_their_scores():
    pair = [(74, 94, 0.6, 0), (76, 96, 0.8, 1)]
    # (0.6 * 74 + 0.8 * 76) / 1.4
    assert _merge(*pair, method="wbf") == [(75.143, 95.143, 0.7, 0)]
    # Two tiles hold it, and one has found it.
    assert _merge(pair[0], method="wbf") == [(74, 94, 0.3, 0)]
    assert _merge((10, 40, 0.6, 0), method="wbf") == [(10, 40, 0.6, 0)]
    # Of one tile the nearest; its other box is one of its own, found by one tile of two.
    found = _merge(*pair, (77, 97, 0.5, 0), method="wbf")
    assert found == [(75.143, 95.143, 0.7, 0), (77, 97, 0.25, 0)]
    # Boxes of no score.
    assert _merge((74, 94, 0.0, 0), (76, 96, 0.0, 1), method="wbf") == [(75, 95, 0.0, 0)]
    large = (10, 230, 0.5, WHOLE, 0, 5, 95)
    assert _merge(large, (10, 100, 0.4, 0, 0, 5, 95), method="wbf") == [(10, 230, 0.5, 0)]


def test_boxes_end_with_their_tile():
    assert _merge((-3, 30, 0.9, 0)) == [(0, 30, 0.9, 0)]
    assert _merge((190, 250, 0.9, 2)) == [(190, 240, 0.9, 0)]


def test_what_a_merge_never_does():
    """Random boxes: no new object, none twice, and the tiles' own interior as it was."""
    draw = np.random.default_rng(0)
    grid = Tiles(60, 20).grid(200, 260)
    windows = grid.windows
    for _ in range(30):
        number = 200
        tiles = draw.integers(-1, len(grid), number)
        corners = draw.uniform(0, 40, (number, 2))
        sides = draw.uniform(3, 25, (number, 2))
        corner = np.where(tiles[:, None] < 0, 0, windows[tiles, :2])
        boxes = np.concatenate([corners, corners + sides], axis=1) + np.tile(corner, (1, 2))
        scores, classes = draw.uniform(size=number), draw.integers(0, 2, number)
        kept, found, kinds = merge_tiles(boxes, scores, classes, tiles, grid)
        assert set(found.tolist()) <= set(scores.tolist()) and len(set(found.tolist())) == len(
            found
        )
        assert (kept[:, 2:] > kept[:, :2]).all() and (kept >= 0).all()
        order = np.argsort(-scores)
        again = merge_tiles(boxes[order], scores[order], classes[order], tiles[order], grid)
        np.testing.assert_array_equal(again[0], kept)
        fused = merge_tiles(boxes, scores, classes, tiles, grid, method="wbf")
        assert len(fused[0]) and (fused[1] <= scores.max()).all()
        # What lies in one tile alone is the detector's own affair.
        alone = grid.touched(boxes)
        alone = ((alone[:, 2:] - alone[:, :2]).prod(axis=1) == 1) & (tiles >= 0)
        inside = alone & ~grid.are_cut(boxes, np.where(tiles < 0, 0, tiles))
        left = set(scores[inside].tolist())
        free = [score for score, box in zip(found, kept, strict=True) if score in left]
        assert len(free) >= 0.9 * len(left)


def test_an_unknown_way_is_told():
    with pytest.raises(ValueError, match="nms or wbf, got 'soft'"):
        _merge((10, 40, 0.6, 0), method="soft")
