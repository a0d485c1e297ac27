"""Names of our variables in published SSDs and backbones: TF1, TF-slim, Caffe, MMDetection."""

from __future__ import annotations

import re

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.fpn import FPN
from ssd_centernet.layers.heads import SharedSSDHead, SSDHead
from ssd_centernet.layers.necks import SSDExtraLevels, VGGExtraLevels
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.weights.convention import (
    Convention,
    Names,
    Template,
    named,
    rename_all,
)

NORM_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")

# --- TensorFlow 1: ResNet-34 with numbered layers (docs/reference/ssd_resnet34.md, section 12).


def tf1_variables(backbone: keras.Model) -> dict[str, tf.Variable]:
    """Map the tensor names of a published TensorFlow 1 ResNet to a backbone's variables.

    Args:
        backbone: has `conv_norm_layers`, pairs in the checkpoint's order (our `ResNet`).

    Returns:
        `conv2d/kernel`, `batch_normalization/gamma`, ..., `conv2d_1/kernel`, ... -> variable, in
        the order of the published program.

    Source: docs/reference/ssd_resnet34.md, sections 5.2 and 12
    """
    variables = {}
    for index, (conv, norm) in enumerate(backbone.conv_norm_layers):
        suffix = f"_{index}" if index else ""
        variables[f"conv2d{suffix}/kernel"] = conv.kernel
        for part in NORM_PARTS:
            variables[f"batch_normalization{suffix}/{part}"] = getattr(norm, part)
    return variables


def _numbered(backbone: ResNet) -> Names:
    pairs = tf1_variables(backbone).items()
    return {variable.name.removesuffix(":0"): name for name, variable in pairs}


SSD_RESNET34 = Convention(
    "TensorFlow 1 SSD300 ResNet-34",
    {
        ResNet: _numbered,
        SSDExtraLevels: named(
            {
                r"level(\d+)_reduce/(\w+)": lambda m: f"block{int(m[1]) + 6}-conv1x1/{m[2]}",
                r"level(\d+)_expand/(\w+)": lambda m: f"block{int(m[1]) + 6}-conv3x3/{m[2]}",
            }
        ),
        SSDHead: named(
            {r"(class|box)(\d+)/(\w+)": lambda m: f"{m[1]}_net/{m[1]}-{int(m[2]) + 3}/{m[3]}"}
        ),
    },
)

# --- TF-slim, as the Object Detection API names it (ssd320_resnet50_fpn, 3 and 10).

_SLIM_PARTS = {"kernel": "weights", "bias": "biases"}


def _slim_unit(match: re.Match) -> str:
    conv = "shortcut" if match[3] == "projection" else f"conv{match[3]}"
    return f"block{match[1]}/unit_{match[2]}/bottleneck_v1/{conv}/{_slim_leaf(match[4])}"


def _slim_leaf(text: str) -> str:
    kind, leaf = text.split("/")
    return f"BatchNorm/{leaf}" if kind.endswith("norm") else _SLIM_PARTS[leaf]


def _slim_pyramid(neck: FPN) -> Names:
    """Projections and smoothings count from the finest level, strided blocks from block 5."""
    finest, coarse = neck.min_level - 1, neck.min_level + 2

    def rename(match: re.Match) -> str:
        level = int(match[2])
        if match[1] == "coarse":
            return f"fpn/bottom_up_block{level - coarse + 4}/{_slim_leaf(match[3])}"
        kind = "projection" if match[1] == "lateral" else "smoothing"
        return f"fpn/{kind}_{level - finest}/{_slim_leaf(match[3].lstrip('/'))}"

    rules = {
        r"(lateral)(\d+)/(\w+)": lambda m: (
            f"fpn/projection_{int(m[2]) - finest}/{_SLIM_PARTS[m[3]]}"
        ),
        r"(smooth|coarse)(\d+)_((?:conv|norm)/\w+)": rename,
    }
    return rename_all(neck, rules)


def _slim_tower(match: re.Match) -> str:
    tower = f"{match[1].capitalize()}PredictionTower/conv2d_{int(match[2]) - 1}"
    if match[3] == "conv":
        return f"{tower}/{_SLIM_PARTS[match[5]]}"
    return f"{tower}/BatchNorm/feature_{match[4]}/{match[5]}"


SLIM = Convention(
    "TensorFlow 1 TF-slim ResNet",
    {
        BottleneckResNet: named(
            {
                r"stem_((?:conv|norm)/\w+)": lambda m: f"conv1/{_slim_leaf(m[1])}",
                r"group(\d+)_block(\d+)_(projection|\d)_((?:conv|norm)/\w+)": _slim_unit,
            }
        ),
        FPN: _slim_pyramid,
        SharedSSDHead: named(
            {
                r"(class|box)(\d+)_(conv|level(\d+)_norm)/(\w+)": _slim_tower,
                r"(class|box)_predictor/(\w+)": lambda m: (
                    f"{m[1].capitalize()}Predictor/{_SLIM_PARTS[m[2]]}"
                ),
            }
        ),
    },
    needs={BottleneckResNet: {"stride_in": "1x1"}},
)

# --- Caffe's VGG-16 and MMDetection's SSD (ssd_vgg16, 2.2 and 5).

_TORCH = {"kernel": "weight", "bias": "bias"}


def vgg_features(backbone: VGG16) -> Names:
    """`features` counts convolutions, activations and pools of the network as one sequence."""
    names, index = {}, 0
    layers = backbone.conv_layers
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        for variable in layer.variables:
            full = variable.name.removesuffix(":0")
            names[full] = f"features.{index}.{_TORCH[full.split('/')[-1]]}"
        block = layer.name.split("_")[0]
        # Its ReLU, and the pool where a block ends; conv6 and conv7 have none after them.
        pooled = "_" in layer.name and after is not None and after.name.split("_")[0] != block
        index += 3 if pooled else 2
    return names


def _extra(match: re.Match) -> str:
    index = 2 * int(match[1]) - (2 if match[2] == "reduce" else 1)
    return f"extra.{index}.{_TORCH[match[3]]}"


def _extra_of_neck(match: re.Match) -> str:
    conv = 0 if match[2] == "reduce" else 1
    return f"extra_layers.{int(match[1]) - 1}.{conv}.conv.{_TORCH[match[3]]}"


_EXTRA = r"level(\d+)_(reduce|expand)/(\w+)"
_L2 = {r"l2_norm/scale": "l2_norm.weight"}


def _mmdetection(title: str, extra: Template, suffix: str) -> Convention:
    return Convention(
        title,
        {
            VGG16: vgg_features,
            VGGExtraLevels: named({_EXTRA: extra, **_L2}),
            SSDHead: named(
                {
                    r"class(\d+)/(\w+)": lambda m: f"cls_convs.{m[1]}{suffix}.{_TORCH[m[2]]}",
                    r"box(\d+)/(\w+)": lambda m: f"reg_convs.{m[1]}{suffix}.{_TORCH[m[2]]}",
                }
            ),
        },
        layout="torch",
        background_last=True,
        box_order=(1, 0, 3, 2),
    )


MMDETECTION = _mmdetection("MMDetection before 2.14, or Caffe's VGG-16", _extra, "")
MMDETECTION_NECK = _mmdetection("MMDetection", _extra_of_neck, ".0")
