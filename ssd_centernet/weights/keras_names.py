"""Names of the Model Garden's MobileNetV3 and EfficientNet in the files of Keras' applications.

The two programs build the same networks; only the names of layers differ, and the letters in which
Keras counts the blocks of an EfficientNet.

Source: https://github.com/keras-team/tf-keras, tf_keras/applications/mobilenet_v3.py and
    efficientnet.py
"""

from __future__ import annotations

import math
import re

from ssd_centernet.models.backbones.model_garden import ModelGardenBackbone
from ssd_centernet.weights.convention import Convention, Names, rename_all
from ssd_centernet.weights.inputs import Inputs

# Blocks of each stage of B0, and the factor of their number in the others.
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_DEPTH = {"b0": 1.0, "b1": 1.1, "b2": 1.2, "b3": 1.4, "b4": 1.8, "b5": 2.2, "b6": 2.6, "b7": 3.1}
_NORM = r"batch(\d?)_norm"
_BLOCK = r"inverted_bottleneck_block(?:_(\d+))?/"


def _parts(backbone: ModelGardenBackbone) -> dict[int, tuple[str, ...]]:
    """Return the convolutions of each block; those of a ratio of 1 do not widen first."""
    names = " ".join(variable.name for variable in backbone.variables)
    blocks = {int(number or 0) for number in re.findall(_BLOCK, names)}
    three = ("expand", "depthwise", "project")
    return {
        block: three if f"{_label(block)}/batch2_norm/" in names else three[1:] for block in blocks
    }


def _label(block: int) -> str:
    return "inverted_bottleneck_block" + (f"_{block}" if block else "")


def _of_block(match: re.Match, parts: dict[int, tuple[str, ...]]) -> tuple[int, str, str, str]:
    """Return (block, convolution, "norm" or "conv", leaf) of a variable of a block."""
    block, layer, leaf = int(match[1] or 0), match[2], match[3]
    norm = re.fullmatch(_NORM, layer)
    if norm:
        return block, parts[block][int(norm[1] or 0)], "norm", leaf
    if layer == "depthwise_conv2d":
        return block, "depthwise", "conv", leaf
    widens = layer == "conv2d" and len(parts[block]) == 3
    return block, "expand" if widens else "project", "conv", leaf


def _mobilenet(backbone: ModelGardenBackbone) -> Names:
    if backbone.get_config()["model_type"] != "mobilenet":
        return {}
    parts = _parts(backbone)

    def name(block: int) -> str:
        return "expanded_conv" + (f"_{block}" if block else "")

    def of_block(match: re.Match) -> str:
        block, part, kind, leaf = _of_block(match, parts)
        return f"{name(block)}/{part}/{'BatchNorm/' if kind == 'norm' else ''}{leaf}"

    return rename_all(
        backbone,
        {
            r"conv2dbn_block(_1)?/conv2d/(kernel)": lambda m: f"Conv{m[1] or ''}/{m[2]}",
            r"conv2dbn_block(_1)?/batch_norm/(\w+)": lambda m: f"Conv{m[1] or ''}/BatchNorm/{m[2]}",
            _BLOCK + r"squeeze_excitation/conv2d(_1)?/(\w+)": lambda m: (
                f"{name(int(m[1] or 0))}/squeeze_excite/Conv{m[2] or ''}/{m[3]}"
            ),
            _BLOCK + r"(\w+)/(\w+)": of_block,
        },
    )


def _efficientnet(backbone: ModelGardenBackbone) -> Names:
    config = backbone.get_config()
    depth = _DEPTH.get(config["options"].get("model_id", "b0"))
    if config["model_type"] != "efficientnet" or depth is None:
        return {}
    parts = _parts(backbone)
    labels = [
        f"block{stage}{chr(ord('a') + index)}"
        for stage, repeats in enumerate(_REPEATS, 1)
        for index in range(math.ceil(depth * repeats))
    ]
    convs = {"expand": "expand_conv", "depthwise": "dwconv", "project": "project_conv"}
    norms = {"expand": "expand_bn", "depthwise": "bn", "project": "project_bn"}

    def of_block(match: re.Match) -> str:
        block, part, kind, leaf = _of_block(match, parts)
        return f"{labels[block]}_{(norms if kind == 'norm' else convs)[part]}/{leaf}"

    return rename_all(
        backbone,
        {
            r"conv2d(_1)?/(kernel)": lambda m: f"{'top' if m[1] else 'stem'}_conv/{m[2]}",
            rf"{_NORM}/(\w+)": lambda m: f"{'top' if m[1] else 'stem'}_bn/{m[2]}",
            _BLOCK + r"squeeze_excitation/conv2d(_1)?/(\w+)": lambda m: (
                f"{labels[int(m[1] or 0)]}_se_{'expand' if m[2] else 'reduce'}/{m[3]}"
            ),
            _BLOCK + r"(\w+)/(\w+)": of_block,
        },
    )


MOBILENET = Convention(
    "Keras applications MobileNetV3",
    {ModelGardenBackbone: _mobilenet},
    inputs=Inputs("RGB", (127.5,) * 3, (127.5,) * 3),
    needs={ModelGardenBackbone: {"norm_epsilon": 1e-3}},
    essential=r"/squeeze_excite/",
)
EFFICIENTNET = Convention(
    "Keras applications EfficientNet",
    {ModelGardenBackbone: _efficientnet},
    # Its first layers, which are not taken over, do the same to the pixels.
    inputs=Inputs("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    needs={ModelGardenBackbone: {"norm_epsilon": 1e-3, "options.se_inner_activation": "swish"}},
    essential=r"_se_(reduce|expand)/",
)
