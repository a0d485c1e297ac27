"""Published SSDs: every tensor lands in its place, and names are those of the specifications."""

import json

import numpy as np
import pytest

from ssd_centernet.layers.anchors import DefaultBoxes, MultiscaleAnchors
from ssd_centernet.layers.fpn import FPN
from ssd_centernet.layers.heads import SharedSSDHead
from ssd_centernet.layers.necks import SSDExtraLevels, VGGExtraLevels
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.models.ssd import SSD
from ssd_centernet.weights import restore, ssd_names, tf1_variables
from tests.parity import VECTORS
from tests.weights import files


def reference(name: str):
    return json.loads((VECTORS / name).read_text())


def published_names(detector, convention) -> dict[str, str]:
    parts = (detector.backbone, detector.neck, detector.head)
    return {k: v for part in parts for k, v in convention.of_part(part).items()}


def small_resnet34() -> SSD:
    return SSD(
        ResNet((1, 1), widths=(8, 8), strides=(1, 2), stem_width=8),
        num_classes=3,
        image_size=(64, 64),
        neck=SSDExtraLevels(((8, 8),), strides=(2,)),
        anchors=DefaultBoxes((90, 180, 280), aspect_ratios=((2,), (2,))),
    )


def small_fpn(num_classes=3, class_names=None) -> SSD:
    return SSD(
        BottleneckResNet((1, 1, 1, 1), widths=(4, 4, 4, 4), stem_width=4),
        num_classes=num_classes,
        image_size=(128, 128),
        neck=FPN(8),
        head=lambda k, boxes_per_cell: SharedSSDHead(
            k, boxes_per_cell=boxes_per_cell, depth=2, width=8
        ),
        anchors=MultiscaleAnchors(),
        class_names=class_names,
    )


def small_vgg() -> SSD:
    return SSD(
        VGG16(1 / 32),
        num_classes=2,
        image_size=(64, 64),
        neck=VGGExtraLevels(((4, 8),), kernels=(3,), strides=(2,), paddings=(1,)),
        anchors=DefaultBoxes((30, 60, 90, 150), aspect_ratios=((2,), (2,), (2,))),
        class_names=("cat", "dog"),
    )


def spec_names(count: int) -> list[str]:
    """The names of docs/reference/ssd_resnet34.md, section 12, written out without the library."""
    names = []
    for i in range(count):
        n = "" if i == 0 else f"_{i}"
        names.append(f"conv2d{n}/kernel")
        names += [
            f"batch_normalization{n}/{p}"
            for p in ("gamma", "beta", "moving_mean", "moving_variance")
        ]
    return names


def test_names_of_resnet34_are_those_of_the_published_checkpoint():
    variables = tf1_variables(ResNet(widths=(4, 6, 8), stem_width=4))
    assert list(variables) == spec_names(29)
    assert variables["conv2d_7/kernel"].shape == (1, 1, 4, 6)
    assert variables["conv2d_8/kernel"].shape == (3, 3, 4, 6)
    assert variables["conv2d_16/kernel"].shape == (1, 1, 6, 8)
    assert variables["conv2d_28/kernel"].shape == (3, 3, 8, 8)
    # The second norm of every block starts at gamma 0, all others at 1.
    names = [f"batch_normalization{f'_{i}' if i else ''}/gamma" for i in range(29)]
    zeros = [i for i, name in enumerate(names) if not np.any(variables[name].numpy())]
    assert zeros == [2, 4, 6, 9, 11, 13, 15, 18, 20, 22, 24, 26, 28]


