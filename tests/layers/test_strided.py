"""Convolutions with a stride on maps of one cell: their gradients in bfloat16."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.fpn import FPN
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.layers.strided import Conv2D

SIZES = [(1, 1), (2, 1), (3, 1), (1, 2), (1, 4), (2, 2), (5, 3)]


def made(kind, size, dtype, **settings):
    """A layer of eight channels with set weights, and what it takes."""
    layer = kind(8, 3, 2, "same", dtype=dtype, **settings)
    random = np.random.default_rng(0)
    features = tf.constant(random.normal(size=(4, *size, 8)), tf.float32)
    layer.build(features.shape)
    layer.set_weights([random.normal(size=w.shape).astype(np.float32) for w in layer.weights])
    return layer, features


def traced(layer):
    """Output and gradients of a layer as a graph computes them, float32."""

    @tf.function(autograph=False)
    def step(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            outputs = tf.cast(layer(features), tf.float32)
            loss = tf.reduce_sum(tf.square(outputs))
        return [outputs, *tape.gradient(loss, [features, *layer.trainable_weights])]

    return step


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gradients_in_bfloat16_are_those_of_float32(size):
    exact, features = made(keras.layers.Conv2D, size, "float32")
    rough, _ = made(Conv2D, size, "mixed_bfloat16")
    wanted, step = traced(exact)(features), traced(rough)
    for _ in range(20):
        # What is left in memory is what a gradient that is not set shows.
        left = tf.fill([3, 3, 8, 8], tf.constant(np.nan, tf.bfloat16))
        del left
        for found, want in zip(step(features), wanted, strict=True):
            bound = 0.05 * np.abs(want).max()
            np.testing.assert_allclose(found, want, rtol=0, atol=bound)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_other_precisions_are_keras_own_bit_for_bit(size, dtype):
    ours, features = made(Conv2D, size, dtype)
    theirs, _ = made(keras.layers.Conv2D, size, dtype)
    for one, other in zip(traced(ours)(features), traced(theirs)(features), strict=True):
        np.testing.assert_array_equal(one, other)


def paddings(call, *inputs):
    """The paddings of all strided convolutions of a graph."""
    graph = tf.function(call, autograph=False).get_concrete_function(*inputs).graph
    convs = [op for op in graph.get_operations() if op.type == "Conv2D"]
    return [op.get_attr("padding") for op in convs if max(op.get_attr("strides")) > 1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), [b"VALID"]),
        ((3, 1), [b"VALID"]),
        ((1, 3), [b"VALID"]),
        ((3, 3), [b"SAME"]),
        ((None, None), [b"SAME"]),
    ],
    ids=str,
)
def test_it_is_padded_by_hand_where_a_side_is_one(size, expected):
    layer, _ = made(Conv2D, (3, 3), "mixed_bfloat16")
    assert paddings(layer, tf.TensorSpec([4, *size, 8], tf.bfloat16)) == expected


def test_necks_are_made_of_it():
    levels = [tf.zeros([2, side, side, 8], tf.bfloat16) for side in (8, 4, 2)]
    pyramid = FPN(8, max_level=7, dtype="mixed_bfloat16")
    assert paddings(pyramid, levels) == [b"SAME", b"VALID"]  # Of the maps of 2x2 and 1x1.
    extra = SSDExtraLevels(widths=((8, 8), (8, 8)), strides=(2, 2), dtype="mixed_bfloat16")
    assert paddings(extra, levels[-1:]) == [b"SAME", b"VALID"]


def test_files_name_its_weights_as_those_of_keras_layer():
    assert Conv2D.__name__ == keras.layers.Conv2D.__name__
