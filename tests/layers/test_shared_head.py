import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.heads import SharedSSDHead
from tests.layers.contract import LayerContract, random_maps

SIZES = ((4, 6), (2, 3))


def head_of(**settings) -> SharedSSDHead:
    settings = {"boxes_per_cell": (2, 2), "depth": 2, "width": 5, **settings}
    return SharedSSDHead(4, **settings)


def levels_of(seed=1) -> list[tf.Tensor]:
    return [tf.random.stateless_normal([2, *size, 3], (seed, i)) for i, size in enumerate(SIZES)]


def test_shapes_and_names():
    head = head_of()
    outputs = head(levels_of())
    assert outputs["class_logits"].shape == (2, 2 * (24 + 6), 4)
    assert outputs["box_codes"].shape == (2, 2 * (24 + 6), 4)
    names = [v.name.removesuffix(":0") for v in head.trainable_variables]
    kernels = [name for name in names if name.endswith("kernel")]
    # Kernels are shared: two a tower, and one predictor.
    assert len(kernels) == 6
    assert sum(name.endswith("gamma") for name in names) == 2 * 2 * len(SIZES)
    assert "head/class2_level1_norm/gamma" in names
    assert len(set(names)) == len(names)


def test_values_of_a_level_by_hand():
    head, levels = head_of(), levels_of()
    outputs = head(levels)
    rng = np.random.default_rng(3)
    for variable in head.variables:
        variable.assign(rng.uniform(0.1, 0.5, variable.shape))
    outputs = head(levels)
    weights = {v.name.removesuffix(":0").removeprefix("head/"): v.numpy() for v in head.variables}
    for kind, predictor, key in (
        ("class", "class_predictor", "class_logits"),
        ("box", "box_predictor", "box_codes"),
    ):
        begin = 0
        for level, features in enumerate(levels):
            for depth in (1, 2):
                norm = f"{kind}{depth}_level{level}_norm"
                kernel = weights[f"{kind}{depth}_conv/kernel"]
                features = tf.nn.conv2d(features, kernel, 1, "SAME")
                features = tf.nn.relu6(
                    tf.nn.batch_normalization(
                        features,
                        weights[f"{norm}/moving_mean"],
                        weights[f"{norm}/moving_variance"],
                        weights[f"{norm}/beta"],
                        weights[f"{norm}/gamma"],
                        1e-3,
                    )
                )
            maps = tf.nn.conv2d(features, weights[f"{predictor}/kernel"], 1, "SAME")
            maps = (maps + weights[f"{predictor}/bias"]).numpy()
            # Row, column, anchor; each anchor has its four numbers in a row.
            want = maps.reshape(2, -1, 4)
            got = outputs[key][:, begin : begin + want.shape[1]]
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
            begin += want.shape[1]


def test_initial_values():
    head = head_of(width=64, class_bias=-2.0)
    head(levels_of())
    weights = {v.name.removesuffix(":0").removeprefix("head/"): v.numpy() for v in head.variables}
    np.testing.assert_array_equal(weights["class_predictor/bias"], np.full(8, -2.0, np.float32))
    assert not weights["box_predictor/bias"].any()
    kernel = weights["class2_conv/kernel"]
    assert kernel.std() == pytest.approx(0.01, rel=0.05)
    assert np.abs(kernel).max() > 0.025  # not truncated
    assert not np.allclose(kernel, weights["box2_conv/kernel"])
    published = SharedSSDHead(91, boxes_per_cell=(6,) * 5)
    assert (published.depth, published.width, published.class_bias) == (4, 256, -4.6)


def test_training_normalises_each_level_by_itself():
    head = head_of(depth=1)
    first, second = levels_of()
    alone = head([first, 100.0 * second], training=True)["class_logits"][:, :48]
    np.testing.assert_allclose(head([first, second], training=True)["class_logits"][:, :48], alone)


def test_outputs_are_float32_in_half_precision():
    head = head_of(dtype=keras.mixed_precision.Policy("mixed_float16"))
    outputs = head([tf.cast(level, tf.float16) for level in levels_of()])
    assert {output.dtype for output in outputs.values()} == {tf.float32}
    assert {v.dtype for v in head.variables} == {tf.float32}
    assert head._class_predictor.compute_dtype == "float16"


def test_levels_must_fit_the_anchors():
    with pytest.raises(ValueError, match="the same number of anchors on each"):
        head_of(boxes_per_cell=(4, 6))
    with pytest.raises(ValueError, match="2 feature levels, but the anchors are set for 3"):
        head_of(boxes_per_cell=(2, 2, 2))(levels_of())


class TestSharedSSDHeadContract(LayerContract):
    part = SharedSSDHead
    settings = {
        "num_logits": 4,
        "boxes_per_cell": (2, 2),
        "depth": 2,
        "width": 5,
        "class_bias": -1.0,
        "norm_momentum": 0.9,
        "norm_epsilon": 0.1,
        "kernel_stddev": 0.5,
    }
    inputs = random_maps(8, 4)
    float32 = True
