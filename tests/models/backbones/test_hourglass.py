import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.models.backbones.hourglass import SPECIFICATIONS, Hourglass
from tests.layers.contract import LayerContract, random_maps


def names_of(backbone) -> set[str]:
    return {layer.name for layer in backbone.layers}


@pytest.mark.parametrize("model_id", [10, 20, 32])
def test_stages_and_residual_blocks(model_id):
    blocks, multiples = SPECIFICATIONS[model_id]
    backbone = Hourglass(model_id, num_stacks=1, width=2)
    names = names_of(backbone)
    for stage, (count, multiple) in enumerate(zip(blocks, multiples, strict=True), 1):
        last = stage == len(blocks)
        for part in ("inner",) if last else ("skip", "down", "up"):
            prefix = f"hourglass0_stage{stage}_{part}_block"
            assert sum(n.startswith(prefix) and n.endswith("_add") for n in names) == count
            below = multiples[stage] if part == "down" else multiple
            final = backbone.get_layer(f"{prefix}{count}_2_conv")
            assert final.filters == 2 * below
    # Going down always projects; going up only where the width changes, in the last block.
    for stage in range(1, len(blocks)):
        assert f"hourglass0_stage{stage}_down_block1_projection_conv" in names
        narrower = multiples[stage - 1] != multiples[stage]
        last_up = f"hourglass0_stage{stage}_up_block{blocks[stage - 1]}_projection_conv"
        assert (last_up in names) == narrower
        assert f"hourglass0_stage{stage}_skip_block1_projection_conv" not in names


def test_one_map_a_stack_and_merging_between_them():
    backbone = Hourglass(10, num_stacks=3, width=4)
    outputs = backbone(tf.zeros([1, 32, 48, 3]))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "2_0": (1, 8, 12, 8),
        "2_1": (1, 8, 12, 8),
        "2": (1, 8, 12, 8),
    }
    merges = {n for n in names_of(backbone) if n.endswith("merge_add")}
    assert merges == {"hourglass0_merge_add", "hourglass1_merge_add"}


@pytest.mark.parametrize("size", [(36, 52), (20, 64), (41, 33)])
def test_sizes_that_do_not_halve_are_cut(size):
    outputs = Hourglass(32, num_stacks=1, width=2)(tf.ones([1, *size, 3]))
    assert tuple(outputs["2"].shape) == (1, -(-size[0] // 4), -(-size[1] // 4), 4)


def test_deep_hourglasses_take_small_images():
    backbone = Hourglass(52, num_stacks=1, width=1)
    assert backbone(tf.zeros([1, 96, 96, 3]))["2"].shape == (1, 24, 24, 2)


def test_initial_weights():
    backbone = Hourglass(10, num_stacks=1, width=32)
    gammas = [v.numpy() for v in backbone.variables if "/gamma" in v.name]
    assert gammas and all(np.all(gamma == 1) for gamma in gammas)
    kernel = backbone.get_layer("hourglass0_stage1_skip_block1_1_conv").kernel.numpy()
    assert kernel.std() == pytest.approx(1 / np.sqrt(9 * 64), rel=0.05)


def test_unknown_model_and_no_stack_raise():
    with pytest.raises(ValueError, match=r"must be one of \(10, 20, 32, 52, 100\), got 104"):
        Hourglass(104)
    with pytest.raises(ValueError, match="num_stacks must be 1 or more, got 0"):
        Hourglass(20, num_stacks=0)


class TestHourglassContract(LayerContract):
    part = Hourglass
    settings = {
        "model_id": 10,
        "num_stacks": 3,
        "width": 4,
        "norm_momentum": 0.9,
        "norm_epsilon": 1e-3,
    }
    inputs = random_maps(64, channels=3)[0]

    def test_settings_of_its_norms(self):
        norm = self.build().get_layer("stem_norm")
        assert (norm.momentum, norm.epsilon) == (0.9, 1e-3)
