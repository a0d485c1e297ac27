"""Published EfficientNet-Lite0s: every tensor lands in its place, depthwise kernels turned."""

import numpy as np
import pytest

from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.models.backbones.efficientnet_lite import EfficientNetLite0
from ssd_centernet.models.ssd import SSD
from ssd_centernet.weights import restore
from tests.weights import files

_NORM = ("weight", "bias", "running_mean", "running_var")


def small_lite0(width: float = 1 / 8) -> SSD:
    return SSD(
        EfficientNetLite0(width, output_levels=(3,)),
        num_classes=2,
        image_size=(64, 64),
        neck=SSDExtraLevels(((8, 8),), strides=(2,)),
        anchors=DefaultBoxes((90, 180, 280), aspect_ratios=((2,), (2,))),
    )


def published_tensors() -> dict[str, np.ndarray]:
    """The tensors of PyTorch's network with an eighth of its channels, up to its fifth block."""
    rng = np.random.default_rng(0)
    tensors = {"_conv_stem.weight": (4, 3, 3, 3), "_bn0": 4}
    # In, out, kernel; the first block does not widen.
    for number, (inputs, outputs, kernel) in enumerate(
        [(4, 2, 3), (2, 3, 3), (3, 3, 3), (3, 5, 5), (5, 5, 5)]
    ):
        block, wide = f"_blocks.{number}", inputs * (6 if number else 1)
        if number:
            tensors[f"{block}._expand_conv.weight"] = (wide, inputs, 1, 1)
            tensors[f"{block}._bn0"] = wide
        tensors[f"{block}._depthwise_conv.weight"] = (wide, 1, kernel, kernel)
        tensors[f"{block}._bn1"] = wide
        tensors[f"{block}._project_conv.weight"] = (outputs, wide, 1, 1)
        tensors[f"{block}._bn2"] = outputs
    found = {}
    for name, shape in tensors.items():
        if isinstance(shape, tuple):
            found[name] = files.random_value(rng, shape)
            continue
        found |= {f"{name}.{part}": files.random_value(rng, (shape,)) for part in _NORM}
        found[f"{name}.num_batches_tracked"] = np.int64(0)
    return found


@pytest.fixture
def published(tmp_path):
    tensors = published_tensors()
    rest = {"_conv_head.weight": np.zeros((1280, 40, 1, 1)), "_fc.bias": np.zeros(1000)}
    np.savez(tmp_path / "lite0.npz", **tensors, **rest)
    return tmp_path / "lite0.npz", tensors


def test_all_tensors_up_to_the_last_level_are_used(published):
    path, tensors = published
    detector = small_lite0()
    table = restore(detector, path)
    assert (table.kind, table.convention) == ("classification", "EfficientNet-Lite0 of PyTorch")
    skipped = {name for name in tensors if name.endswith("num_batches_tracked")}
    assert set(table.skipped) == skipped | {"_conv_head.weight", "_fc.bias"}
    assert len(table.restored) == len(tensors) - len(skipped) == len(detector.backbone.variables)
    layer = detector.backbone.get_layer("stage3_block2_depthwise_conv")
    kernel = tensors["_blocks.4._depthwise_conv.weight"]
    for row, column, channel in ((0, 1, 2), (4, 3, 29)):
        assert layer.depthwise_kernel[row, column, channel, 0] == kernel[channel, 0, row, column]
    layer = detector.backbone.get_layer("stage3_block1_expand_conv")
    np.testing.assert_array_equal(
        layer.kernel[0, 0], np.transpose(tensors["_blocks.3._expand_conv.weight"][:, :, 0, 0])
    )
    norm = detector.backbone.get_layer("stage2_block1_depthwise_norm")
    for part, theirs in zip(
        ("gamma", "beta", "moving_mean", "moving_variance"), _NORM, strict=True
    ):
        np.testing.assert_array_equal(getattr(norm, part), tensors[f"_blocks.1._bn1.{theirs}"])


def test_another_width_is_refused_and_changes_nothing(published):
    detector = small_lite0(1 / 4)
    before = files.values(detector)
    with pytest.raises(ValueError, match="none was found with its shape"):
        restore(detector, published[0])
    for name, value in files.values(detector).items():
        np.testing.assert_array_equal(value, before[name])


def test_kernels_of_other_conventions_are_turned_as_before():
    from ssd_centernet.weights.ssd_names import MMDETECTION, SLIM

    assert MMDETECTION.axes("features.0.weight", 4) == (2, 3, 1, 0)
    assert MMDETECTION.axes("features.0.bias", 1) == (0,)
    assert SLIM.axes("conv1/weights", 4) == (0, 1, 2, 3)
