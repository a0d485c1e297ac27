import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import losses


def test_cross_entropy_by_hand_and_its_gradient():
    logits = tf.Variable([[math.log(1.0), math.log(2.0), math.log(5.0)]])
    with tf.GradientTape() as tape:
        loss = losses.softmax_cross_entropy(logits, tf.constant([1]))
    np.testing.assert_allclose(loss, [math.log(4.0)], rtol=1e-6)
    gradient = tape.gradient(loss, logits)
    np.testing.assert_allclose(gradient, [[1 / 8, 2 / 8 - 1, 5 / 8]], rtol=1e-6)


def test_cross_entropy_of_large_logits_is_finite():
    loss = losses.softmax_cross_entropy(tf.constant([[1e4, 0.0], [0.0, 1e4]]), tf.constant([0, 0]))
    np.testing.assert_allclose(loss, [0.0, 1e4])


def test_huber_by_hand_and_its_gradient():
    errors = tf.Variable([0.0, 0.5, -0.5, 1.0, -3.0])
    with tf.GradientTape() as tape:
        values = losses.huber(errors)
    np.testing.assert_allclose(values, [0.0, 0.125, 0.125, 0.5, 2.5])
    np.testing.assert_allclose(tape.gradient(values, errors), [0.0, 0.5, -0.5, 1.0, -1.0])
    np.testing.assert_allclose(losses.huber(tf.constant([1.0, 4.0]), delta=2.0), [0.5, 6.0])


def mine(values, positives, counts) -> list:
    mask = losses.hard_negative_mask(
        tf.constant(values, tf.float32), tf.constant(positives), tf.constant(counts)
    )
    return mask.numpy().astype(int).tolist()


def test_mining_picks_the_largest_negatives():
    values = [[3.0, 9.0, 1.0, 2.0, 5.0]]
    positives = [[False, True, False, False, False]]
    assert mine(values, positives, [2]) == [[1, 0, 0, 0, 1]]
    assert mine(values, positives, [0]) == [[0, 0, 0, 0, 0]]


def test_mining_ties_go_to_the_lower_index():
    values = [[1.0, 2.0, 2.0, 2.0, 1.0]]
    nothing = [[False] * 5]
    assert mine(values, nothing, [2]) == [[0, 1, 1, 0, 0]]
    assert mine(values, nothing, [4]) == [[1, 1, 1, 1, 0]]


def test_mining_reaches_positives_when_losses_vanish():
    # Positives count as 0: with three picks the tie of zeros reaches the positive at index 1.
    values = [[0.0, 7.0, 4.0, 0.0]]
    positives = [[False, True, False, False]]
    assert mine(values, positives, [2]) == [[1, 0, 1, 0]]
    assert mine(values, positives, [3]) == [[1, 1, 1, 0]]


def test_mining_of_more_than_all_takes_all_and_images_are_separate():
    values = [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]
    positives = [[True, False, False], [False, False, False]]
    assert mine(values, positives, [99, 1]) == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_mining_against_a_stable_sort(seed):
    rng = np.random.default_rng(seed)
    values = np.round(rng.exponential(size=(3, 50)) * 4).astype(np.float32) / 4
    positives = rng.uniform(size=values.shape) < 0.2
    counts = np.array([0, 17, 49], np.int32)
    got = mine(values, positives, counts)
    for image in range(3):
        ranked = np.argsort(-np.where(positives[image], 0.0, values[image]), kind="stable")
        want = np.zeros(50, int)
        want[ranked[: counts[image]]] = 1
        assert got[image] == want.tolist()


def test_mining_has_no_gradient():
    values = tf.Variable([[1.0, 2.0, 3.0]])
    with tf.GradientTape() as tape:
        mask = losses.hard_negative_mask(values, tf.zeros([1, 3], tf.bool), tf.constant([1]))
        total = tf.reduce_sum(tf.cast(mask, tf.float32) * values)
    np.testing.assert_array_equal(tape.gradient(total, values), [[0.0, 0.0, 1.0]])


def test_negatives_only_never_picks_positives():
    values = tf.constant([[5.0, 1.0, 0.0, 3.0]] * 3)
    positives = tf.constant([[True, True, False, False]] * 3)
    counts = tf.constant([1, 4, 0])
    picked = losses.hard_negative_mask(values, positives, counts, negatives_only=True)
    # Of four wanted there are two, one of them without any loss.
    assert picked.numpy().tolist() == [
        [False] * 3 + [True],
        [False, False, True, True],
        [False] * 4,
    ]
    picked = losses.hard_negative_mask(values, positives, counts)
    assert picked.numpy()[1].all()


def test_focal_loss_by_hand():
    # Logits of 0.8, 0.2 and 0.5; label 1 is true in slot 1 alone.
    logits = [[math.log(4.0), -math.log(4.0), 0.0]]
    got = losses.sigmoid_focal(tf.constant(logits), tf.constant([1]))
    want = [
        0.75 * 0.8**2 * -math.log(0.2),
        0.25 * 0.8**2 * -math.log(0.2),
        0.75 * 0.5**2 * -math.log(0.5),
    ]
    np.testing.assert_allclose(got, [want], rtol=1e-5)
    # Background is no class: its slot is false for every label.
    for label in (0, -1):
        got = losses.sigmoid_focal(tf.constant(logits), tf.constant([label]))
        np.testing.assert_allclose(got[0, 0], want[0], rtol=1e-5)
        np.testing.assert_allclose(got[0, 1], 0.75 * 0.2**2 * -math.log(0.8), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_gradient_equals_differences(gamma):
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, 3.0, (4, 3)).astype(np.float32)
    labels = tf.constant([0, 1, 2, -1])

    def loss(x):
        return losses.sigmoid_focal(x, labels, alpha=0.3, gamma=gamma)

    logits = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(loss(logits))
    step = 1e-2
    want = (loss(tf.constant(values + step)) - loss(tf.constant(values - step))) / (2 * step)
    np.testing.assert_allclose(tape.gradient(total, logits), want, rtol=1e-2, atol=1e-4)


def test_focal_loss_of_large_logits_is_finite():
    logits = tf.constant([[1e4, 1e4, -1e4], [-1e4, -1e4, 1e4]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.sigmoid_focal(logits, tf.constant([1, 1]))
    np.testing.assert_allclose(loss, [[7500.0, 0.0, 0.0], [0.0, 2500.0, 7500.0]])
    gradient = tape.gradient(loss, logits)
    np.testing.assert_allclose(gradient, [[0.75, 0.0, 0.0], [0.0, -0.25, 0.75]])
