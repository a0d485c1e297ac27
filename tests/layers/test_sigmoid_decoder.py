import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.decoders import SigmoidSSDDecoder
from ssd_centernet.models import halves
from ssd_centernet.models.numpy_decoders import ssd as numpy_ssd
from ssd_centernet.ops import boxes as box_ops
from tests.layers.contract import LayerContract

ANCHORS = tf.constant(
    [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 0.4], [0.0, 0.5, 0.5, 1.0]]
)


def logit(probabilities) -> np.ndarray:
    probabilities = np.asarray(probabilities, np.float64)
    return np.log(probabilities / (1 - probabilities))


def decode(probabilities, codes=None, **settings) -> dict:
    logits = tf.constant([logit(probabilities)], tf.float32)
    codes = tf.zeros([1, 4, 4]) if codes is None else tf.constant([codes], tf.float32)
    outputs, decoder = {"class_logits": logits, "box_codes": codes}, SigmoidSSDDecoder(**settings)
    found = decoder(outputs, ANCHORS)
    # What other runtimes are given finds the same.
    portable = decoder(outputs, ANCHORS, portable_pairs=12)
    count = int(found["count"][0])
    for key, value in found.items():
        np.testing.assert_allclose(portable[key], value, atol=1e-7, err_msg=key)
        assert key == "count" or not value[0, count:].numpy().any()
    return {key: value.numpy()[0][:count] for key, value in found.items() if key != "count"}


# Background, then two classes; they need not sum to 1.
PROBABILITIES = [[0.9, 0.7, 0.2], [0.1, 0.3, 0.05], [0.9, 0.6, 0.9], [0.1, 0.1, 0.4]]


def test_detections_by_hand():
    found = decode(PROBABILITIES)
    # Anchors 0 and 2 have an IoU of 0.8; each suppresses the other in one class.
    np.testing.assert_allclose(found["scores"], [0.9, 0.7, 0.4, 0.3, 0.1, 0.05], rtol=1e-5)
    assert found["classes"].tolist() == [1, 0, 1, 0, 0, 1]
    want = ANCHORS.numpy()[[2, 0, 3, 1, 3, 1]]
    np.testing.assert_allclose(found["boxes"], want, atol=1e-6)


def test_settings_are_used():
    assert len(decode(PROBABILITIES, score_threshold=0.3 - 1e-6)["scores"]) == 4
    assert len(decode(PROBABILITIES, max_detections=2)["scores"]) == 2
    assert len(decode(PROBABILITIES, iou_threshold=0.9)["scores"]) == 8
    assert decode(PROBABILITIES, max_per_class=1)["classes"].tolist() == [1, 0]
    assert decode(PROBABILITIES, pre_nms_top_k=2)["scores"] == pytest.approx([0.9, 0.7])


def test_scores_at_the_threshold_are_no_detections():
    found = decode(np.full((4, 2), 0.5), score_threshold=0.5)
    assert len(found["scores"]) == 0


