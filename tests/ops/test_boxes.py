import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops


def test_area():
    boxes = tf.constant([[0.1, 0.2, 0.4, 0.7], [0.5, 0.5, 0.5, 0.9]])
    np.testing.assert_allclose(box_ops.area(boxes), [0.15, 0.0], atol=1e-7)


def test_iou_by_hand():
    first = tf.constant([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 2.0]])
    second = tf.constant(
        [
            [0.0, 0.0, 2.0, 2.0],  # the same
            [1.0, 1.0, 3.0, 3.0],  # 1 / (4 + 4 - 1)
            [0.0, 0.0, 1.0, 1.0],  # inside: 1 / 4
            [0.0, 2.0, 2.0, 4.0],  # touches at an edge
            [5.0, 5.0, 6.0, 6.0],  # far away
        ]
    )
    want = [[1.0, 1.0 / 7.0, 0.25, 0.0, 0.0], [0.0] * 5]
    np.testing.assert_allclose(box_ops.iou(first, second), want, rtol=1e-6)


def test_iou_tells_y_from_x():
    tall = tf.constant([[0.0, 0.0, 4.0, 1.0]])
    wide = tf.constant([[0.0, 0.0, 1.0, 4.0]])
    lower_half_of_tall = tf.constant([[2.0, 0.0, 4.0, 1.0]])
    assert float(box_ops.iou(tall, lower_half_of_tall)[0, 0]) == pytest.approx(0.5)
    assert float(box_ops.iou(tall, wide)[0, 0]) == pytest.approx(1.0 / 7.0)
    assert float(box_ops.iou(wide, lower_half_of_tall)[0, 0]) == 0.0


def test_iou_of_two_zero_area_boxes_is_zero_not_nan():
    point = tf.constant([[0.5, 0.5, 0.5, 0.5]])
    assert float(box_ops.iou(point, point)[0, 0]) == 0.0


def test_iou_broadcasts_over_leading_dimensions():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (3, 4, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, low.shape)], -1).astype(np.float32)
    others = boxes[0, :2]
    batched = box_ops.iou(boxes, others)
    assert batched.shape == (3, 4, 2)
    for image in range(3):
        np.testing.assert_array_equal(batched[image], box_ops.iou(boxes[image], others))


def test_half_inside_counts_of_the_first_boxes_area_and_from_exactly_a_half():
    boxes = np.array([[0.0, 0.0, 1.0, 2.0], [0.5, 0.5, 0.5, 0.5]], np.float32)
    regions = tf.constant([[0.0, 0.0, 4.0, 0.9], [0.0, 0.0, 9.0, 9.0], [0.0, 1.0, 1.0, 2.0]])
    got = box_ops.half_inside(boxes, regions)
    np.testing.assert_array_equal(got, [[False, True, True], [False, False, False]])
    # Of constants too, in a graph: 0.3 of 0.6 and the like.
    sides = np.arange(1, 400, dtype=np.float32)
    anchors = np.stack([0 * sides, 0 * sides, np.ones_like(sides), sides / 200], axis=1)
    half = tf.function(lambda anchors_half: box_ops.half_inside(anchors, anchors_half))
    assert np.diag(half(anchors * np.float32([1, 1, 1, 0.5]))).all()


def test_center_size_by_hand_and_back():
    boxes = tf.constant([[0.1, 0.2, 0.5, 0.8]])
    parts = box_ops.to_center_size(boxes)
    np.testing.assert_allclose(np.stack(parts)[:, 0], [0.3, 0.5, 0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(box_ops.from_center_size(*parts), boxes, rtol=1e-6)


def test_clip_to_the_unit_square_and_to_a_window():
    boxes = tf.constant([[-0.5, 0.25, 0.5, 1.5]])
    np.testing.assert_array_equal(box_ops.clip(boxes), [[0.0, 0.25, 0.5, 1.0]])
    np.testing.assert_array_equal(
        box_ops.clip(boxes, (0.0, 0.5, 0.25, 2.0)), [[0.0, 0.5, 0.25, 1.5]]
    )


def test_flip_keeps_order_and_is_its_own_inverse():
    boxes = tf.constant([[0.125, 0.25, 0.5, 0.375]])
    flipped = box_ops.flip_left_right(boxes)
    np.testing.assert_array_equal(flipped, [[0.125, 0.625, 0.5, 0.75]])
    np.testing.assert_array_equal(box_ops.flip_left_right(flipped), boxes)


def test_encode_by_hand():
    anchors = tf.constant([[0.0, 0.0, 0.5, 0.25]])  # centre (0.25, 0.125), size (0.5, 0.25)
    boxes = tf.constant([[0.25, 0.0, 0.5, 0.5]])  # centre (0.375, 0.25), size (0.25, 0.5)
    want = [10 * 0.125 / 0.5, 10 * 0.125 / 0.25, 5 * math.log(0.5), 5 * math.log(2.0)]
    np.testing.assert_allclose(box_ops.encode(boxes, anchors)[0], want, rtol=1e-6)
    plain = box_ops.encode(boxes, anchors, (1.0, 1.0, 1.0, 1.0))
    np.testing.assert_allclose(plain[0], [0.25, 0.5, math.log(0.5), math.log(2.0)], rtol=1e-6)


def test_decode_by_hand():
    anchors = tf.constant([[0.0, 0.0, 0.5, 0.25]])
    codes = tf.constant([[2.5, 5.0, 5 * math.log(0.5), 5 * math.log(2.0)]])
    np.testing.assert_allclose(box_ops.decode(codes, anchors)[0], [0.25, 0.0, 0.5, 0.5], atol=1e-6)


def test_decode_reverses_encode():
    rng = np.random.default_rng(1)
    low = rng.uniform(-0.2, 0.7, (2, 200, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.02, 0.6, low.shape)], -1).astype(np.float32)
    codes = box_ops.encode(boxes[0], boxes[1])
    np.testing.assert_allclose(box_ops.decode(codes, boxes[1]), boxes[0], atol=2e-6)
    # Other scale factors must be used by both.
    factors = (8.0, 9.0, 4.0, 3.0)
    codes = box_ops.encode(boxes[0], boxes[1], factors)
    np.testing.assert_allclose(box_ops.decode(codes, boxes[1], factors), boxes[0], atol=2e-6)


def test_encode_of_a_zero_area_box_is_finite():
    codes = box_ops.encode(tf.constant([[0.5, 0.5, 0.5, 0.5]]), tf.constant([[0.0, 0.0, 1.0, 1.0]]))
    np.testing.assert_allclose(codes[0, :2], [0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(codes[0, 2:], [5 * math.log(1e-8)] * 2, rtol=1e-5)


def test_decode_does_not_clip():
    boxes = box_ops.decode(
        tf.constant([[0.0, 0.0, 10.0, 10.0]]), tf.constant([[0.0, 0.0, 1.0, 1.0]])
    )
    half = math.exp(2.0) / 2.0
    np.testing.assert_allclose(
        boxes[0], [0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half], rtol=1e-5
    )


def test_decoded_sizes_can_be_bounded_on_both_sides():
    anchors = tf.constant([[0.0, 0.0, 1.0, 1.0]])
    codes = tf.constant([[0.0, 0.0, 5 * 9.0, -5 * 9.0]])
    box = box_ops.decode(codes, anchors, max_log_size=math.log(4.0)).numpy()[0]
    np.testing.assert_allclose(box, [-1.5, 0.375, 2.5, 0.625], rtol=1e-6)
    free = box_ops.decode(codes, anchors).numpy()[0]
    assert free[2] - free[0] > 8000
