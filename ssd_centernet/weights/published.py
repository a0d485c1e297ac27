"""All kinds of published checkpoints with usable weights.

Facts about other programs are only in the modules that are joined here.
"""

from __future__ import annotations

from ssd_centernet._keras import keras
from ssd_centernet.weights import (
    centernet_names,
    efficientnet_names,
    keras_names,
    ssd_names,
    torch_names,
)
from ssd_centernet.weights.convention import Convention, Names

# The rest is what a detector has beside its three parts; only our own files have it.
PARTS = ("backbone", "neck", "head", "rest")


def _own(part: keras.layers.Layer) -> Names:
    return {v.name.removesuffix(":0"): v.name.removesuffix(":0") for v in part.variables}


def _own_objects(part: keras.layers.Layer) -> Names:
    # Each slash of a name is one step of the path.
    return {name: name.replace("/", ".S") for name in _own(part)}


CONVENTIONS = (
    Convention(
        "ssd_centernet",
        {keras.layers.Layer: _own_objects},
        roots={part: ("weights",) for part in PARTS},
        objects=True,
    ),
    Convention("ssd_centernet", {keras.layers.Layer: _own}),
    ssd_names.SSD_RESNET34,
    ssd_names.SLIM,
    centernet_names.KERAS,
    centernet_names.OD_CENTERNET,
    centernet_names.MODEL_GARDEN,
    ssd_names.MMDETECTION,
    ssd_names.MMDETECTION_NECK,
    efficientnet_names.EFFICIENTNET_LITE,
    keras_names.MOBILENET,
    keras_names.EFFICIENTNET,
    torch_names.RESNET,
    torch_names.VGG,
    torch_names.SSD300,
)
