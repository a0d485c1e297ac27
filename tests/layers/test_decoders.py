import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.decoders import SigmoidSSDDecoder, SSDDecoder
from ssd_centernet.models import halves
from ssd_centernet.models.numpy_decoders import ssd as numpy_ssd
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import nms
from tests.layers.contract import LayerContract

ANCHORS = tf.constant(
    [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 0.46], [0.0, 0.5, 0.5, 1.0]]
)


def decode(probabilities, codes=None, **settings) -> dict:
    logits = tf.constant(np.log([probabilities]), tf.float32)
    codes = tf.zeros([1, 4, 4]) if codes is None else tf.constant([codes], tf.float32)
    outputs, decoder = {"class_logits": logits, "box_codes": codes}, SSDDecoder(**settings)
    found = decoder(outputs, ANCHORS)
    # What other runtimes are given finds the same.
    portable = decoder(outputs, ANCHORS, portable_pairs=12)
    for key, value in found.items():
        np.testing.assert_allclose(portable[key], value, atol=1e-7, err_msg=key)
    count = int(found["count"][0])
    return {key: value.numpy()[0][:count] for key, value in found.items() if key != "count"}


# Background, then two classes.
PROBABILITIES = [[0.1, 0.7, 0.2], [0.98, 0.01, 0.01], [0.25, 0.6, 0.15], [0.5, 0.1, 0.4]]


def test_detections_by_hand():
    found = decode(PROBABILITIES)
    # Anchor 2 overlaps anchor 0 and scores less in both classes.
    np.testing.assert_allclose(found["scores"], [0.7, 0.4, 0.2, 0.1], rtol=1e-5)
    assert found["classes"].tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(found["boxes"], ANCHORS.numpy()[[0, 3, 0, 3]], atol=1e-6)


def test_background_is_no_detection():
    assert len(decode([[0.97, 0.02, 0.01]] * 4)["scores"]) == 0


def test_settings_are_used():
    assert len(decode(PROBABILITIES, score_threshold=0.3)["scores"]) == 2
    assert len(decode(PROBABILITIES, max_detections=1)["scores"]) == 1
    assert len(decode(PROBABILITIES, iou_threshold=0.95)["scores"]) == 6
    loose = decode(PROBABILITIES, score_threshold=0.005, max_per_class=1)
    assert loose["classes"].tolist() == [0, 1]


def test_box_codes_and_their_scale_factors():
    codes = np.zeros((4, 4))
    codes[0] = [2.0, 0.0, 5 * math.log(2.0), 0.0]
    one = [[0.1, 0.9]] + [[0.99, 0.01]] * 3
    np.testing.assert_allclose(decode(one, codes)["boxes"], [[-0.15, 0.0, 0.85, 0.5]], atol=1e-6)
    factors = (5.0, 5.0, 5.0, 5.0)
    found = decode(one, codes, scale_factors=factors)["boxes"]
    np.testing.assert_allclose(found, [[-0.05, 0.0, 0.95, 0.5]], atol=1e-6)


def test_static_shapes_and_types():
    @tf.function
    def run(logits, codes):
        found = SSDDecoder(max_detections=7)({"class_logits": logits, "box_codes": codes}, ANCHORS)
        assert found["boxes"].shape[1:] == (7, 4)
        assert found["scores"].shape[1:] == found["classes"].shape[1:] == (7,)
        return found

    found = run(tf.zeros([3, 4, 3]), tf.zeros([3, 4, 4]))
    assert found["classes"].dtype == found["count"].dtype == tf.int32
    assert found["scores"].dtype == found["boxes"].dtype == tf.float32


