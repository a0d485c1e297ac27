"""Single-stage object detectors on TensorFlow and Keras 2.

    import ssd_centernet as sc

Every name below is imported, and tensorflow with it, when it is first asked for; `help(sc.build)`
tells more of one. docs/python.md leads through them.

Detectors
    build              a detector of a recipe, with fresh weights or given ones
    pretrained         a published detector, trained on COCO
    load               the detector of a run or of a .keras file, with its weights
    recipes            the names of the installed recipes
    restore            put published weights, or those of another run, into a detector
    evaluate           COCO's numbers of a detector on a split, and a page with pictures
    TiledDetector      detect small objects of large pictures, in tiles
    Tiles              how large pictures are cut
    SSD, CenterNet     the two kinds, made of the parts below
    Detector           what both have: detect, compile, fit, save

Data
    convert_annotations  write COCO, VOC, YOLO, CSV or TFDS annotations as records
    make_synthetic       render a small COCO data set to try things on
    load_label_map       the classes of a folder of records
    LabelMap             names of classes and their ids
    training_data        endless batches of records for fit
    validation_data      one pass over a split for fit
    batches              the same batches of images and boxes in memory

Pictures
    draw_detections    what detect has found, on its image
    draw_boxes         any boxes on an image
    draw_batch         what the network is fed, with the targets
    draw_history       the curves of fit
    describe_anchors   which objects a recipe can match, by size

Parts of a detector
    ResNet, BottleneckResNet, VGG16, EfficientNetLite0, Hourglass      backbones
    ModelGardenBackbone                                                those of the Model Garden
    SSDExtraLevels, VGGExtraLevels, FPN, CenterNetFPN, PassLevels      necks
    SSDHead, SharedSSDHead, CenterNetHead                              heads
    DefaultBoxes, MultiscaleAnchors                                    anchors
    MultiBoxLoss, FocalMultiBoxLoss, CenterNetLoss, TTFLoss            losses
    ATSS, TaskAligned                                                  which anchors learn what
    SSDDecoder, SigmoidSSDDecoder, CenterNetDecoder                    from outputs to boxes
    Preprocessing                                                      from pixels to inputs

Training and evaluation of your own
    quantize, Quantize  let a detector train and detect in numbers of 8 bits
    keras              the Keras that all of this is made of
    Momentum           the optimizer of the recipes
    CocoEvaluator      COCO's numbers, batch by batch
    CocoGroundTruth    the objects of a split
"""

import contextlib as _contextlib
import importlib as _importlib
import sys as _sys
from typing import Any as _Any

__version__ = "0.1.0"

# Public name -> the module that holds it.
_PUBLIC: dict[str, str] = {
    "ATSS": "ssd_centernet.layers.assigners",
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
    "EfficientNetLite0": "ssd_centernet.models.backbones.efficientnet_lite",
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
    "Quantize": "ssd_centernet.models.quantized",
    "ResNet": "ssd_centernet.models.backbones.resnet",
    "SSD": "ssd_centernet.models.ssd",
    "SSDDecoder": "ssd_centernet.layers.decoders",
    "SSDExtraLevels": "ssd_centernet.layers.necks",
    "SSDHead": "ssd_centernet.layers.heads",
    "SharedSSDHead": "ssd_centernet.layers.heads",
    "SigmoidSSDDecoder": "ssd_centernet.layers.decoders",
    "TTFLoss": "ssd_centernet.layers.ttf_criterion",
    "TaskAligned": "ssd_centernet.layers.assigners",
    "TiledDetector": "ssd_centernet.predict.tiled",
    "Tiles": "ssd_centernet.ops.tiles",
    "VGG16": "ssd_centernet.models.backbones.vgg",
    "VGGExtraLevels": "ssd_centernet.layers.necks",
    "batches": "ssd_centernet.fit_data",
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
    "quantize": "ssd_centernet.models.quantized",
    "recipes": "ssd_centernet.config",
    "pretrained": "ssd_centernet.api",
    "restore": "ssd_centernet.weights",
    "training_data": "ssd_centernet.fit_data",
    "validation_data": "ssd_centernet.fit_data",
}


def __getattr__(name: str) -> _Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    gin = _sys.modules.get("gin")
    # A caller may have locked gin: what is imported registers its names all the same.
    with gin.unlock_config() if gin else _contextlib.nullcontext():
        value = getattr(_importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Without __all__ `help` shows the text above and not every class with all that Keras gives it.
    return ["__version__", *sorted(_PUBLIC)]
