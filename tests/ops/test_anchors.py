import math

import numpy as np
import pytest

from ssd_centernet.ops import anchors as anchor_ops


def test_one_cell_by_hand():
    boxes = anchor_ops.default_boxes(
        (100, 100), [(1, 1)], scales=[0.2, 0.8], aspect_ratios=[(4,)], clip=False
    )
    # Centre, then (height, width): square, geometric mean, wide, tall.
    want = [[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.1, 0.4], [0.5, 0.5, 0.4, 0.1]]
    np.testing.assert_allclose(boxes, want, rtol=1e-12)


def test_order_is_level_row_column_shape():
    boxes = anchor_ops.default_boxes(
        (10, 10), [(2, 3), (1, 1)], scales=[0.1, 0.2, 0.4], aspect_ratios=[(), (2,)]
    )
    assert boxes.shape == (2 * 3 * 2 + 4, 4)
    np.testing.assert_allclose(boxes[0, :2], [0.25, 1 / 6])
    np.testing.assert_allclose(boxes[1, :2], [0.25, 1 / 6])  # the shape varies fastest
    np.testing.assert_allclose(boxes[2, :2], [0.25, 0.5])  # then the column
    np.testing.assert_allclose(boxes[6, :2], [0.75, 1 / 6])  # then the row
    np.testing.assert_allclose(boxes[12:, :2], 0.5)


def test_steps_set_centres_and_clipping_pulls_them_in():
    arguments = {"scales": [0.9, 1.6], "aspect_ratios": [(4,)], "steps": [(64, 32)]}
    clipped = anchor_ops.default_boxes((100, 100), [(2, 2)], **arguments)
    free = anchor_ops.default_boxes((100, 100), [(2, 2)], **arguments, clip=False)
    np.testing.assert_allclose(free[-1], [0.96, 0.48, 1.8, 0.45])
    np.testing.assert_allclose(clipped[-1], [0.96, 0.48, 1.0, 0.45])
    np.testing.assert_allclose(free[1, 2:], [1.2, 1.2])
    assert clipped.max() == 1.0
    beyond = anchor_ops.default_boxes((100, 100), [(3, 3)], **arguments)
    assert beyond[-1, 0] == 1.0  # 2.5 * 64 / 100 lies outside


def test_non_square_image_keeps_boxes_square_in_pixels():
    height, width = 200, 400
    boxes = anchor_ops.default_boxes(
        (height, width), [(2, 4)], scales=[0.25, 0.5], aspect_ratios=[(2,)], clip=False
    )
    pixels = boxes * np.array([height, width, height, width])
    np.testing.assert_allclose(pixels[0], [50, 50, 50, 50])
    mean = 200 * math.sqrt(0.25 * 0.5)
    np.testing.assert_allclose(pixels[1], [50, 50, mean, mean])
    np.testing.assert_allclose(pixels[2, 3] / pixels[2, 2], 2.0)  # wide
    np.testing.assert_allclose(pixels[-1, :2], [150, 350])


def test_corners():
    np.testing.assert_allclose(
        anchor_ops.corners(np.array([[0.5, 0.25, 0.5, 0.25]])), [[0.25, 0.125, 0.75, 0.375]]
    )


@pytest.mark.parametrize(
    "changes",
    [{"scales": [0.1, 0.2]}, {"aspect_ratios": [(2,)]}, {"steps": [(8, 8)]}],
)
def test_levels_that_do_not_fit_raise(changes):
    arguments = {"scales": [0.1, 0.2, 0.3], "aspect_ratios": [(2,), (2,)], **changes}
    with pytest.raises(ValueError, match="2 feature levels need"):
        anchor_ops.default_boxes((10, 10), [(2, 2), (1, 1)], **arguments)


@pytest.mark.parametrize(
    ("side", "percentages", "levels", "first", "want"),
    [
        (300, (15, 90), 6, 7, (21, 45, 99, 153, 207, 261, 315)),
        (300, (20, 90), 6, 10, (30, 60, 111, 162, 213, 264, 315)),
        (512, (10, 90), 7, 4, (20, 51, 133, 215, 296, 378, 460, 542)),
        (512, (15, 90), 7, 7, (35, 76, 153, 230, 307, 384, 460, 537)),
    ],
)
def test_sizes_of_percentages_are_cut_to_pixels(side, percentages, levels, first, want):
    got = anchor_ops.sizes_of_percentages(side, percentages, num_levels=levels, first=first)
    assert got == want


def test_percentages_need_levels_to_be_spread_over():
    with pytest.raises(ValueError, match="at least 3 levels, got 2"):
        anchor_ops.sizes_of_percentages(300, (15, 90), num_levels=2, first=7)


def test_pixel_boxes_by_hand():
    boxes = anchor_ops.pixel_boxes(
        [(1, 2)], sizes=(4, 9), aspect_ratios=[(4,)], steps=[(8.0, 10.0)]
    )
    assert boxes.dtype == np.float32
    # Square, geometric mean, wide, tall; then the same a step to the right.
    want = [[2, 3, 6, 7], [1, 2, 7, 8], [3, 1, 5, 9], [0, 4, 8, 6]]
    np.testing.assert_array_equal(boxes[:4], want)
    np.testing.assert_array_equal(boxes[4:], np.array(want) + [0, 10, 0, 10])


@pytest.mark.parametrize("image_size", [(300, 300), (96, 160)])
def test_pixel_boxes_are_the_default_boxes(image_size):
    sizes = [(5, 7), (3, 4), (1, 1)]
    arguments = {"aspect_ratios": [(2,), (2, 3), ()]}
    steps = [(image_size[0] / rows, image_size[1] / columns) for rows, columns in sizes]
    scales = np.array([0.1, 0.2, 0.5, 0.9])
    fractions = anchor_ops.default_boxes(
        image_size, sizes, scales=scales, steps=steps, clip=False, **arguments
    )
    pixels = anchor_ops.pixel_boxes(sizes, sizes=scales * min(image_size), steps=steps, **arguments)
    want = anchor_ops.corners(fractions) * np.tile(image_size, 2)
    np.testing.assert_allclose(pixels, want, atol=1e-4)
