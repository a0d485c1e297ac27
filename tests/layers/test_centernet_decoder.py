import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from ssd_centernet.models import halves
from ssd_centernet.models.numpy_decoders import centernet as numpy_centernet
from ssd_centernet.ops import voting
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


def side_maps(scores, sides) -> dict:
    """Make maps with given scores [h, w, C] and distances to the four sides [h, w, 4]."""
    scores = np.asarray(scores, np.float64)[None]
    return {
        "center": tf.constant(np.log(scores / (1 - scores)), tf.float32),
        "sides": tf.constant(np.asarray(sides)[None], tf.float32),
    }


def test_cells_around_a_centre_vote():
    scores = np.full((8, 8, 2), 0.01)
    scores[0, 3, 1], scores[0, 4, 1], scores[1, 3, 1] = 0.8, 0.4, 0.2
    # Of another class, and two cells away.
    scores[1, 4, 0], scores[0, 5, 1] = 0.7, 0.3
    sides = np.zeros((8, 8, 4))
    # [0, 1, 2, 6]; from the next cell the same to the right up to 6.6, and below up to 3.
    sides[0, 3] = 0.5, 2.5, 1.5, 2.5
    sides[0, 4] = 0.5, 3.5, 1.5, 2.1
    sides[1, 3] = 1.5, 2.5, 1.5, 2.5
    sides[0, 5] = 0.5, 4.5, 7.0, 2.5
    # Its box is as good, but its score for class 1 is below the threshold.
    sides[1, 4] = 1.5, 3.5, 0.0, 1.5
    maps = side_maps(scores, sides)
    decoder = CenterNetDecoder(9, score_threshold=0.05, vote_iou=0.6)
    found = decoder([maps])
    assert found["count"].numpy().tolist() == [2]
    np.testing.assert_allclose(found["scores"][0, :2], [0.8, 0.7], atol=1e-6)
    bottom, right = (2.0 * 1.2 + 3.0 * 0.2) / 1.4, (6.0 * 1.0 + 6.6 * 0.4) / 1.4
    want = np.array([0.0, 1.0, bottom, right]) / 8
    np.testing.assert_allclose(found["boxes"][0, 0], want, atol=1e-6)
    # The box below has an IoU of 2 / 3, the other one 2 * 5 / (2 * 5.6).
    found = CenterNetDecoder(9, score_threshold=0.05, vote_iou=0.8)([maps])
    want[2:] = 2 / 8, (6.0 * 0.8 + 6.6 * 0.4) / 1.2 / 8
    np.testing.assert_allclose(found["boxes"][0, 0], want, atol=1e-6)
    # Nobody votes with the peak of class 0: its own box stays.
    want = np.array([0.0, 1.0, 1.5, 6.0]) / 8
    np.testing.assert_allclose(found["boxes"][0, 1], want, atol=1e-6)
    # A larger neighbourhood has more voters: the cell two to the right reaches far down.
    maps["sides"] = tf.constant(np.where(sides == 7.0, 1.5, sides)[None], tf.float32)
    found = CenterNetDecoder(9, score_threshold=0.05, vote_iou=0.7, kernel_size=5)([maps])
    want = (6.0 * 0.8 + 6.6 * 0.4 + 8.0 * 0.3) / 1.5 / 8
    np.testing.assert_allclose(found["boxes"][0, 0, 3], want, atol=1e-6)


def test_maps_that_are_too_large_to_vote_on_are_refused(monkeypatch):
    maps = {"center": tf.zeros([1, 4, 4, 2]), "sides": tf.ones([1, 4, 4, 4])}
    monkeypatch.setattr(voting, "_LARGEST", 32)
    CenterNetDecoder(vote_iou=0.6)([maps])
    monkeypatch.setattr(voting, "_LARGEST", 31)
    with pytest.raises(ValueError, match=r"4 x 4 cells and 2 classes has 32\. Set .*vote_iou"):
        CenterNetDecoder(vote_iou=0.6)([maps])


def test_votes_need_boxes_in_all_cells():
    with pytest.raises(ValueError, match="regression = 'sides'"):
        CenterNetDecoder(vote_iou=0.6)([maps_of(np.full((4, 4, 2), 0.3))])


@pytest.mark.parametrize("iou_threshold", [None, 0.5])
def test_numpy_votes_as_the_decoder_does(iou_threshold):
    rng = np.random.default_rng(3)
    maps = {
        "center": rng.integers(-40, 30, (9, 11, 3)).astype(np.int8),
        "sides": rng.integers(-4, 4, (9, 11, 4)).astype(np.int8),
    }
    decoder = CenterNetDecoder(20, score_threshold=0.1, vote_iou=0.5, iou_threshold=iou_threshold)
    names = ("score_threshold", "max_detections", "kernel_size", "vote_iou", "iou_threshold")
    settings = {n: v for n, v in decoder.get_config().items() if n in names and v is not None}
    outputs = {name: {"scale": 0.1, "zero_point": 0} for name in maps}
    boxes, scores, classes = numpy_centernet.decode(maps, {**settings, "outputs": outputs})
    # The decoder of a file breaks ties of 8 bits so too.
    ranks = halves._ranks(9, 11, 3) * np.float32(0.1)
    center = maps["center"][None] * np.float32(0.1) - ranks
    sides = 4 * tf.math.softplus(maps["sides"][None] * np.float32(0.1))
    found = decoder([{"center": tf.constant(center), "sides": sides}])
    count = int(found["count"][0])
    assert count == len(boxes) > 5
    np.testing.assert_array_equal(found["classes"][0, :count], classes)
    np.testing.assert_allclose(found["boxes"][0, :count], boxes, atol=1e-6)
    decoder.vote_iou = None
    unmoved = decoder([{"center": tf.constant(center), "sides": sides}])["boxes"]
    assert np.abs(unmoved - found["boxes"])[0, :5].max() > 0.01


class TestCenterNetDecoderContract(LayerContract):
    part = CenterNetDecoder
    settings = {
        "max_detections": 7,
        "score_threshold": 0.2,
        "kernel_size": 5,
        "iou_threshold": 0.4,
        "vote_iou": 0.7,
        "test_time": ("flip",),
    }
    inputs = [
        side_maps(*(np.random.default_rng(0).uniform(0.1, 0.9, (6, 8, depth)) for depth in (2, 4)))
    ]
