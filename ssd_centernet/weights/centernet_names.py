"""Names of our variables in published CenterNets and backbones: objects, and Keras' layers."""

from __future__ import annotations

import re
from collections.abc import Callable

import tensorflow as tf

from ssd_centernet.layers.heads import CenterNetHead
from ssd_centernet.layers.necks import CenterNetFPN
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.hourglass import Hourglass
from ssd_centernet.models.backbones.model_garden import ModelGardenBackbone
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.weights.convention import (
    Convention,
    Names,
    named,
    rename_all,
)
from ssd_centernet.weights.inputs import Inputs

# --- Keras' own ResNets (centernet, 1.2): h5 files by layer names, objects by numbers.


def keras_resnet_layers(blocks: tuple[int, ...]) -> list[str]:
    """List the layers with weights of a ResNet of Keras' applications, in their order.

    Args:
        blocks: number of bottleneck blocks of each group.

    Returns:
        `conv1_conv`, `conv1_bn`, `conv2_block1_1_conv`, ...; a first block's projection comes
        beside its last convolution, because Keras numbers layers by their distance from the output.
    """
    layers = ["conv1_conv", "conv1_bn"]
    for group, count in enumerate(blocks, 2):
        for block in range(1, count + 1):
            prefix = f"conv{group}_block{block}"
            layers += [f"{prefix}_{conv}_{kind}" for conv in (1, 2) for kind in ("conv", "bn")]
            last = (0, 3) if block == 1 else (3,)
            layers += [f"{prefix}_{conv}_{kind}" for kind in ("conv", "bn") for conv in last]
    return layers


def _keras_unit(match: re.Match) -> str:
    conv = 0 if match[3] == "projection" else match[3]
    kind = "bn" if match[4] == "norm" else "conv"
    return f"conv{int(match[1]) + 1}_block{match[2]}_{conv}_{kind}/{match[5]}"


def _keras_resnet(backbone: BottleneckResNet) -> Names:
    return rename_all(
        backbone,
        {
            r"stem_conv/(\w+)": r"conv1_conv/\1",
            r"stem_norm/(\w+)": r"conv1_bn/\1",
            r"group(\d+)_block(\d+)_(projection|\d)_(conv|norm)/(\w+)": _keras_unit,
        },
    )


def _keras_resnet_objects(backbone: BottleneckResNet) -> Names:
    layers = keras_resnet_layers(backbone.get_config()["blocks"])
    numbers = {name: index for index, name in enumerate(layers)}
    names = {}
    for variable, published in _keras_resnet(backbone).items():
        layer, leaf = published.split("/")
        names[variable] = f"layer_with_weights-{numbers[layer]}/{leaf}"
    return names


def _top_down_layer(match: re.Match) -> str:
    """Order the layers: the ResNet is number 0, the top's projection 1; each level has three."""
    place = {"lateral": 2, "conv": 3, "norm": 4}[match[3] or "lateral"]
    return f"layer_with_weights-{place + 3 * (int(match[2]) - 1)}/{match[4]}"