def test_boxes_are_decoded_clipped_and_dropped_only_after_the_suppression():
    # Anchor 0 moves out of the image; there it suppresses anchor 2, which moves along.
    codes = np.zeros((4, 4))
    codes[[0, 2], 0] = -40.0
    found = decode(PROBABILITIES, codes)
    assert found["classes"].tolist() == [1, 0, 0, 1]
    np.testing.assert_allclose(found["boxes"][:2], ANCHORS.numpy()[[3, 1]])
    # Partly outside: clipped. Its overlap is that of the boxes before.
    codes = np.zeros((4, 4))
    codes[0, 0] = -5.0
    found = decode([[0.1, 0.7], [0.1, 0.1], [0.1, 0.6], [0.1, 0.2]], codes)
    np.testing.assert_allclose(found["boxes"][0], [0.0, 0.0, 0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(found["scores"], [0.7, 0.6, 0.2, 0.1], rtol=1e-5)


def test_boxes_outside_count_for_their_class():
    codes = np.zeros((4, 4))
    codes[2, 0] = -40.0
    probabilities = [[0.1, 0.5], [0.1, 0.4], [0.1, 0.9], [0.1, 0.3]]
    assert decode(probabilities, codes, max_per_class=2)["scores"] == pytest.approx([0.5])


def test_equal_scores_come_by_class_then_by_anchor():
    found = decode([[0.5, 0.5, 0.5]] * 4, iou_threshold=1.0)
    assert found["classes"].tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(found["boxes"], np.tile(ANCHORS.numpy(), (2, 1)))


def plain_decode(scores, boxes, decoder) -> list[tuple]:
    """Decode all anchors of one image with loops.

    Source: docs/reference/ssd320_resnet50_fpn.md, section 11
    """
    rows, overlap = [], box_ops.iou(boxes, boxes).numpy()
    for label in range(scores.shape[1]):
        left = [
            a
            for a in np.argsort(-scores[:, label], kind="stable")
            if scores[a, label] > decoder.score_threshold
        ]
        kept = []
        while left and len(kept) < decoder.max_per_class:
            best, *left = left
            kept.append(best)
            left = [a for a in left if overlap[best, a] <= decoder.iou_threshold]
        rows += [(scores[a, label], label, a) for a in kept]
    rows.sort(key=lambda row: -row[0])
    clipped = np.clip(boxes, 0.0, 1.0)
    sides = clipped[:, 2:] - clipped[:, :2]
    return [row for row in rows if sides[row[2]].prod() > 0][: decoder.max_detections]


@pytest.mark.parametrize("kind", ["sharp", "flat", "coarse", "crowded"])
def test_best_pairs_give_the_result_of_all(kind):
    rng = np.random.default_rng(5)
    anchors, classes = 900, 6
    low = rng.uniform(-0.1, 0.9, (anchors, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.4, low.shape)], axis=1)
    logits = rng.normal(0.0, {"sharp": 4.0}.get(kind, 0.1), (2, anchors, classes + 1)) - 3.0
    if kind == "coarse":  # Thousands of ties, as half precision gives them.
        logits = np.round(8 * logits) / 8
    if kind == "crowded":
        # The best 1200 pairs are two objects: far more pairs are needed to fill the detections.
        boxes[:600] = boxes[0] + rng.uniform(-1e-3, 1e-3, (600, 4))
        logits[:, :600, 1:3] += 5.0
        boxes[600:] += [[2.0, 2.0, 2.0, 2.0]] * (rng.uniform(size=(300, 1)) < 0.7)
    boxes = boxes.astype(np.float32)
    decoder = SigmoidSSDDecoder()
    outputs = {
        "class_logits": tf.constant(logits, tf.float32),
        "box_codes": tf.zeros([2, anchors, 4]),
    }
    found = tf.function(decoder, autograph=False)(outputs, tf.constant(boxes))
    decoded = box_ops.decode(tf.zeros([anchors, 4]), tf.constant(boxes)).numpy()
    scores = tf.sigmoid(outputs["class_logits"][..., 1:]).numpy()
    for image in range(2):
        want = plain_decode(scores[image], decoded, decoder)
        assert int(found["count"][image]) == len(want)
        rows = slice(0, len(want))
        np.testing.assert_array_equal(found["scores"][image][rows], [row[0] for row in want])
        np.testing.assert_array_equal(found["classes"][image][rows], [row[1] for row in want])
        clipped = np.clip(decoded[[row[2] for row in want]], 0.0, 1.0)
        np.testing.assert_array_equal(found["boxes"][image][rows], clipped)


def test_neighbours_vote():
    """Anchors 0 and 2 have an IoU of 0.8: 0.7 and 0.6 of class 0, 0.2 and 0.9 of class 1."""
    found = decode(PROBABILITIES, vote_iou=0.75)
    np.testing.assert_allclose(found["scores"], [0.9, 0.7, 0.4, 0.3, 0.1, 0.05], rtol=1e-5)
    want = ANCHORS.numpy()[[2, 0, 3, 1, 3, 1]]
    want[0, 3] = (0.9 * 0.4 + 0.2 * 0.5) / 1.1
    want[1, 3] = (0.7 * 0.5 + 0.6 * 0.4) / 1.3
    np.testing.assert_allclose(found["boxes"], want, atol=1e-6)
    # 0.2 is below this threshold and has no vote; an overlap of 0.8 is too little for 0.85.
    found = decode(PROBABILITIES, vote_iou=0.75, score_threshold=0.25)
    np.testing.assert_allclose(found["boxes"][0], ANCHORS[2], atol=1e-6)
    found = decode(PROBABILITIES, vote_iou=0.85)
    np.testing.assert_allclose(found["boxes"], ANCHORS.numpy()[[2, 0, 3, 1, 3, 1]], atol=1e-6)


def test_clipped_boxes_vote():
    # Anchor 0 reaches out of the image; its part inside, [0, 0, 0.25, 0.5], votes with anchor 2.
    codes = np.zeros((4, 4))
    codes[[0, 2], 0] = -5.0
    found = decode([[0.1, 0.7], [0.1, 0.1], [0.1, 0.6], [0.1, 0.2]], codes, vote_iou=0.75)
    np.testing.assert_allclose(found["boxes"][0], [0, 0, 0.25, 0.59 / 1.3], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.5, True, "0.6"])
