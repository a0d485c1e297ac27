import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.fpn import FPN
from tests.layers.contract import LayerContract, random_maps

SIZES = ((12, 20), (6, 10), (3, 5))


def levels_of(sizes=SIZES, channels=3, seed=1) -> list[tf.Tensor]:
    return [
        tf.random.stateless_normal([2, *size, channels], (seed, i)) for i, size in enumerate(sizes)
    ]


def weights_of(neck: FPN) -> dict[str, np.ndarray]:
    return {v.name.removesuffix(":0"): v.numpy() for v in neck.variables}


def test_sizes_halve_up_to_the_coarsest_level():
    outputs = FPN(4)(levels_of())
    assert [tuple(o.shape) for o in outputs] == [
        (2, 12, 20, 4),
        (2, 6, 10, 4),
        (2, 3, 5, 4),
        (2, 2, 3, 4),
        (2, 1, 2, 4),
    ]


def test_top_level_is_the_bare_projection():
    neck, levels = FPN(4), levels_of()
    top = neck(levels)[2].numpy()
    weights = weights_of(neck)
    kernel, bias = weights["fpn/lateral5/kernel"], weights["fpn/lateral5/bias"]
    np.testing.assert_allclose(top, levels[2].numpy() @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-6)
    assert top.min() < 0


def test_finer_levels_add_what_is_above_them_twice_as_large():
    neck, levels = FPN(4), levels_of()
    neck(levels)
    weights = weights_of(neck)

    def project(level):
        return levels[level - 3].numpy() @ weights[f"fpn/lateral{level}/kernel"][0, 0]

    merged = project(4) + project(5).repeat(2, axis=1).repeat(2, axis=2)
    merged = project(3) + merged.repeat(2, axis=1).repeat(2, axis=2)
    smooth = tf.nn.conv2d(merged, weights["fpn/smooth3_conv/kernel"], 1, "SAME").numpy()
    want = np.clip(smooth / np.sqrt(1.0 + 1e-3), 0.0, 6.0)  # Fresh statistics: mean 0, variance 1.
    np.testing.assert_allclose(neck(levels)[0], want, rtol=1e-4, atol=1e-6)


def test_coarse_levels_follow_the_top_one_with_tensorflows_padding():
    neck, levels = FPN(4), levels_of()
    outputs = neck(levels)
    kernel = weights_of(neck)["fpn/coarse6_conv/kernel"]
    # Five columns: one cell of padding on both sides. Three rows: likewise.
    padded = np.pad(outputs[2], ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = np.zeros((2, 2, 3, 4), np.float32)
    for row in range(3):
        for column in range(3):
            part = padded[:, row : row + 3 : 2, column : column + 5 : 2]
            sums += part @ kernel[row, column]
    want = np.clip(sums / np.sqrt(1.0 + 1e-3), 0.0, 6.0)
    np.testing.assert_allclose(outputs[3], want, rtol=1e-4, atol=1e-6)


def test_activation_is_bounded_by_six():
    neck = FPN(4)
    levels = [1e4 * level for level in levels_of()]
    outputs = [output.numpy() for output in neck(levels)]
    for index in (0, 1, 3):
        assert outputs[index].min() == 0.0 and outputs[index].max() == 6.0
    assert outputs[2].max() > 6.0


def test_smoothed_top_is_a_setting():
    neck = FPN(4, smooth_top=True)
    outputs = neck(levels_of())
    assert outputs[2].numpy().min() == 0.0
    assert "fpn/smooth5_conv/kernel" in weights_of(neck)


def test_odd_levels_and_other_ranges():
    outputs = FPN(4, min_level=2, max_level=5)(levels_of(((7, 9), (4, 5), (2, 3))))
    assert [tuple(o.shape[1:3]) for o in outputs] == [(7, 9), (4, 5), (2, 3), (1, 2)]
    (only,) = FPN(4, min_level=5, max_level=5)(levels_of(((3, 5),)))
    assert only.shape == (2, 3, 5, 4)


def test_kernels_are_truncated_normal_and_biases_zero():
    neck = FPN(64)
    neck(levels_of(channels=64))
    for name, value in weights_of(neck).items():
        if name.endswith("kernel"):
            assert np.abs(value).max() <= 0.06
            assert value.std() == pytest.approx(0.88 * 0.03, rel=0.05)
        if name.endswith("bias"):
            assert not value.any()


def test_training_uses_batch_statistics():
    neck = FPN(4)
    outputs = neck(levels_of(), training=True)
    # A normed map has mean 0 and deviation 1 before it is cut: half of it survives.
    assert np.mean(outputs[0].numpy() > 0) == pytest.approx(0.5, abs=0.1)
    norm = neck._smooth_norms[0]
    assert norm.momentum == 0.997 and norm.epsilon == 1e-3
    assert norm.moving_mean.numpy().any()


def test_too_many_levels_are_refused():
    with pytest.raises(ValueError, match="gives 3 levels, but the pyramid has those from 3 to 4"):
        FPN(4, max_level=4)(levels_of())
    with pytest.raises(ValueError, match="above"):
        FPN(4, min_level=5, max_level=4)


class TestFPNContract(LayerContract):
    part = FPN
    settings = {
        "width": 8,
        "min_level": 2,
        "max_level": 6,
        "smooth_top": True,
        "norm_momentum": 0.9,
        "norm_epsilon": 0.1,
        "kernel_stddev": 0.1,
    }
    inputs = random_maps(16, 8, 4)
