import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.assigners import ATSS
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss
from ssd_centernet.ops.box_losses import overlap_loss
from tests.layers.contract import LayerContract

# Three anchors side by side and one far below.
ANCHORS = tf.constant(
    [[0.0, 0.0, 0.5, 0.25], [0.0, 0.25, 0.5, 0.5], [0.0, 0.5, 0.5, 0.75], [0.5, 0.0, 1.0, 0.25]]
)
LN = math.log


def logits_of(probabilities) -> tf.Tensor:
    return tf.constant(np.log(probabilities), tf.float32)


def targets_of(classes, boxes=None, num_matched=None) -> dict:
    classes = np.asarray(classes, np.int32)
    if num_matched is None:
        num_matched = (classes > 0).sum(axis=1)
    boxes = np.zeros((*classes.shape, 4)) if boxes is None else boxes
    return {
        "classes": tf.constant(classes),
        "boxes": tf.constant(boxes, tf.float32),
        "num_matched": tf.constant(num_matched, tf.int32),
    }


def outputs_of(probabilities, codes=None) -> dict:
    logits = logits_of(probabilities)
    codes = np.zeros((*logits.shape[:2], 4)) if codes is None else codes
    return {"class_logits": logits, "box_codes": tf.constant(codes, tf.float32)}


def test_class_loss_by_hand():
    probabilities = [[[0.5, 0.5], [0.25, 0.75], [0.5, 0.5], [0.8, 0.2], [0.9, 0.1]]]
    parts = MultiBoxLoss(negatives_per_positive=2)(
        outputs_of(probabilities), targets_of([[0, 1, 0, 0, 0]])
    )
    # The positive, and the two backgrounds of largest loss, over one positive.
    want = -LN(0.75) - LN(0.5) - LN(0.5)
    assert float(parts["class"]) == pytest.approx(want, rel=1e-5)
    assert float(parts["box"]) == 0.0


def test_images_are_normalised_one_by_one():
    probabilities = [[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], [[0.2, 0.8], [0.2, 0.8], [0.1, 0.9]]]
    loss = MultiBoxLoss(negatives_per_positive=1)
    parts = loss(outputs_of(probabilities), targets_of([[1, 0, 0], [1, 1, 0]]))
    first = -LN(0.5) - LN(0.5)
    # The second image has two positives, so two picks: the background, and then a positive.
    second = (-LN(0.8) * 2 - LN(0.1) - LN(0.8)) / 2
    assert float(parts["class"]) == pytest.approx((first + second) / 2, rel=1e-5)


def test_weights_of_two_when_positives_are_mined():
    loss = MultiBoxLoss()
    cross_entropy = tf.constant([[1.0, 2.0, 3.0, 0.5]])
    weights = loss.anchor_weights(cross_entropy, tf.constant([[1, 1, 0, 0]]), tf.constant([2]))
    # Six picks of four anchors: all of them.
    assert weights.numpy().tolist() == [[2.0, 2.0, 1.0, 1.0]]
    few = MultiBoxLoss(negatives_per_positive=1)
    weights = few.anchor_weights(cross_entropy, tf.constant([[1, 0, 0, 0]]), tf.constant([1]))
    assert weights.numpy().tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_box_loss_by_hand():
    codes = [[[0.5, -0.5, 2.0, 0.0], [9.0, 9.0, 9.0, 9.0], [1.0, 1.0, 1.0, 1.0]]]
    boxes = np.zeros((1, 3, 4))
    boxes[0, 2] = [1.0, 1.0, 1.0, 3.0]
    probabilities = np.full((1, 3, 2), 0.5)
    targets = targets_of([[1, 0, 1]], boxes)
    parts = MultiBoxLoss()(outputs_of(probabilities, codes), targets)
    # 0.125 + 0.125 + 1.5 for the first, 1.5 for the third, over two positives.
    assert float(parts["box"]) == pytest.approx(3.25 / 2, rel=1e-6)


def test_count_of_matches_divides_not_that_of_positives():
    codes = np.full((1, 3, 4), 0.5)
    targets = targets_of([[1, 0, 0]], num_matched=[2])
    parts = MultiBoxLoss()(outputs_of(np.full((1, 3, 2), 0.5), codes), targets)
    assert float(parts["box"]) == pytest.approx(4 * 0.125 / 2)


def test_image_without_objects_costs_nothing_by_default():
    parts = MultiBoxLoss()(outputs_of(np.full((2, 3, 2), 0.5)), targets_of([[0, 0, 0]] * 2))
    assert float(parts["class"]) == 0.0
    assert float(parts["box"]) == 0.0


