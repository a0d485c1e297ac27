import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.training import pretrained

EXTRAS = {
    "global_step": np.int64(28152),
    "dense/kernel": np.zeros((8, 10), np.float32),
    "dense/bias": np.zeros((10,), np.float32),
    "conv2d_29/kernel": np.zeros((3, 3, 8, 16), np.float32),
    "batch_normalization_29/gamma": np.ones((16,), np.float32),
    "conv2d/kernel/Momentum": np.zeros((7, 7, 3, 8), np.float32),
    "batch_normalization/beta/Momentum": np.zeros((8,), np.float32),
}


def small_resnet() -> ResNet:
    return ResNet((1, 1), widths=(8, 8), strides=(1, 2), stem_width=8)


def spec_names(count: int) -> list[str]:
    """The names of the specification's section 12, written out without the library."""
    names = []
    for i in range(count):
        n = "" if i == 0 else f"_{i}"
        names.append(f"conv2d{n}/kernel")
        names += [
            f"batch_normalization{n}/{p}"
            for p in ("gamma", "beta", "moving_mean", "moving_variance")
        ]
    return names


def save(prefix, tensors: dict) -> str:
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
    return str(prefix)


def backbone_tensors(backbone, scope="") -> dict:
    """Random values for all variables, found by layer names rather than by the library's map."""
    rng = np.random.default_rng(0)
    stages = ["stem", "group1_block1_1", "group1_block1_2"]
    stages += ["group2_block1_projection", "group2_block1_1", "group2_block1_2"]
    tensors = {}
    for i, stage in enumerate(stages):
        n = "" if i == 0 else f"_{i}"
        kernel = backbone.get_layer(f"{stage}_conv").kernel
        tensors[f"{scope}conv2d{n}/kernel"] = rng.normal(size=kernel.shape).astype(np.float32)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            value = rng.uniform(0.1, 1, size=kernel.shape[-1:]).astype(np.float32)
            tensors[f"{scope}batch_normalization{n}/{part}"] = value
    return tensors


def test_names_of_resnet34_are_those_of_the_published_checkpoint():
    variables = pretrained.tf1_variables(ResNet())
    assert list(variables) == spec_names(29)
    assert variables["conv2d_7/kernel"].shape == (1, 1, 64, 128)
    assert variables["conv2d_8/kernel"].shape == (3, 3, 64, 128)
    assert variables["conv2d_16/kernel"].shape == (1, 1, 128, 256)
    assert variables["conv2d_28/kernel"].shape == (3, 3, 256, 256)
    # The second norm of every block starts at gamma 0, all others at 1.
    zeros = [i for i in range(29) if not np.any(variables[_gamma(i)].numpy())]
    assert zeros == [2, 4, 6, 9, 11, 13, 15, 18, 20, 22, 24, 26, 28]


def _gamma(i: int) -> str:
    return f"batch_normalization{'' if i == 0 else f'_{i}'}/gamma"


@pytest.mark.parametrize("scope", ["", "resnet34/", "model/resnet34/"])
def test_every_tensor_lands_in_its_layer_and_extras_are_counted(tmp_path, scope):
    backbone = small_resnet()
    tensors = backbone_tensors(backbone, scope)
    prefix = save(tmp_path / "model.ckpt-28152", {**tensors, **EXTRAS})
    table = pretrained.restore_backbone_tf1(backbone, prefix)
    assert len(table.restored) == 30
    assert set(table.skipped) == set(EXTRAS)
    projection = backbone.get_layer("group2_block1_projection_conv")
    np.testing.assert_array_equal(projection.kernel, tensors[f"{scope}conv2d_3/kernel"])
    norm = backbone.get_layer("group2_block1_2_norm")
    for part in ("gamma", "beta", "moving_mean", "moving_variance"):
        want = tensors[f"{scope}batch_normalization_5/{part}"]
        np.testing.assert_array_equal(getattr(norm, part), want)
    assert "30 tensors restored" in str(table)
    assert "skipped     global_step" in str(table)


def test_directory_of_another_machine_gives_its_highest_step(tmp_path):
    backbone = small_resnet()
    tensors = backbone_tensors(backbone)
    save(tmp_path / "model.ckpt-9", {n: np.zeros_like(t) for n, t in tensors.items()})
    save(tmp_path / "model.ckpt-28152", tensors)
    elsewhere = 'model_checkpoint_path: "/home/someone/elsewhere/model.ckpt-28152"\n'
    (tmp_path / "checkpoint").write_text(elsewhere)
    table = pretrained.restore_backbone_tf1(backbone, str(tmp_path))
    assert table.checkpoint.endswith("model.ckpt-28152")
    np.testing.assert_array_equal(backbone.get_layer("stem_conv").kernel, tensors["conv2d/kernel"])


def test_index_file_names_its_checkpoint(tmp_path):
    prefix = save(tmp_path / "model.ckpt-1", backbone_tensors(small_resnet()))
    assert pretrained.find_checkpoint(f"{prefix}.index") == prefix


def test_missing_tensor_raises_and_restores_nothing(tmp_path):
    backbone = small_resnet()
    tensors = backbone_tensors(backbone)
    del tensors["batch_normalization_4/moving_mean"]
    before = [value.copy() for value in backbone.get_weights()]
    prefix = save(tmp_path / "ckpt", {**tensors, **EXTRAS})
    with pytest.raises(ValueError, match=r"batch_normalization_4/moving_mean is missing"):
        pretrained.restore_backbone_tf1(backbone, prefix)
    for old, new in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_shape_mismatch_names_both_shapes(tmp_path):
    backbone = small_resnet()
    tensors = backbone_tensors(backbone)
    tensors["conv2d_2/kernel"] = np.zeros((1, 1, 8, 32), np.float32)
    prefix = save(tmp_path / "ckpt", tensors)
    with pytest.raises(
        ValueError, match=r"conv2d_2/kernel has shape \[1, 1, 8, 32\].* needs \[3, 3, 8, 8\]"
    ):
        pretrained.restore_backbone_tf1(backbone, prefix)


def test_unrelated_checkpoint_is_refused(tmp_path):
    prefix = save(tmp_path / "ckpt", {"dense/kernel": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match="none of the 30 tensors.*dense/kernel"):
        pretrained.restore_backbone_tf1(small_resnet(), prefix)


def test_object_checkpoint_is_recognised(tmp_path):
    path = tf.train.Checkpoint(value=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    with pytest.raises(ValueError, match="TensorFlow 2 object checkpoint"):
        pretrained.restore_backbone_tf1(small_resnet(), path)


def test_no_checkpoint_lists_what_is_there(tmp_path):
    (tmp_path / "resnet34.tar.gz").write_text("x")
    with pytest.raises(FileNotFoundError, match="resnet34.tar.gz"):
        pretrained.restore_backbone_tf1(small_resnet(), str(tmp_path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        pretrained.restore_backbone_tf1(small_resnet(), str(tmp_path / "a" / "b"))


def test_backbone_without_numbering_is_refused(tmp_path):
    with pytest.raises(ValueError, match="conv_norm_layers"):
        pretrained.restore_backbone_tf1(tf.Module(), str(tmp_path))
