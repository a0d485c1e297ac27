import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchor_criterion import CROWD_MODES
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.ssd import SSD
from tests.layers.contract import LayerContract, random_maps
from tests.models import contracts


def small_ssd(image_size=contracts.SQUARE, *, crowd="object", **settings) -> SSD:
    return SSD(
        ResNet((1, 1, 1), widths=(8, 8, 8), stem_width=8),
        num_classes=settings.pop("num_classes", contracts.NUM_CLASSES),
        image_size=image_size,
        neck=settings.pop("neck", None) or SSDExtraLevels(((8, 8),) * 5),
        criterion=settings.pop("criterion", None) or MultiBoxLoss(crowd=crowd),
        **settings,
    )


class TestSSD(contracts.DetectorContract):
    crowd_modes = CROWD_MODES

    def build(self, image_size=contracts.SQUARE, **settings):
        return small_ssd(image_size, **settings)


def test_published_ssd300_resnet34():
    detector = SSD(ResNet(), num_classes=80)
    assert detector.feature_sizes == ((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1))
    assert detector.output["class_logits"].shape == (None, 8732, 81)
    assert detector.output["box_codes"].shape == (None, 8732, 4)
    assert detector.anchor_boxes.shape == (8732, 4)
    assert len(detector.variables) == 189
    assert len(detector.backbone.variables) == 145
    assert sum(np.prod(v.shape) for v in detector.variables) == 19_982_390
    assert sum(np.prod(v.shape) for v in detector.trainable_variables) == 19_972_534
    frozen = len(detector.trainable_variables) - len(
        detector.variables_to_train(["stem_", "group1_block1_1_"])
    )
    assert frozen == 6


def test_backbone_draws_with_variance_one_over_fan_in():
    backbone = ResNet((1, 1, 1), widths=(64, 64, 64))
    for name in ("group1_block1_1", "group2_block1_projection", "group3_block1_2"):
        kernel = backbone.get_layer(f"{name}_conv").kernel.numpy()
        fan_in = np.prod(kernel.shape[:3])
        assert kernel.std() == pytest.approx(1 / np.sqrt(fan_in), rel=0.05)
        # Truncated at two deviations of the normal that is cut.
        assert np.abs(kernel).max() < 2.3 / np.sqrt(fan_in)
    gammas = {name: backbone.get_layer(f"{name}_norm").gamma.numpy() for name in backbone_names()}
    assert not np.any(gammas.pop("group1_block1_2"))
    assert all(np.all(gamma == 1) for gamma in gammas.values())


def backbone_names() -> list[str]:
    return ["stem", "group1_block1_1", "group1_block1_2", "group2_block1_projection"]


def test_strided_convolutions_are_padded_on_both_sides():
    backbone = ResNet((1,), widths=(1,), strides=(1,), stem_width=1)
    stem = backbone.get_layer("stem_conv")
    stem.set_weights([np.ones((7, 7, 3, 1))])
    ones = tf.ones([1, 8, 8, 3])
    got = stem(backbone.get_layer("stem_pad")(ones)).numpy()[0, ..., 0]
    # The first window sees rows and columns -3..3 of the image, four of which exist.
    assert got.shape == (4, 4)
    assert got[0, 0] == 4 * 4 * 3
    assert got[1, 1] == 6 * 6 * 3
    assert got[3, 3] == 5 * 5 * 3


def test_frozen_norms_still_move_their_averages():
    detector = small_ssd()
    norm = detector.backbone.get_layer("stem_norm")
    before = norm.moving_mean.numpy()
    detector(contracts.batch_of(contracts.SQUARE, [1, 1])["image"], training=True)
    assert np.any(norm.moving_mean.numpy() != before)


def test_resnet_outputs_are_named_by_level():
    backbone = ResNet((1, 1, 1), widths=(8, 8, 8), strides=(1, 2, 2), output_groups=(2, 3))
    outputs = backbone(tf.zeros([1, 64, 96, 3]))
    assert {key: tuple(value.shape[1:3]) for key, value in outputs.items()} == {
        "3": (8, 12),
        "4": (4, 6),
    }


def test_anchors_that_do_not_fit_the_network_raise():
    anchors = DefaultBoxes((21, 45, 99), aspect_ratios=((2,), (2,)), steps=None)
    with pytest.raises(ValueError, match="6 feature levels, but the anchors are set for 2"):
        small_ssd(anchors=anchors)


def test_preprocessing_of_another_size_raises():
    with pytest.raises(
        ValueError, match=r"images of \(96, 96\), but the preprocessing gives \(64, 64\)"
    ):
        small_ssd(preprocessing=Preprocessing((64, 64)))


def test_resnet_arguments_of_different_length_raise():
    with pytest.raises(ValueError, match="same number of groups"):
        ResNet((1, 1), widths=(8, 8, 8))


def test_a_perfect_output_is_decoded_to_its_ground_truth():
    detector = small_ssd()
    boxes = tf.constant([[[0.1, 0.2, 0.5, 0.6], [0.55, 0.5, 0.95, 0.9]]])
    classes = tf.constant([[2, 0]])
    targets = detector.make_targets(boxes, classes, tf.zeros([1, 2], tf.bool))
    logits = 20.0 * tf.one_hot(targets["classes"], contracts.NUM_CLASSES + 1)
    outputs = {"class_logits": logits, "box_codes": targets["boxes"]}
    found = detector.decode(outputs)
    assert int(found["count"][0]) == 2
    order = np.argsort(found["boxes"].numpy()[0, :2, 0])
    np.testing.assert_allclose(found["boxes"].numpy()[0][order], boxes[0], atol=1e-5)
    assert found["classes"].numpy()[0][order].tolist() == [2, 0]
    losses = detector.losses_of(outputs, targets)
    assert float(losses["box"]) == 0.0
    assert float(losses["class"]) < 1e-6


class TestResNetContract(LayerContract):
    part = ResNet
    settings = {
        "blocks": (1, 2),
        "widths": (4, 6),
        "strides": (1, 2),
        "stem_width": 5,
        "output_groups": (1,),
        "pool_padding": "symmetric",
        "activation": "relu6",
        "norm_momentum": 0.8,
        "norm_epsilon": 1e-3,
    }
    inputs = random_maps(64, channels=3)[0]

    def test_maps_end_at_six(self):
        images = 100.0 * self.inputs
        ends = {}
        for activation in ("relu", "relu6"):
            keras.utils.set_random_seed(1)
            network = ResNet(**{**self.settings, "activation": activation})
            ends[activation] = float(tf.reduce_max(network(images)["2"]))
        # The sum at the end of a block too.
        assert ends["relu6"] == 6.0 < ends["relu"]
        with pytest.raises(ValueError, match="ResNet.activation must be 'relu' or 'relu6'"):
            ResNet(activation="elu")
