import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import PopulationBatchNorm


def features(shape=(2, 1, 2, 3)) -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 3.0, shape).astype(np.float32)


@pytest.mark.parametrize("compiled", [False, True])
def test_moving_variance_is_that_of_the_population(compiled):
    norm, values = PopulationBatchNorm(momentum=0.1), features()
    norm.build(values.shape)
    call = tf.function(norm) if compiled else norm
    mean, variance = np.zeros(3), np.ones(3)
    for scale in (1.0, 0.5):
        call(tf.constant(scale * values), training=True)
        mean = 0.1 * mean + 0.9 * (scale * values).mean(axis=(0, 1, 2))
        variance = 0.1 * variance + 0.9 * (scale * values).var(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-5)


def test_outputs_are_those_of_keras():
    ours, theirs = PopulationBatchNorm(), keras.layers.BatchNormalization()
    values = tf.constant(features((3, 4, 5, 2)))
    for training in (True, False):
        np.testing.assert_allclose(
            ours(values, training=training), theirs(values, training=training), atol=1e-2
        )
    np.testing.assert_array_equal(ours(values, training=True), theirs(values, training=True))


def test_one_cell_of_one_image_stays_finite():
    norm, values = PopulationBatchNorm(momentum=0.1), tf.constant(features((1, 1, 1, 3)))
    assert np.all(np.isfinite(norm(values, training=True)))
    np.testing.assert_allclose(norm.moving_variance, [0.1] * 3, rtol=1e-6)


@pytest.mark.parametrize("setting", ["inference", "frozen"])
def test_averages_stay_without_training(setting):
    norm, values = PopulationBatchNorm(), tf.constant(features())
    norm.build(values.shape)
    norm.trainable = setting != "frozen"
    norm(values, training=setting == "frozen")
    np.testing.assert_array_equal(norm.moving_variance, np.ones(3))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_averages_are_float32_in_half_precision(policy):
    norm, values = PopulationBatchNorm(momentum=0.1, dtype=policy), features((4, 1, 1, 2))
    assert norm(tf.constant(values), training=True).dtype == norm.compute_dtype
    assert norm.moving_variance.dtype == tf.float32
    want = 0.1 + 0.9 * values.var(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_variance, want, rtol=2e-2)
