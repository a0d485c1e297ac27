import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.anchors import MultiscaleAnchors
from tests.layers.contract import LayerContract

SIZES_320 = [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3)]


def pixels(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    return boxes.astype(np.float64) * [height, width, height, width]


def test_published_320():
    layer = MultiscaleAnchors()
    boxes = layer.generate((320, 320), SIZES_320)
    assert boxes.shape == (12804, 4) and boxes.dtype == np.float32
    assert layer.boxes_per_cell == (6,) * 5
    # The first cell's centre is (4, 4); ratio is outer, scale inner; ratios are width / height.
    half = math.sqrt(2.0)
    sizes = []
    for ratio in (1.0, 2.0, 0.5):
        for scale in (1.0, half):
            sizes.append((32 * scale / math.sqrt(ratio), 32 * scale * math.sqrt(ratio)))
    want = [[4 - h / 2, 4 - w / 2, 4 + h / 2, 4 + w / 2] for h, w in sizes]
    np.testing.assert_allclose(pixels(boxes[:6], 320, 320), want, rtol=1e-5, atol=1e-4)
    # Columns come before rows.
    second = pixels(boxes[6:7], 320, 320)[0]
    np.testing.assert_allclose(second, np.array(want[0]) + [0, 8, 0, 8], rtol=1e-5, atol=1e-4)


def test_centres_begin_at_zero_where_the_stride_does_not_divide_the_side():
    boxes = MultiscaleAnchors().generate((320, 320), SIZES_320)
    coarse = pixels(boxes[-54:], 320, 320)
    centres = (coarse[::6, :2] + coarse[::6, 2:]) / 2
    want = [[y, x] for y in (0, 128, 256) for x in (0, 128, 256)]
    np.testing.assert_allclose(centres, want, atol=1e-3)


def test_axes_have_their_own_frame_and_offset():
    sizes = [(12, 15), (6, 8), (3, 4)]
    layer = MultiscaleAnchors(max_level=5)
    boxes = pixels(layer.generate((96, 120), sizes), 96, 120)
    level4 = boxes[6 * 12 * 15 :][::6]
    centres = (level4[:, :2] + level4[:, 2:]) / 2
    # 16 divides 96 but not 120.
    np.testing.assert_allclose(centres[:2], [[8, 0], [8, 16]], atol=1e-3)
    np.testing.assert_allclose(level4[0, 2:] - level4[0, :2], [64, 64], rtol=1e-5)


def test_settings():
    layer = MultiscaleAnchors(
        3.0, min_level=2, max_level=2, aspect_ratios=(4.0,), scales_per_octave=3
    )
    assert layer.boxes_per_cell == (3,)
    boxes = pixels(layer.generate((8, 8), [(2, 2)]), 8, 8)
    sides = boxes[:3, 2:] - boxes[:3, :2]
    scale = 12 * 2 ** (np.arange(3) / 3)
    np.testing.assert_allclose(sides, np.stack([scale / 2, scale * 2], axis=-1), rtol=1e-5)


def test_called_on_feature_maps():
    layer = MultiscaleAnchors(max_level=4)
    maps = [tf.zeros([1, 5, 8, 2]), tf.zeros([1, 3, 4, 2])]
    np.testing.assert_array_equal(
        layer(maps, image_size=(40, 64)), layer.generate((40, 64), [(5, 8), (3, 4)])
    )


def test_levels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"level 3 to 7 expects maps of \[\(40, 40\)"):
        MultiscaleAnchors().generate((320, 320), SIZES_320[:4])
    with pytest.raises(ValueError, match="set the same `min_level`"):
        MultiscaleAnchors(min_level=2, max_level=6).generate((320, 320), SIZES_320)


class TestMultiscaleAnchorsContract(LayerContract):
    part = MultiscaleAnchors
    settings = {
        "anchor_scale": 3.0,
        "min_level": 4,
        "max_level": 5,
        "aspect_ratios": (1.0, 3.0),
        "scales_per_octave": 1,
    }

    def call(self, layer):
        return layer.generate((64, 96), [(4, 6), (2, 3)])
