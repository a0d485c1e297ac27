"""Names of our variables in torchvision's ResNets, VGG-16 and SSD300.

Source: https://github.com/pytorch/vision, torchvision/models/{resnet,vgg,detection/ssd}.py
"""

from __future__ import annotations

import re

from ssd_centernet.layers.heads import SSDHead
from ssd_centernet.layers.necks import VGGExtraLevels
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.weights.convention import Convention, named, rename_all
from ssd_centernet.weights.inputs import Inputs
from ssd_centernet.weights.ssd_names import vgg_features

_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
IMAGENET = Inputs("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
AMDEGROOT = Inputs("RGB", (122.99925, 116.9991, 103.9992), (1.0, 1.0, 1.0))


def _unit(match: re.Match) -> str:
    block = f"layer{match[1]}.{int(match[2]) - 1}"
    kind, leaf = match[4], _LEAVES[match[5]]
    if match[3] == "projection":
        return f"{block}.downsample.{0 if kind == 'conv' else 1}.{leaf}"
    return f"{block}.{'conv' if kind == 'conv' else 'bn'}{match[3]}.{leaf}"


_resnet = named(
    {
        r"stem_(conv|norm)/(\w+)": lambda m: (
            f"{'conv1' if m[1] == 'conv' else 'bn1'}.{_LEAVES[m[2]]}"
        ),
        r"group(\d+)_block(\d+)_(projection|\d)_(conv|norm)/(\w+)": _unit,
    }
)
_POOL = {"pool_padding": "symmetric", "norm_epsilon": 1e-5}
RESNET = Convention(
    "torchvision ResNet",
    {ResNet: _resnet, BottleneckResNet: _resnet},
    layout="torch",
    inputs=IMAGENET,
    # Its bottlenecks are those of "v1.5".
    needs={BottleneckResNet: {"stride_in": "3x3", "use_bias": False}},
    expects={ResNet: _POOL, BottleneckResNet: {**_POOL, "activation": "relu"}},
)
# The features have the names of Caffe's VGG-16, but other inputs; the classifier tells them apart.
VGG = Convention(
    "torchvision VGG-16",
    {VGG16: vgg_features},
    layout="torch",
    inputs=IMAGENET,
    marker="classifier.6.weight",
)


def _ssd_vgg(backbone: VGG16) -> dict[str, str]:
    """Blocks 1 to 4 are `features`; block 5, conv6 and conv7 are the first of `extra`."""
    names = vgg_features(backbone)
    later = rename_all(
        backbone,
        {
            r"conv5_(\d)/(\w+)": lambda m: f"extra.0.{2 * int(m[1]) - 1}.{_LEAVES[m[2]]}",
            r"conv6/(\w+)": lambda m: f"extra.0.7.1.{_LEAVES[m[1]]}",
            r"conv7/(\w+)": lambda m: f"extra.0.7.3.{_LEAVES[m[1]]}",
        },
    )
    return names | later


SSD300 = Convention(
    "torchvision SSD300",
    {
        VGG16: _ssd_vgg,
        VGGExtraLevels: named(
            {
                r"level(\d+)_(reduce|expand)/(\w+)": lambda m: (
                    f"extra.{m[1]}.{0 if m[2] == 'reduce' else 2}.{_LEAVES[m[3]]}"
                ),
                r"l2_norm/scale": "scale_weight",
            }
        ),
        SSDHead: named(
            {
                r"class(\d+)/(\w+)": lambda m: (
                    f"classification_head.module_list.{m[1]}.{_LEAVES[m[2]]}"
                ),
                r"box(\d+)/(\w+)": lambda m: f"regression_head.module_list.{m[1]}.{_LEAVES[m[2]]}",
            }
        ),
    },
    layout="torch",
    inputs=AMDEGROOT,
    box_order=(1, 0, 3, 2),
    marker="scale_weight",
)
