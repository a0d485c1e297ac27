import sys

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.layers.anchors import MultiscaleAnchors
from ssd_centernet.layers.heads import SharedSSDHead
from ssd_centernet.layers.necks import PassLevels
from ssd_centernet.models.backbones.model_garden import ModelGardenBackbone
from ssd_centernet.models.ssd import SSD
from tests.layers.contract import LayerContract, random_maps

pytest.importorskip("official", reason="tf-models-official is not installed")

SMALL = {"model_type": "mobilenet", "options": {"model_id": "MobileNetV3Small"}}
# Type, options, channels of levels 3, 4 and 5 as the papers give them.
TYPES = [
    ("resnet", {"model_id": 18}, (128, 256, 512)),
    ("mobilenet", {"model_id": "MobileNetV2"}, (32, 96, 320)),
    ("mobilenet", {"model_id": "MobileNetV3Small"}, (24, 48, 96)),
    ("mobilenet", {"model_id": "MobileNetV3Large"}, (40, 112, 160)),
    ("efficientnet", {"model_id": "b0"}, (40, 112, 320)),
    ("mobiledet", {"model_id": "MobileDetCPU"}, (32, 72, 144)),
]


@pytest.mark.parametrize(("model_type", "options", "channels"), TYPES)
def test_levels_have_the_strides_they_are_named_after(model_type, options, channels):
    backbone = ModelGardenBackbone(model_type, options=options)
    outputs = backbone(keras.Input((96, 128, 3)))
    assert {key: tuple(value.shape[1:]) for key, value in outputs.items()} == {
        "3": (12, 16, channels[0]),
        "4": (6, 8, channels[1]),
        "5": (3, 4, channels[2]),
    }
    names = [v.name.removesuffix(":0") for v in backbone.variables]
    assert len(set(names)) == len(names)
    norms = [n for n in names if n.endswith(("/gamma", "/moving_mean", "/moving_variance"))]
    assert norms and all("_norm/" in name for name in norms)
    assert not any("_norm/" in name for name in names if name.endswith("kernel"))
    assert not backbone.losses  # Weight decay has one place.
    kinds = {type(layer).__name__ for layer in backbone._flatten_layers()}
    assert "BatchNormalization" in kinds and "SyncBatchNormalization" not in kinds


def test_spinenet_gives_a_pyramid_of_its_own():
    backbone = ModelGardenBackbone(
        "spinenet", options={"model_id": "49S"}, levels=None, image_size=(128, 256)
    )
    detector = SSD(
        backbone,
        num_classes=2,
        image_size=(128, 256),
        neck=PassLevels(),
        head=lambda k, boxes_per_cell: SharedSSDHead(
            k, boxes_per_cell=boxes_per_cell, depth=1, width=8
        ),
        anchors=MultiscaleAnchors(),
    )
    assert detector.feature_sizes == tuple((128 >> n, 256 >> n) for n in range(3, 8))
    assert not detector.neck.variables
    outputs = backbone(tf.ones([1, 128, 256, 3]))
    for level, handed_on in zip("34567", detector.neck(list(outputs.values())), strict=True):
        assert outputs[level].shape[-1] == 128
        np.testing.assert_array_equal(handed_on, outputs[level])


def test_names_and_initial_weights_do_not_depend_on_what_was_built_before():
    keras.utils.set_random_seed(1)
    first = ModelGardenBackbone(**SMALL)
    keras.layers.Conv2D(1, 1)(keras.Input((4, 4, 1)))
    keras.utils.set_random_seed(1)
    second = ModelGardenBackbone.from_config(first.get_config())
    assert [v.name for v in first.variables] == [v.name for v in second.variables]
    assert first.get_config() == second.get_config()
    names = [v.name for v in first.variables]
    assert names[:2] == ["conv2dbn_block/conv2d/kernel:0", "conv2dbn_block/batch_norm/gamma:0"]
    for left, right in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=left.name)


def test_settings_of_its_norms():
    backbone = ModelGardenBackbone(**SMALL, norm_momentum=0.9, norm_epsilon=1e-5)
    for norm in backbone._flatten_layers():
        if isinstance(norm, keras.layers.BatchNormalization):
            assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)


def test_layers_behind_the_coarsest_level_are_cut_off_but_counted():
    backbone = ModelGardenBackbone(**SMALL, levels=("3",))
    published = backbone.published_layers
    # A stem and the 3 blocks up to stride 8; one more block of stride 8 has not begun.
    assert list(published) == [f"layer_with_weights-{i}" for i in range(4)]
    weights = [id(v) for layer in published.values() for v in layer.variables]
    assert set(weights) == {id(v) for v in backbone.variables}


def test_recipe_settings_reach_the_backbone():
    config.parse(
        [],
        [
            "SSD.backbone = @ModelGardenBackbone()",
            "ModelGardenBackbone.model_type = 'mobilenet'",
            "ModelGardenBackbone.options = "
            "{'model_id': 'MobileNetV3Small', 'filter_size_scale': 0.5}",
        ],
    )
    import gin

    try:
        backbone = gin.get_configurable("ModelGardenBackbone")()
    finally:
        config.clear()
    assert backbone(keras.Input((64, 64, 3)))["5"].shape == (None, 2, 2, 48)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "resnext"}, "'resnext'; this version .* knows .*efficientnet.*mobilenet"),
        ({"model_type": "resnet", "options": {"depth": 18}}, "no option depth; .* model_id"),
        ({"model_type": "mobilenet", "options": {"model_id": "V9"}}, "cannot build mobilenet"),
        ({**SMALL, "levels": ("3", "9")}, r"levels is \('3', '9'\); mobilenet gives 2, 3, 4, 5"),
        ({"model_type": "spinenet"}, "multiples of 128, got .*image_size=None"),
        ({"model_type": "spinenet", "image_size": (300, 256)}, r"image_size=\(300, 256\)"),
    ],
)
def test_settings_that_make_no_network_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelGardenBackbone(**settings)


def test_a_missing_package_is_explained(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "official"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "official", None)
    with pytest.raises(ImportError, match=r'pip install "ssd_centernet\[model_garden\]"'):
        ModelGardenBackbone(**SMALL)


class TestModelGardenBackboneContract(LayerContract):
    part = ModelGardenBackbone
    settings = {
        "model_type": "mobilenet",
        "options": {"model_id": "MobileNetV2", "filter_size_scale": 0.25},
        "levels": ("3", "4"),
        "image_size": (64, 64),
        "activation": "relu",
        "norm_momentum": 0.9,
        "norm_epsilon": 0.01,
    }
    inputs = random_maps(64, channels=3)[0]
