import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from tests.layers.contract import LayerContract


def maps_of(scores, offset=0.5, size=1.0) -> dict:
    """Make maps with given scores [h, w, C] and the same offset and size everywhere."""
    scores = np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6)[None]
    two = (*scores.shape[:3], 2)
    return {
        "center": tf.constant(np.log(scores / (1 - scores)), tf.float32),
        "offset": tf.fill(two, offset),
        "size": tf.fill(two, size),
    }


def test_detections_by_hand():
    scores = np.full((4, 8, 2), 0.01)
    scores[1, 2, 1], scores[1, 3, 1], scores[3, 7, 0] = 0.6, 0.5, 0.9
    found = CenterNetDecoder(3, score_threshold=0.05)([maps_of(scores)])
    # The neighbour of 0.6 is no peak.
    assert found["count"].numpy().tolist() == [2]
    np.testing.assert_allclose(found["scores"], [[0.9, 0.6, 0.0]], atol=1e-6)
    assert found["classes"].numpy()[0, :2].tolist() == [0, 1]
    want = [[3 / 4, 7 / 8, 1, 1], [1 / 4, 2 / 8, 2 / 4, 3 / 8]]
    np.testing.assert_allclose(found["boxes"][0, :2], want, atol=1e-6)


def test_without_a_threshold_every_peak_counts():
    # A flat map is one plateau: every cell is a peak.
    found = CenterNetDecoder(100)([maps_of(np.full((4, 5, 2), 0.01))])
    assert found["count"].numpy().tolist() == [40]
    assert found["scores"].shape == (1, 40)
    scores = np.full((4, 5, 1), 0.01)
    scores[1:3, 1:4] = 0.02
    found = CenterNetDecoder(10)([maps_of(scores)])
    # The plateau of six; the cells around it have a larger neighbour. Zeros fill up.
    assert found["count"].numpy().tolist() == [6]
    assert not found["scores"].numpy()[0, 6:].any()
    assert np.all(np.isfinite(found["boxes"]))


def test_the_last_stack_counts():
    first, last = np.full((2, 4, 4, 1), 0.01)
    first[0, 0], last[2, 2] = 0.9, 0.8
    found = CenterNetDecoder(1)([maps_of(first), maps_of(last)])
    np.testing.assert_allclose(found["scores"], [[0.8]], atol=1e-6)


def test_a_larger_neighbourhood_keeps_fewer():
    scores = np.full((1, 6, 1), 0.01)
    scores[0, 1], scores[0, 3] = 0.9, 0.8
    counts = [
        int(CenterNetDecoder(6, score_threshold=0.1, kernel_size=k)([maps_of(scores)])["count"][0])
        for k in (3, 5)
    ]
    assert counts == [2, 1]


def test_even_neighbourhood_raises():
    with pytest.raises(ValueError, match="kernel_size must be odd.*got 2"):
        CenterNetDecoder(kernel_size=2)


class TestCenterNetDecoderContract(LayerContract):
    part = CenterNetDecoder
    settings = {
        "max_detections": 7,
        "score_threshold": 0.2,
        "kernel_size": 5,
        "iou_threshold": 0.4,
        "test_time": ("flip",),
    }
    inputs = [maps_of(np.random.default_rng(0).uniform(size=(6, 8, 2)))]
