"""Pictures put into pictures, with values by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import pasting


@pytest.mark.parametrize(
    ("size", "frame", "scale", "expected"),
    [
        ((100, 50), (40, 40), 1.0, (40, 20)),
        ((100, 50), (40, 40), 0.5, (20, 10)),
        ((10, 30), (40, 60), 1.0, (20, 60)),
        ((500, 3), (40, 40), 1.0, (40, 1)),  # Never without a column.
    ],
)
def test_a_picture_is_fitted_into_a_frame(size, frame, scale, expected):
    found = pasting.scaled_size(tf.constant(size), frame, tf.constant(scale))
    assert tuple(found.numpy()) == expected


def test_each_place_is_drawn_and_none_beyond():
    slack = tf.constant([0, 1, 3])
    assert list(pasting.draw_place(slack, tf.zeros([3])).numpy()) == [0, 0, 0]
    last = np.nextafter(np.float32(1), np.float32(0))
    assert list(pasting.draw_place(slack, tf.fill([3], last)).numpy()) == [0, 1, 3]
    assert list(pasting.draw_place(slack, tf.constant([0.9, 0.5, 0.5])).numpy()) == [0, 1, 2]


def test_a_patch_is_blended_where_it_lies():
    image = tf.fill([4, 5, 3], tf.constant(100, tf.uint8))
    patch = tf.fill([2, 3, 3], tf.constant(201, tf.uint8))
    found = pasting.blend_at(image, patch, tf.constant([1, 2]), 0.5).numpy()
    expected = np.full((4, 5, 3), 100)
    expected[1:3, 2:5] = 150  # 150.5, rounded to even.
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    share = tf.reshape([0.0, 0.25, 1.0, 0.0, 0.25, 1.0], [2, 3, 1])
    found = pasting.blend_at(image, patch, tf.constant([0, 0]), share).numpy()
    np.testing.assert_array_equal(found[:2, :, 0], [[100, 125, 201, 100, 100]] * 2)


def test_an_edge_fades():
    found = pasting.soft_edge(tf.constant([1, 6]), 2.0).numpy()[0, :, 0]
    np.testing.assert_allclose(found, np.array([0.25, 0.75, 1, 1, 0.75, 0.25]) * 0.25)
    np.testing.assert_array_equal(pasting.soft_edge(tf.constant([2, 3]), 0.0), np.ones((2, 3, 1)))


def test_boxes_go_with_their_window():
    # A window of 10 x 20 pixels of a picture of 20 x 40 becomes 5 x 40 pixels of 50 x 80.
    boxes = tf.constant(
        [
            [0.25, 0.25, 0.75, 0.75],  # The window itself.
            [0.5, 0.5, 1.0, 1.0],  # A quarter of it lies in the window.
            [0.0, 0.0, 0.25, 1.0],  # Above it.
            [0.3, 0.5, 0.3, 0.6],  # Without area.
        ]
    )
    arguments = [tf.constant(one) for one in ([5, 10, 10, 20], [20, 40], [3, 8, 5, 40], [50, 80])]
    found, kept = pasting.boxes_at(boxes, *arguments, min_visible=0.25)
    assert list(kept.numpy()) == [True, True, False, False]
    expected = [[3 / 50, 0.1, 8 / 50, 0.6], [5.5 / 50, 28 / 80, 8 / 50, 0.6]]
    np.testing.assert_allclose(found[:2], expected, rtol=1e-6)
    _, kept = pasting.boxes_at(boxes, *arguments, min_visible=0.26)
    assert list(kept.numpy()) == [True, False, False, False]
    _, kept = pasting.boxes_at(boxes, *arguments, min_visible=0.0)
    assert list(kept.numpy()) == [True, True, False, False]


def test_rectangles_cover_together():
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0], [0.2, 0.2, 0.2, 0.9]])
    covers = tf.constant([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(pasting.covered_share(boxes, covers), [0.75, 0.0, 0.0], rtol=1e-6)
    assert pasting.covered_share(boxes[:0], covers).shape == [0]


def test_covers_are_counted_as_on_a_grid():
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 21, (30, 2, 2)), axis=1).reshape(30, 4)
    boxes, covers = ends[:24], ends[24:]
    hidden = np.zeros((20, 20))
    for top, left, bottom, right in covers:
        hidden[top:bottom, left:right] = 1
    expected = [
        hidden[top:bottom, left:right].mean() if bottom > top and right > left else 0
        for top, left, bottom, right in boxes
    ]
    arguments = tf.constant(boxes / 20, tf.float32), tf.constant(covers / 20, tf.float32)
    np.testing.assert_allclose(pasting.covered_share(*arguments), expected, atol=1e-6)
    assert 0.1 < np.mean(expected) < 0.9
