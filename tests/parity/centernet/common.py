"""What the sections share: the detectors, the names of their variables, and their weights."""

from __future__ import annotations

import functools
import re
import zlib

import numpy as np
import tensorflow as tf

from ssd_centernet.layers.heads import CenterNetHead
from ssd_centernet.layers.necks import CenterNetFPN
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.hourglass import Hourglass
from ssd_centernet.models.centernet import CenterNet

STRIDE = 4
# Names of the three predictions in each variant.
KEYS_A = {"center": "ct_heatmaps", "offset": "ct_offset", "size": "ct_size"}
KEYS_B = {"center": "object_center", "offset": "box/offset", "size": "box/scale"}
_HEAD_B = {"center": "center", "offset": "box_offset", "size": "box_scale"}
_HOURGLASS_PARTS = {
    "skip": "enc_skip",
    "down": "enc_down",
    "up": "dec",
    "inner": "inner",
    "projection": "shortcut",
    "merge_out": "merge_feat",
    "merge_skip": "merge_skip",
    "out": "out",
}


@functools.cache
def hourglass(model_id: int, width: int, num_stacks: int, num_classes: int, size: tuple[int, int]):
    """Build variant A, float32, once for each configuration."""
    backbone = Hourglass(model_id, width=width, num_stacks=num_stacks)
    return CenterNet(backbone, num_classes=num_classes, image_size=size)


@functools.cache
def resnet_fpn(num_classes: int, size: tuple[int, int]) -> CenterNet:
    """Build variant B, float32, once for each configuration."""
    return CenterNet(
        BottleneckResNet(
            (3, 4, 23, 3),
            output_levels=(2, 3, 4, 5),
            activation="relu",
            use_bias=True,
            pool_padding="symmetric",
            norm_momentum=0.99,
            norm_epsilon=1.001e-5,
            kernel_initializer="glorot_uniform",
        ),
        num_classes=num_classes,
        image_size=size,
        neck=CenterNetFPN(),
        head=functools.partial(CenterNetHead, width=256),
        preprocessing=Preprocessing(
            size,
            mean=(103.939, 116.779, 123.68),
            std=(1.0, 1.0, 1.0),
            scale=1.0,
            channels="BGR",
            keep_aspect=True,
        ),
    )


def named_variables(detector: CenterNet) -> dict[str, tf.Variable]:
    """Map the reference's variable names to a detector's variables.

    Raises:
        ValueError: two variables have one name.
    """
    stacks = len(detector.output)
    name = _name_b if isinstance(detector.backbone, BottleneckResNet) else _name_a
    names = [name(v.name.removesuffix(":0"), stacks) for v in detector.variables]
    if len(set(names)) != len(names):
        raise ValueError("two variables have one name of the reference")
    return dict(zip(names, detector.variables, strict=True))


def _name_a(ours: str, stacks: int) -> str:
    """Translate a name such as `hourglass0_stage1_skip_block2_1_conv/kernel`."""
    layer, weight = ours.rsplit("/", 1)
    head = re.fullmatch(r"head/(center|offset|size)(\d+)(_hidden)?", layer)
    if head:
        level = "2" if int(head[2]) == stacks - 1 else f"2_{head[2]}"
        return f"head/{KEYS_A[head[1]]}/{level}/conv{1 if head[3] else 2}/{weight}"
    if layer.startswith("stem_res_"):
        return f"stem/res/{_part_of_block(layer.removeprefix('stem_res_'))}/{weight}"
    kind = {"conv": "conv", "norm": "bn"}[layer.rsplit("_", 1)[1]]
    if layer.startswith("stem_"):
        return f"stem/conv7/{kind}/{weight}"
    stage = re.fullmatch(r"hourglass(\d+)_stage(\d+)_(skip|down|up|inner)_block(\d+)_(.*)", layer)
    if stage:
        path = f"hg{stage[1]}/level{int(stage[2]) - 1}/{_HOURGLASS_PARTS[stage[3]]}"
        return f"{path}/{int(stage[4]) - 1}/{_part_of_block(stage[5])}/{weight}"
    merged = re.fullmatch(r"hourglass(\d+)_merge_res_(.*)", layer)
    if merged:
        return f"hg{merged[1]}/merge_res/{_part_of_block(merged[2])}/{weight}"
    stack, part = re.fullmatch(r"hourglass(\d+)_(\w+)_(?:conv|norm)", layer).groups()
    return f"hg{stack}/{_HOURGLASS_PARTS[part]}/{kind}/{weight}"


def _part_of_block(part: str) -> str:
    """Translate `projection_conv`, `1_norm`, ..."""
    which, kind = part.split("_")
    kind = {"conv": "conv", "norm": "bn"}[kind]
    return f"shortcut_{kind}" if which == "projection" else f"{kind}{which}"


def _name_b(ours: str, stacks: int) -> str:
    """Translate a name such as `group2_block1_projection_conv/kernel`."""
    del stacks
    layer, weight = ours.rsplit("/", 1)
    head = re.fullmatch(r"head/(center|offset|size)0(_hidden)?", layer)
    if head:
        return f"head/{_HEAD_B[head[1]]}/conv{1 if head[2] else 2}/{weight}"
    path = re.fullmatch(r"fpn/(?:top|(lateral|smooth)(\d)(_conv|_norm)?)", layer)
    if path:
        if path[1] is None:
            return f"fpn/lateral5/{weight}"
        level = 5 - int(path[2])
        return f"fpn/{path[1]}{level}{'_bn' if path[3] == '_norm' else ''}/{weight}"
    layer = layer.replace("_norm", "_bn")
    if layer.startswith("stem_"):
        return f"backbone/{layer.replace('stem', 'conv1')}/{weight}"
    group, block, which, kind = re.fullmatch(
        r"group(\d)_block(\d+)_(\d|projection)_(conv|bn)", layer
    ).groups()
    number = "0" if which == "projection" else which
    return f"backbone/conv{int(group) + 1}_block{block}_{number}_{kind}/{weight}"


def head_input_shapes(detector: CenterNet) -> list[tuple[int | None, ...]]:
    """List the shapes of the maps that a detector's head sees."""
    return [tuple(maps.shape) for maps in tf.nest.flatten(detector.head.input)]


def set_weights(detector: CenterNet) -> dict[str, tf.Variable]:
    """Set the weights that the vectors were computed with and return them by name.

    Source: docs/reference/centernet.md, section 10 (weight rule)
    """
    named = named_variables(detector)
    for name, variable in named.items():
        shape, kind = tuple(variable.shape), name.rsplit("/", 1)[1]
        draws = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        value = {
            "kernel": lambda n, s: n * 0.7 / np.sqrt(np.prod(s[:-1])),
            "gamma": lambda n, s: 1.0 + 0.1 * n,
            "moving_variance": lambda n, s: 1.0 + 0.2 * np.abs(n),
        }.get(kind, lambda n, s: 0.1 * n)(draws, shape)
        variable.assign(value.astype(np.float32))
    return named
