import numpy as np
import tensorflow as tf

from ssd_centernet.layers.normalization import L2Norm
from tests.layers.contract import LayerContract, random_maps


def test_cells_by_hand():
    features = tf.constant([[[[3.0, 4.0], [0.0, -2.0]]]])
    layer = L2Norm(10.0)
    np.testing.assert_allclose(layer(features), [[[[6.0, 8.0], [0.0, -10.0]]]], rtol=1e-6)
    layer.scale.assign([1.0, 2.0])
    np.testing.assert_allclose(layer(features), [[[[0.6, 1.6], [0.0, -2.0]]]], rtol=1e-6)


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
