import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.assigners import TaskAligned
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss
from tests.layers.contract import LayerContract

# Three anchors side by side and one far below.
ANCHORS = np.array(
    [[0.0, 0.0, 0.5, 0.25], [0.0, 0.25, 0.5, 0.5], [0.0, 0.5, 0.5, 0.75], [0.5, 0.0, 1.0, 0.25]],
    np.float32,
)
LN = math.log


def make(boxes, classes, *, is_crowd=None, valid=None, weights=None, **settings) -> dict:
    is_crowd = np.zeros(np.shape(classes), bool) if is_crowd is None else np.array(is_crowd)
    made = FocalMultiBoxLoss(**settings).make_targets(
        tf.constant(boxes, tf.float32, [*np.shape(classes), 4]),
        tf.constant(classes, tf.int32, np.shape(classes)),
        tf.constant(is_crowd),
        ANCHORS,
        None if valid is None else tf.constant(valid),
        None if weights is None else tf.constant(weights, tf.float32),
    )
    return {key: value.numpy() for key, value in made.items()}


def targets_of(classes, weights=None, boxes=None) -> dict:
    classes = np.array(classes, np.int32)
    weights = np.ones(classes.shape) if weights is None else weights
    boxes = np.zeros((*classes.shape, 4)) if boxes is None else boxes
    return {
        "classes": tf.constant(classes),
        "weights": tf.constant(weights, tf.float32),
        "boxes": tf.constant(boxes, tf.float32),
    }


def outputs_of(logits, codes=None) -> dict:
    logits = tf.constant(logits, tf.float32)
    codes = np.zeros((*logits.shape[:2], 4)) if codes is None else codes
    return {"class_logits": logits, "box_codes": tf.constant(codes, tf.float32)}


def test_class_loss_by_hand():
    # Probabilities 0.8, 0.5, 0.2 in the slots of background and of two classes.
    logits = [[[LN(4.0), 0.0, -LN(4.0)], [LN(4.0), 0.0, -LN(4.0)]]]
    parts = FocalMultiBoxLoss()(outputs_of(logits), targets_of([[0, 2]]))
    negative = 0.75 * (0.64 * -LN(0.2) + 0.25 * -LN(0.5) + 0.04 * -LN(0.8))
    positive = 0.75 * (0.64 * -LN(0.2) + 0.25 * -LN(0.5)) + 0.25 * 0.64 * -LN(0.2)
    assert float(parts["class"]) == pytest.approx(negative + positive, rel=1e-5)
    assert float(parts["box"]) == 0.0


def test_sums_of_the_batch_are_divided_by_its_matched_weight():
    logits = np.zeros((2, 3, 2))
    slot = 0.25 * LN(2.0)
    classes, weights = [[1, 0, 0], [1, 1, 0]], [[0.5, 1, 1], [2, 1, 0]]
    parts = FocalMultiBoxLoss()(outputs_of(logits), targets_of(classes, weights))
    positives = (0.5 + 2 + 1) * (0.75 + 0.25) * slot
    negatives = 2 * (0.75 + 0.75) * slot  # The last anchor of image 1 has weight 0.
    assert float(parts["class"]) == pytest.approx((positives + negatives) / 3.5, rel=1e-5)


def test_box_loss_by_hand():
    codes = [[[0.5, -2.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0], [1.0, 0.0, 0.0, 0.0]]]
    parts = FocalMultiBoxLoss()(
        outputs_of(np.zeros((1, 3, 2)), codes), targets_of([[1, 0, 1]], [[1.0, 1.0, 3.0]])
    )
    # Huber, a quarter of the four numbers' sum, the objects' weights, over their sum.
    want = ((0.125 + 1.5) * 1.0 + 0.5 * 3.0) / 4 / 4.0
    assert float(parts["box"]) == pytest.approx(want, rel=1e-6)


def test_normalizer_is_at_least_one():
    logits = np.zeros((1, 2, 2))
    nothing = FocalMultiBoxLoss()(outputs_of(logits), targets_of([[0, 0]]))
    assert float(nothing["class"]) == pytest.approx(4 * 0.75 * 0.25 * LN(2.0), rel=1e-5)
    little = FocalMultiBoxLoss()(outputs_of(logits), targets_of([[1, 0]], [[0.25, 1.0]]))
    want = (0.25 * (0.75 + 0.25) + 2 * 0.75) * 0.25 * LN(2.0)
    assert float(little["class"]) == pytest.approx(want, rel=1e-5)


def test_alpha_and_gamma_are_settings():
    logits = [[[0.0, LN(4.0)]]]
    parts = FocalMultiBoxLoss(alpha=0.5, gamma=0.0)(outputs_of(logits), targets_of([[1]]))
    assert float(parts["class"]) == pytest.approx(0.5 * (-LN(0.5) - LN(0.8)), rel=1e-5)


