"""Every published network with few channels, for tests that train it on a CPU."""

SIZE = (96, 96)

_SHARED_HEAD = ("FPN.width = 16", "SharedSSDHead.width = 16", "SharedSSDHead.depth = 2")
_BOTTLENECK = (
    "BottleneckResNet.blocks = (1, 1, 1, 1)",
    "BottleneckResNet.widths = (4, 8, 8, 8)",
    "BottleneckResNet.stem_width = 8",
)
_VGG = "VGG16.width = 0.0625"

# Settings that leave the kinds of layers and their precision as the recipe has them.
NARROW = {
    "ssd300_resnet34": (
        "ResNet.blocks = (1, 1, 1)",
        "ResNet.widths = (8, 8, 16)",
        "ResNet.stem_width = 8",
        f"SSDExtraLevels.widths = {((8, 16),) * 5}",
    ),
    "ssd320_resnet50_fpn": (*_BOTTLENECK, *_SHARED_HEAD),
    "ssd320_mobilenetv3_fpn": (
        "ModelGardenBackbone.options = {'model_id': 'MobileNetV3Small', 'filter_size_scale': 0.5}",
        *_SHARED_HEAD,
    ),
    "ssd300_vgg16": (_VGG, f"VGGExtraLevels.widths = {((8, 16),) * 4}"),
    "ssd512_vgg16": (_VGG, f"VGGExtraLevels.widths = {((8, 16),) * 5}"),
    "centernet_resnet101_fpn": (
        *_BOTTLENECK,
        "CenterNetFPN.widths = (16, 16, 8)",
        "CenterNetFPN.output_width = 8",
        "CenterNetHead.width = 16",
    ),
    # Fewer levels too: the sixth would have a single cell, and 104 layers take minutes to trace.
    "centernet_hourglass104": ("Hourglass.model_id = 20", "Hourglass.width = 4"),
    "centernet_hourglass52": ("Hourglass.model_id = 32", "Hourglass.width = 4"),
    "centernet_hourglass20": ("Hourglass.width = 4",),
}
