"""Losses of boxes by their overlap, against numbers by hand and against difference quotients."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops.box_losses import KINDS, overlap_loss


def loss(box, target, kind):
    return float(overlap_loss(tf.constant([box]), tf.constant([target]), kind)[0])


def test_values_by_hand_of_boxes_that_overlap():
    # Areas 4 and 4, 1 in common: IoU 1/7. Around both 3 x 3, of which 2 are in neither. Centres
    # are (1, 1) apart, the diagonal is that of 3 x 3; both are squares.
    box, target = [0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]
    assert loss(box, target, "iou") == pytest.approx(6 / 7)
    assert loss(box, target, "giou") == pytest.approx(6 / 7 + 2 / 9)
    assert loss(box, target, "diou") == pytest.approx(6 / 7 + 2 / 18)
    assert loss(box, target, "ciou") == pytest.approx(6 / 7 + 2 / 18)


def test_values_by_hand_of_another_shape():
    # Same centre, 2 x 4 in 4 x 4: IoU 1/2; the angles of width and height are atan 2 and atan 1.
    box, target = [1.0, 0.0, 3.0, 4.0], [0.0, 0.0, 4.0, 4.0]
    shape = 4 / math.pi**2 * (math.atan(1.0) - math.atan(2.0)) ** 2
    assert loss(box, target, "giou") == pytest.approx(0.5)
    assert loss(box, target, "diou") == pytest.approx(0.5)
    assert loss(box, target, "ciou") == pytest.approx(0.5 + shape**2 / (0.5 + shape))


def test_values_by_hand_of_boxes_far_apart():
    # A gap of 8 between unit squares in one row: 1 x 10 around them, 8 of these in neither.
    box, target = [0.0, 0.0, 1.0, 1.0], [0.0, 9.0, 1.0, 10.0]
    assert loss(box, target, "iou") == 1.0
    assert loss(box, target, "giou") == pytest.approx(1.0 + 8 / 10)
    assert loss(box, target, "diou") == pytest.approx(1.0 + 81 / 101)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_boxes_lose_nothing_and_degenerate_ones_stay_finite(kind):
    boxes = tf.Variable([[0.1, 0.2, 0.4, 0.9], [0.3, 0.3, 0.3, 0.3], [0.1, 0.1, 0.1, 0.5]])
    targets = tf.constant([[0.1, 0.2, 0.4, 0.9], [0.3, 0.3, 0.3, 0.3], [0.2, 0.2, 0.6, 0.6]])
    with tf.GradientTape() as tape:
        losses = overlap_loss(boxes, targets, kind)
    assert float(losses[0]) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(losses).all()
    assert np.isfinite(tape.gradient(losses, boxes)).all()


def angle_term(boxes, targets):
    """Return `v` of CIoU, in NumPy."""
    angles = [np.arctan2(b[:, 3] - b[:, 1], b[:, 2] - b[:, 0]) for b in (boxes, targets)]
    return 4 / math.pi**2 * (angles[1] - angles[0]) ** 2


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_difference_quotient(kind):
    rng = np.random.default_rng(3)
    corners, sizes = rng.uniform(0.0, 0.6, (2, 20, 2)), rng.uniform(0.2, 0.4, (2, 20, 2))
    boxes, targets = np.concatenate([corners, corners + sizes], axis=-1)
    # Of CIoU the factor of the last term is a constant for the gradient.
    term = angle_term(boxes, targets)
    factor = term / (overlap_loss(boxes, targets, "iou").numpy() + term)

    def value(x):
        if kind == "ciou":
            return overlap_loss(x, targets, "diou").numpy() + factor * angle_term(x, targets)
        return overlap_loss(x, targets, kind).numpy()

    variable = tf.Variable(boxes)
    with tf.GradientTape() as tape:
        losses = overlap_loss(variable, tf.constant(targets), kind)
    np.testing.assert_allclose(losses, value(boxes), rtol=1e-9)
    gradient = tape.gradient(losses, variable).numpy()
    for column in range(4):
        step = np.eye(4)[column] * 1e-6
        quotient = (value(boxes + step) - value(boxes - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, column], quotient, atol=1e-5)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'siou'"):
        overlap_loss(tf.zeros([1, 4]), tf.zeros([1, 4]), "siou")