@pytest.mark.parametrize("scope", ["", "resnet34/", "model/resnet34/"])
def test_resnet34_by_numbers(tmp_path, scope):
    detector = small_resnet34()
    stages = ["stem", "group1_block1_1", "group1_block1_2"]
    stages += ["group2_block1_projection", "group2_block1_1", "group2_block1_2"]
    rng = np.random.default_rng(0)
    tensors = {}
    for i, stage in enumerate(stages):
        n = "" if i == 0 else f"_{i}"
        kernel = detector.backbone.get_layer(f"{stage}_conv").kernel
        tensors[f"{scope}conv2d{n}/kernel"] = files.random_value(rng, kernel.shape)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            name = f"{scope}batch_normalization{n}/{part}"
            tensors[name] = files.random_value(rng, kernel.shape[-1:])
    extras = {
        "global_step": np.int64(28152),
        "conv2d_29/kernel": np.zeros((3, 3, 8, 16), np.float32),
        "conv2d/kernel/Momentum": np.zeros((7, 7, 3, 8), np.float32),
    }
    prefix = files.save_tf1(tmp_path / "model.ckpt-28152", {**tensors, **extras})
    table = restore(detector, prefix)
    assert (table.kind, len(table.restored), set(table.skipped)) == (
        "classification",
        30,
        set(extras),
    )
    projection = detector.backbone.get_layer("group2_block1_projection_conv")
    np.testing.assert_array_equal(projection.kernel, tensors[f"{scope}conv2d_3/kernel"])
    norm = detector.backbone.get_layer("group2_block1_2_norm")
    for part in ("gamma", "beta", "moving_mean", "moving_variance"):
        want = tensors[f"{scope}batch_normalization_5/{part}"]
        np.testing.assert_array_equal(getattr(norm, part), want)


def scoped_names(detector, convention, scopes) -> dict[str, int]:
    """Names of all variables in the original, with the rank of each."""
    names = {}
    for part, scope in zip(("backbone", "neck", "head"), scopes, strict=True):
        layer = getattr(detector, part)
        ranks = {v.name.removesuffix(":0"): v.shape.rank for v in layer.variables}
        published = convention.of_part(layer)
        assert set(published) == set(ranks)
        names |= {scope + published[name]: rank for name, rank in ranks.items()}
    return names


def test_whole_ssd_resnet34_has_every_name_of_the_original():
    wanted = reference("ssd_resnet34/variables.json")["variables"]
    detector = SSD(
        ResNet(widths=(4, 6, 8), stem_width=4), num_classes=1, neck=SSDExtraLevels(((4, 4),) * 5)
    )
    scopes = ("resnet34/", "ssd/", "ssd/")
    assert scoped_names(detector, ssd_names.SSD_RESNET34, scopes) == {
        v["name"]: len(v["shape"]) for v in wanted
    }


def test_slim_names_are_those_of_the_original():
    wanted = reference("ssd320_resnet50_fpn/variables.json")["variables"]
    detector = SSD(
        BottleneckResNet(widths=(4, 4, 4, 4), stem_width=4),
        num_classes=1,
        image_size=(128, 128),
        neck=FPN(4),
        head=lambda k, boxes_per_cell: SharedSSDHead(k, boxes_per_cell=boxes_per_cell, width=4),
        anchors=MultiscaleAnchors(),
    )
    backbone = "FeatureExtractor/resnet_v1_50/"
    scopes = (backbone, backbone, "WeightSharedConvolutionalBoxPredictor/")
    assert scoped_names(detector, ssd_names.SLIM, scopes) == {
        v["name"]: len(v["shape"]) for v in wanted
    }


