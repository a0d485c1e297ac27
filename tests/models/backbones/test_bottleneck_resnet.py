import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from tests.layers.contract import LayerContract, random_maps

KERAS_STYLE = {
    "activation": "relu",
    "use_bias": True,
    "pool_padding": "symmetric",
    "norm_momentum": 0.99,
    "norm_epsilon": 1.001e-5,
    "kernel_initializer": "glorot_uniform",
    "output_levels": (2, 3, 4, 5),
}


def tiny(**settings) -> BottleneckResNet:
    settings = {"widths": (4, 4, 8, 8), "stem_width": 8, "output_levels": (2, 3, 4, 5), **settings}
    return BottleneckResNet((1, 2, 1, 1), **settings)


def test_published_sizes():
    slim = BottleneckResNet()
    # 53 kernels, and a gamma and a beta of each; without a classifier.
    assert len(slim.trainable_variables) == 159
    assert sum(np.prod(v.shape) for v in slim.trainable_variables) == 23_508_032
    assert sorted(slim.output) == ["3", "4", "5"]
    assert slim.get_layer("stem_norm").epsilon == 1e-5
    assert slim.get_layer("stem_norm").momentum == 0.997
    deep = BottleneckResNet((3, 4, 23, 3), **KERAS_STYLE)
    assert deep.count_params() == 42_658_176


def test_equals_the_resnet_of_keras():
    ours = BottleneckResNet((3, 4, 6, 3), **KERAS_STYLE)
    theirs = keras.applications.ResNet50(weights=None, include_top=False)
    rng = np.random.default_rng(0)
    for conv, norm in ours.conv_norm_layers:
        group, block, part = [*conv.name.removesuffix("_conv").split("_"), "", ""][:3]
        name = "conv1"
        if group != "stem":
            part = "0" if part == "projection" else part
            name = f"conv{int(group[-1]) + 1}_{block}_{part}"
        kernel, bias = conv.get_weights()
        kernel = rng.normal(size=kernel.shape) / np.sqrt(np.prod(kernel.shape[:3]))
        weights = [kernel, rng.normal(size=bias.shape)]
        statistics = [rng.uniform(0.5, 1.5, bias.shape) for _ in range(4)]
        conv.set_weights(weights)
        theirs.get_layer(f"{name}_conv").set_weights(weights)
        norm.set_weights(statistics)
        theirs.get_layer(f"{name}_bn").set_weights(statistics)
    images = tf.constant(rng.normal(size=(1, 96, 66, 3)), tf.float32)
    got, want = ours(images)["5"], theirs(images)
    assert got.shape == (1, 3, 3, 2048)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_levels_are_taken_before_pixels_drop():
    network = tiny()
    level3 = network.get_layer("group2_block2_relu").output
    behind = network.get_layer("group3_subsample").output
    model = keras.Model(network.inputs, [network.output["3"], level3, behind])
    given, full, half = model(tf.random.stateless_normal([1, 96, 70, 3], (1, 2)))
    np.testing.assert_array_equal(given, full)
    assert full.shape == (1, 12, 9, 16)
    np.testing.assert_array_equal(half, full[:, ::2, ::2])


def test_odd_sizes_round_up_and_small_images_work():
    outputs = tiny()(tf.zeros([2, 75, 33, 3]))
    sizes = {level: tuple(output.shape[1:]) for level, output in outputs.items()}
    assert sizes == {"2": (19, 9, 16), "3": (10, 5, 16), "4": (5, 3, 32), "5": (3, 2, 32)}


def test_activation_is_bounded_inside_blocks_and_free_on_the_sum():
    network = tiny()
    inside = network.get_layer("group1_block1_2_relu")
    after = network.get_layer("group1_block1_relu")
    assert (inside.max_value, after.max_value) == (6.0, None)
    assert network.get_layer("stem_relu").max_value == 6.0
    assert tiny(activation="relu").get_layer("stem_relu").max_value is None


def test_pooling_of_the_stem_pads_as_asked():
    image = tf.random.stateless_normal([1, 16, 16, 3], (3, 4))
    for padding, shift in (("same", 0), ("symmetric", 1)):
        network = tiny(pool_padding=padding, output_levels=(2,))
        layers = [network.get_layer(name).output for name in ("stem_relu", "stem_pool")]
        stem, pooled = keras.Model(network.inputs, layers)(image)
        want = tf.reduce_max(stem[:, 2 - shift : 5 - shift, 4 - shift : 7 - shift], axis=(1, 2))
        np.testing.assert_array_equal(pooled[:, 1, 2], want)


def test_kernels_are_drawn_from_a_truncated_normal_each_by_itself():
    kernels = [conv.kernel.numpy() for conv, _ in BottleneckResNet().conv_norm_layers]
    assert max(np.abs(kernel).max() for kernel in kernels) <= 0.06
    # A normal cut at two deviations has 0.88 of the deviation.
    assert kernels[-1].std() == pytest.approx(0.88 * 0.03, rel=0.01)
    first, second, _ = (kernel for kernel in kernels if kernel.shape == (3, 3, 64, 64))
    assert not np.allclose(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (4, 4)}, "same number of groups"),
        ({"output_levels": (5, 6)}, r"levels \(2, 3, 4, 5\)"),
        ({"output_levels": ()}, "output_levels"),
        ({"activation": "swish"}, "activation must be in"),
        ({"pool_padding": "valid"}, "pool_padding must be in"),
        ({"stride_in": "2x2"}, "stride_in must be in"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


class TestBottleneckResNetContract(LayerContract):
    part = BottleneckResNet
    settings = {
        "blocks": (1, 1, 1, 1),
        "widths": (2, 3, 4, 5),
        "stem_width": 6,
        "output_levels": (3, 4),
        "activation": "relu",
        "use_bias": True,
        "stride_in": "3x3",
        "pool_padding": "symmetric",
        "norm_momentum": 0.9,
        "norm_epsilon": 1e-3,
        "kernel_initializer": keras.initializers.serialize(keras.initializers.HeNormal()),
    }
    inputs = random_maps(64, channels=3)[0]

    def test_groups_above_the_outputs_are_left_out(self):
        assert not any(v.name.startswith("group4") for v in self.build().variables)
