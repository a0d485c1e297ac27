import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import losses

LN = math.log


def logit(p) -> tf.Tensor:
    p = np.asarray(p, np.float64)
    return tf.constant(np.log(p / (1 - p)), tf.float32)


def test_focal_loss_by_hand():
    loss = losses.penalty_reduced_focal(
        logit([0.8, 0.8, 0.8, 0.5]), tf.constant([1.0, 0.0, 0.5, 0.999])
    )
    want = [-(0.2**2) * LN(0.8), -(0.8**2) * LN(0.2), -(0.5**4) * 0.8**2 * LN(0.2), 0.0]
    np.testing.assert_allclose(loss, want, rtol=1e-5, atol=1e-9)


def test_focal_loss_is_finite_far_out_and_has_no_gradient_there():
    logits = tf.constant([[-200.0, 200.0, -9.3, 9.3], [-200.0, 200.0, -9.3, 9.3]])
    targets = tf.constant([[1.0] * 4, [0.0] * 4])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.penalty_reduced_focal(logits, targets)
    np.testing.assert_allclose(loss[0, :3:2], [-(0.9999**2) * LN(1e-4)] * 2, rtol=1e-5)
    np.testing.assert_allclose(loss[1, 1::2], [-(0.9999**2) * LN(1e-4)] * 2, rtol=1e-3)
    assert not np.any(tape.gradient(loss, logits))


@pytest.mark.parametrize("target", [1.0, 0.7, 0.0])
def test_focal_gradient_equals_differences(target):
    logits = np.linspace(-4.0, 4.0, 9)

    def loss64(x):
        p = 1 / (1 + np.exp(-x))
        if target == 1.0:
            return -((1 - p) ** 2) * np.log(p)
        return -((1 - target) ** 4) * p**2 * np.log(1 - p)

    x = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(losses.penalty_reduced_focal(x, tf.fill(x.shape, target)))
    want = (loss64(logits + 1e-5) - loss64(logits - 1e-5)) / 2e-5
    np.testing.assert_allclose(tape.gradient(total, x), want, rtol=1e-4, atol=1e-6)
