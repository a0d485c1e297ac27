import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.upsampling import UpsampleAdd
from tests.layers.contract import LayerContract, random_maps


@pytest.mark.parametrize("size", [(4, 6), (3, 6), (3, 5), (4, 5)])
def test_every_cell_of_the_coarse_map_is_added_to_four(size):
    coarse = tf.reshape(tf.range(12, dtype=tf.float32), [1, 2, 3, 2])
    fine = tf.ones([1, *size, 2]) * 100.0
    got = UpsampleAdd()([coarse, fine]).numpy()
    assert got.shape == fine.shape
    for y, x in np.ndindex(size):
        np.testing.assert_array_equal(got[0, y, x] - 100.0, coarse[0, y // 2, x // 2])


def test_static_sizes_are_kept_and_unknown_ones_taken():
    def build(size):
        inputs = [keras.Input((None, None, 2)), keras.Input((*size, 2))]
        return keras.Model(inputs, UpsampleAdd()(inputs))

    assert build((5, 8)).output_shape == (None, 5, 8, 2)
    got = build((None, None))([tf.ones([2, 2, 4, 2]), tf.ones([2, 3, 7, 2])])
    np.testing.assert_array_equal(got, np.full((2, 3, 7, 2), 2.0))


@pytest.mark.parametrize("size", [(4, 6), (3, 6), (3, 5), (4, 5)])
def test_one_resize_is_the_same_to_the_bit(size):
    rng = np.random.default_rng(4)
    coarse, fine = (
        tf.constant(rng.normal(size=s), tf.float32) for s in ((2, 2, 3, 2), (2, *size, 2))
    )

    def graph():
        # Another function each time, so that each is traced.
        return tf.function(lambda a, b: UpsampleAdd()([a, b])).get_concrete_function(coarse, fine)

    def has_resize(function):
        return any(one.type == "ResizeNearestNeighbor" for one in function.graph.get_operations())

    plain = graph()
    with UpsampleAdd.resizing():
        resized = graph()
    np.testing.assert_array_equal(plain(coarse, fine), resized(coarse, fine))
    assert has_resize(resized) and not has_resize(plain) and not has_resize(graph())


def test_gradient_of_a_coarse_cell_counts_its_copies():
    coarse, fine = tf.ones([1, 2, 2, 1]), tf.zeros([1, 3, 3, 1])
    with tf.GradientTape() as tape:
        tape.watch(coarse)
        total = tf.reduce_sum(UpsampleAdd()([coarse, fine]))
    assert tape.gradient(total, coarse).numpy().reshape(2, 2).tolist() == [[4, 2], [2, 1]]


class TestUpsampleAddContract(LayerContract):
    part = UpsampleAdd
    settings = {}
    inputs = random_maps(4, 8)
