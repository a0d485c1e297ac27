"""The assigners as layers: settings, errors, and graphs for few and many objects."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.assigners import ATSS, TaskAligned
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss
from ssd_centernet.ops import boxes as box_ops
from tests.layers.contract import LayerContract
from tests.ops.test_assignment import pyramid, random_boxes

ANCHORS, LEVELS = pyramid(np.random.default_rng(0))


def scene(objects, rows, *, images=2, seed=0):
    """Objects and what a network says of them: `boxes`, `classes`, `valid`, scores and boxes."""
    rng = np.random.default_rng(seed)
    scores = rng.random([images, len(ANCHORS), 3]).astype("f4")
    predicted = ANCHORS + rng.normal(0, 1, [images, *ANCHORS.shape]).astype("f4")
    valid = np.arange(rows) < objects
    return (
        tf.constant(random_boxes(rng, images, rows)),
        tf.constant(rng.integers(0, 3, [images, rows]), tf.int32),
        tf.constant(np.tile(valid, [images, 1])),
        tf.constant(scores),
        tf.constant(predicted),
    )


def assign(layer, boxes, classes, valid, scores, predicted):
    return layer(boxes, classes, valid, ANCHORS, scores, predicted)


@pytest.mark.parametrize("objects", [0, 1, 8, 9, 33, 50])
def test_padding_changes_nothing_whatever_the_number_of_objects(objects):
    fields = scene(objects, 50)
    padded = assign(TaskAligned(5), *fields)
    exact = assign(TaskAligned(5), *(field[:, :objects] for field in fields[:3]), *fields[3:])
    np.testing.assert_array_equal(padded[0], exact[0])
    np.testing.assert_array_equal(padded[1], exact[1])
    assert (padded[0].numpy() >= 0).any() == (objects > 0)


def test_an_object_after_a_row_that_is_taken_out_is_seen():
    boxes, classes, valid, *said = scene(12, 12)
    valid = tf.constant(np.tile([True] + [False] * 10 + [True], [2, 1]))
    matches, _ = assign(TaskAligned(5), boxes, classes, valid, *said)
    assert set(np.unique(matches)) == {-1, 0, 11}


def test_scores_of_other_classes_do_not_count():
    boxes, classes, valid, scores, predicted = scene(4, 4)
    matches, _ = assign(TaskAligned(5), boxes, classes, valid, scores, predicted)
    own = tf.reduce_any(classes[:, :, tf.newaxis] == tf.range(3), axis=1)[:, tf.newaxis]
    assert not tf.reduce_all(own)
    others = tf.where(own, scores, 0.5 * scores)
    again, _ = assign(TaskAligned(5), boxes, classes, valid, others, predicted)
    np.testing.assert_array_equal(matches, again)


def test_anchors_of_another_size_are_left_out_where_they_count():
    # One object; a small anchor in it predicts its box as well as one of its size does.
    anchors = np.array([[0, 0, 100, 100], [45, 45, 55, 55]], np.float32)
    boxes, scores = tf.constant([[[0.0, 0.0, 100.0, 100.0]]]), tf.constant([[[0.5], [0.6]]])
    predicted = tf.tile(boxes, [1, 2, 1])
    fields = boxes, tf.zeros([1, 1], tf.int32), tf.ones([1, 1], tf.bool), anchors, scores, predicted
    matches, _ = TaskAligned(1)(*fields)
    np.testing.assert_array_equal(matches, [[-1, 0]])
    matches, _ = TaskAligned(1, anchor_share=0.5)(*fields)
    np.testing.assert_array_equal(matches, [[0, -1]])


@pytest.mark.parametrize("objects", [0, 3, 20])
def test_another_assigner_does_the_first_part_of_a_run(objects):
    boxes, classes, valid, *said = fields = scene(objects, 24)
    layer = TaskAligned(5, begin_with=ATSS(3), begin_share=0.25)
    both = tf.function(lambda progress: layer(*fields[:3], ANCHORS, *said, LEVELS, progress))
    plain = assign(TaskAligned(5), *fields)
    begun = ATSS(3)(boxes, valid, ANCHORS, LEVELS).numpy()
    for progress in (0.0, 0.2499):
        matches, quality = both(tf.constant(progress))
        np.testing.assert_array_equal(matches, begun)
        # Each anchor's own box against that of its object.
        for image, anchor in np.argwhere(begun >= 0)[:5]:
            own = boxes[image, begun[image, anchor]]
            overlap = box_ops.iou(said[1][image, anchor][tf.newaxis], own[tf.newaxis])[0, 0]
            np.testing.assert_allclose(quality[image, anchor], overlap, rtol=1e-5)
        assert not quality.numpy()[begun < 0].any()
    for progress in (0.25, 1.0):
        for got, wanted in zip(both(tf.constant(progress)), plain, strict=True):
            np.testing.assert_array_equal(got, wanted)
    # Outside of a training.
    np.testing.assert_array_equal(assign(layer, *fields)[0], plain[0])
    assert not objects or (begun != plain[0].numpy()).any()


@pytest.mark.parametrize(
    ("layer", "settings", "message"),
    [
        (ATSS, {"cells": 0}, "ATSS.cells is 0; expected a whole number of 1 or more"),
        (ATSS, {"cells": 2.5}, "ATSS.cells is 2.5"),
        (TaskAligned, {"top": True}, "TaskAligned.top is True"),
        (TaskAligned, {"beta": 0.0}, "TaskAligned.alpha is 1.0 and TaskAligned.beta is 0.0"),
        (TaskAligned, {"anchor_share": 1.0}, "TaskAligned.anchor_share is 1.0; expected 0 or more"),
        (TaskAligned, {"anchor_share": -0.1}, "TaskAligned.anchor_share is -0.1"),
        (TaskAligned, {"begin_share": 0.0}, "TaskAligned.begin_share is 0.0; expected a share"),
        (TaskAligned, {"begin_share": 1.0}, "TaskAligned.begin_share is 1.0; expected a share"),
        (TaskAligned, {"begin_with": ATSS}, "TaskAligned.begin_with is .*, with brackets"),
        (TaskAligned, {"begin_with": TaskAligned()}, "an assigner that looks at anchors alone"),
    ],
)
def test_settings_out_of_range_are_refused(layer, settings, message):
    with pytest.raises(ValueError, match=message):
        layer(**settings)


@pytest.mark.parametrize("criterion", [MultiBoxLoss, FocalMultiBoxLoss])
@pytest.mark.parametrize("assigner", ["ATSS", ATSS, MultiBoxLoss()])
def test_what_is_no_assigner_is_refused(criterion, assigner):
    message = f"{criterion.__name__}.assigner is .*; expected an assigner with brackets"
    with pytest.raises(ValueError, match=message):
        criterion(assigner=assigner)


def test_outputs_without_anchors_are_refused():
    criterion = FocalMultiBoxLoss(assigner=TaskAligned())
    boxes, classes, valid, *_ = scene(2, 4)
    targets = criterion.make_targets(boxes, classes, ~valid, ANCHORS, valid)
    outputs = {"class_logits": tf.zeros([2, 10, 4]), "box_codes": tf.zeros([2, 10, 4])}
    with pytest.raises(ValueError, match="assigner='task_aligned', so outputs must hold 'anchors'"):
        criterion(outputs, targets)


class TestATSSContract(LayerContract):
    part = ATSS
    settings = {"cells": 3}

    def call(self, layer):
        boxes, _, valid, *_ = scene(3, 5)
        return layer(boxes, valid, ANCHORS, LEVELS)


class TestTaskAlignedContract(LayerContract):
    part = TaskAligned
    settings = {
        "top": 4,
        "alpha": 0.5,
        "beta": 3.0,
        "anchor_share": 0.5,
        "begin_with": ATSS(3),
        "begin_share": 0.5,
    }

    def call(self, layer):
        both = [
            layer(*scene(3, 5)[:3], ANCHORS, *scene(3, 5)[3:], LEVELS, tf.constant(progress))
            for progress in (0.2, 0.6)
        ]
        return [part for parts in both for part in parts]
