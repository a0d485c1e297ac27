"""Classes that count more, and softer targets, by numbers that are computed by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss
from ssd_centernet.layers.ttf_criterion import TTFLoss
from tests.models.test_centernet import small_fpn
from tests.models.test_ssd import small_ssd

NAMES = ("one", "two")
ALL = [MultiBoxLoss, FocalMultiBoxLoss, CenterNetLoss, TTFLoss]


def built(kind, names=NAMES, **settings):
    criterion = kind(**settings)
    criterion.name_classes(names)
    return criterion


def anchors_of(classes):
    """Targets of one image whose anchors learn these classes, 0 for background."""
    classes = np.array([classes], np.int32)
    return {
        "classes": tf.constant(classes),
        "boxes": tf.zeros([1, classes.size, 4]),
        "weights": tf.ones([1, classes.size]),
        "num_matched": tf.constant([(classes > 0).sum()], tf.int32),
    }


def outputs_of(logits):
    logits = tf.constant([logits], tf.float32)
    return {"class_logits": logits, "box_codes": tf.ones([1, logits.shape[1], 4])}


@pytest.mark.parametrize("kind", [MultiBoxLoss, FocalMultiBoxLoss])
def test_the_class_loss_of_a_classs_anchors_is_multiplied_and_nothing_else(kind):
    logits = np.random.default_rng(0).normal(size=(3, 3))
    settings = {"negatives_per_positive": 0} if kind is MultiBoxLoss else {}

    def loss(classes, **more):
        return built(kind, **settings, **more)(outputs_of(logits), anchors_of(classes))

    plain, weighted = loss([2, 1, 2]), loss([2, 1, 2], class_weights={"two": 3.0})
    without = loss([2, 1, 2], class_weights={"two": 0.0})
    of_two = float(plain["class"]) - float(without["class"])
    assert float(weighted["class"]) == pytest.approx(float(plain["class"]) + 2 * of_two, rel=1e-5)
    assert of_two > 0.1
    assert float(weighted["box"]) == float(plain["box"])


def test_background_is_mined_as_without_weights():
    logits = [[0.0, 5.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]]
    settings = {"negatives_per_positive": 1, "mine_matched": False}
    loss = built(MultiBoxLoss, class_weights={"one": 0.0}, **settings)(
        outputs_of(logits), anchors_of([1, 0, 0, 0])
    )
    worst = math.log(2 + math.exp(4.0))  # Of the last anchor, which says it is the second class.
    assert float(loss["class"]) == pytest.approx(worst, rel=1e-5)


@pytest.mark.parametrize("kind", [CenterNetLoss, TTFLoss])
def test_peaks_of_a_class_are_multiplied_and_the_slopes_around_them_are_not(kind):
    sizes = {"num_classes": 2, "image_size": (32, 32), "output_size": (8, 8)}
    boxes = tf.constant([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    fields = (boxes, tf.constant([[0, 1]]), tf.zeros([1, 2], tf.bool))
    maps = {"center": tf.zeros([1, 8, 8, 2])}
    maps |= (
        {"sides": tf.ones([1, 8, 8, 4])}
        if kind is TTFLoss
        else {key: tf.ones([1, 8, 8, 2]) for key in ("offset", "size")}
    )

    def loss(**more):
        criterion = built(kind, **more)
        return float(criterion([maps], criterion.make_targets(*fields, **sizes))["center"])

    # At a score of 1/2 a peak loses ln(2) / 4, and the sum is divided by two objects.
    assert loss(class_weights={"two": 3.0}) - loss() == pytest.approx(math.log(2) / 4, rel=1e-4)


def test_smoothing_of_a_softmax_by_hand():
    logits = [[0.0, math.log(2.0), math.log(5.0)], [0.0, 0.0, 0.0]]
    loss = built(MultiBoxLoss, label_smoothing=0.3, negatives_per_positive=1, mine_matched=False)(
        outputs_of(logits), anchors_of([2, 0])
    )
    object_loss = -(0.8 * math.log(5 / 8) + 0.1 * math.log(2 / 8) + 0.1 * math.log(1 / 8))
    # Background is taught as before.
    assert float(loss["class"]) == pytest.approx(object_loss + math.log(3), rel=1e-5)


def test_smoothing_of_focal_loss_by_hand():
    logits = [[-50.0, -50.0, 0.0], [-50.0, 0.0, -50.0]]
    loss = built(FocalMultiBoxLoss, label_smoothing=0.2)(outputs_of(logits), anchors_of([2, 0]))
    unit = 0.25 * math.log(2.0)
    want = 0.8 * 0.25 * unit + 0.2 * 0.75 * unit + 0.75 * unit
    assert float(loss["class"]) == pytest.approx(want, rel=1e-5)


def test_smoothing_lowers_the_quality_that_is_taught():
    targets = {**anchors_of([2]), "quality": tf.constant([[0.5]])}
    loss = built(FocalMultiBoxLoss, label_smoothing=0.2, class_loss="varifocal")(
        outputs_of([[-50.0, -50.0, 0.0]]), targets
    )
    # The divisor is at least 1; the factor of the cross entropy is what is taught too.
    assert float(loss["class"]) == pytest.approx(0.4 * math.log(2.0), rel=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_names_that_are_wrong_or_unknown_are_refused(kind):
    name = kind.__name__
    with pytest.raises(ValueError, match=rf"{name}.class_weights must map names .* got \[2.0\]"):
        kind(class_weights=[2.0])
    with pytest.raises(ValueError, match=rf"{name}.class_weights\['one'\] must be a number of 0"):
        kind(class_weights={"one": -1})
    with pytest.raises(ValueError, match="names 'on', which .* did you mean 'one'. It has one, tw"):
        built(kind, class_weights={"on": 2.0})
    with pytest.raises(ValueError, match="the detector has no names of classes"):
        built(kind, None, class_weights={"one": 2.0})
    built(kind, None, class_weights={})


@pytest.mark.parametrize("build", [small_ssd, small_fpn])
def test_a_detector_tells_its_criterion_the_names(build):
    kind = MultiBoxLoss if build is small_ssd else CenterNetLoss
    criterion = kind(class_weights={"b": 2.0})
    detector = build(criterion=criterion, class_names=["a", "b", "c"])
    assert list(criterion._factors) == [1.0, 2.0, 1.0]
    again = type(detector).from_config(detector.get_config())
    assert list(again.criterion._factors) == [1.0, 2.0, 1.0]
    with pytest.raises(ValueError, match="names 'b', which the label map does not have"):
        build(criterion=kind(class_weights={"b": 2.0}), class_names=["x", "y", "z"])


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_smoothing_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="MultiBoxLoss.label_smoothing must be at least 0"):
        MultiBoxLoss(label_smoothing=value)