def test_an_overlap_of_votes_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="SigmoidSSDDecoder.vote_iou is"):
        SigmoidSSDDecoder(vote_iou=value)


def crowd(rng, anchors):
    """Boxes around nine places, and random logits of three classes."""
    low = rng.integers(0, 3, (anchors, 2)) * 0.3 + rng.uniform(0, 0.02, (anchors, 2))
    boxes = np.concatenate([low, low + 0.25], axis=1).astype(np.float32)
    return boxes, rng.normal(-2.0, 2.0, (anchors, 4)).astype(np.float32)


def test_other_images_of_a_batch_change_no_vote():
    boxes, logits = crowd(np.random.default_rng(2), anchors=1200)
    decoder = tf.function(SigmoidSSDDecoder(vote_iou=0.6, iou_threshold=0.4, max_detections=20))
    # The best 1024 pairs fill the detections of the first image; those of the second are of one
    # class and give nine, so that more pairs are looked at.
    images = np.stack([logits, logits + [0.0, 30.0, 0.0, 0.0]]).astype(np.float32)
    codes = tf.zeros([2, len(boxes), 4])
    together = decoder({"class_logits": images, "box_codes": codes}, tf.constant(boxes))
    assert together["count"].numpy().tolist() == [20, 20]
    for image in range(2):
        one = {"class_logits": images[image : image + 1], "box_codes": codes[:1]}
        alone = decoder(one, tf.constant(boxes))
        for key, value in alone.items():
            np.testing.assert_allclose(together[key][image], value[0], atol=1e-6, err_msg=key)


def test_numpy_votes_as_the_decoder_does():
    rng = np.random.default_rng(5)
    boxes, _ = crowd(rng, anchors=576)
    logits = rng.integers(-80, 60, (24, 24, 4)).astype(np.int8)
    maps = {"class_logits_0": logits, "box_codes_0": rng.integers(-9, 9, (24, 24, 4), np.int8)}
    decoder = SigmoidSSDDecoder(vote_iou=0.6, max_detections=20)
    config = decoder.get_config()
    names = ("score_threshold", "iou_threshold", "max_detections", "scale_factors")
    settings = {name: config[name] for name in names} | halves.SSD_SETTINGS["SigmoidSSDDecoder"](
        config
    )
    entry = {"scale": 0.1, "zero_point": 0}
    settings |= {
        "anchors": boxes,
        "classes": 3,
        "pairs": 1728,
        "outputs": dict.fromkeys(maps, entry),
    }
    got, scores, classes = numpy_ssd.decode(maps, settings)
    real = {name[:-2]: tf.constant(value * np.float32(0.1)) for name, value in maps.items()}
    outputs = {name: tf.reshape(value, [1, 576, 4]) for name, value in real.items()}
    found = decoder(outputs, tf.constant(boxes))
    assert len(got) == int(found["count"][0]) == 20
    np.testing.assert_array_equal(found["classes"][0], classes)
    np.testing.assert_allclose(found["scores"][0], scores, atol=1e-6)
    np.testing.assert_allclose(found["boxes"][0], got, atol=1e-5)
    unmoved = SigmoidSSDDecoder(max_detections=20)(outputs, tf.constant(boxes))["boxes"]
    assert np.abs(unmoved - found["boxes"]).max() > 0.01


class TestSigmoidSSDDecoderContract(LayerContract):
    part = SigmoidSSDDecoder
    settings = {
        "score_threshold": 0.1,
        "iou_threshold": 0.4,
        "max_detections": 6,
        "max_per_class": 7,
        "pre_nms_top_k": 50,
        "scale_factors": (1.0, 2.0, 3.0, 4.0),
        "vote_iou": 0.7,
        "test_time": ("flip",),
    }

    def call(self, layer):
        logits = tf.constant([logit(PROBABILITIES)], tf.float32)
        return layer({"class_logits": logits, "box_codes": tf.ones([1, 4, 4])}, ANCHORS)
