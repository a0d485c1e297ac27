"""Parts that cannot be parts: one line with the setting, what it is and what was expected."""

import numpy as np
import pytest

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.decoders import SSDDecoder
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss
from ssd_centernet.layers.heads import CenterNetHead, SSDHead
from ssd_centernet.layers.necks import PassLevels, SSDExtraLevels
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.centernet import CenterNet
from ssd_centernet.models.parts import features_of
from ssd_centernet.models.ssd import SSD


def ssd(**parts):
    settings = {
        "backbone": ResNet((1,), widths=(8,), strides=(1,), stem_width=8),
        "neck": SSDExtraLevels(((8, 8),), strides=(2,)),
        "anchors": DefaultBoxes((90, 180, 280), aspect_ratios=((2,), (2,))),
        **parts,
    }
    return SSD(settings.pop("backbone"), num_classes=2, image_size=(64, 64), **settings)


def centernet(**parts):
    backbone = ResNet((1,), widths=(8,), strides=(1,), stem_width=8)
    return CenterNet(backbone, num_classes=2, image_size=(64, 64), **parts)


def centernet_of(backbone):
    return CenterNet(backbone, num_classes=2, image_size=(64, 64))


@pytest.mark.parametrize(
    ("build", "parts", "message"),
    [
        (
            ssd,
            {"head": CenterNetHead},
            r"SSD.head is CenterNetHead, .* such as SSD.head = @SSDHead",
        ),
        (ssd, {"head": "wide"}, "SSD.head is 'wide', which cannot be called"),
        (ssd, {"criterion": CenterNetLoss()}, r"SSD.criterion is a CenterNetLoss, .*@MultiBoxLoss"),
        (ssd, {"decoder": CenterNetDecoder()}, r"SSD.decoder is a CenterNetDecoder, .*@SSDDecoder"),
        (ssd, {"criterion": MultiBoxLoss}, r"criterion is the class MultiBoxLoss, .* no brackets"),
        (ssd, {"backbone": ResNet}, r"SSD.backbone is the class ResNet, .*= @ResNet\(\)"),
        (ssd, {"anchors": 3}, "SSD.anchors is 3, a int; expected a layer"),
        (centernet, {"head": SSDHead}, "CenterNet.head is SSDHead, .*@CenterNetHead"),
        (centernet, {"criterion": FocalMultiBoxLoss()}, "is a FocalMultiBoxLoss, .*@CenterNetLoss"),
        (centernet, {"decoder": SSDDecoder()}, "decoder is a SSDDecoder, .*@CenterNetDecoder"),
        (centernet, {"neck": PassLevels}, "CenterNet.neck is the class PassLevels"),
    ],
)
def test_a_part_that_cannot_be_one_is_told(build, parts, message):
    with pytest.raises(ValueError, match=message):
        build(**parts)


def test_parts_of_another_make_are_accepted():
    assert ssd(criterion=FocalMultiBoxLoss(), head=SSDHead).criterion.name
    assert centernet(head=CenterNetHead(2)).head.name


def _application(**options):
    network = keras.applications.MobileNetV2(weights=None, alpha=0.35, **options)
    network._name = "mobilenet"
    return network


def test_a_model_of_keras_is_a_backbone_by_naming_its_layers(tmp_path):
    network = _application(include_top=False, input_shape=(None, None, 3))
    layers = {"3": "block_6_expand_relu", "4": "block_13_expand_relu"}
    levels = {level: network.get_layer(name).output for level, name in layers.items()}
    backbone = keras.Model(network.input, levels, name="levels")
    detector = ssd(
        backbone=backbone, anchors=DefaultBoxes((40, 90, 180, 280), aspect_ratios=((2,),) * 3)
    )
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    detector.save(tmp_path / "foreign.keras")
    again = keras.models.load_model(tmp_path / "foreign.keras")
    found, wanted = again.detect(image), detector.detect(image)
    np.testing.assert_array_equal(found["boxes"], wanted["boxes"])


@pytest.mark.parametrize("build", [ssd, centernet_of])
@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda: _application(include_top=False, input_shape=(None, None, 3)), "returns .* of "),
        (lambda: _application(include_top=False, input_shape=(64, 64, 1)), "does not take images"),
        (
            lambda: keras.layers.Dense(3, name="mobilenet"),
            r"of \(None, 64, 64, 3\); expected a dict",
        ),
        (lambda: _Named(name="mobilenet"), "returns maps named fine, coarse; expected a dict"),
    ],
)
def test_what_a_backbone_returns_is_told(build, backbone, message):
    with pytest.raises(ValueError, match=rf"backbone, the \w+ 'mobilenet', .*{message}") as told:
        build(backbone=backbone())
    assert "\n" not in str(told.value)


class _Named(keras.layers.Layer):
    def call(self, images):
        return {"fine": images, "coarse": images}


def _levels(**layers):
    """A network of strides 8 and 16 with two of its layers named."""
    image = keras.Input([64, 64, 3])
    maps = {"fine": keras.layers.Conv2D(4, 3, strides=8, padding="same")(image)}
    maps["coarse"] = keras.layers.Conv2D(4, 3, strides=2, padding="same")(maps["fine"])
    return keras.Model(image, {level: maps[name] for level, name in layers.items()}, name="mine")


def test_a_layer_that_is_named_for_another_level_is_refused_with_its_own():
    right = _levels(**{"3": "fine", "4": "coarse"})
    assert set(features_of("SSD", right, keras.Input([64, 64, 3]))) == {"3", "4"}
    exchanged = _levels(**{"3": "coarse", "4": "fine"})
    words = (
        r"mine.*a map of 4 x 4 for level '3' of images of 64 x 64; expected the stride 8.*level 4"
    )
    with pytest.raises(ValueError, match=words) as refused:
        features_of("SSD", exchanged, keras.Input([64, 64, 3]))
    assert "\n" not in str(refused.value)
    # Small maps are rounded up, and say nothing.
    assert features_of("SSD", _levels(**{"6": "coarse"}), keras.Input([40, 40, 3]))
