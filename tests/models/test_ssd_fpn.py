import re

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.anchor_criterion import CROWD_MODES
from ssd_centernet.layers.anchors import MultiscaleAnchors
from ssd_centernet.layers.decoders import SigmoidSSDDecoder
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss
from ssd_centernet.layers.fpn import FPN
from ssd_centernet.layers.heads import SharedSSDHead
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.ssd import SSD
from tests.models import contracts


def small_ssd_fpn(image_size=contracts.SQUARE, *, crowd="object", **settings) -> SSD:
    return SSD(
        BottleneckResNet((1, 1, 1, 1), widths=(4, 4, 4, 4), stem_width=4),
        num_classes=contracts.NUM_CLASSES,
        image_size=image_size,
        neck=FPN(8),
        head=lambda *args, **kwargs: SharedSSDHead(*args, depth=1, width=8, **kwargs),
        anchors=MultiscaleAnchors(),
        criterion=FocalMultiBoxLoss(crowd=crowd),
        decoder=SigmoidSSDDecoder(),
        preprocessing=Preprocessing(image_size),
        **settings,
    )


class TestSSDFPN(contracts.DetectorContract):
    crowd_modes = CROWD_MODES

    def build(self, image_size=contracts.SQUARE, **settings):
        return small_ssd_fpn(image_size, **settings)


@pytest.mark.parametrize(
    ("size", "cells", "anchors"),
    [
        ((320, 320), (1600, 400, 100, 25, 9), 12804),
        ((640, 640), (6400, 1600, 400, 100, 25), 51150),
        ((384, 480), (48 * 60, 24 * 30, 12 * 15, 6 * 8, 3 * 4), 23040),
        ((100, 150), (13 * 19, 7 * 10, 4 * 5, 2 * 3, 1 * 2), None),
    ],
)
def test_levels_and_anchors_of_any_size(size, cells, anchors):
    detector = small_ssd_fpn(size)
    assert tuple(rows * columns for rows, columns in detector.feature_sizes) == cells
    assert detector.anchor_boxes.shape == (6 * sum(cells), 4)
    assert anchors in (None, 6 * sum(cells))
    assert detector.output["class_logits"].shape == (None, 6 * sum(cells), 4)


def test_names_select_what_does_not_decay():
    detector = small_ssd_fpn()
    names = [variable.name.removesuffix(":0") for variable in detector.trainable_variables]
    kernels = [name for name in names if not re.search("_norm/|/bias", name)]
    assert kernels and all(name.endswith("/kernel") for name in kernels)
    others = [name for name in names if name not in kernels]
    assert all(name.rsplit("/", 1)[1] in ("gamma", "beta", "bias") for name in others)
    assert len({variable.name for variable in detector.variables}) == len(detector.variables)


def test_statistics_of_every_norm_move_in_training_and_stay_in_inference():
    detector = small_ssd_fpn()
    moving = [v for v in detector.variables if not v.trainable]
    before = [v.numpy() for v in moving]
    images = tf.random.stateless_normal([2, *contracts.SQUARE, 3], (1, 2))
    detector(images, training=False)
    for variable, value in zip(moving, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.name)
    detector(images, training=True)
    for variable, value in zip(moving, before, strict=True):
        assert not np.array_equal(variable, value), variable.name
