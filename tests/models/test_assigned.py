"""Detectors whose criterion has an assigner: all that holds for others holds for them."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.assigners import ATSS, TaskAligned
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss
from ssd_centernet.models.matches import MATCHED
from tests.models import contracts
from tests.models.test_ssd import small_ssd


class TestSSDWithATSS(contracts.DetectorContract):
    def build(self, image_size=contracts.SQUARE, **settings):
        return small_ssd(image_size, criterion=MultiBoxLoss(assigner=ATSS()), **settings)


class TestSSDWithTaskAligned(contracts.DetectorContract):
    def build(self, image_size=contracts.SQUARE, **settings):
        criterion = FocalMultiBoxLoss(
            assigner=TaskAligned(), class_loss="varifocal", box_loss="giou"
        )
        return small_ssd(image_size, criterion=criterion, **settings)

    def test_targets_of_the_pipeline_equal_those_of_the_device(self, detector):
        # There are none: the step alone can make them.
        assert detector.targets_need_outputs and detector.pipeline_targets() is None


class TestSSDWithTaskAlignedAfterATSS(contracts.DetectorContract):
    def build(self, image_size=contracts.SQUARE, **settings):
        assigner = TaskAligned(begin_with=ATSS())
        criterion = FocalMultiBoxLoss(assigner=assigner, class_loss="varifocal")
        return small_ssd(image_size, criterion=criterion, **settings)

    def test_targets_of_the_pipeline_equal_those_of_the_device(self, detector):
        assert detector.targets_need_outputs and detector.pipeline_targets() is None


@pytest.mark.parametrize("kind", [MultiBoxLoss, FocalMultiBoxLoss])
def test_a_run_begins_with_the_losses_of_the_other_assigner(kind):
    staged = small_ssd(criterion=kind(assigner=TaskAligned(begin_with=ATSS())))
    batch = contracts.batch_of(contracts.SQUARE, [3, 0], max_boxes=12)
    outputs = staged(batch["image"])
    wanted = {
        0.0: small_ssd(criterion=kind(assigner=ATSS())).compute_losses(outputs, batch),
        0.9: small_ssd(criterion=kind(assigner=TaskAligned())).compute_losses(outputs, batch),
    }
    assert float(wanted[0.0]["box"]) != pytest.approx(float(wanted[0.9]["box"]), rel=0.01)

    def losses(progress):
        return staged.compute_losses(outputs, {**batch, "progress": progress})

    for one in (losses, tf.function(losses), tf.function(losses, jit_compile=True)):
        for progress, parts in wanted.items():
            for name, value in one(tf.constant(progress)).items():
                assert float(value) == pytest.approx(float(parts[name]), rel=1e-4), name


@pytest.fixture(scope="module", params=[MultiBoxLoss, FocalMultiBoxLoss])
def detector(request):
    return small_ssd(criterion=request.param(assigner=TaskAligned(top=4), box_loss="giou"))


def test_the_pipeline_is_not_asked_for_targets_that_need_outputs(detector):
    assert detector.pipeline_targets() is None
    assert small_ssd(criterion=MultiBoxLoss(assigner=ATSS())).pipeline_targets() is not None
    assert small_ssd().pipeline_targets() is not None
    assert small_ssd().pipeline_targets(wanted=False) is None


def test_losses_of_a_compiled_step_are_those_of_an_eager_one(detector):
    batch = contracts.batch_of(contracts.SQUARE, [3, 0], max_boxes=12)
    outputs = detector(batch["image"])

    def losses():
        return detector.compute_losses(outputs, batch)

    eager = losses()
    for compiled in (tf.function(losses), tf.function(losses, jit_compile=True)):
        for name, value in compiled().items():
            assert float(value) == pytest.approx(float(eager[name]), rel=1e-4), name


def test_the_explanation_is_that_of_a_network_which_says_its_anchors(detector):
    boxes = np.array([[0.1, 0.1, 0.5, 0.6], [0.4, 0.3, 0.9, 0.9]], np.float32)
    classes, crowd = np.array([0, 2], np.int32), np.zeros(2, bool)
    targets = detector.make_targets(*map(tf.constant, (boxes, classes, crowd)))
    matches = detector.explain_targets(targets, boxes, classes, crowd)
    assert (matches.states == MATCHED).all()
    assert np.bincount(matches.owners + 1)[1:].tolist() == [4, 4]
    assert matches.terms.states[MATCHED][0] == "assigned"
    assert "a network that predicts its anchors" in matches.terms.notes[0]