def test_slim_classification_checkpoint_under_its_own_scope(tmp_path):
    detector = small_fpn()
    rng = np.random.default_rng(1)
    names = ssd_names.SLIM.of_part(detector.backbone)
    assert names["group2_block1_projection_conv/kernel"] == (
        "block2/unit_1/bottleneck_v1/shortcut/weights"
    )
    assert names["group4_block1_2_norm/moving_mean"] == (
        "block4/unit_1/bottleneck_v1/conv2/BatchNorm/moving_mean"
    )
    assert names["stem_norm/gamma"] == "conv1/BatchNorm/gamma"
    shapes = {v.name.removesuffix(":0"): v.shape for v in detector.backbone.variables}
    tensors = {
        f"resnet_v1_50/{published}": files.random_value(rng, shapes[name])
        for name, published in names.items()
    }
    extras = {
        "resnet_v1_50/logits/weights": np.zeros((1, 1, 16, 1000), np.float32),
        "global_step": np.int64(7),
    }
    before = files.values(detector)
    table = restore(detector, files.save_tf1(tmp_path / "model.ckpt", {**tensors, **extras}))
    assert (table.kind, table.skipped) == ("classification", tuple(sorted(extras)))
    after = files.values(detector)
    for name, published in names.items():
        np.testing.assert_array_equal(after[name], tensors[f"resnet_v1_50/{published}"])
    for name in set(before) - set(names):
        np.testing.assert_array_equal(after[name], before[name])
    assert set(table.fresh) == set(before) - set(names)


def test_slim_detector_of_other_classes_keeps_what_both_know(tmp_path):
    detector = small_fpn(2, ("toothbrush", "unicorn"))
    rng = np.random.default_rng(2)
    names = published_names(detector, ssd_names.SLIM)
    head = {v.name.removesuffix(":0") for v in detector.head.variables}
    scopes = ("FeatureExtractor/resnet_v1_50/", "WeightSharedConvolutionalBoxPredictor/")
    tensors = {}
    for variable in detector.variables:
        name = variable.name.removesuffix(":0")
        shape = list(variable.shape)
        if name.startswith("head/class_predictor"):
            shape[-1] = 6 * 91  # Background and COCO's ids 1 to 90.
        tensors[scopes[name in head] + names[name]] = files.random_value(rng, shape)
    before = files.values(detector)
    table = restore(detector, files.save_tf1(tmp_path / "model.ckpt-9", tensors))
    assert (table.kind, table.skipped, table.fresh) == ("detection", (), ())
    assert [(v, k, n) for _, v, k, n in table.classes] == [
        ("head/class_predictor/kernel", 1, 2),
        ("head/class_predictor/bias", 1, 2),
    ]
    after = files.values(detector)
    kernel = after["head/class_predictor/kernel"].reshape(3, 3, 8, 6, 3)
    old = tensors[f"{scopes[1]}ClassPredictor/weights"].reshape(3, 3, 8, 6, 91)
    np.testing.assert_array_equal(kernel[..., 0], old[..., 0])
    np.testing.assert_array_equal(kernel[..., 1], old[..., 90])
    fresh = before["head/class_predictor/kernel"].reshape(kernel.shape)
    np.testing.assert_array_equal(kernel[..., 2], fresh[..., 2])
    np.testing.assert_array_equal(
        after["head/box2_level3_norm/gamma"],
        tensors[f"{scopes[1]}BoxPredictionTower/conv2d_1/BatchNorm/feature_3/gamma"],
    )
    np.testing.assert_array_equal(
        after["fpn/coarse7_conv/kernel"], tensors[f"{scopes[0]}fpn/bottom_up_block6/weights"]
    )


@pytest.mark.parametrize(("size", "extra"), [(300, 4), (512, 5)])
def test_vgg_names_are_those_of_the_original(size, extra):
    wanted = reference(f"ssd_vgg16/params_ssd{size}.json")
    levels = 2 + extra
    detector = SSD(
        VGG16(1 / 32),
        num_classes=1,
        image_size=(128, 128),
        neck=VGGExtraLevels(
            ((4, 4),) * extra, kernels=(3,) * extra, strides=(1,) * extra, paddings=(1,) * extra
        ),
        anchors=DefaultBoxes(
            tuple(range(30, 31 + 30 * levels, 30)), aspect_ratios=((2,),) * levels
        ),
    )
    scopes = ("backbone.", "backbone.", "bbox_head.")
    assert scoped_names(detector, ssd_names.MMDETECTION, scopes) == {
        v["name"]: len(v["shape"]) for v in wanted
    }


