"""What a backbone says of its maps without being called again, beside what Keras finds out."""

import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.models.backbones.base import Backbone
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.efficientnet_lite import EfficientNetLite0
from ssd_centernet.models.backbones.hourglass import Hourglass
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.runtime.precision import policy_scope

BACKBONES = {
    "bottleneck": lambda: BottleneckResNet((1, 1, 1, 1), widths=(8, 8, 8, 8), stem_width=8),
    "efficientnet": lambda: EfficientNetLite0(0.25, blocks=(1,) * 7),
    "hourglass": lambda: Hourglass(10, num_stacks=2, width=8),
    "resnet": lambda: ResNet((1, 1), widths=(8, 8), strides=(1, 2), stem_width=8),
    "vgg": VGG16,
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_maps_are_described_as_keras_finds_them(name, dtype, monkeypatch):
    calls, whole = [], Backbone.call
    monkeypatch.setattr(Backbone, "call", lambda *a, **k: calls.append(a) or whole(*a, **k))
    with policy_scope(dtype):
        backbone = BACKBONES[name]()
        images = keras.Input((97, 130, 3))
        quick = backbone(images)
        assert not calls
        monkeypatch.delattr(Backbone, "_infer_output_signature")
        slow = backbone(images)
        assert calls
    assert list(quick) == list(slow)
    for level, found in slow.items():
        assert quick[level].shape.as_list() == found.shape.as_list()
        assert None not in found.shape[1:]
        assert quick[level].dtype == found.dtype
        assert found.dtype == {"fp32": tf.float32, "bf16": tf.bfloat16}[dtype]