def test_every_object_takes_its_best_anchor():
    # Too small to be matched by the threshold.
    made = make([[0.5, 0.0, 0.6, 0.1], [0.0, 0.25, 0.5, 0.5]], [4, 2])
    assert made["classes"].tolist() == [0, 3, 0, 5]
    assert made["weights"].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(made["boxes"][1], 0.0, atol=1e-5)
    assert made["boxes"][3, 2] == pytest.approx(5 * LN(0.1 / 0.5), rel=1e-5)
    assert not made["boxes"][[0, 2]].any()


def test_object_without_area_takes_the_first_anchor():
    made = make([[0.25, 0.0, 0.25, 0.25]], [1])
    assert made["classes"].tolist() == [2, 0, 0, 0]
    assert made["boxes"][0, 2] == pytest.approx(5 * LN(1e-8 / 0.5), rel=1e-5)
    assert np.all(np.isfinite(made["boxes"]))


def test_first_of_several_claims_wins():
    made = make([[0.5, 0.0, 0.6, 0.1], [0.5, 0.0, 0.7, 0.1]], [4, 2])
    assert made["classes"].tolist() == [0, 0, 0, 5]


def test_weights_of_objects():
    boxes = [[0.0, 0.0, 0.5, 0.25], [0.0, 0.25, 0.5, 0.5], [0.5, 0.0, 0.6, 0.1]]
    made = make(boxes, [0, 1, 2], weights=[0.5, 0.0, 0.0])
    # Row 1 has weight 0 and silences its anchor, row 2 is below the threshold and not forced.
    assert made["classes"].tolist() == [1, 2, 0, 0]
    assert made["weights"].tolist() == [0.5, 0.0, 1.0, 1.0]
    batch = make([boxes], [[0, 1, 2]], weights=[[0.5, 0.0, 0.0]], valid=[[True] * 3])
    for key, value in made.items():
        np.testing.assert_array_equal(batch[key][0], value)


def test_padding_and_no_objects_at_all():
    box = [0.0, 0.0, 0.5, 0.25]
    made = make([[box, box]], [[1, 1]], valid=[[False, False]])
    assert not made["classes"].any() and not made["boxes"].any()
    assert made["weights"].tolist() == [[1, 1, 1, 1]]
    for weights in (None, np.zeros(0)):
        made = make(np.zeros((0, 4)), np.zeros(0, int), weights=weights)
        assert not made["classes"].any()
        assert made["weights"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("mode", "classes", "weights"),
    [
        ("object", [2, 1, 0, 0], [1, 1, 1, 1]),
        ("drop", [0, 1, 0, 0], [1, 1, 1, 1]),
        ("ignore", [-1, 1, 0, 0], [0, 1, 1, 1]),
    ],
)
def test_crowd_modes(mode, classes, weights):
    boxes = [[0.0, 0.25, 0.5, 0.5], [0.0, 0.0, 0.5, 0.375]]
    made = make(boxes, [0, 1], is_crowd=[False, True], crowd=mode)
    assert made["classes"].tolist() == classes
    assert made["weights"].tolist() == weights


def test_ignored_anchors_cost_nothing():
    logits = np.zeros((1, 2, 3))
    both = FocalMultiBoxLoss()(outputs_of(logits), targets_of([[1, -1]], [[1, 0]]))
    alone = FocalMultiBoxLoss()(outputs_of(logits[:, :1]), targets_of([[1]]))
    assert float(both["class"]) == float(alone["class"])


def test_unknown_crowd_mode_raises():
    with pytest.raises(ValueError, match="crowd must be one of"):
        FocalMultiBoxLoss(crowd="maybe")


class TestFocalMultiBoxLossContract(LayerContract):
    part = FocalMultiBoxLoss
    settings = {
        "matched_threshold": 0.6,
        "alpha": 0.3,
        "gamma": 1.5,
        "crowd": "drop",
        "scale_factors": (1.0, 2.0, 3.0, 4.0),
        "class_loss_weight": 0.5,
        "box_loss_weight": 2.0,
        "box_loss": "ciou",
        "assigner": TaskAligned(2),
        "class_loss": "varifocal",
        "label_smoothing": 0.1,
        "class_weights": {"one": 2.0},
    }

    def call(self, layer):
        boxes = tf.constant([[[0.0, 0.0, 0.5, 0.3], [0.0, 0.25, 0.4, 0.5]]])
        crowd = tf.constant([[False, True]])
        targets = layer.make_targets(boxes, tf.constant([[0, 1]]), crowd, ANCHORS)
        outputs = outputs_of(np.ones((1, 4, 3)), np.ones((1, 4, 4)))
        return targets, layer({**outputs, "anchors": ANCHORS}, targets)

    def test_weights_of_the_parts(self):
        assert self.build().loss_weights == {"class": 0.5, "box": 2.0}