def torch_tensors(detector, prefixes: dict, convention, num_classes: int) -> dict:
    rng = np.random.default_rng(3)
    tensors = {}
    for part in ("backbone", "neck", "head"):
        layer = getattr(detector, part)
        for name, published in convention.of_part(layer).items():
            shape = next(v.shape for v in layer.variables if v.name == f"{name}:0").as_list()
            if "cls_convs" in published:
                shape[-1] = shape[-1] // 3 * (num_classes + 1)
            if len(shape) == 4:
                shape = [shape[3], shape[2], shape[0], shape[1]]
            tensors[prefixes[part] + published] = files.random_value(rng, shape)
    return tensors


@pytest.mark.parametrize("new", [False, True])
def test_mmdetection_checkpoint(tmp_path, new):
    detector = small_vgg()
    convention = ssd_names.MMDETECTION_NECK if new else ssd_names.MMDETECTION
    prefixes = {"backbone": "backbone.", "neck": "backbone.", "head": "bbox_head."}
    if new:
        prefixes["neck"] = "neck."
    tensors = torch_tensors(detector, prefixes, convention, 80)
    extra = "neck.extra_layers.0.1.conv" if new else "backbone.extra.1"
    conv = ".0.weight" if new else ".weight"
    assert tensors[f"{extra}.weight"].shape == (8, 4, 3, 3)
    path = files.save_safetensors(tmp_path / "ssd.safetensors", tensors)
    table = restore(detector, path)
    assert (table.kind, table.skipped) == ("detection", ())
    after = files.values(detector)
    np.testing.assert_array_equal(
        after["conv6/kernel"], tensors["backbone.features.31.weight"].transpose(2, 3, 1, 0)
    )
    # Of three levels' four anchors each: classes then background there, background first here.
    old = tensors[f"bbox_head.cls_convs.1{conv}"].transpose(2, 3, 1, 0)
    old = old.reshape(*old.shape[:3], 4, 81)
    kernel = after["head/class1/kernel"].reshape(*old.shape[:4], 3)
    np.testing.assert_array_equal(kernel, old[..., [80, 15, 16]])  # Cat and dog are 15 and 16.
    # Boxes are (dx, dy, dw, dh) there and (ty, tx, th, tw) here.
    old = tensors[f"bbox_head.reg_convs.2{conv}"].transpose(2, 3, 1, 0)
    old = old.reshape(*old.shape[:3], 4, 4)
    box = after["head/box2/kernel"].reshape(old.shape)
    np.testing.assert_array_equal(box, old[..., [1, 0, 3, 2]])
    norm = "neck" if new else "backbone"
    np.testing.assert_array_equal(
        after["extra_levels/l2_norm/scale"], tensors[f"{norm}.l2_norm.weight"]
    )


def test_plain_vgg_has_no_conv6_and_conv7(tmp_path):
    detector = small_vgg()
    tensors = torch_tensors(
        detector, dict.fromkeys(("backbone", "neck", "head"), ""), ssd_names.MMDETECTION, 2
    )
    plain = {
        name: value
        for name, value in tensors.items()
        if name.startswith("features.") and not name.startswith(("features.31", "features.33"))
    }
    plain["classifier.6.bias"] = np.zeros(1000, np.float32)
    np.savez(tmp_path / "vgg.npz", **plain)
    with pytest.raises(
        ValueError,
        match=r"features\.31\.weight is missing, for conv6/kernel.*fine_tune_exclude = "
        r"\('conv6/', 'conv7/',\)",
    ):
        restore(detector, tmp_path / "vgg.npz")
    table = restore(detector, tmp_path / "vgg.npz", exclude=("conv6/", "conv7/"))
    assert len(table.restored) == 26
    assert table.skipped == ("classifier.6.bias",)
