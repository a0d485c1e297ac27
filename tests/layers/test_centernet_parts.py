"""The head and the top-down path of CenterNet."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.heads import CenterNetHead
from ssd_centernet.layers.necks import CenterNetFPN
from tests.layers.contract import LayerContract, random_maps


def levels_of(size: tuple[int, int], count: int = 3) -> list[tf.Tensor]:
    """Make levels of one channel, each half the size of the one before, rounded up."""
    rng, levels = np.random.default_rng(0), []
    for _ in range(count):
        levels.append(tf.constant(rng.uniform(0, 1, (1, *size, 1)), tf.float32))
        size = tuple(-(-side // 2) for side in size)
    return levels


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_top_down_path_by_hand(size):
    levels = levels_of(size)
    neck = CenterNetFPN((1, 1), output_width=1, norm_epsilon=3.0)
    neck(levels)
    # Kernels that hand on the cell itself; at inference the norm halves: 1 / sqrt(1 + 3).
    for variable in neck.variables:
        if "kernel" in variable.name:
            kernel = np.zeros(variable.shape)
            kernel[tuple(side // 2 for side in variable.shape[:2])] = 1.0
            variable.assign(kernel)
    neck._smooths[1].bias.assign([-1.0])
    (got,) = neck(levels)
    first = _double_and_add(levels[2].numpy(), levels[1].numpy()) / 2
    want = np.maximum((_double_and_add(first, levels[0].numpy()) - 1) / 2, 0)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert 0 < np.count_nonzero(want) < want.size


def _double_and_add(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    doubled = coarse.repeat(2, axis=1).repeat(2, axis=2)
    return doubled[:, : fine.shape[1], : fine.shape[2]] + fine


def test_top_down_path_trains_its_norms():
    levels = levels_of((8, 8))
    neck = CenterNetFPN((2, 2), output_width=2)
    neck(levels)
    neck(levels, training=True)
    moved = [v for v in neck.variables if "moving_mean" in v.name]
    assert len(moved) == 2 and all(np.any(v) for v in moved)


def test_widths_of_the_published_path():
    neck = CenterNetFPN()
    (features,) = neck([tf.zeros([1, 2 ** (4 - i), 2 ** (4 - i), 4]) for i in range(4)])
    assert features.shape == (1, 16, 16, 64)
    convolutions = [(conv.filters, conv.kernel_size[0]) for conv in (neck._top, *neck._laterals)]
    assert convolutions == [(256, 1), (256, 1), (128, 1), (64, 1)]
    assert [conv.filters for conv in neck._smooths] == [128, 64, 64]


def test_head_by_hand():
    head = CenterNetHead(2, width=1)
    maps = tf.reshape(tf.range(-8.0, 8.0), [1, 4, 4, 1])
    head([maps, maps])
    for variable in head.variables:
        if "kernel" in variable.name:
            variable.assign(tf.ones_like(variable) * (2.0 if "center1/" in variable.name else 1.0))
    first, second = head([maps, maps])
    # The window at row 2, column 1 holds -4..-2, 0..2 and 4..6; that at 0, 0 sums below zero.
    assert float(first["offset"][0, 2, 1, 0]) == pytest.approx(9.0)
    assert float(first["size"][0, 2, 1, 1]) == pytest.approx(9.0)
    np.testing.assert_allclose(first["center"][0, 2, 1], [9.0 - 2.19] * 2, rtol=1e-6)
    np.testing.assert_allclose(second["center"][0, 2, 1], [18.0 - 2.19] * 2, rtol=1e-6)
    np.testing.assert_allclose(first["center"][0, 0, 0], [-2.19] * 2, rtol=1e-6)


def test_head_is_as_wide_as_its_map_by_default():
    head = CenterNetHead(2)
    head([tf.zeros([1, 4, 4, 6]), tf.zeros([1, 4, 4, 3])])
    assert [conv.filters for conv in head._hidden] == [6, 6, 6, 3, 3, 3]


class TestCenterNetHeadContract(LayerContract):
    part = CenterNetHead
    settings = {"num_classes": 3, "width": 5, "center_bias": -4.0, "regression": "sides"}
    inputs = random_maps(8, 8)
    float32 = True


class TestCenterNetFPNContract(LayerContract):
    part = CenterNetFPN
    settings = {"widths": (4,), "output_width": 3, "norm_momentum": 0.9, "norm_epsilon": 0.1}
    inputs = random_maps(8, 4)
