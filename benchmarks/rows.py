"""What `benchmarks/compare.py` compares: rows of contestants that take turns, and ratios."""

from __future__ import annotations

import dataclasses
from typing import Any

# Environments: the one of this script, and the one of the peers.
OURS, PEERS = "ours", "peers"
_TENSORFLOW = ["tensorflow", "tf-keras", "numpy"]
_GARDEN = [*_TENSORFLOW, "tf-models-official"]
_TORCH = ["torch", "torchvision", "numpy"]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """What runs in a process of its own.

    Attributes:
        name: what tables call it.
        target: module and function in `contestants/`.
        environment: OURS or PEERS.
        packages: whose versions the figures depend on.
        options: of the function.
    """

    name: str
    target: str
    environment: str
    packages: list[str]
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Ours against others by speed: the goal is to be reached against each of them.

    Attributes:
        ours: a name of the group.
        others: names of the group.
        goal: what to reach; None is told, not judged.
        memory: most memory of ours / of the others; None is not judged.
        cost: whether the ratio is one of time, which is to stay below the goal.
    """

    ours: str
    others: tuple[str, ...]
    goal: float | None
    memory: float | None = None
    cost: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """Contestants that take turns, in the order of their windows, and what is said of them.

    Attributes:
        title: what is measured.
        contestants: at least two.
        ratios: of them.
        seconds: length of a window, as a share of `--seconds`.
    """

    title: str
    contestants: tuple[Contestant, ...]
    ratios: tuple[Ratio, ...]
    seconds: float = 1.0


def _ours(name: str, function: str, packages: list[str] | None = None, **options) -> Contestant:
    return Contestant(name, f"ours:{function}", OURS, packages or _TENSORFLOW, options)


def _torch(name: str, function: str, **options) -> Contestant:
    return Contestant(name, f"torchvision_ssd:{function}", PEERS, _TORCH, options)


def _garden(name: str, function: str, **options) -> Contestant:
    return Contestant(name, f"model_garden:{function}", PEERS, _GARDEN, options)


EAGER, LAST, COMPILED = "torchvision, eager", "torchvision, channels_last", "torchvision, compiled"
ONNX = "our ONNX file, onnxruntime"
MODEL_GARDEN, KERAS_HUB = "Model Garden RetinaNet-384", "KerasHub RetinaNet-320"


def _vgg16_step(dtype: str, goal: float) -> Row:
    options = {"batch_size": 4, "dtype": dtype}
    return Row(
        f"train step, SSD300 VGG-16, batch 4, {dtype.upper()}",
        (
            _ours("SSD300 VGG-16", "train_step", recipe="ssd300_vgg16", **options),
            _torch(EAGER, "train_step", form="eager", **options),
            _torch(LAST, "train_step", form="channels_last", **options),
        ),
        (Ratio("SSD300 VGG-16", (EAGER, LAST), goal),),
    )


def _vgg16_detect(batch_size: int, goal: float) -> Row:
    options = {"batch_size": batch_size}
    return Row(
        f"inference with decoding, SSD300 VGG-16, batch {batch_size}, FP32",
        (
            _ours("SSD300 VGG-16", "detect", recipe="ssd300_vgg16", **options),
            _ours(
                ONNX,
                "detect_onnx",
                [*_TENSORFLOW, "onnxruntime", "tf2onnx"],
                recipe="ssd300_vgg16",
                **options,
            ),
            _torch(EAGER, "detect", form="eager", **options),
            _torch(LAST, "detect", form="channels_last", **options),
            _torch(COMPILED, "detect", form="compile", **options),
        ),
        (Ratio("SSD300 VGG-16", (ONNX, EAGER, LAST, COMPILED), goal),),
    )


def _resnet34_step(dtype: str, goal: float) -> Row:
    same_size = "SSD-384 ResNet-34"
    options = {"batch_size": 8, "dtype": dtype}
    return Row(
        f"train step, SSD300 ResNet-34, batch 8, {dtype.upper()}",
        (
            _ours("SSD300 ResNet-34", "train_step", recipe="ssd300_resnet34", **options),
            _garden(MODEL_GARDEN, "retinanet_step", size=384, **options),
            _ours(same_size, "train_step", recipe="ssd300_resnet34", size=384, **options),
        ),
        (
            Ratio("SSD300 ResNet-34", (MODEL_GARDEN,), goal),
            Ratio(same_size, (MODEL_GARDEN,), None, memory=0.7),
        ),
    )


def _centernet_step() -> Row:
    options = {"batch_size": 2, "dtype": "bf16", "size": 512}
    ours, other = "CenterNet Hourglass-104", "Model Garden CenterNet, two stacks"
    return Row(
        "train step, CenterNet Hourglass-104 at 512, batch 2, BF16",
        (
            _ours(ours, "train_step", recipe="centernet_hourglass104", **options),
            _garden(other, "centernet_step", **options),
        ),
        (Ratio(ours, (other,), 1.5, memory=0.6),),
    )


def _fpn_step(dtype: str) -> Row:
    options = {"batch_size": 4, "dtype": dtype, "size": 320}
    ours = "SSD320 ResNet50-FPN"
    return Row(
        f"train step, SSD320 ResNet50-FPN, batch 4, {dtype.upper()}",
        (
            _ours(ours, "train_step", recipe="ssd320_resnet50_fpn", **options),
            Contestant(
                KERAS_HUB,
                "keras_hub_retinanet:train_step",
                PEERS,
                ["tensorflow", "keras", "keras-hub", "numpy"],
                options,
            ),
        ),
        (Ratio(ours, (KERAS_HUB,), 1.5, memory=0.7),),
    )


def _input_300() -> Row:
    options = {"batch_size": 32, "background": True}
    ours, vgg, least = "SSD300 ResNet-34", "SSD300 VGG-16", "decode and resize, 300"
    parser, transforms = "Model Garden RetinaNet parser, 384", "torchvision SSD transforms (PIL)"
    return Row(
        "input at 300, batch 32",
        (
            _ours(ours, "read_input", recipe="ssd300_resnet34", **options),
            _ours(vgg, "read_input", recipe="ssd300_vgg16", **options),
            _ours(least, "decode_and_resize", size=300, **options),
            _garden(parser, "retinanet_input", size=384, **options),
            _torch(transforms, "read_input", **{**options, "batch_size": 8}),
        ),
        (
            Ratio(ours, (parser,), 4.0),
            Ratio(ours, (transforms,), 8.0),
            Ratio(ours, (least,), 0.8),
            Ratio(vgg, (ours,), 0.9),
        ),
        seconds=1.5,
    )


def _input_512() -> Row:
    options = {"batch_size": 32, "background": True}
    ours, vgg, least = "CenterNet Hourglass-104", "SSD512 VGG-16", "decode and resize, 512"
    reader = "Model Garden CenterNet reader, 512"
    return Row(
        "input at 512, batch 32",
        (
            _ours(ours, "read_input", recipe="centernet_hourglass104", **options),
            _ours(vgg, "read_input", recipe="ssd512_vgg16", **options),
            _ours(least, "decode_and_resize", size=512, **options),
            _garden(reader, "centernet_input", size=512, **options),
        ),
        (Ratio(ours, (reader,), 3.0), Ratio(ours, (least,), 0.75), Ratio(vgg, (least,), 0.7)),
        seconds=1.5,
    )


def _metric(images: int) -> Row:
    packages = ["hotcoco", "numpy"]
    return Row(
        f"COCO metric, {images:,} images, 100 detections each",
        (
            _ours("CocoEvaluator", "score", packages, images=images),
            _ours("hotcoco alone", "hotcoco", packages, images=images),
        ),
        (Ratio("CocoEvaluator", ("hotcoco alone",), 1.0),),
        seconds=0.5,
    )


def _evaluation() -> Row:
    options = {"recipe": "ssd300_resnet34", "images": 32, "batch_size": 8}
    whole, alone = "whole evaluation", "network alone"
    return Row(
        "evaluation, SSD300 ResNet-34, batch 8, 200 detections an image",
        (_ours(whole, "whole_evaluation", **options), _ours(alone, "network_alone", **options)),
        (Ratio(whole, (alone,), 1.1, cost=True),),
    )


ROWS = {
    "train_vgg16_fp32": _vgg16_step("fp32", 1.5),
    "train_vgg16_bf16": _vgg16_step("bf16", 1.2),
    "detect_vgg16_1": _vgg16_detect(1, 1.15),
    "detect_vgg16_8": _vgg16_detect(8, 1.2),
    "train_resnet34_fp32": _resnet34_step("fp32", 3.6),
    "train_resnet34_bf16": _resnet34_step("bf16", 4.8),
    "train_centernet_bf16": _centernet_step(),
    "train_fpn_fp32": _fpn_step("fp32"),
    "train_fpn_bf16": _fpn_step("bf16"),
    "input_300": _input_300(),
    "input_512": _input_512(),
    "metric_1000": _metric(1000),
    "metric_2000": _metric(2000),
    "evaluation": _evaluation(),
}


def _gpu_step(dtype: str) -> Row:
    options = {"batch_size": 32, "dtype": dtype, "device": "gpu"}
    ours, compiled = "SSD300 VGG-16", "SSD300 VGG-16, XLA"
    return Row(
        f"train step on a GPU, SSD300 VGG-16, batch 32, {'TF32' if dtype == 'fp32' else 'BF16'}",
        (
            _ours(ours, "train_step", recipe="ssd300_vgg16", **options),
            _ours(compiled, "train_step", recipe="ssd300_vgg16", xla=True, **options),
            _torch(EAGER, "train_step", form="eager", **options),
            _torch(LAST, "train_step", form="channels_last", **options),
        ),
        (Ratio(ours, (EAGER, LAST), None), Ratio(compiled, (EAGER, LAST), None)),
    )


def _gpu_detect(batch_size: int) -> Row:
    options = {"batch_size": batch_size, "device": "gpu"}
    ours = "SSD300 VGG-16"
    return Row(
        f"inference with decoding on a GPU, SSD300 VGG-16, batch {batch_size}, TF32",
        (
            _ours(ours, "detect", recipe="ssd300_vgg16", **options),
            _torch(EAGER, "detect", form="eager", **options),
            _torch(LAST, "detect", form="channels_last", **options),
        ),
        (Ratio(ours, (EAGER, LAST), None),),
    )


# What needs a GPU, on which time is the wall's: processors wait for it.
GPU_ROWS = {
    "train_vgg16_tf32": _gpu_step("fp32"),
    "train_vgg16_bf16": _gpu_step("bf16"),
    "detect_vgg16_1": _gpu_detect(1),
    "detect_vgg16_32": _gpu_detect(32),
}
