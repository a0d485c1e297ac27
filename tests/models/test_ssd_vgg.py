import gin
import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.building import build_detector
from ssd_centernet.layers.anchor_criterion import CROWD_MODES
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.decoders import SSDDecoder
from ssd_centernet.layers.necks import VGGExtraLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.models.ssd import SSD
from tests.layers.contract import LayerContract, random_maps
from tests.models import contracts


def small_ssd(image_size=contracts.SQUARE, *, crowd="drop", **settings) -> SSD:
    return SSD(
        VGG16(1 / 8, convs=(1, 1, 1, 1, 1)),
        num_classes=contracts.NUM_CLASSES,
        image_size=image_size,
        neck=VGGExtraLevels(((8, 8),) * 4),
        anchors=DefaultBoxes(clip=False),
        criterion=MultiBoxLoss(
            normalizer="batch", mine_matched=False, last_claim_wins=True, crowd=crowd
        ),
        decoder=SSDDecoder(0.02, max_per_class=None, max_log_size=4.135, clip=True),
        preprocessing=Preprocessing(
            image_size, mean=(120.0,) * 3, std=(1.0,) * 3, scale=1.0, round_pixels=True
        ),
        match_in_pixels=True,
        **settings,
    )


class TestSSDVGG(contracts.DetectorContract):
    crowd_modes = CROWD_MODES
    freeze_pattern = "conv1_"

    def build(self, image_size=contracts.SQUARE, **settings):
        return small_ssd(image_size, **settings)


@pytest.mark.parametrize(
    ("recipe", "sizes", "anchors", "parameters"),
    [
        ("ssd300_vgg16", (38, 19, 10, 5, 3, 1), 8732, 34_305_206),
        ("ssd512_vgg16", (64, 32, 16, 8, 4, 2, 1), 24564, 36_038_196),
    ],
)
def test_published_networks(recipe, sizes, anchors, parameters):
    config.parse([recipe])
    try:
        detector = build_detector(num_classes=80)
    finally:
        config.clear()
    assert detector.feature_sizes == tuple((side, side) for side in sizes)
    assert detector.output["class_logits"].shape == (None, anchors, 81)
    assert detector.output["box_codes"].shape == (None, anchors, 4)
    count = sum(np.prod(variable.shape) for variable in detector.trainable_variables)
    assert count == parameters
    assert len(detector.variables) == {300: 71, 512: 79}[detector.image_size[0]]
    assert len({variable.name for variable in detector.variables}) == len(detector.variables)


def test_the_backbone_pools_up_and_goes_on_without_stride():
    backbone = VGG16(1 / 8)
    features = backbone(tf.zeros([1, 75, 100, 3]))
    # 75 -> 38 -> 19 -> 10 -> 5 rows, 100 -> 50 -> 25 -> 13 -> 7 columns.
    assert {key: tuple(value.shape) for key, value in features.items()} == {
        "3": (1, 10, 13, 64),
        "4": (1, 5, 7, 128),
    }
    assert len(backbone.conv_layers) == 15
    with pytest.raises(ValueError, match="five blocks"):
        VGG16(convs=(2, 2))


def test_conv6_is_dilated():
    backbone = VGG16(1 / 64, convs=(1,) * 5)
    conv = backbone.get_layer("conv6")
    kernel = np.zeros(conv.kernel.shape)
    kernel[0, 0] = 1.0
    conv.set_weights([kernel, np.zeros(conv.bias.shape)])
    inputs = np.zeros((1, 16, 16, kernel.shape[2]), np.float32)
    inputs[0, 4, 5, 0] = 1.0
    got = conv(inputs).numpy()[0, ..., 0]
    assert np.argwhere(got).tolist() == [[10, 11]]


def test_initial_kernels_have_the_variance_of_their_outputs():
    keras.utils.set_random_seed(0)
    backbone = VGG16(0.25)
    for name, fan_out in (("conv3_2", 9 * 64), ("conv6", 9 * 256), ("conv7", 256)):
        layer = backbone.get_layer(name)
        assert layer.kernel.numpy().std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.02)
        # The tails are not cut.
        assert np.abs(layer.kernel).max() > 3.5 * np.sqrt(2 / fan_out)
        assert not np.any(layer.bias)


def test_only_the_head_sees_the_normalised_level():
    detector = small_ssd()
    features = detector.backbone(tf.random.stateless_normal([1, 96, 96, 3], [1, 2]))
    first, second = detector.neck([features["3"], features["4"]])[:2]
    np.testing.assert_array_equal(second, features["4"])
    norms = np.linalg.norm(first.numpy(), axis=-1)
    shown = np.linalg.norm(features["3"].numpy(), axis=-1) > 0
    assert shown.any()
    np.testing.assert_allclose(norms[shown], 20.0, rtol=1e-5)


def test_matching_in_pixels_or_fractions_is_the_same_without_ties():
    batch = contracts.batch_of(contracts.SQUARE, [3, 5], seed=7)
    rows = [batch[key] for key in ("boxes", "classes", "is_crowd", "valid")]
    detector = small_ssd()
    one = detector.make_targets(*rows)
    detector.match_in_pixels = False
    two = detector.make_targets(*rows)
    np.testing.assert_array_equal(one["classes"], two["classes"])
    np.testing.assert_allclose(one["boxes"], two["boxes"], atol=1e-4)


def test_clipped_anchors_cannot_be_made_in_pixels():
    with pytest.raises(ValueError, match=r"DefaultBoxes\.clip = False"):
        SSD(
            VGG16(1 / 8),
            num_classes=2,
            image_size=(96, 96),
            neck=VGGExtraLevels(((8, 8),) * 4),
            match_in_pixels=True,
        )


@pytest.mark.parametrize("recipe", ["ssd300_vgg16", "ssd512_vgg16"])
def test_recipes_normalise_alike_in_training_and_detection(recipe):
    config.parse([recipe], ["IMAGE_SIZE = (96, 128)", "VGG16.width = 0.02"])
    try:
        preprocessing = build_detector(num_classes=2).preprocessing
        chain = gin.query_parameter("train.augment").scoped_configurable_fn()
    finally:
        config.clear()
    assert chain.image_size == preprocessing.image_size == (96, 128)
    for name in ("mean", "std", "scale", "channels"):
        assert getattr(chain, name) == getattr(preprocessing, name), name


class TestVGG16Contract(LayerContract):
    part = VGG16
    settings = {"width": 0.0625, "convs": (1, 1, 1, 1, 2), "dilation": 2}
    inputs = random_maps(64, channels=3)[0]
