"""Against the standard library's colorsys, and by hand where values leave its range."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops import color
from tests.parity import VECTORS

NEUTRAL = {
    "brightness": 0.0,
    "contrast_first": 1.0,
    "saturation": 1.0,
    "hue": 0.0,
    "contrast_last": 1.0,
    "order": 0,
}


def hsv(red, green, blue):
    return [float(x) for x in color.to_hsv(*(tf.constant(float(v)) for v in (red, green, blue)))]


def distort(image, **changes):
    arguments = {key: tf.constant(value) for key, value in {**NEUTRAL, **changes}.items()}
    return color.distort(tf.constant(image, tf.float32), **arguments).numpy()


def test_against_colorsys():
    rng = np.random.default_rng(0)
    for red, green, blue in [*rng.uniform(0, 1, (50, 3)), (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        got = hsv(255 * red, 255 * green, 255 * blue)
        np.testing.assert_allclose(got, [360 * hue, saturation, 255 * value], atol=1e-3)
        back = color.from_hsv(*(tf.constant(x) for x in got))
        np.testing.assert_allclose(back, [255 * red, 255 * green, 255 * blue], atol=1e-3)


def test_greys_and_black_are_finite():
    assert hsv(80, 80, 80) == [0.0, 0.0, 80.0]
    assert hsv(0, 0, 0) == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(distort([[80, 80, 80]], saturation=1.5, hue=18.0), [[80] * 3])


def test_saturation_is_not_clipped():
    # Value 200 stays; the distance to it grows by the factor, below zero here.
    got = distort([[200.0, 40.0, 120.0]], saturation=1.5)
    np.testing.assert_allclose(got, [[200.0, -40.0, 80.0]], atol=1e-3)


def test_a_negative_value_is_saturated_in_the_other_direction():
    # Saturation is the distance over the value's size, and is multiplied with the value again.
    got = distort([[-10.0, -30.0, -20.0]])
    np.testing.assert_allclose(got, [[-10.0, 10.0, 0.0]], atol=1e-3)


@pytest.mark.parametrize("turn", [120.0, -240.0, 480.0])
def test_hue_turns_around_the_circle(turn):
    np.testing.assert_allclose(distort([[200, 50, 100]], hue=turn), [[100, 200, 50]], atol=1e-2)


def test_contrasts_and_brightness_keep_their_places():
    grey = [[100.0, 100.0, 100.0]]
    got = distort(grey, brightness=20.0, contrast_first=0.5, contrast_last=3.0)
    np.testing.assert_allclose(got, [[180.0] * 3], rtol=1e-6)


def test_orders_of_channels():
    seen = set()
    for order in range(6):
        got = np.round(distort([[200.0, 50.0, 100.0]], order=order)[0]).astype(int)
        seen.add(tuple(got))
        assert tuple(got) == tuple((200, 50, 100)[c] for c in color.CHANNEL_ORDERS[order])
    assert len(seen) == 6


@pytest.mark.parametrize("compiled", [False, True])
def test_jitter_equals_the_standard_ops_outside_the_unit_range_too(compiled):
    rng = np.random.default_rng(3)
    image = tf.constant(rng.uniform(-0.6, 1.6, (40, 41, 3)), tf.float32)
    # Greys, blacks and channels that tie.
    image = tf.concat([image, tf.repeat(image[..., :1], 3, -1), tf.zeros_like(image)], axis=0)
    image = tf.concat([image, tf.gather(image, [0, 0, 1], axis=-1)], axis=0)
    jitter = tf.function(color.jitter, jit_compile=True) if compiled else color.jitter
    for factors in ((0.0, 1.0, 0.5, -0.05), (0.0, 1.0, 1.5, 0.05), (0.1, 0.6, 0.0, 0.4)):
        brightness, contrast, saturation, hue = map(tf.constant, factors)
        want = tf.image.adjust_contrast(image + brightness, contrast)
        want = tf.image.adjust_hue(tf.image.adjust_saturation(want, saturation), hue)
        got = jitter(image, brightness, contrast, saturation, hue)
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("way", ["eager", "compiled", "dataset"])
def test_jitter_vectors(way):
    vectors = np.load(VECTORS / "ssd_resnet34" / "augment.npz")
    image = tf.constant(vectors["jitter_in_image"].astype(np.float32) / 255)
    factors = vectors["jitter_factors_brightness_contrast_saturation_hue"]
    jitter = tf.function(color.jitter, jit_compile=True) if way == "compiled" else color.jitter
    rows = tf.data.Dataset.from_tensor_slices(factors)
    if way == "dataset":
        found = list(rows.map(lambda row: jitter(image, *tf.unstack(row))))
    else:
        found = [jitter(image, *tf.unstack(row)) for row in rows]
    np.testing.assert_allclose(found, vectors["jitter_out_image"], atol=1e-5)
