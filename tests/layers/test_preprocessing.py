import numpy as np
import tensorflow as tf

from ssd_centernet.layers.preprocessing import Preprocessing


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


def test_half_precision_is_overridden():
    layer = Preprocessing((2, 2), dtype="mixed_float16")
    assert layer(tf.zeros([4, 4, 3], tf.uint8)).dtype == tf.float32


def test_config_round_trip():
    layer = Preprocessing((8, 16), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert Preprocessing.from_config(layer.get_config()).get_config() == layer.get_config()
