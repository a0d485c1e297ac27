"""Names of our variables in published EfficientNet-Lite0s: PyTorch's, converted from TensorFlow."""

from __future__ import annotations

import re

from ssd_centernet.models.backbones.efficientnet_lite import EfficientNetLite0
from ssd_centernet.weights.convention import Convention, Names, rename_all
from ssd_centernet.weights.inputs import Inputs

_PARTS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Norms count within a block, whether it widens first or not.
_NORMS = {"expand": 0, "depthwise": 1, "project": 2}


def _efficientnet_lite(backbone: EfficientNetLite0) -> Names:
    # Theirs number the blocks through the whole network, from 0.
    names = [conv.name for conv, _ in backbone.conv_norm_layers]
    blocks = dict.fromkeys(name.rsplit("_", 2)[0] for name in names if "_block" in name)
    numbers = {block: number for number, block in enumerate(blocks)}

    def of_block(match: re.Match) -> str:
        layer = f"_{match[2]}_conv" if match[3] == "conv" else f"_bn{_NORMS[match[2]]}"
        return f"_blocks.{numbers[match[1]]}.{layer}.{_PARTS[match[4]]}"

    return rename_all(
        backbone,
        {
            r"stem_conv/(\w+)": lambda m: f"_conv_stem.{_PARTS[m[1]]}",
            r"stem_norm/(\w+)": lambda m: f"_bn0.{_PARTS[m[1]]}",
            r"(stage\d+_block\d+)_(\w+)_(conv|norm)/(\w+)": of_block,
        },
    )


EFFICIENTNET_LITE = Convention(
    "EfficientNet-Lite0 of PyTorch",
    {EfficientNetLite0: _efficientnet_lite},
    layout="torch",
    inputs=Inputs("RGB", (127.0,) * 3, (128.0,) * 3),
    depthwise=r"_depthwise_conv\.weight$",
)