def test_image_without_objects_can_bring_negatives():
    loss = MultiBoxLoss(negatives_of_empty_image=2)
    probabilities = [[[0.5, 0.5], [0.25, 0.75], [0.125, 0.875]]]
    parts = loss(outputs_of(probabilities), targets_of([[0, 0, 0]]))
    assert float(parts["class"]) == pytest.approx(LN(4) + LN(8), rel=1e-5)


def test_ignored_anchors_are_neither_positive_nor_mined():
    loss = MultiBoxLoss(negatives_per_positive=3)
    cross_entropy = tf.constant([[1.0, 9.0, 2.0, 3.0]])
    weights = loss.anchor_weights(cross_entropy, tf.constant([[1, -1, 0, 0]]), tf.constant([1]))
    assert weights.numpy()[0, 1] == 0.0
    assert weights.numpy()[0, 2:].tolist() == [1.0, 1.0]
    # Nor do they use up what may be mined.
    one = MultiBoxLoss(negatives_per_positive=1)
    weights = one.anchor_weights(cross_entropy, tf.constant([[1, -1, 0, 0]]), tf.constant([1]))
    assert weights.numpy().tolist() == [[1.0, 0.0, 0.0, 1.0]]
    outputs = outputs_of(np.full((1, 4, 3), 1 / 3), np.full((1, 4, 4), 5.0))
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        parts = loss(outputs, targets_of([[1, -1, 0, 0]]))
        total = parts["class"] + parts["box"]
    gradients = tape.gradient(total, outputs)
    for gradient in gradients.values():
        assert not np.any(gradient[0, 1])


def test_targets_by_hand():
    boxes = tf.constant([[0.0, 0.0, 0.5, 0.3], [0.5, 0.0, 1.0, 0.25]])
    targets = MultiBoxLoss().make_targets(
        boxes, tf.constant([4, 0]), tf.constant([False, False]), ANCHORS
    )
    assert targets["classes"].numpy().tolist() == [5, 0, 0, 1]
    assert int(targets["num_matched"]) == 2
    want = [0.0, 10 * 0.025 / 0.25, 0.0, 5 * LN(0.3 / 0.25)]
    np.testing.assert_allclose(targets["boxes"][0], want, atol=2e-6)
    assert not np.any(targets["boxes"].numpy()[1:])


@pytest.mark.parametrize(
    ("crowd", "classes"),
    [
        # The crowd covers the first three anchors; the object is the last one.
        ("object", [3, 3, 0, 1]),
        ("drop", [0, 0, 0, 1]),
        ("ignore", [-1, -1, -1, 1]),
    ],
)
def test_crowd_modes(crowd, classes):
    boxes = tf.constant([[0.0, 0.0, 0.5, 0.625], [0.5, 0.0, 1.0, 0.25]])
    loss = MultiBoxLoss(0.375, crowd=crowd)
    targets = loss.make_targets(boxes, tf.constant([2, 0]), tf.constant([True, False]), ANCHORS)
    assert targets["classes"].numpy().tolist() == classes
    assert int(targets["num_matched"]) == sum(c > 0 for c in classes)


def test_anchors_less_than_half_in_a_crowd_stay_background():
    # 0.44 of the third anchor lies inside.
    boxes = tf.constant([[0.0, 0.0, 0.5, 0.61]])
    loss = MultiBoxLoss(crowd="ignore")
    targets = loss.make_targets(boxes, tf.constant([0]), tf.constant([True]), ANCHORS)
    assert targets["classes"].numpy().tolist() == [-1, -1, 0, 0]


def test_crowd_never_hides_an_object():
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.0, 0.25, 0.5, 0.5]])
    loss = MultiBoxLoss(crowd="ignore")
    targets = loss.make_targets(boxes, tf.constant([0, 1]), tf.constant([True, False]), ANCHORS)
    assert targets["classes"].numpy().tolist() == [-1, 2, -1, -1]


@pytest.mark.parametrize("crowd", ["object", "drop", "ignore"])
def test_padding_is_no_crowd_and_no_object(crowd):
    boxes = tf.constant([[0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0]])
    loss = MultiBoxLoss(crowd=crowd)
    padded = loss.make_targets(
        boxes, tf.constant([0, 0]), tf.constant([False, True]), ANCHORS, tf.constant([True, False])
    )
    alone = loss.make_targets(boxes[:1], tf.constant([0]), tf.constant([False]), ANCHORS)
    for key, value in alone.items():
        np.testing.assert_array_equal(padded[key], value)


def test_unknown_crowd_mode_raises():
    with pytest.raises(ValueError, match="crowd must be one of.*'skip'"):
        MultiBoxLoss(crowd="skip")


