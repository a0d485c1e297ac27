"""What a teacher's words count, against numbers by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import imitation

LN2, LN3 = np.log(2.0), np.log(3.0)


def test_softmax_divergence_by_hand():
    # Teacher (1/2, 1/4, 1/4), student (1/4, 1/2, 1/4): (1/2 - 1/4) ln 2.
    teacher = tf.math.log([[0.5, 0.25, 0.25]])
    student = tf.math.log([[0.25, 0.5, 0.25]])
    found = imitation.softmax_divergence(student, teacher)
    np.testing.assert_allclose(found, [0.25 * LN2], rtol=1e-6)
    # Only differences of logits count.
    np.testing.assert_allclose(
        imitation.softmax_divergence(student + 7.0, teacher), found, rtol=1e-5
    )


def test_temperature_flattens_both_and_keeps_the_gradient_as_large():
    # At temperature 2: roots of the odds. Teacher 1 : 9 becomes 1 : 3, student 1 : 1 stays.
    teacher, student = tf.constant([[0.0, 2 * LN3]]), tf.constant([[0.0, 0.0]])
    expected = 4.0 * (0.25 * np.log(0.5) + 0.75 * np.log(1.5))
    found = imitation.softmax_divergence(student, teacher, 2.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(student)
        total = tf.reduce_sum(imitation.softmax_divergence(student, teacher, 2.0))
    # temperature (softmax(student / 2) - softmax(teacher / 2)), by hand.
    np.testing.assert_allclose(tape.gradient(total, student), [[0.5, -0.5]], rtol=1e-6)


def test_sigmoid_divergence_by_hand_with_its_gradient():
    # Teacher 3/4, student 1/2 in one slot, both 1/2 in the other.
    teacher, student = tf.constant([[LN3, 0.0]], tf.float32), tf.constant([[0.0, 0.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([student, teacher])
        found = imitation.sigmoid_divergence(student, teacher)
    np.testing.assert_allclose(found, [0.75 * np.log(1.5) + 0.25 * np.log(0.5)], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(found, student), [[-0.25, 0.0]], atol=1e-7)
    assert tape.gradient(found, teacher) is None


@pytest.mark.parametrize("divergence", [imitation.softmax_divergence, imitation.sigmoid_divergence])
def test_equal_words_cost_nothing_and_extreme_ones_stay_finite(divergence):
    said = tf.Variable([[3.0, -2.0, 0.5], [200.0, -200.0, 0.0], [-300.0, 300.0, 0.0]])
    told = tf.constant([[3.0, -2.0, 0.5], [-200.0, 200.0, 0.0], [-300.0, 300.0, 0.0]])
    with tf.GradientTape() as tape:
        found = divergence(said, told)
    np.testing.assert_allclose(tf.gather(found, [0, 2]), [0.0, 0.0], atol=1e-5)
    assert np.isfinite(found).all() and found[1] > 100.0
    assert np.isfinite(tape.gradient(found, said)).all()


def test_the_mean_of_next_to_nothing_is_next_to_nothing():
    losses = tf.constant([1.0, 3.0])
    assert float(imitation.weighted_mean(losses, tf.constant([1.0, 3.0]))) == 2.5
    assert float(imitation.weighted_mean(losses, tf.constant([0.25, 0.25]))) == 1.0
    assert float(imitation.weighted_mean(losses, tf.zeros(2))) == 0.0


def logit(p):
    return np.log(p / (1.0 - p))


def test_heatmaps_count_where_either_sees_a_centre_and_boxes_at_the_teachers_peaks():
    # One row of three cells, one class. The middle one is the teacher's peak.
    told, said = np.array([0.1, 0.8, 0.1]), np.array([0.4, 0.5, 0.1])
    teacher = {"center": tf.constant(logit(told)[None, None, :, None], tf.float32)}
    output = {"center": tf.constant(logit(said)[None, None, :, None], tf.float32)}

    def errors_of(output, taught):
        assert taught["center"].shape == output["center"].shape
        return {"box": tf.constant([[[7.0, 2.0, 9.0]]])}

    found = imitation.heatmap_divergence([output, output], teacher, errors_of, 1.0)
    costs = told * np.log(told / said) + (1 - told) * np.log((1 - told) / (1 - said))
    weights = np.array([0.4, 0.8, 0.1])
    np.testing.assert_allclose(found["center"], (costs @ weights) / weights.sum(), rtol=1e-5)
    # 0.8 of weight is less than 1.
    np.testing.assert_allclose(found["box"], 0.8 * 2.0, rtol=1e-6)
