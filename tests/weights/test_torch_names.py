"""torchvision's networks: every tensor lands in its place, and what differs is made to fit or told.

That torchvision 0.28 itself and this library give equal features for its files was measured apart,
with both installed; docs/weights.md has the numbers. Here its names are written out again.
"""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.necks import PassLevels, VGGExtraLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.models.ssd import SSD
from ssd_centernet.weights import restore
from tests.weights import files

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
SIZE = (64, 64)


def detector(backbone, **preprocessing) -> SSD:
    return SSD(
        backbone,
        num_classes=2,
        image_size=SIZE,
        neck=PassLevels(),
        anchors=DefaultBoxes((20, 40, 60), aspect_ratios=((2,), (2,))),
        preprocessing=Preprocessing(SIZE, **preprocessing),
    )


def conv(tensors, name, out, inside, size, rng, *, bias=False):
    shape = (out, inside, size, size)
    scale = (inside * size * size) ** -0.5
    tensors[f"{name}.weight"] = rng.normal(scale=scale, size=shape).astype(np.float32)
    if bias:
        tensors[f"{name}.bias"] = rng.normal(size=out).astype(np.float32)


def norm(tensors, name, width, rng):
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        tensors[f"{name}.{leaf}"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
    tensors[f"{name}.num_batches_tracked"] = np.array(7, np.int64)


def resnet_tensors(bottleneck: bool) -> dict:
    """The names of torchvision's resnet.py for one block in two groups of 4 and 8 channels."""
    rng, tensors, inside = np.random.default_rng(0), {}, 4
    conv(tensors, "conv1", 4, 3, 7, rng)
    norm(tensors, "bn1", 4, rng)
    for group, width in ((1, 4), (2, 8)):
        out = width * (4 if bottleneck else 1)
        name = f"layer{group}.0"
        sizes = [(width, inside, 1), (width, width, 3), (out, width, 1)]
        if not bottleneck:
            sizes = [(width, inside, 3), (width, width, 3)]
        for index, (a, b, size) in enumerate(sizes, 1):
            conv(tensors, f"{name}.conv{index}", a, b, size, rng)
            norm(tensors, f"{name}.bn{index}", a, rng)
        if inside != out:
            conv(tensors, f"{name}.downsample.0", out, inside, 1, rng)
            norm(tensors, f"{name}.downsample.1", out, rng)
        inside = out
    tensors["fc.weight"] = np.zeros((10, inside), np.float32)
    return tensors


def resnet_by_hand(tensors: dict, pixels: np.ndarray, bottleneck: bool) -> list[np.ndarray]:
    """Compute torchvision's ResNet in plain operations: padding by hand, v1.5 strides."""

    def convolve(x, name, stride=1):
        kernel = tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
        pad = kernel.shape[0] // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        return tf.nn.conv2d(x, kernel, stride, "VALID").numpy()

    def normalise(x, name):
        get = lambda leaf: tensors[f"{name}.{leaf}"]  # noqa: E731
        scale = get("weight") / np.sqrt(get("running_var") + 1e-5)
        return (x - get("running_mean")) * scale + get("bias")

    x = ((pixels - MEAN) / STD).astype(np.float32)
    x = np.maximum(normalise(convolve(x, "conv1", 2), "bn1"), 0)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = tf.nn.max_pool2d(x, 3, 2, "VALID").numpy()
    levels = []
    for group in (1, 2):
        name, stride = f"layer{group}.0", group
        y, last = x, 3 if bottleneck else 2
        for index in range(1, last + 1):
            here = stride if index == (2 if bottleneck else 1) else 1
            y = normalise(convolve(y, f"{name}.conv{index}", here), f"{name}.bn{index}")
            y = np.maximum(y, 0) if index < last else y
        if f"{name}.downsample.0.weight" in tensors:
            x = normalise(convolve(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        x = np.maximum(x + y, 0)
        levels.append(x)
    return levels


def backbone(bottleneck: bool, **settings):
    if bottleneck:
        settings = {"stride_in": "3x3", "activation": "relu"} | settings
        return BottleneckResNet(
            (1, 1),
            widths=(4, 8),
            stem_width=4,
            pool_padding="symmetric",
            output_levels=(2, 3),
            **settings,
        )
    return ResNet(
        (1, 1),
        widths=(4, 8),
        strides=(1, 2),
        stem_width=4,
        output_groups=(1, 2),
        **{"pool_padding": "symmetric"} | settings,
    )


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("inputs", ["same", "not divided", "blue first"])
def test_resnets_give_the_features_of_torchvision(tmp_path, bottleneck, inputs):
    tensors = resnet_tensors(bottleneck)
    path = files.save_torch(tmp_path / "resnet.pth", tensors, legacy=bottleneck)
    preprocessing = {
        "same": {"mean": MEAN, "std": STD, "scale": 1.0},
        "not divided": {"mean": MEAN, "std": (1.0,) * 3, "scale": 1.0},
        "blue first": {"mean": MEAN[::-1], "std": STD[::-1], "scale": 1.0, "channels": "BGR"},
    }[inputs]
    model = detector(backbone(bottleneck), **preprocessing)
    table = restore(model, path)
    assert (table.kind, table.convention) == ("classification", "torchvision ResNet")
    assert {name.rsplit(".", 1)[-1] for name in table.skipped} == {"num_batches_tracked", "weight"}
    # Only what differs is told.
    assert len(table.notes) == (inputs == "not divided")
    pixels = np.random.default_rng(1).uniform(0, 255, (1, 64, 64, 3))
    given = pixels[..., ::-1] if inputs == "blue first" else pixels
    given = (given - preprocessing["mean"]) / preprocessing["std"]
    ours = model.backbone(given.astype(np.float32))
    for level, want in zip("23", resnet_by_hand(tensors, pixels, bottleneck), strict=True):
        np.testing.assert_allclose(ours[level], want, rtol=1e-4, atol=1e-4)


def test_strides_in_another_place_are_refused_and_paddings_told(tmp_path):
    path = files.save_torch(tmp_path / "resnet.pth", resnet_tensors(True))
    model = detector(backbone(True, stride_in="1x1"))
    before = files.values(model)
    with pytest.raises(ValueError, match=r"BottleneckResNet\.stride_in is '1x1', not '3x3'"):
        restore(model, path)
    for name, value in files.values(model).items():
        np.testing.assert_array_equal(value, before[name])
    path = files.save_torch(tmp_path / "basic.pth", resnet_tensors(False))
    table = restore(detector(backbone(False, pool_padding="same")), path)
    assert "ResNet.pool_padding is 'same', not 'symmetric'" in table.notes[-1]
    assert "note " in table.report() and "sha256 " in table.report()


def vgg_tensors(names: dict) -> dict:
    rng = np.random.default_rng(2)
    return {
        name: files.random_value(
            rng, shape if len(shape) == 1 else [shape[i] for i in (3, 2, 0, 1)]
        )
        for name, shape in names.items()
    }


# Positions in torchvision's vgg16().features.
FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
LAYERS = [f"conv{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]


def shapes(model) -> dict:
    return {v.name.removesuffix(":0"): tuple(v.shape) for v in model.variables}


def small_vgg() -> SSD:
    return SSD(
        VGG16(1 / 32),
        num_classes=2,
        image_size=SIZE,
        neck=VGGExtraLevels(((4, 8),), kernels=(3,), strides=(2,), paddings=(1,)),
        anchors=DefaultBoxes((30, 60, 90, 150), aspect_ratios=((2,), (2,), (2,))),
        class_names=("cat", "dog"),
        preprocessing=Preprocessing(SIZE, mean=MEAN, std=(1.0,) * 3, scale=1.0),
    )


def vgg_features(model) -> dict:
    wanted = shapes(model)
    leaves = {"kernel": "weight", "bias": "bias"}
    return {
        f"features.{place}.{leaves[leaf]}": wanted[f"{layer}/{leaf}"]
        for place, layer in zip(FEATURES, LAYERS, strict=True)
        for leaf in leaves
    }


@pytest.mark.parametrize("classifier", [True, False])
def test_the_classifier_tells_torchvisions_vgg_from_caffes(tmp_path, classifier):
    model = small_vgg()
    tensors = vgg_tensors(vgg_features(model))
    if classifier:
        tensors["classifier.6.weight"] = np.zeros((10, 8), np.float32)
    path = files.save_torch(tmp_path / "vgg.pth", tensors)
    table = restore(model, path, exclude=("conv6/", "conv7/"))
    kernel = tensors["features.0.weight"].transpose(2, 3, 1, 0)
    want = kernel / STD[:, None].astype(np.float32) if classifier else kernel
    np.testing.assert_allclose(model.backbone.get_layer("conv1_1").kernel, want, rtol=1e-6)
    assert bool(table.notes) == classifier


def test_keras_vgg_as_keras_1_named_it(tmp_path):
    import h5py

    model = small_vgg()
    tensors = vgg_tensors(vgg_features(model))
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        for place, layer in zip(FEATURES, LAYERS, strict=True):
            block, index = layer.removeprefix("conv").split("_")
            name = f"block{block}_conv{index}"
            kernel = tensors[f"features.{place}.weight"].transpose(2, 3, 1, 0)
            file[f"{name}/{name}_W_1:0"] = kernel
            file[f"{name}/{name}_b_1:0"] = tensors[f"features.{place}.bias"]
    table = restore(model, tmp_path / "vgg.h5", exclude=("conv6/", "conv7/"))
    assert table.convention == "Keras applications" and not table.skipped
    # Caffe's inputs but for the order: blue first.
    kernel = tensors["features.0.weight"].transpose(2, 3, 1, 0)[:, :, ::-1]
    np.testing.assert_array_equal(model.backbone.get_layer("conv1_1").kernel, kernel)


def test_ssd300_has_its_classes_by_coco_ids_and_background_first(tmp_path):
    model = small_vgg()
    wanted = shapes(model)
    leaves = {"kernel": "weight", "bias": "bias"}
    names = {
        f"backbone.{k}": v for k, v in vgg_features(model).items() if int(k.split(".")[1]) < 22
    }
    places = {"conv5_1": "0.1", "conv5_2": "0.3", "conv5_3": "0.5", "conv6": "0.7.1"}
    places |= {"conv7": "0.7.3"}
    neck = model.neck.name
    places |= {f"{neck}/level1_reduce": "1.0", f"{neck}/level1_expand": "1.2"}
    for layer, place in places.items():
        for leaf, theirs in leaves.items():
            names[f"backbone.extra.{place}.{theirs}"] = wanted[f"{layer}/{leaf}"]
    names["backbone.scale_weight"] = wanted[f"{neck}/l2_norm/scale"]
    for level in range(3):
        for leaf, theirs in leaves.items():
            shape = wanted[f"head/class{level}/{leaf}"]
            names[f"head.classification_head.module_list.{level}.{theirs}"] = (
                *shape[:-1],
                4 * 91,
            )
            names[f"head.regression_head.module_list.{level}.{theirs}"] = wanted[
                f"head/box{level}/{leaf}"
            ]
    tensors = vgg_tensors(names)
    table = restore(model, files.save_torch(tmp_path / "ssd.pth", tensors, legacy=True))
    assert (table.convention, table.kind, table.skipped) == ("torchvision SSD300", "detection", ())
    after = files.values(model)
    old = tensors["head.classification_head.module_list.1.weight"].transpose(2, 3, 1, 0)
    old = old.reshape(*old.shape[:3], 4, 91)
    kernel = after["head/class1/kernel"].reshape(*old.shape[:4], 3)
    np.testing.assert_array_equal(kernel, old[..., [0, 17, 18]])  # Ids of cat and dog.
    old = tensors["head.regression_head.module_list.2.bias"].reshape(4, 4)
    np.testing.assert_array_equal(after["head/box2/bias"].reshape(4, 4), old[:, [1, 0, 3, 2]])
    np.testing.assert_array_equal(
        after["conv6/kernel"], tensors["backbone.extra.0.7.1.weight"].transpose(2, 3, 1, 0)
    )