# As Keras' resnet.py and its imagenet_utils.py (mode "caffe") have it.
_V1 = {"stride_in": "1x1"}
_RESNET = {"pool_padding": "symmetric", "norm_epsilon": 1.001e-5, "activation": "relu"}
CAFFE = Inputs("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))


def _keras_vgg(backbone: VGG16) -> Names:
    """Name blocks 1 to 5; conv6 and conv7 are not in it."""
    return rename_all(backbone, {r"conv(\d)_(\d)/(\w+)": r"block\1_conv\2/\3"})


KERAS = Convention(
    "Keras applications",
    {BottleneckResNet: _keras_resnet, VGG16: _keras_vgg},
    inputs=CAFFE,
    needs={BottleneckResNet: _V1},
    expects={BottleneckResNet: _RESNET},
)

# --- CenterNet: the Object Detection API's and the Model Garden's (centernet, 1.1).

_OD_CONVS = {"1": "conv_block/conv", "2": "conv", "projection": "skip/conv"}
_OD_NORMS = {"1": "conv_block/norm", "2": "norm", "projection": "skip/norm"}
_MG_CONVS = {"1": "_conv1", "2": "_conv2", "projection": "_shortcut"}
_MG_NORMS = {"1": "_norm1", "2": "_norm2", "projection": "_norm0"}
_PATHS = {"skip": "encoder_block1", "down": "encoder_block2", "up": "decoder_block"}
_RESIDUAL = r"_(1|2|projection)_(conv|norm)/(\w+)"
_STAGE = r"hourglass(\d+)_stage(\d+)_(skip|down|up|inner)_block(\d+)" + _RESIDUAL


def _hourglass(
    residual: Callable[[str, str], str], stage: Callable[[re.Match], str], place: dict, conv: str
) -> Callable[[Hourglass], Names]:
    """Make the common rules of the two programs: only the names of places and layers differ."""

    def leaf(match: re.Match, first: int) -> str:
        return f"{residual(match[first], match[first + 1])}/{match[first + 2]}"

    def single(name: str) -> Callable[[re.Match], str]:
        return lambda m: f"{place[name](int(m['stack'] or 0))}/{conv.format(m['kind'])}/{m['part']}"

    layer = r"_(?P<kind>conv|norm)/(?P<part>\w+)"
    return named(
        {
            r"stem(?P<stack>)" + layer: single("stem"),
            r"stem_res" + _RESIDUAL: lambda m: f"{place['stem_res'](0)}/{leaf(m, 1)}",
            r"hourglass(\d+)_merge_res" + _RESIDUAL: lambda m: (
                f"{place['merge_res'](int(m[1]))}/{leaf(m, 2)}"
            ),
            _STAGE: lambda m: f"{place['stages'](int(m[1]))}/{stage(m)}/{leaf(m, 5)}",
            **{
                rf"hourglass(?P<stack>\d+)_{name}" + layer: single(name)
                for name in ("out", "merge_skip", "merge_out")
            },
        }
    )


def _od_stage(match: re.Match) -> str:
    depth, block = int(match[2]) - 1, int(match[4]) - 1
    if match[3] == "inner":
        return "inner_block/0/" * (depth - 1) + f"inner_block/{block}"
    return "inner_block/0/" * depth + f"{_PATHS[match[3]]}/{block}"


def _mg_stage(match: re.Match) -> str:
    path = "blocks" if match[3] == "inner" else _PATHS[match[3]]
    block = f"layer_with_weights-{int(match[4]) - 1}"
    return "inner_hg/" * (int(match[2]) - 1) + f"{path}/{block}"


_od_hourglass = _hourglass(
    lambda conv, kind: (_OD_CONVS if kind == "conv" else _OD_NORMS)[conv],
    _od_stage,
    {
        "stem": lambda _: "downsample_input/conv_block",
        "stem_res": lambda _: "downsample_input/residual_block",
        "stages": lambda stack: f"hourglass_network/{stack}",
        "out": lambda stack: f"output_conv/{stack}",
        "merge_skip": lambda stack: f"intermediate_conv1/{stack}",
        "merge_out": lambda stack: f"intermediate_conv2/{stack}",
        "merge_res": lambda stack: f"intermediate_residual/{stack}",
    },
    "{}",
)


def _mg_layer(number: int) -> Callable[[int], str]:
    return lambda stack: f"layer_with_weights-{number + 5 * stack}"


_mg_hourglass = _hourglass(
    lambda conv, kind: (_MG_CONVS if kind == "conv" else _MG_NORMS)[conv],
    _mg_stage,
    {
        "stem": lambda _: "layer_with_weights-0",
        "stem_res": lambda _: "layer_with_weights-1",
        "stages": _mg_layer(2),
        "out": _mg_layer(3),
        "merge_skip": _mg_layer(4),
        "merge_out": _mg_layer(5),
        "merge_res": _mg_layer(6),
    },
    "_{}0",
)
_OD_HEADS = {"center": "object_center", "offset": "box.Soffset", "size": "box.Sscale"}
_HEAD = r"(center|offset|size)(\d+)(_hidden)?/(\w+)"


def _od_head(match: re.Match) -> str:
    layer = 0 if match[3] else 1
    return f"{_OD_HEADS[match[1]]}/{match[2]}/layer_with_weights-{layer}/{match[4]}"


def _mg_head(head: CenterNetHead) -> Names:
    stacks = sum(bool(re.search(r"/center\d+/kernel", v.name)) for v in head.variables)
    places = {key: index * stacks for index, key in enumerate(_OD_HEADS)}

    def rename(match: re.Match) -> str:
        layer, conv = places[match[1]] + int(match[2]), 1 if match[3] else 2
        return f"layer_with_weights-{layer}/conv{conv}/{match[4]}"

    return rename_all(head, {_HEAD: rename})


_OD_ROOTS = ("model/_feature_extractor", "_feature_extractor", "feature_extractor")
OD_CENTERNET = Convention(
    "Object Detection API CenterNet",
    {
        Hourglass: _od_hourglass,
        BottleneckResNet: _keras_resnet_objects,
        CenterNetFPN: named(
            {
                r"top/(\w+)": r"layer_with_weights-1/\1",
                r"(lateral)(\d+)()/(\w+)": _top_down_layer,
                r"(smooth)(\d+)_(conv|norm)/(\w+)": _top_down_layer,
            }
        ),
        CenterNetHead: named({_HEAD: _od_head}),
    },
    needs={BottleneckResNet: _V1},
    expects={BottleneckResNet: _RESNET},
    roots={
        "backbone": tuple(
            f"{root}{part}" for part in ("/_network", "/_base_model", "") for root in _OD_ROOTS
        ),
        "neck": tuple(f"{root}/_feature_extractor_model" for root in _OD_ROOTS),
        "head": ("model/_prediction_head_dict", "_prediction_head_dict"),
    },
    objects=True,
)

# --- The Model Garden: objects as its functional models number them.


def _walk(backbone: ModelGardenBackbone) -> Names:
    """Name variables by the attributes that lead to them, as in the checkpoint's graph."""
    names: Names = {}

    def visit(thing, path: str, above: tuple) -> None:
        if isinstance(thing, tf.Variable):
            names.setdefault(thing.name.removesuffix(":0"), path)
        elif id(thing) not in above:
            for name, child in tf.train.TrackableView.children(thing).items():
                visit(child, f"{path}/{name.replace('/', '.S')}", (*above, id(thing)))

    for name, layer in backbone.published_layers.items():
        visit(layer, name, ())
    return names


MODEL_GARDEN = Convention(
    "TensorFlow Model Garden",
    {
        Hourglass: _mg_hourglass,
        ModelGardenBackbone: _walk,
        CenterNetHead: _mg_head,
    },
    roots={
        "backbone": ("backbone", "model/backbone", "model/_backbone", "model", ""),
        "head": ("head", "model/head", "model/_head"),
    },
    objects=True,
)
