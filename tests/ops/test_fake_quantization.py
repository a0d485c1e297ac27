"""Rounding to 8 bits, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import fake_quantization as fake


def test_the_limits_of_a_map_hold_its_range_and_an_exact_zero():
    # 255 steps of 0.01, zero at the hundredth.
    np.testing.assert_allclose(fake.map_limits([-1.0, 1.55]), [-1.0, 1.55], rtol=1e-6)
    # The step is 3 / 255; zero would lie at 84.15 or 84.66 of them, and moves to 84 and 85.
    step = 3.0 / 255.0
    np.testing.assert_allclose(fake.map_limits([-0.99, 2.01]), [-84 * step, 171 * step], rtol=1e-6)
    limits = fake.map_limits([-0.996, 2.004])
    np.testing.assert_allclose(limits, [-85 * step, 170 * step], rtol=1e-6)
    np.testing.assert_allclose(fake.map_limits([0.0, 6.0]), [0.0, 6.0])
    np.testing.assert_allclose(fake.map_limits([-5.1, 0.0]), [-5.1, 0.0], rtol=1e-6)
    low, high = fake.map_limits([0.0, 0.0]).numpy()
    assert low == 0.0 and 0.0 < high < 1e-4


def test_powers_of_two_hold_the_range_too():
    # 0.01 becomes 2 ** -6; zero lies at the 64th step.
    limits = fake.map_limits([-1.0, 1.55], power_of_two=True)
    np.testing.assert_array_equal(limits, [-1.0, 191 / 64])
    # A scale that is a power stays: 255 steps of 2 ** -5.
    limits = fake.map_limits([[0.0, 255 / 32], [0.0, 256 / 32]], power_of_two=True)
    np.testing.assert_array_equal(limits, [[0.0, 255 / 32], [0.0, 255 / 16]])


def test_a_symmetric_map_has_its_zero_in_the_middle():
    scale = 1.55 / 127
    limits = fake.map_limits([-1.0, 1.55], symmetric=True)
    np.testing.assert_allclose(limits, [-128 * scale, 127 * scale], rtol=1e-6)
    # The lower end decides where it is the longer one.
    limits = fake.map_limits([-2.56, 1.0], symmetric=True)
    np.testing.assert_allclose(limits, [-2.56, 2.54], rtol=1e-6)
    limits = fake.map_limits([-1.0, 1.55], symmetric=True, power_of_two=True)
    np.testing.assert_array_equal(limits, [-128 / 64, 127 / 64])


def test_a_map_is_rounded_and_clipped_and_its_gradient_stops_outside():
    values = tf.constant([0.014, 0.016, -0.996, 1.6, -2.0, 0.0, 1.5])
    weights = tf.constant([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        rounded = fake.quantize_map(values, fake.map_limits([-1.0, 1.55]))
        total = tf.reduce_sum(weights * rounded)
    expected = [0.01, 0.02, -1.0, 1.55, -1.0, 0.0, 1.5]
    np.testing.assert_allclose(rounded, expected, atol=1e-6)
    np.testing.assert_array_equal(tape.gradient(total, values), [2, 3, 5, 0, 0, 13, 17])


def test_a_kernel_has_a_scale_for_each_channel_and_passes_all_gradients():
    # [2, 1, 3]: channels with steps of 1, of 0.01, and of nothing.
    kernel = tf.constant([[[127.0, -0.5, 0.0]], [[3.4, 1.27, 0.0]]])
    weights = tf.constant([[[2.0, 3.0, 1.0]], [[5.0, 7.0, 1.0]]])
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        limits = fake.kernel_limits(kernel)
        rounded = fake.quantize_kernel(kernel, limits)
        total = tf.reduce_sum(weights * rounded)
    np.testing.assert_allclose(limits[:2], [127.0, 1.27], rtol=1e-6)
    np.testing.assert_allclose(rounded, [[[127.0, -0.5, 0.0]], [[3.0, 1.27, 0.0]]], atol=1e-6)
    # Nothing lies outside, and the limits have no gradient of their own.
    np.testing.assert_array_equal(tape.gradient(total, kernel), weights)


def test_kernels_with_powers_of_two():
    # 2 / 127 is a little more than 2 ** -6; 127 / 64 is that exactly.
    kernel = tf.constant([[-2.0, 127 / 64], [0.02, 0.02]])
    limits = fake.kernel_limits(kernel, power_of_two=True)
    np.testing.assert_array_equal(limits, [127 / 32, 127 / 64])
    rounded = fake.quantize_kernel(kernel, limits)
    np.testing.assert_allclose(rounded, [[-2.0, 127 / 64], [1 / 32, 1 / 64]], atol=1e-7)


def test_ranges_begin_with_the_first_batch_and_then_move():
    np.testing.assert_array_equal(fake.observed_ranges(tf.constant([[2.0, 5.0]])), [0.0, 5.0])
    np.testing.assert_array_equal(fake.observed_ranges(tf.constant([-3.0, -1.0])), [-3.0, 0.0])
    before = tf.constant([[0.0, 4.0], [0.0, 0.0], [-1.0, 1.0], [0.0, 2.0]])
    observed = tf.constant([[0.0, 2.0], [-3.0, 5.0], [-2.0, np.nan], [-1.0, np.inf]])
    moved = fake.moved_ranges(before, observed, 0.9)
    expected = [[0.0, 3.8], [-3.0, 5.0], [-1.0, 1.0], [0.0, 2.0]]
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"power_of_two": True}, {"symmetric": True}])
def test_rounding_twice_is_rounding_once(options):
    rng = np.random.default_rng(3)
    values = tf.constant(rng.normal(0.0, 2.0, 500).astype(np.float32))
    limits = fake.map_limits(fake.observed_ranges(values), **options)
    once = fake.quantize_map(values, limits)
    assert 50 < len(np.unique(once)) <= 256
    np.testing.assert_allclose(fake.quantize_map(once, limits), once, atol=1e-6)
    assert float(tf.reduce_max(tf.abs(once - values))) <= float(limits[1] - limits[0]) / 255
