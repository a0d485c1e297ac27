import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import (
    BatchNorm,
    L2Norm,
    PopulationBatchNorm,
    share_of_beginning,
    warm_up_averages,
)
from tests.layers.contract import LayerContract, random_maps


def test_cells_by_hand():
    features = tf.constant([[[[3.0, 4.0], [0.0, -2.0]]]])
    layer = L2Norm(10.0)
    np.testing.assert_allclose(layer(features), [[[[6.0, 8.0], [0.0, -10.0]]]], rtol=1e-6)
    layer.scale.assign([1.0, 2.0])
    np.testing.assert_allclose(layer(features), [[[[0.6, 1.6], [0.0, -2.0]]]], rtol=1e-6)


def test_the_fused_form_gives_the_same_but_for_the_epsilon():
    layer = L2Norm(10.0)
    features = tf.constant(np.random.default_rng(1).normal(size=(2, 3, 3, 8)), tf.float32)
    plain = layer(features)
    with L2Norm.fusing():
        fused = layer(features)
        assert not np.any(layer(features * 0.0))
    np.testing.assert_allclose(fused, plain, rtol=1e-6)
    with L2Norm.fusing():
        # A norm of 0.5 counts as 1, that of 5 as itself.
        small = L2Norm(1.0, epsilon=1.0)(tf.constant([[0.3, 0.4], [3.0, 4.0]]))
    np.testing.assert_allclose(small, [[0.3, 0.4], [0.6, 0.8]], rtol=1e-6)
    # Out of the block it is the published form again.
    np.testing.assert_allclose(L2Norm(1.0, epsilon=1.0)(tf.constant([[3.0, 4.0]])), [[0.5, 4 / 6]])


def test_epsilon_is_added_to_the_norm():
    got = L2Norm(1.0, epsilon=1.0)(tf.constant([[3.0, 4.0]]))
    np.testing.assert_allclose(got, [[0.5, 4.0 / 6.0]], rtol=1e-6)


def test_cells_of_zeros_have_finite_gradients():
    features = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    layer = L2Norm()
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(layer(features) ** 2)
    assert not np.any(layer(features)[0])
    for gradient in tape.gradient(total, [features, layer.scale]):
        assert np.all(np.isfinite(gradient))


def test_large_activations_do_not_overflow_in_half_precision():
    layer = L2Norm(20.0, dtype="float16")
    got = layer(tf.constant([[3e4, 4e4]], tf.float16))
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, [[12.0, 16.0]], rtol=1e-3)


class TestL2NormContract(LayerContract):
    part = L2Norm
    settings = {"initial_scale": 7.0, "epsilon": 1e-3}
    inputs = random_maps(4)[0]


def maps(steps=4):
    return np.random.default_rng(1).normal(7.0, 3.0, (steps, 8, 4, 4, 2)).astype(np.float32)


@pytest.mark.parametrize("kind", [BatchNorm, PopulationBatchNorm])
@pytest.mark.parametrize("group", [False, True])
def test_averages_are_warmed_up_by_hand(kind, group):
    norm, step, values = kind(momentum=0.997), tf.Variable(0, dtype=tf.int64), maps()
    norm.build(values[0].shape)
    norm.warm_up(lambda: step)
    if group:  # Of one process, whose mean is its own.
        norm.synchronize(tf.identity, 1)
    call = tf.function(norm)
    mean, variance = np.zeros(2), np.ones(2)
    for number, batch in enumerate(values):
        call(tf.constant(batch), training=True)
        step.assign_add(1)
        momentum = (1 + number) / (10 + number)
        mean = momentum * mean + (1 - momentum) * batch.mean(axis=(0, 1, 2))
        bessel = 1.0 if kind is PopulationBatchNorm else 128 / 127
        variance = momentum * variance + (1 - momentum) * batch.var(axis=(0, 1, 2)) * bessel
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4)
    call(tf.constant(values[0]), training=False)
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4)


def test_averages_have_the_momentum_of_the_layer_once_it_is_reached():
    plain, warmed = BatchNorm(momentum=0.5), BatchNorm(momentum=0.5)
    warmed.warm_up(lambda: 8)  # 9 / 18.
    for batch in map(tf.constant, maps()):
        for norm in (plain, warmed):
            norm(batch, training=True)
        np.testing.assert_array_equal(warmed.moving_mean, plain.moving_mean)
        np.testing.assert_array_equal(warmed.moving_variance, plain.moving_variance)


def test_a_channel_without_variance_keeps_its_average_above_zero():
    norm = BatchNorm(momentum=0.997)
    norm.warm_up(lambda: 0)
    for _ in range(5):
        norm(tf.fill([2, 2, 2, 1], 1e4), training=True)
        assert norm.moving_variance.numpy()[0] >= 0.0


def test_published_lengths_keep_the_published_momentum():
    model = keras.Sequential([keras.Input((4, 4, 2)), BatchNorm(momentum=0.997, name="slow")])
    model.add(BatchNorm(momentum=0.9, name="quick"))
    for total, warmed in ((6250, []), (100000, []), (5999, ["slow"]), (150, ["slow", "quick"])):
        assert warm_up_averages(model, lambda: 0, total) == len(warmed)
        assert [one.name for one in model.layers if one._step is not None] == warmed
    assert warm_up_averages(model, lambda: 0) == 2


def test_what_is_left_of_the_beginning():
    norm = BatchNorm(momentum=0.997)
    assert share_of_beginning(norm, 300) == pytest.approx(0.406, abs=1e-3)
    assert share_of_beginning(norm, 1600) < 0.01
    norm.warm_up(lambda: 0)
    assert share_of_beginning(norm, 1) == pytest.approx(0.1)
    assert share_of_beginning(norm, 3) < 0.01
    norm.trainable = False
    assert share_of_beginning(norm, 0) == 0.0
