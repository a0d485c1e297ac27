import functools

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchor_criterion import CROWD_MODES
from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from ssd_centernet.layers.heads import CenterNetHead
from ssd_centernet.layers.necks import CenterNetFPN
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.hourglass import Hourglass
from ssd_centernet.models.centernet import CenterNet
from tests.models import contracts


def small_hourglass(image_size=contracts.SQUARE, *, crowd="object", **settings) -> CenterNet:
    settings = {"preprocessing": Preprocessing(image_size), **settings}
    return CenterNet(
        Hourglass(10, num_stacks=2, width=4),
        num_classes=contracts.NUM_CLASSES,
        image_size=image_size,
        criterion=CenterNetLoss(8, crowd=crowd),
        decoder=CenterNetDecoder(20),
        **settings,
    )


def small_fpn(image_size=contracts.SQUARE, *, crowd="object", **settings) -> CenterNet:
    return CenterNet(
        BottleneckResNet((1, 1, 1, 1), widths=(4, 4, 4, 4), output_levels=(2, 3, 4, 5)),
        num_classes=contracts.NUM_CLASSES,
        image_size=image_size,
        neck=CenterNetFPN((8, 8, 8), output_width=8),
        preprocessing=Preprocessing(image_size),
        **{
            "head": functools.partial(CenterNetHead, width=16),
            "criterion": CenterNetLoss(8, crowd=crowd),
            **settings,
        },
    )


class TestHourglass(contracts.DetectorContract):
    crowd_modes = CROWD_MODES

    def build(self, image_size=contracts.SQUARE, **settings):
        return small_hourglass(image_size, **settings)


class TestFPN(contracts.DetectorContract):
    crowd_modes = CROWD_MODES

    def build(self, image_size=contracts.SQUARE, **settings):
        return small_fpn(image_size, **settings)


@pytest.fixture(scope="module")
def detector() -> CenterNet:
    """A small detector with the preprocessing of the published one."""
    return small_hourglass((64, 96), preprocessing=None)


def test_every_stack_predicts_at_stride_four(detector):
    assert detector.output_size == (16, 24)
    assert [{k: tuple(v.shape) for k, v in out.items()} for out in detector.output] == [
        {"center": (None, 16, 24, 3), "offset": (None, 16, 24, 2), "size": (None, 16, 24, 2)}
    ] * 2


def test_stacks_are_in_order_of_their_numbers_and_the_last_comes_last():
    images = keras.Input((None, None, 3))
    cells = keras.layers.MaxPooling2D(4)(images)
    numbers = {"2_10": 10.0, "2": 11.0, "2_9": 9.0, "2_0": 0.0}
    backbone = keras.Model(images, {key: cells + number for key, number in numbers.items()})
    detector = CenterNet(backbone, num_classes=1, image_size=(8, 8))
    maps = keras.Model(detector.input, detector.head.input)(tf.zeros([1, 8, 8, 3]))
    assert [float(features[0, 0, 0, 0]) for features in maps] == [0.0, 9.0, 10.0, 11.0]


def test_initial_scores_are_a_tenth(detector):
    biases = {v.name: v.numpy() for v in detector.head.variables if v.name.endswith("bias:0")}
    for name, bias in biases.items():
        final_center = name.split("/")[1] in ("center0", "center1")
        np.testing.assert_allclose(bias, -2.19 if final_center else 0.0)
    assert len(biases) == 12


def test_perfect_outputs_are_decoded_to_their_ground_truth(detector):
    boxes = tf.constant([[[0.1, 0.2, 0.5, 0.6], [0.55, 0.5, 0.95, 0.9]]])
    classes = tf.constant([[2, 0]])
    outputs, targets = perfect_outputs(detector, boxes, classes)
    found = detector.decode(outputs)
    assert (found["scores"].numpy() > 0.5).sum() == 2
    order = np.argsort(found["boxes"].numpy()[0, :2, 0])
    np.testing.assert_allclose(found["boxes"].numpy()[0][order], boxes[0], atol=1e-5)
    assert found["classes"].numpy()[0][order].tolist() == [2, 0]
    losses = detector.losses_of(outputs, targets)
    assert float(losses["size"]) == float(losses["offset"]) == 0.0
    assert float(losses["center"]) < 1e-3


