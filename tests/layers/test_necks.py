import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.necks import PassLevels, VGGExtraLevels
from tests.layers.contract import LayerContract, random_maps

NARROW_300 = {"widths": ((2, 3),) * 4}
NARROW_512 = {
    "widths": ((2, 3),) * 5,
    "kernels": (3, 3, 3, 3, 4),
    "strides": (2, 2, 2, 2, 1),
    "paddings": (1,) * 5,
}


def sizes(neck, height, width) -> list[tuple[int, int]]:
    levels = [tf.ones([1, 2 * height, 2 * width, 4]), tf.ones([1, height, width, 4])]
    return [tuple(level.shape[1:3]) for level in neck(levels)]


@pytest.mark.parametrize(
    ("settings", "sides"),
    [
        (NARROW_300, (38, 19, 10, 5, 3, 1)),
        (NARROW_512, (64, 32, 16, 8, 4, 2, 1)),
        # So small that the last convolutions would leave nothing: those keep the size.
        (NARROW_300, (12, 6, 3, 2, 2, 2)),
        (NARROW_512, (12, 6, 3, 2, 1, 1, 1)),
    ],
)
def test_sizes_of_levels(settings, sides):
    assert sizes(VGGExtraLevels(**settings), sides[1], sides[1]) == [
        (2 * sides[1], 2 * sides[1]),
        *((side, side) for side in sides[1:]),
    ]


def test_sizes_of_levels_that_are_not_square():
    got = sizes(VGGExtraLevels(**NARROW_300), 16, 5)
    assert got == [(32, 10), (16, 5), (8, 3), (4, 2), (2, 2), (2, 2)]


def test_strided_convolutions_are_padded_on_every_side():
    neck = VGGExtraLevels(((1, 1),), kernels=(3,), strides=(2,), paddings=(1,))
    neck([tf.ones([1, 8, 8, 1]), tf.ones([1, 4, 4, 1])])
    for layer in (*neck._reduce, *neck._expand):
        layer.set_weights([np.ones_like(layer.kernel), np.zeros_like(layer.bias)])
    level = neck([tf.ones([1, 8, 8, 1]), tf.ones([1, 4, 4, 1])])[-1][0, ..., 0]
    # Windows begin at -1 and 1: "same" padding would have them begin at 0 and 2.
    np.testing.assert_array_equal(level, [[4, 6], [6, 9]])


def test_only_the_first_level_is_normalised():
    levels = [tf.fill([1, 8, 8, 4], 3.0), tf.fill([1, 4, 4, 4], 3.0)]
    got = VGGExtraLevels(((2, 3),), kernels=(3,), strides=(2,), paddings=(1,))(levels)
    np.testing.assert_allclose(got[0], tf.fill([1, 8, 8, 4], 10.0), rtol=1e-6)
    np.testing.assert_array_equal(got[1], levels[1])
    plain = VGGExtraLevels(((2, 3),), kernels=(3,), strides=(2,), paddings=(1,), initial_scale=None)
    np.testing.assert_array_equal(plain(levels)[0], levels[0])


def test_settings_of_different_length_raise():
    with pytest.raises(ValueError, match="same number of levels"):
        VGGExtraLevels(strides=(2, 2))


class TestVGGExtraLevelsContract(LayerContract):
    part = VGGExtraLevels
    settings = {**NARROW_512, "initial_scale": 5.0}
    inputs = random_maps(16, 8)


class TestPassLevelsContract(LayerContract):
    part = PassLevels
    settings = {}
    inputs = random_maps(8, 4)
