"""Keras' MobileNetV3 and EfficientNet: files that Keras writes give its features here."""

import numpy as np
import pytest

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.necks import PassLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.model_garden import ModelGardenBackbone
from ssd_centernet.models.ssd import SSD
from ssd_centernet.weights import restore
from tests.weights import files

pytest.importorskip("official", reason="tf-models-official is not installed")
SIZE = (64, 64)
APPLICATIONS = {
    "MobileNetV3Large": (
        {"model_type": "mobilenet", "options": {"model_id": "MobileNetV3Large"}},
        {"include_preprocessing": False, "alpha": 1.0},
        ("expanded_conv_5/Add", "expanded_conv_11/Add", "expanded_conv_14/Add"),
    ),
    "MobileNetV3Small": (
        {"model_type": "mobilenet", "options": {"model_id": "MobileNetV3Small"}},
        {"include_preprocessing": False, "alpha": 1.0},
        ("expanded_conv_2/Add", "expanded_conv_7/Add", "expanded_conv_10/Add"),
    ),
    "EfficientNetB1": (
        {
            "model_type": "efficientnet",
            "options": {"model_id": "b1", "se_ratio": 0.25, "se_inner_activation": "swish"},
        },
        {},
        ("block3c_add", "block5d_add", "block7b_add"),
    ),
}


def detector(settings, **preprocessing) -> SSD:
    return SSD(
        ModelGardenBackbone(**settings),
        num_classes=2,
        image_size=SIZE,
        neck=PassLevels(),
        anchors=DefaultBoxes((20, 30, 40, 60), aspect_ratios=((2,),) * 3),
        preprocessing=Preprocessing(SIZE, **preprocessing),
    )


@pytest.mark.parametrize("name", APPLICATIONS)
def test_files_of_keras_give_its_features(tmp_path, name):
    settings, options, layers = APPLICATIONS[name]
    theirs = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(*SIZE, 3), **options
    )
    scale = [v for v in theirs.variables if "normalization" not in v.name]
    files.randomize(scale, seed=1)
    theirs.save_weights(tmp_path / "w.h5")
    # Of a network that divides pixels by nothing: the first kernel must make up for it.
    mean = (127.5,) * 3 if "Mobile" in name else (123.675, 116.28, 103.53)
    std = (127.5,) * 3 if "Mobile" in name else (58.395, 57.12, 57.375)
    model = detector(settings, mean=mean, std=(1.0,) * 3, scale=1.0)
    table = restore(model, tmp_path / "w.h5")
    assert (table.kind, len(table.notes)) == ("classification", 1)
    assert len(table.restored) == len(model.backbone.variables)
    pixels = np.random.default_rng(2).uniform(0, 255, (1, *SIZE, 3)).astype(np.float32)
    ours = model.backbone((pixels - np.float32(mean)).astype(np.float32))
    given = (pixels - np.float32(mean)) / np.float32(std)
    if "Efficient" in name:
        # Keras' own layers before the stem: they are fed what they turn into the same.
        given = given * 255
    outputs = [theirs.get_layer(layer).output for layer in layers]
    for level, want in zip("345", keras.Model(theirs.input, outputs)(given), strict=True):
        largest = np.abs(want).max()
        np.testing.assert_allclose(ours[level], want, rtol=1e-3, atol=1e-4 * largest)


def test_layers_that_this_network_is_built_without_are_missed(tmp_path):
    settings, options, _ = APPLICATIONS["EfficientNetB1"]
    theirs = keras.applications.EfficientNetB1(
        include_top=False, weights=None, input_shape=(*SIZE, 3), **options
    )
    theirs.save_weights(tmp_path / "w.h5")
    model = detector({"model_type": "efficientnet", "options": {"model_id": "b1"}})
    missing = r"se_inner_activation is None, not 'swish'; it has no layers for block1a_se_"
    with pytest.raises(ValueError, match=missing):
        restore(model, tmp_path / "w.h5")
