import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.anchors import DefaultBoxes
from tests.layers.contract import LayerContract, random_maps

SSD300_SIZES = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


def center_size(corners: np.ndarray) -> np.ndarray:
    low, high = corners[..., :2], corners[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def test_published_ssd300_boxes():
    boxes = DefaultBoxes().generate((300, 300), SSD300_SIZES)
    assert boxes.shape == (8732, 4)
    assert boxes.dtype == np.float32
    first = center_size(boxes[:4].astype(np.float64))
    scale, mean = 21 / 300, math.sqrt(21 * 45) / 300
    shapes = [
        (scale, scale),
        (mean, mean),
        (scale / math.sqrt(2), scale * math.sqrt(2)),
        (scale * math.sqrt(2), scale / math.sqrt(2)),
    ]
    want = [[0.5 * 8 / 300, 0.5 * 8 / 300, *shape] for shape in shapes]
    np.testing.assert_allclose(first, want, atol=1e-7)
    # The second cell lies to the right of the first, the 39th below it.
    np.testing.assert_allclose(center_size(boxes[4])[:2], [4 / 300, 12 / 300], atol=1e-7)
    np.testing.assert_allclose(center_size(boxes[38 * 4])[:2], [12 / 300, 4 / 300], atol=1e-7)


def test_published_table_of_steps_and_clipping():
    boxes = center_size(DefaultBoxes().generate((300, 300), SSD300_SIZES).astype(np.float64))
    # Level 5 (10x10): the last centre would be 9.5 * 32 / 300 = 1.0133.
    np.testing.assert_allclose(boxes[8541, :2], [1.0, 1.0], atol=1e-7)
    np.testing.assert_allclose(boxes[8542, :2], [0.5 * 64 / 300] * 2, atol=1e-7)
    # Level 8 (1x1): long sides of 1.23 are clipped, centres are in the middle.
    scale = 261 / 300
    np.testing.assert_allclose(boxes[8730], [0.5, 0.5, scale / math.sqrt(2), 1.0], atol=1e-7)
    np.testing.assert_allclose(boxes[8731], [0.5, 0.5, 1.0, scale / math.sqrt(2)], atol=1e-7)


def test_unclipped():
    boxes = DefaultBoxes(clip=False).generate((300, 300), SSD300_SIZES)
    assert center_size(boxes[8730])[3] == pytest.approx(261 / 300 * math.sqrt(2))


def test_steps_follow_the_features_on_other_images():
    layer = DefaultBoxes((21, 45, 99), aspect_ratios=((2,), (2,)), steps=(8, 16))
    boxes = layer.generate((256, 416), [(32, 52), (16, 26)])
    assert boxes.shape == ((32 * 52 + 16 * 26) * 4, 4)
    pixels = center_size(boxes.astype(np.float64)) * np.array([256, 416, 256, 416])
    # Centres of stride 8, squares in pixels that keep their share of the shorter side.
    np.testing.assert_allclose(pixels[0], [4, 4, 21 / 300 * 256, 21 / 300 * 256], rtol=1e-5)
    np.testing.assert_allclose(pixels[51 * 4, :2], [4, 412], rtol=1e-5)
    np.testing.assert_allclose(pixels[-1, :2], [248, 408], rtol=1e-5)


def test_boxes_per_cell():
    assert DefaultBoxes().boxes_per_cell == (4, 6, 6, 6, 4, 4)


def test_call_reads_the_sizes_of_the_features():
    layer = DefaultBoxes((21, 45, 99), aspect_ratios=((2,), (2,)), steps=None)
    features = [tf.zeros([1, 4, 6, 8]), tf.zeros([1, 2, 3, 8])]
    got = layer(features, (64, 96))
    np.testing.assert_array_equal(got, layer.generate((64, 96), [(4, 6), (2, 3)]))


def test_levels_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="feature levels need"):
        DefaultBoxes().generate((300, 300), SSD300_SIZES[:5])


class TestDefaultBoxesContract(LayerContract):
    part = DefaultBoxes
    settings = {
        "scales": (10, 20, 40),
        "aspect_ratios": ((2,), ()),
        "steps": (8, 16),
        "reference_size": 64,
        "clip": False,
    }

    def call(self, layer):
        return layer(random_maps(8, 4), (64, 64)), layer.generate((60, 40), [(4, 4), (2, 2)])
