"""Single-stage object detectors on TensorFlow and Keras 2.

`import ssd_centernet` is light: a public name imports its module (and so tensorflow) when it is
first asked for.
"""

import contextlib
import importlib
import sys
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it.
_PUBLIC: dict[str, str] = {
    "BottleneckResNet": "ssd_centernet.models.backbones.bottleneck_resnet",
    "CenterNet": "ssd_centernet.models.centernet",
    "CenterNetDecoder": "ssd_centernet.layers.centernet_decoder",
    "CenterNetFPN": "ssd_centernet.layers.necks",
    "CenterNetHead": "ssd_centernet.layers.heads",
    "CenterNetLoss": "ssd_centernet.layers.centernet_criteria",
    "CocoEvaluator": "ssd_centernet.evaluation.coco",
    "CocoGroundTruth": "ssd_centernet.evaluation.ground_truth",
    "DefaultBoxes": "ssd_centernet.layers.anchors",
    "Detector": "ssd_centernet.models.detector",
    "FPN": "ssd_centernet.layers.fpn",
    "FocalMultiBoxLoss": "ssd_centernet.layers.focal_criterion",
    "Hourglass": "ssd_centernet.models.backbones.hourglass",
    "LabelMap": "ssd_centernet.labels",
    "ModelGardenBackbone": "ssd_centernet.models.backbones.model_garden",
    "Momentum": "ssd_centernet.training.optimizers",
    "MultiBoxLoss": "ssd_centernet.layers.criteria",
    "MultiscaleAnchors": "ssd_centernet.layers.anchors",
    "PassLevels": "ssd_centernet.layers.necks",
    "Preprocessing": "ssd_centernet.layers.preprocessing",
    "ResNet": "ssd_centernet.models.backbones.resnet",
    "SSD": "ssd_centernet.models.ssd",
    "SSDDecoder": "ssd_centernet.layers.decoders",
    "SSDExtraLevels": "ssd_centernet.layers.necks",
    "SSDHead": "ssd_centernet.layers.heads",
    "SharedSSDHead": "ssd_centernet.layers.heads",
    "SigmoidSSDDecoder": "ssd_centernet.layers.decoders",
    "VGG16": "ssd_centernet.models.backbones.vgg",
    "VGGExtraLevels": "ssd_centernet.layers.necks",
    "build": "ssd_centernet.api",
    "convert_annotations": "ssd_centernet.data.convert_formats",
    "describe_anchors": "ssd_centernet.preview.anchor_report",
    "draw_batch": "ssd_centernet.preview.fed_images",
    "draw_boxes": "ssd_centernet.drawing.visualize",
    "draw_detections": "ssd_centernet.drawing.visualize",
    "draw_history": "ssd_centernet.drawing.chart",
    "evaluate": "ssd_centernet.api",
    "keras": "ssd_centernet._keras",
    "load": "ssd_centernet.api",
    "load_label_map": "ssd_centernet.data.directory",
    "make_synthetic": "ssd_centernet.data.synthetic",
    "recipes": "ssd_centernet.config",
    "restore": "ssd_centernet.weights",
    "training_data": "ssd_centernet.api",
    "validation_data": "ssd_centernet.api",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    gin = sys.modules.get("gin")
    # A caller may have locked gin: what is imported registers its names all the same.
    with gin.unlock_config() if gin else contextlib.nullcontext():
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
