"""Operations on colours against Pillow, bit for bit."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from ssd_centernet.ops import photometric


def pictures():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (31, 17, 3), np.uint8)
    dark = rng.integers(20, 90, (20, 24, 3), np.uint8)
    plain = np.full((6, 5, 3), [10, 200, 77], np.uint8)
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis], (1, 3, 3))
    return {"noise": noise, "dark": dark, "plain": plain, "ramp": ramp, "row": noise[:1]}


ENHANCE = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "color": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("picture", pictures())
@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0, 1.5])
@pytest.mark.parametrize("name", ENHANCE)
def test_factors_are_those_of_pillow(name, factor, picture):
    image = pictures()[picture]
    expected = np.asarray(ENHANCE[name](Image.fromarray(image)).enhance(factor))
    found = tf.function(getattr(photometric, name))(image, factor)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == tf.uint8


@pytest.mark.parametrize("picture", pictures())
def test_tables_are_those_of_pillow(picture):
    image = pictures()[picture]
    pillow = Image.fromarray(image)
    for bits in (1, 4, 8):
        found = photometric.posterize(image, bits)
        np.testing.assert_array_equal(found, ImageOps.posterize(pillow, bits))
    for threshold in (0, 100, 256):
        found = photometric.solarize(image, float(threshold))
        np.testing.assert_array_equal(found, ImageOps.solarize(pillow, threshold))
    np.testing.assert_array_equal(photometric.equalize(image), ImageOps.equalize(pillow))
    # Pillow multiplies by a rounded quotient, and cuts off: it may be one level lower.
    found = photometric.autocontrast(image).numpy().astype(int)
    below = found - np.asarray(ImageOps.autocontrast(pillow))
    assert below.min() >= 0 and below.max() <= 1 and below.mean() < 0.1