def perfect_outputs(detector: CenterNet, boxes, classes) -> tuple[list, dict]:
    targets = detector.make_targets(boxes, classes, tf.zeros(classes.shape, tf.bool))
    height, width = detector.output_size
    place = targets["cells"][..., 0] * width + targets["cells"][..., 1]
    used = targets["weights"][..., tf.newaxis]

    def scattered(values):
        maps = tf.scatter_nd(place[0, :, tf.newaxis], (values * used)[0], [height * width, 2])
        return tf.reshape(maps, [1, height, width, 2])

    output = {
        "center": tf.where(targets["heatmap"] == 1.0, 12.0, -12.0),
        "offset": scattered(targets["offsets"]),
        "size": scattered(targets["sizes"]),
    }
    return [output, output], targets


def test_boxes_come_out_in_the_frame_of_an_image_that_was_padded(detector):
    # A picture over the upper half: what reaches down to the padding ends at the picture's border.
    boxes = tf.constant([[[0.1, 0.2, 0.3, 0.6]]])
    outputs, _ = perfect_outputs(detector, boxes, tf.constant([[1]]))
    found = detector.decode(outputs, tf.constant([[0.5, 0.8]]))
    np.testing.assert_allclose(found["boxes"][0, 0], [0.2, 0.25, 0.6, 0.75], atol=1e-5)
    found = detector.decode(outputs, tf.constant([[0.2, 0.5]]))
    np.testing.assert_allclose(found["boxes"][0, 0], [0.5, 0.4, 1.0, 1.0], atol=1e-5)


def test_padding_of_a_batch_is_no_background(detector):
    batch = contracts.batch_of((64, 96), [2, 1])
    outputs = detector(batch["image"])
    whole = detector.compute_losses(outputs, {**batch, "extent": tf.ones([2, 2])})
    part = detector.compute_losses(outputs, {**batch, "extent": tf.fill([2, 2], 0.5)})
    assert float(part["center"]) < 0.6 * float(whole["center"])
    assert float(part["size"]) == float(whole["size"])


def test_default_preprocessing_is_that_of_hourglass_104(detector):
    got = detector.preprocessing(tf.fill([1, 64, 96, 3], tf.constant(120, tf.uint8)))
    want = (120 - np.array([104.01362025, 114.03422265, 119.9165958])) / [
        73.6027665,
        69.89082075,
        70.9150767,
    ]
    np.testing.assert_allclose(got[0, 5, 7], want, rtol=1e-5)
    assert detector.preprocessing.keep_aspect and detector.preprocessing.channels == "BGR"


def test_levels_without_a_neck_raise():
    backbone = BottleneckResNet((1, 1), widths=(4, 4), output_levels=(2, 3))
    with pytest.raises(ValueError, match=r"maps of one size.*\(8, 8\), \(16, 16\).*CenterNetFPN"):
        CenterNet(backbone, num_classes=1, image_size=(64, 64))


def test_image_that_is_no_multiple_of_the_stride_raises():
    with pytest.raises(ValueError, match=r"\(66, 64\) pixels.*\(17, 16\) cells.*multiples"):
        small_hourglass((66, 64))


def test_neck_of_another_number_of_levels_raises():
    backbone = BottleneckResNet((1, 1), widths=(4, 4), output_levels=(2, 3))
    with pytest.raises(ValueError, match="gives 2 levels, but CenterNetFPN.widths has 3"):
        CenterNet(backbone, num_classes=1, image_size=(64, 64), neck=CenterNetFPN())