def test_boxes_can_be_clipped_before_the_suppression():
    codes = np.zeros((4, 4))
    # Half of the box that is moved up lies outside; what is left overlaps another by two thirds.
    codes[0] = [-5.0, 0.0, 0.0, 0.0]
    codes[3] = [-2.5, -10.0, 5 * math.log(0.75), 0.0]
    probabilities = [[0.1, 0.9], [0.99, 0.01], [0.99, 0.01], [0.2, 0.8]]
    free = decode(probabilities, codes, iou_threshold=0.6)
    np.testing.assert_allclose(free["boxes"][0], [-0.25, 0.0, 0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(free["boxes"][1], [-0.0625, 0.0, 0.3125, 0.5], atol=1e-6)
    clipped = decode(probabilities, codes, iou_threshold=0.6, clip=True)
    np.testing.assert_allclose(clipped["boxes"], [[0.0, 0.0, 0.25, 0.5]], atol=1e-6)


def test_sizes_are_bounded():
    codes = np.zeros((4, 4))
    codes[0] = [0.0, 0.0, 500.0, 500.0]
    one = [[0.1, 0.9]] + [[0.99, 0.01]] * 3
    found = decode(one, codes, max_log_size=math.log(2.0))
    np.testing.assert_allclose(found["boxes"], [[-0.25, -0.25, 0.75, 0.75]], atol=1e-6)


def test_boxes_without_area_can_be_dropped():
    codes = np.zeros((4, 4))
    codes[0] = [-100.0, 0.0, 0.0, 0.0]
    one = [[0.1, 0.9]] + [[0.99, 0.01]] * 3
    assert len(decode(one, codes, clip=True)["scores"]) == 1
    assert len(decode(one, codes, clip=True, drop_empty=True)["scores"]) == 0


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_per_class": None, "clip": True}, {"drop_empty": 1}, {"vote_iou": 0.4}],
)
def test_the_number_of_decoded_anchors_changes_no_detection(settings):
    rng = np.random.default_rng(4)
    anchors = np.sort(rng.uniform(0, 1, (60, 2, 2)), axis=1).reshape(60, 4).astype(np.float32)
    codes = tf.constant(rng.normal(0, 0.5, (3, 60, 4)).astype(np.float32))
    everything = SSDDecoder(candidate_sizes=(), max_detections=40, **settings)
    decoder = SSDDecoder(candidate_sizes=(2, 8, 20, 100), max_detections=40, **settings)
    # As a SavedModel is called: with any number of images.
    signature = {
        "class_logits": tf.TensorSpec([None, 60, 5]),
        "box_codes": tf.TensorSpec([None, 60, 4]),
    }
    traced = tf.function(
        lambda outputs: decoder(outputs, tf.constant(anchors)), input_signature=[signature]
    )
    for number in (0, 1, 2, 3, 8, 9, 20, 21, 60):
        logits = rng.normal(0, 1, (3, 60, 5)).astype(np.float32)
        logits[..., 0] += 9.0
        # The second image decides how many anchors are looked at, the third has one candidate.
        for image, count in ((0, number // 2), (1, number), (2, min(number, 1))):
            logits[image, rng.permutation(60)[:count], 0] = -1.0
        outputs = {"class_logits": tf.constant(logits), "box_codes": codes}
        want = everything(outputs, tf.constant(anchors))
        assert int(tf.reduce_max(want["count"])) > 0 or number == 0
        for found in (decoder(outputs, tf.constant(anchors)), traced(outputs)):
            for key, value in want.items():
                # Where a tensor ends decides how TensorFlow rounds an exponential.
                np.testing.assert_allclose(found[key], value, rtol=0, atol=3e-7)


def test_thresholds_of_a_call_win_as_numbers_and_as_tensors():
    outputs = {"class_logits": tf.math.log([PROBABILITIES]), "box_codes": tf.zeros([1, 4, 4])}
    decoder = SSDDecoder()

    def scores(**limits):
        found = decoder(outputs, ANCHORS, **limits)
        return [round(float(score), 3) for score in found["scores"][0, : int(found["count"][0])]]

    assert scores() == [0.7, 0.4, 0.2, 0.1]
    for kind in (float, tf.constant):
        for pairs in (None, 12):
            assert scores(score_threshold=kind(0.3), portable_pairs=pairs) == [0.7, 0.4]
            # Anchors 0 and 2 have an IoU of 0.92.
            loose = scores(iou_threshold=kind(0.95), portable_pairs=pairs)
            assert loose == [0.7, 0.6, 0.4, 0.2, 0.15, 0.1]


def test_neighbours_vote():
    """Anchors 0 and 2 have an IoU of 0.92; both are of class 0 with 0.7 and 0.6."""
    found = decode(PROBABILITIES, vote_iou=0.9)
    np.testing.assert_allclose(found["scores"], [0.7, 0.4, 0.2, 0.1], rtol=1e-5)
    right = (0.7 * 0.5 + 0.6 * 0.46) / 1.3
    np.testing.assert_allclose(found["boxes"][0], [0.0, 0.0, 0.5, right], atol=1e-6)
    # Of class 1 the two have 0.2 and 0.15.
    right = (0.2 * 0.5 + 0.15 * 0.46) / 0.35
    np.testing.assert_allclose(found["boxes"][2], [0.0, 0.0, 0.5, right], atol=1e-6)
    # Anchor 3 has no neighbour.
    np.testing.assert_allclose(found["boxes"][1::2], ANCHORS.numpy()[[3, 3]], atol=1e-6)
    # A candidate that is no detection has no vote, and one that overlaps too little has none.
    alone = ANCHORS.numpy()[[0, 3]]
    found = decode(PROBABILITIES, vote_iou=0.93, score_threshold=0.3)
    np.testing.assert_allclose(found["boxes"], alone, atol=1e-6)
    found = decode(PROBABILITIES, vote_iou=0.9, score_threshold=0.65)
    np.testing.assert_allclose(found["boxes"], alone[:1], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.5, True, "0.6"])
def test_an_overlap_of_votes_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="vote_iou"):
        SSDDecoder(vote_iou=value)


def test_numpy_votes_as_the_decoder_does():
    rng = np.random.default_rng(5)
    corner = rng.uniform(0, 0.3, (48, 2))
    anchors = np.concatenate([corner, corner + 0.5], axis=1).astype(np.float32)
    logits = rng.integers(-30, 30, (4, 4, 3 * 4)).astype(np.int8)
    maps = {"class_logits_0": logits, "box_codes_0": rng.integers(-9, 9, (4, 4, 12), np.int8)}
    decoder = SSDDecoder(vote_iou=0.6, max_detections=9)
    config = decoder.get_config()
    settings = {name: config[name] for name in ("score_threshold", "iou_threshold")}
    settings |= {**halves.SSD_SETTINGS["SSDDecoder"](config), "anchors": anchors}
    settings |= {name: config[name] for name in ("max_detections", "scale_factors")}
    entry = {"scale": 0.1, "zero_point": 0}
    settings |= {"classes": 3, "pairs": 144, "outputs": dict.fromkeys(maps, entry)}
    boxes, scores, classes = numpy_ssd.decode(maps, settings)
    real = {name[:-2]: tf.constant(value * np.float32(0.1)) for name, value in maps.items()}
    outputs = {
        "class_logits": tf.reshape(real["class_logits"], [1, 48, 4]),
        "box_codes": tf.reshape(real["box_codes"], [1, 48, 4]),
    }
    found = decoder(outputs, tf.constant(anchors))
    assert len(boxes) == int(found["count"][0]) > 3
    np.testing.assert_array_equal(found["classes"][0, : len(boxes)], classes)
    np.testing.assert_allclose(found["boxes"][0, : len(boxes)], boxes, atol=1e-6)
    unmoved = SSDDecoder(max_detections=9)(outputs, tf.constant(anchors))["boxes"]
    assert np.abs(unmoved - found["boxes"]).max() > 0.01


@pytest.mark.parametrize("settings", [{"score_threshold": 30}, {"iou_threshold": -0.5}])
@pytest.mark.parametrize("decoder", [SSDDecoder, SigmoidSSDDecoder])
def test_thresholds_out_of_range_are_refused(decoder, settings):
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        decoder(**settings)


@pytest.mark.parametrize("background", [0.0, 4.0, 12.0])  # All, some and no anchors are left.
@pytest.mark.parametrize("max_per_class", [3, 200])
def test_decoder_equals_suppression_over_all_anchors(background, max_per_class):
    rng = np.random.default_rng(1)
    logits = rng.normal(0.0, 2.0, (3, 300, 6)).astype(np.float32)
    logits[..., 0] += background
    logits[2, :, 0] += 30.0  # An image without any candidate beside others.
    codes = rng.normal(0.0, 0.5, (3, 300, 4)).astype(np.float32)
    corner = rng.uniform(0, 0.7, (300, 2))
    anchors = np.concatenate([corner, corner + 0.25], axis=1).astype(np.float32)
    decoder = SSDDecoder(0.05, max_per_class=max_per_class, max_detections=50)
    outputs = {"class_logits": tf.constant(logits), "box_codes": tf.constant(codes)}
    found = tf.function(decoder, autograph=False)(outputs, tf.constant(anchors))
    want = nms.multiclass_nms(
        box_ops.decode(codes, anchors),
        tf.nn.softmax(logits)[..., 1:],
        max_per_class=max_per_class,
        max_detections=50,
    )
    assert found["boxes"].shape == (3, 50, 4)
    assert (int(want["count"][0]) > 0) == (background < 12.0) and int(want["count"][2]) == 0
    for key in ("count", "classes"):
        np.testing.assert_array_equal(found[key], want[key], err_msg=key)
    # The exponential of another place in an array may round differently.
    np.testing.assert_allclose(found["scores"], want["scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["boxes"], want["boxes"], rtol=0, atol=1e-6)


class TestSSDDecoderContract(LayerContract):
    part = SSDDecoder
    settings = {
        "score_threshold": 0.02,
        "iou_threshold": 0.45,
        "inclusive": False,
        "max_detections": 6,
        "max_per_class": None,
        "max_log_size": 4.0,
        "clip": True,
        "drop_empty": True,
        "scale_factors": (1.0, 2.0, 3.0, 4.0),
        "candidate_sizes": (2, 4),
        "vote_iou": 0.7,
        "test_time": ("flip",),
    }

    def call(self, layer):
        logits = tf.constant(np.log([PROBABILITIES]), tf.float32)
        return layer({"class_logits": logits, "box_codes": tf.ones([1, 4, 4])}, ANCHORS)
