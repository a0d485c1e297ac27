import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.heads import SSDHead
from ssd_centernet.layers.necks import SSDExtraLevels
from tests.layers.contract import LayerContract, random_maps


def test_published_sizes_of_the_extra_levels():
    levels = SSDExtraLevels()([tf.zeros([1, 38, 38, 256])])[1:]
    shapes = [tuple(level.shape[1:]) for level in levels]
    assert shapes == [(19, 19, 512), (10, 10, 512), (5, 5, 256), (3, 3, 256), (1, 1, 256)]


def test_strided_levels_are_padded_same():
    layer = SSDExtraLevels(((1, 1),), strides=(2,))
    inputs = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
    layer([inputs])
    ones = [np.ones((1, 1, 1, 1)), np.zeros(1), np.ones((3, 3, 1, 1)), np.zeros(1)]
    layer.set_weights(ones)
    # SAME at stride 2 on four cells pads behind only: the first window is rows and columns 0..2.
    got = layer([inputs])[1].numpy()[0, ..., 0]
    np.testing.assert_allclose(got, [[45.0, 39.0], [66.0, 50.0]])


def test_small_maps_stop_shrinking():
    layer = SSDExtraLevels(((4, 4),) * 5)
    shapes = [tuple(level.shape[1:3]) for level in layer([tf.zeros([1, 12, 20, 4])])[1:]]
    assert shapes == [(6, 10), (3, 5), (2, 3), (2, 3), (2, 3)]
    assert {conv.padding for conv in layer._expand} == {"same"}


def test_levels_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="5 widths and 2 strides"):
        SSDExtraLevels(((1, 1),) * 5, strides=(2, 2))
    head = SSDHead(3, boxes_per_cell=(4, 6))
    with pytest.raises(ValueError, match="3 feature levels, but the anchors are set for 2"):
        head([tf.zeros([1, 4, 4, 2])] * 3)


def test_order_is_level_row_column_anchor():
    head = SSDHead(2, boxes_per_cell=(3, 1))
    levels = [tf.reshape(tf.range(6.0), [1, 2, 3, 1]), tf.fill([1, 1, 1, 1], 100.0)]
    head(levels)
    weights = []
    # Only the middle of each kernel counts, so an output is its own cell times a channel's number.
    for filters, depth in ((6, 2), (2, 2), (12, 4), (4, 4)):
        kernel = np.zeros((3, 3, 1, filters))
        kernel[1, 1, 0] = 10.0 ** np.arange(filters // depth).repeat(depth)
        weights.append((kernel, np.arange(depth * (filters // depth)) % depth / 10.0))
    convs = [*head._class_convs, *head._box_convs]
    for conv, values in zip(convs, weights, strict=True):
        conv.set_weights(values)
    outputs = head(levels)
    cells = [(cell, anchor) for cell in range(6) for anchor in range(3)]
    first = [cell * 10.0**anchor for cell, anchor in cells]
    logits = outputs["class_logits"].numpy()[0]
    np.testing.assert_allclose(logits[:, 0], [*first, 100.0])
    np.testing.assert_allclose(logits[:, 1], np.array([*first, 100.0]) + 0.1, rtol=1e-6)
    codes = outputs["box_codes"].numpy()[0]
    assert codes.shape == (19, 4)
    np.testing.assert_allclose(codes[:, 3], np.array([*first, 100.0]) + 0.3, rtol=1e-6)


def test_initial_values():
    keras.utils.set_random_seed(0)
    head = SSDHead(81, boxes_per_cell=(4,))
    head([tf.zeros([1, 5, 5, 64])])
    kernel, bias = head._class_convs[0].get_weights()
    limit = np.sqrt(6 / (9 * 64 + 9 * 324))  # Glorot
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert not np.any(bias)


def test_outputs_are_float32_under_mixed_precision():
    head = SSDHead(2, boxes_per_cell=(1,), dtype=keras.mixed_precision.Policy("mixed_bfloat16"))
    outputs = head([tf.zeros([1, 2, 2, 3])])
    assert head._class_convs[0].compute_dtype == "bfloat16"
    assert head._class_convs[0].kernel.dtype == tf.float32
    assert {value.dtype for value in outputs.values()} == {tf.float32}


class TestSSDExtraLevelsContract(LayerContract):
    part = SSDExtraLevels
    settings = {"widths": ((1, 2), (3, 4)), "strides": (2, 1), "activation": "relu6"}
    inputs = random_maps(8)

    def test_levels_end_at_six(self):
        ends = {}
        for activation in ("relu", "relu6"):
            neck = SSDExtraLevels(**{**self.settings, "activation": activation})
            neck.build([(1, 8, 8, 4)])
            for layer in (*neck._reduce, *neck._expand):
                layer.bias_initializer = keras.initializers.Constant(100.0)
            ends[activation] = float(tf.reduce_max(neck([tf.zeros([1, 8, 8, 4])])[1]))
        assert ends["relu6"] == 6.0 and ends["relu"] > 6.0
        with pytest.raises(ValueError, match=r"activation must be one of \('relu', 'relu6'\)"):
            SSDExtraLevels(activation="swish")


class TestSSDHeadContract(LayerContract):
    part = SSDHead
    settings = {"num_logits": 5, "boxes_per_cell": (2, 4)}
    inputs = random_maps(4, 2)
    float32 = True
