import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.preprocessing import Preprocessing
from tests.layers.contract import LayerContract


def test_normalisation_by_hand():
    layer = Preprocessing((2, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    images = np.zeros((2, 2, 3), np.uint8)
    images[0, 0] = [255, 0, 51]
    got = layer(tf.constant(images)).numpy()
    np.testing.assert_allclose(got[0, 0], [1.0, -1.0, 0.2], rtol=1e-6)
    np.testing.assert_allclose(got[1, 1], [-1.0, -1.0, 0.0], rtol=1e-6)


def test_legacy_sampling_by_hand():
    # Row r of 4 samples source row r / 2: no half-pixel centres, the last row has no neighbour.
    column = np.array([0, 100], np.uint8)
    images = np.repeat(column[:, None, None], 3, axis=2)
    layer = Preprocessing((4, 1), mean=(0, 0, 0), std=(1, 1, 1))
    got = layer(tf.constant(images)).numpy()[:, 0, 0] * 255
    np.testing.assert_allclose(got, [0, 50, 100, 100], atol=1e-4)


def test_batches_equal_single_images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    layer = Preprocessing((16, 24))
    batch = layer(tf.constant(images))
    assert batch.shape == (3, 16, 24, 3)
    assert batch.dtype == tf.float32
    for image, want in zip(images, batch, strict=True):
        np.testing.assert_array_equal(layer(tf.constant(image)), want)


def test_half_pixel_sampling_by_hand():
    # Row r of 4 samples source row (r + 0.5) / 2 - 0.5, clamped to the two rows there are.
    column = np.array([0, 100], np.uint8)
    images = np.repeat(column[:, None, None], 3, axis=2)
    layer = Preprocessing((4, 1), mean=(0, 0, 0), std=(1, 1, 1), scale=1.0, resize="bilinear")
    np.testing.assert_allclose(layer(tf.constant(images))[:, 0, 0], [0, 25, 75, 100], atol=1e-4)
    layer = Preprocessing(
        (8, 1), mean=(0, 0, 0), std=(1, 1, 1), scale=1.0, resize="bilinear", round_pixels=True
    )
    got = layer(tf.constant(images)).numpy()[:, 0, 0]
    # 12.5 and 37.5 of exact bilinear sampling are rounded to even.
    np.testing.assert_array_equal(got, [0, 0, 12, 38, 62, 88, 100, 100])


def test_pixels_of_bytes_in_bgr():
    layer = Preprocessing((1, 1), mean=(1, 2, 3), std=(1, 1, 1), scale=1.0, channels="BGR")
    pixel = tf.constant([[[10, 20, 30]]], tf.uint8)
    np.testing.assert_allclose(layer(pixel)[0, 0], [29.0, 18.0, 7.0])


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (7, 200), (64, 64)])
def test_padding_keeps_the_aspect_ratio(shape):
    images = np.full((*shape, 3), 200, np.uint8)
    layer = Preprocessing((32, 48), mean=(50, 0, 0), std=(1, 1, 1), scale=1.0, keep_aspect=True)
    got = layer(tf.constant(images)).numpy()
    scale = min(32 / shape[0], 48 / shape[1])
    rows, columns = (max(1, round(side * scale)) for side in shape)
    np.testing.assert_allclose(
        got[:rows, :columns], [150, 200, 200] * np.ones_like(got[:rows, :columns])
    )
    # The padding is black before normalisation.
    np.testing.assert_allclose(got[rows:], [-50, 0, 0] * np.ones_like(got[rows:]))
    np.testing.assert_allclose(got[:, columns:], [-50, 0, 0] * np.ones_like(got[:, columns:]))
    np.testing.assert_allclose(layer.extent(*shape), [rows / 32, columns / 48], rtol=1e-6)
    np.testing.assert_array_equal(layer(tf.constant(images[None]))[0], got)


def test_extent_is_one_where_images_are_stretched():
    got = Preprocessing((32, 48)).extent(tf.constant([10, 20]), tf.constant([30, 5]))
    np.testing.assert_array_equal(got, np.ones((2, 2)))


@pytest.mark.parametrize("settings", [{}, {"scale": 1.0, "channels": "BGR"}])
def test_denormalize_inverts_the_normalisation(settings):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    layer = Preprocessing((5, 7), **settings)
    np.testing.assert_array_equal(layer.denormalize(layer(tf.constant(image))), image)
    extremes = np.array([[[99.0, -99.0, np.nan]]], np.float32) * 255.0
    first, second, _ = Preprocessing((1, 1)).denormalize(extremes)[0, 0]
    assert (first, second) == (255, 0)


@pytest.mark.parametrize("settings", [{"resize": "cubic"}, {"channels": "GBR"}])
def test_settings_that_do_not_exist_raise(settings):
    with pytest.raises(ValueError, match=f"Preprocessing.{next(iter(settings))} must be in"):
        Preprocessing((8, 8), **settings)


class TestPreprocessingContract(LayerContract):
    part = Preprocessing
    settings = {
        "image_size": (8, 16),
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "scale": 1.0,
        "resize": "bilinear",
        "keep_aspect": True,
        "channels": "BGR",
        "round_pixels": True,
    }
    inputs = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
