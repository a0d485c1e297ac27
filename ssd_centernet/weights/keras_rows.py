"""Rows of the table of published weights: Keras' applications, with the MD5 sums of their code."""

from __future__ import annotations

from ssd_centernet.weights.publication import File, Published

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_EFFICIENTNET = "https://storage.googleapis.com/keras-applications"
# Channels, means and deviations of pixels 0..255.
_CAFFE = ("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
_IMAGENET = ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_HALVES = ("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


def _keras(model: str, file: str, digest: str, size: str | None, **row) -> Published:
    file = File(file if file.startswith("https:") else f"{_KERAS}/{file}", f"md5:{digest}", size)
    row = {"inputs": _CAFFE, "recipe": "centernet_resnet101_fpn"} | row
    module = row.pop("module", "resnet")
    return Published(
        name=f"keras_{model.lower().replace('-', '')}",
        title=f"{model} of Keras' applications, ImageNet, without its classifier",
        files=(file,),
        opens=file.name,
        source=f"https://github.com/keras-team/tf-keras/blob/master/tf_keras/applications/{module}.py",
        licence="Apache 2.0 (the project's)",
        framework="Keras",
        **row,
    )


_MOBILENETS = {
    "MobileNetV3Large": ("large_224_1.0", "07fb09a5933dd0c8eaafa16978110389"),
    "MobileNetV3Large_075": ("large_224_0.75", "40af19a13ebea4e2ee0c676887f69a2e"),
    "MobileNetV3Small": ("small_224_1.0", "d3e8ec802a04aa4fc771ee12a9a9b836"),
}
_EFFICIENTNETS = {
    "B0": ("50bc09e76180e00e4465e1a485ddc09d", 29),
    "B1": ("74c4e6b3e1f6a1eea24c589628592432", 31),
    "B2": ("111f8e2ac8aa800a7a99e3239f7bfb39", 36),
    "B3": ("af6d107764bb5b1abb91932881670226", 48),
    "B4": ("ebc24e6d6c33eaebbd558eafbeedf1ba", 75),
    "B5": ("38879255a25d3c92d5e44e04ae6cec6f", 118),
    "B6": ("9ecce42647a20130c1f39a5d4cb75743", 166),
    "B7": ("cbcfe4450ddf6f3ad90b1b398090fe4a", 256),
}
_GARDEN = "For ModelGardenBackbone with model_type = "
ROWS = (
    _keras(
        "ResNet50",
        "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
        "98 MB with its classifier",
        result="ImageNet top-1 74.9",
    ),
    _keras(
        "ResNet101",
        "resnet/resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "88cf7a10940856eca736dc7b7e228a21",
        "171 MB with its classifier",
        result="ImageNet top-1 76.4",
    ),
    _keras(
        "ResNet152",
        "resnet/resnet152_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "ee4c566cf9a93f14d82f913c2dc6dd0c",
        "232 MB with its classifier",
        result="ImageNet top-1 76.6",
    ),
    _keras(
        "VGG16",
        "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "6d6bbae143d832006294945121d1f1fc",
        "528 MB with its classifier",
        module="vgg16",
        recipe="ssd300_vgg16",
        fresh=("conv6/", "conv7/"),
        result="ImageNet top-1 71.3",
    ),
    *(
        _keras(
            name,
            f"mobilenet_v3/weights_mobilenet_v3_{file}_float_no_top_v2.h5",
            digest,
            None,
            module="mobilenet_v3",
            recipe="ssd320_mobilenetv3_fpn",
            inputs=_HALVES,
            remark=f"{_GARDEN}'mobilenet' and options = {{'model_id': '{name.split('_')[0]}'"
            + (", 'filter_size_scale': 0.75}." if "_" in name else "}."),
        )
        for name, (file, digest) in _MOBILENETS.items()
    ),
    *(
        _keras(
            f"EfficientNet{name}",
            f"{_EFFICIENTNET}/efficientnet{name.lower()}_notop.h5",
            digest,
            f"{size} MB with its classifier",
            module="efficientnet",
            recipe="ssd320_mobilenetv3_fpn",
            inputs=_IMAGENET,
            remark=f"{_GARDEN}'efficientnet' and options = {{'model_id': '{name.lower()}', "
            "'se_ratio': 0.25, 'se_inner_activation': 'swish'}.",
        )
        for name, (digest, size) in _EFFICIENTNETS.items()
    ),
)
