import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.models.backbones.efficientnet_lite import EfficientNetLite0
from tests.layers.contract import LayerContract, random_maps


def test_published_sizes():
    network = EfficientNetLite0()
    # 48 kernels, and a gamma and a beta of each; the paper's 4.7 million less the classifier.
    assert len(network.trainable_variables) == 144
    trained = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert trained == 4_652_008 - 1000 * 1281 - 1280 * (320 + 2)
    assert sorted(network.output) == ["3", "4", "5"]
    norm = network.get_layer("stage7_block1_project_norm")
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    names = [conv.name for conv, _ in network.conv_norm_layers]
    assert names[:4] == [
        "stem_conv",
        "stage1_block1_depthwise_conv",
        "stage1_block1_project_conv",
        "stage2_block1_expand_conv",
    ]
    assert len(names) == 48


def test_levels_have_the_strides_they_are_named_after():
    network = EfficientNetLite0(0.5, output_levels=(1, 2, 3, 4, 5))
    outputs = network(tf.zeros([2, 75, 33, 3]))
    assert {level: tuple(output.shape[1:]) for level, output in outputs.items()} == {
        "1": (38, 17, 8),
        "2": (19, 9, 12),
        "3": (10, 5, 20),
        "4": (5, 3, 56),
        "5": (3, 2, 160),
    }
    finest = EfficientNetLite0(output_levels=(3,))
    assert list(finest.output) == ["3"]
    assert not any("stage4" in v.name for v in finest.variables)


def test_only_blocks_that_keep_the_shape_have_a_shortcut_and_their_sum_has_no_activation():
    network = EfficientNetLite0(1 / 4)
    added = [layer.name for layer in network.layers if layer.name.endswith("_add")]
    stages = [name.split("_")[0] for name in added]
    assert stages == ["stage2", "stage3", *["stage4"] * 2, *["stage5"] * 2, *["stage6"] * 3]
    assert not any("block1" in name for name in added)
    relus = [layer for layer in network.layers if isinstance(layer, keras.layers.ReLU)]
    assert {float(relu.max_value) for relu in relus} == {6.0}
    assert len(relus) == 48 - 16


def test_kernels_are_drawn_with_the_variance_of_their_outputs():
    network = EfficientNetLite0()
    for name, fan_out in (("stage7_block1_expand", 1152), ("stage7_block1_depthwise", 9)):
        (kernel,) = network.get_layer(f"{name}_conv").get_weights()
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_levels": (3, 6)}, r"levels \(1, 2, 3, 4, 5\), got output_levels=\(3, 6\)"),
        ({"output_levels": ()}, r"got output_levels=\(\)"),
        ({"blocks": (1, 2)}, r"each of 7 stages, got \(1, 2\)"),
        ({"blocks": (1, 2, 0, 3, 3, 4, 1)}, "at least 1"),
        ({"width": 0.05}, "at least 1/16, .* got 0.05"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite0(**settings)


class TestEfficientNetLite0Contract(LayerContract):
    part = EfficientNetLite0
    settings = {
        "width": 0.25,
        "blocks": (1, 1, 2, 1, 1, 1, 1),
        "output_levels": (2, 4),
        "norm_momentum": 0.9,
        "norm_epsilon": 1e-5,
    }
    inputs = random_maps(64, channels=3)[0]