def test_the_batch_can_be_normalised_as_one():
    probabilities = [[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], [[0.2, 0.8], [0.2, 0.8], [0.1, 0.9]]]
    codes = np.zeros((2, 3, 4))
    codes[1, 0] = 1.5
    loss = MultiBoxLoss(negatives_per_positive=1, normalizer="batch", mine_matched=False)
    parts = loss(outputs_of(probabilities, codes), targets_of([[0, 0, 0], [1, 1, 0]]))
    # An image without objects mines nothing, and counts as one; the other has two positives.
    want = (-2 * LN(0.8) - LN(0.1)) / (1 + 2)
    assert float(parts["class"]) == pytest.approx(want, rel=1e-5)
    assert float(parts["box"]) == pytest.approx(4 * 1.0 / 3, rel=1e-5)


def test_matched_anchors_need_not_be_mined():
    loss = MultiBoxLoss(mine_matched=False)
    cross_entropy = tf.constant([[1.0, 2.0, 3.0, 0.0]])
    weights = loss.anchor_weights(cross_entropy, tf.constant([[1, 1, 0, 0]]), tf.constant([2]))
    assert weights.numpy().tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_the_last_of_two_objects_can_win_their_anchor():
    boxes = tf.constant([[0.0, 0.0, 0.5, 0.25]] * 2)
    classes, crowd = tf.constant([4, 1]), tf.constant([False, False])
    first = MultiBoxLoss().make_targets(boxes, classes, crowd, ANCHORS)
    last = MultiBoxLoss(last_claim_wins=True).make_targets(boxes, classes, crowd, ANCHORS)
    assert int(first["classes"][0]) == 5 and int(last["classes"][0]) == 2


def test_unknown_normalizer_raises():
    with pytest.raises(ValueError, match="normalizer must be one of.*'anchor'"):
        MultiBoxLoss(normalizer="anchor")


class TestMultiBoxLossContract(LayerContract):
    part = MultiBoxLoss
    settings = {
        "matched_threshold": 0.4,
        "negatives_per_positive": 2,
        "negatives_of_empty_image": 5,
        "mine_matched": False,
        "normalizer": "batch",
        "last_claim_wins": True,
        "crowd": "ignore",
        "scale_factors": (1.0, 2.0, 3.0, 4.0),
        "class_loss_weight": 0.5,
        "box_loss_weight": 2.0,
        "box_loss": "giou",
        "assigner": ATSS(1),
        "label_smoothing": 0.1,
        "class_weights": {"one": 2.0},
    }

    def call(self, layer):
        boxes = tf.constant([[[0.0, 0.0, 0.5, 0.3], [0.0, 0.25, 0.4, 0.5]]])
        crowd = tf.constant([[False, True]])
        targets = layer.make_targets(
            boxes, tf.constant([[0, 1]]), crowd, ANCHORS, levels=[(len(ANCHORS), 1)]
        )
        outputs = outputs_of([[[0.5, 0.3, 0.2]] * 4], np.ones((1, 4, 4)))
        return targets, layer({**outputs, "anchors": ANCHORS}, targets)

    def test_weights_of_the_parts(self):
        assert self.build().loss_weights == {"class": 0.5, "box": 2.0}


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("criterion", [MultiBoxLoss, FocalMultiBoxLoss])
def test_boxes_can_be_compared_by_their_overlap(criterion, kind):
    loss = criterion(box_loss=kind)
    boxes = tf.constant([[[0.05, 0.05, 0.45, 0.3]]])
    targets = loss.make_targets(boxes, tf.constant([[0]]), tf.constant([[False]]), ANCHORS)
    # In pixels of an input twice as wide as high: there the shape of boxes counts.
    pixels = ANCHORS * [100.0, 200.0, 100.0, 200.0]
    codes = np.zeros((1, 4, 4), np.float32)
    # What the anchors without an object say may be anything.
    codes[0, 1:] = 1e30
    outputs = outputs_of([[[0.5, 0.5]] * 4], codes)
    variable = tf.Variable(outputs["box_codes"])
    with tf.GradientTape() as tape:
        parts = loss({**outputs, "box_codes": variable, "anchors": pixels}, targets)
    assert targets["classes"].numpy().tolist() == [[1, 0, 0, 0]]
    # The anchor itself is what a code of zeros says.
    want = overlap_loss(pixels[0], boxes[0, 0] * [100.0, 200.0, 100.0, 200.0], kind)
    assert float(parts["box"]) == pytest.approx(float(want), rel=1e-4)
    gradient = tape.gradient(parts["box"], variable).numpy()
    assert np.isfinite(gradient).all()
    assert gradient[0, 0].any() and not gradient[0, 1:].any()


def test_overlap_needs_the_anchors():
    loss = MultiBoxLoss(box_loss="giou")
    with pytest.raises(ValueError, match="must hold 'anchors'"):
        loss(outputs_of([[[0.5, 0.5]]]), targets_of([[1]]))
    with pytest.raises(ValueError, match="box_loss must be one of.*'l1'"):
        MultiBoxLoss(box_loss="l1")