def test_varifocal_by_hand():
    # One anchor of an object of class 1 with quality 0.6 and score 0.8, one of background.
    logits = [[[LN(1.0), 0.0, LN(4.0)], [LN(0.25), 0.0, 0.0]]]
    targets = {**targets_of([[2, 0]]), "quality": tf.constant([[0.6, 0.0]])}
    parts = FocalMultiBoxLoss(class_loss="varifocal")(outputs_of(logits), targets)
    own = 0.6 * -(0.6 * LN(0.8) + 0.4 * LN(0.2))
    false = 0.25 * -LN(0.5)  # A score of 0.5, squared.
    background = 2 * false + 0.04 * -LN(0.8)
    want = own + 0.75 * (2 * false + background)
    assert float(parts["class"]) == pytest.approx(want, rel=1e-5)  # The divisor is at least 1.


def test_quality_by_hand():
    logits = [[[0.0, 0.0, LN(4.0)], [LN(0.25), 0.0, 0.0]]]
    targets = {**targets_of([[2, 0]]), "quality": tf.constant([[0.6, 0.0]])}
    parts = FocalMultiBoxLoss(class_loss="quality")(outputs_of(logits), targets)
    own = 0.04 * -(0.6 * LN(0.8) + 0.4 * LN(0.2))
    want = own + 4 * 0.25 * -LN(0.5) + 0.04 * -LN(0.8)
    assert float(parts["class"]) == pytest.approx(want, rel=1e-5)


def test_anchors_count_in_the_box_loss_with_their_quality():
    codes = [[[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]]
    targets = {**targets_of([[1, 2, 0]]), "quality": tf.constant([[0.9, 0.6, 0.0]])}
    parts = FocalMultiBoxLoss(class_loss="quality")(outputs_of(np.zeros((1, 3, 3)), codes), targets)
    want = (0.9 * 0.5 + 0.6 * 1.5) / 4 / (0.9 + 0.6)
    assert float(parts["box"]) == pytest.approx(want, rel=1e-5)


def test_quality_without_an_assigner_is_the_overlap_of_the_predicted_box():
    # The target is the anchor itself, the prediction is as wide and twice as tall: IoU 1/2.
    codes = [[[0.0, 0.0, 5.0 * LN(2.0), 0.0]]]
    anchors = np.array([[0.0, 0.0, 10.0, 10.0]], np.float32)
    outputs = {**outputs_of([[[0.0, LN(3.0)]]], codes), "anchors": anchors}
    parts = FocalMultiBoxLoss(class_loss="varifocal")(outputs, targets_of([[1]]))
    own = 0.5 * -(0.5 * LN(0.75) + 0.5 * LN(0.25))
    assert float(parts["class"]) == pytest.approx(own + 0.75 * 0.25 * LN(2.0), rel=1e-5)
    # And it is a constant: the class loss does not move the box.
    codes = tf.Variable(codes)
    with tf.GradientTape() as tape:
        parts = FocalMultiBoxLoss(class_loss="quality")(
            {**outputs, "box_codes": codes}, targets_of([[1]])
        )
    assert tape.gradient(parts["class"], codes) is None


@pytest.mark.parametrize("kind", ["quality", "varifocal"])
@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_gradients_of_quality_losses_are_difference_quotients(kind, gamma):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (1, 6, 4))
    targets = {
        **targets_of([[1, 2, 3, 0, -1, 2]], [[1, 1, 1, 1, 0, 2]]),
        "quality": tf.constant([[0.9, 0.3, 0.0, 0.0, 0.0, 1.0]]),
    }
    criterion = FocalMultiBoxLoss(class_loss=kind, gamma=gamma)

    def loss(values):
        return criterion(outputs_of(values), targets)["class"]

    values = tf.Variable(logits, dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = criterion({**outputs_of(logits), "class_logits": values}, targets)["class"]
    gradient = tape.gradient(total, values).numpy()
    for index in np.ndindex(logits.shape):
        step = np.zeros(logits.shape)
        step[index] = 0.02
        quotient = float(loss(logits + step) - loss(logits - step)) / 0.04
        assert gradient[index] == pytest.approx(quotient, abs=2e-3)


def test_extreme_logits_stay_finite():
    for kind in ("quality", "varifocal"):
        for size in (0.0, 100.0, -100.0, 1e6):
            logits = tf.Variable(np.full((1, 2, 3), size, np.float32))
            targets = {**targets_of([[1, 0]]), "quality": tf.constant([[1.0, 0.0]])}
            with tf.GradientTape() as tape:
                parts = FocalMultiBoxLoss(class_loss=kind, gamma=0.5)(
                    {**outputs_of(np.zeros((1, 2, 3))), "class_logits": logits}, targets
                )
            assert np.isfinite(parts["class"])
            assert np.isfinite(tape.gradient(parts["class"], logits)).all()
