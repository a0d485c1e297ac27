"""VGG-16 without its classifier, with its first two dense layers as convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import gin

from ssd_centernet._keras import keras
from ssd_centernet.layers.dilated import DilatedConv2D
from ssd_centernet.models.backbones.base import Backbone


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class VGG16(Backbone):
    """VGG-16 with "reduced fc6 and fc7", as in SSD: no batch norm, a ReLU after every layer.

    Gives level "3" (conv4_3, stride 8) and level "4" (conv7, stride 16: pool5 does not stride, and
    conv6 is dilated instead). Pools round sizes up. Layers are named conv1_1 to conv5_3, conv6 and
    conv7, as in published weights.

    Source:
        docs/reference/ssd_vgg16.md, sections 2 and 4
        Very Deep Convolutional Networks for Large-Scale Image Recognition (arXiv:1409.1556)
    """

    def __init__(
        self,
        width: float = 1.0,
        *,
        convs: Sequence[int] = (2, 2, 3, 3, 3),
        dilation: int = 6,
        name: str = "vgg16",
        **kwargs,
    ):
        """Build the network.

        Args:
            width: factor of all channels, which are (64, 128, 256, 512, 512) in the five blocks and
                1024 in conv6 and conv7.
            convs: number of convolutions of each of the five blocks.
            dilation: dilation of conv6.
            name: name of the model.
            **kwargs: passed to the Keras model.

        Raises:
            ValueError: `convs` does not have five numbers, or `width` leaves no channels.
        """
        if len(convs) != 5 or width * 64 < 1:
            raise ValueError(
                "VGG16 needs the number of convolutions of five blocks and a width of at least "
                f"1/64, got convs={tuple(convs)} and width={width}."
            )
        images = features = keras.Input((None, None, 3), name="image")
        outputs = {}
        for block, (count, channels) in enumerate(
            zip(convs, (64, 128, 256, 512, 512), strict=True), 1
        ):
            for index in range(1, count + 1):
                features = _conv(features, int(width * channels), 3, f"conv{block}_{index}")
            if block == 4:
                outputs["3"] = features
            # "same" pads an odd side at its end, and padding is never the maximum.
            pool = (3, 1) if block == 5 else (2, 2)
            features = keras.layers.MaxPooling2D(*pool, "same", name=f"pool{block}")(features)
        features = _conv(features, int(width * 1024), 3, "conv6", dilation_rate=dilation)
        outputs["4"] = _conv(features, int(width * 1024), 1, "conv7")
        super().__init__(inputs=images, outputs=outputs, name=name, **kwargs)
        self._config = {"width": width, "convs": tuple(convs), "dilation": dilation}

    @property
    def conv_layers(self) -> list[keras.layers.Conv2D]:
        """Return the convolutions in the order of the network and of published weights."""
        return [layer for layer in self.layers if isinstance(layer, keras.layers.Conv2D)]


def _conv(features, channels: int, kernel: int, name: str, **settings):
    """Add a convolution with bias and ReLU that keeps the size."""
    convolution = DilatedConv2D if "dilation_rate" in settings else keras.layers.Conv2D
    return convolution(
        channels,
        kernel,
        padding="same",
        activation="relu",
        # Normal with variance 2 / fan_out, not truncated.
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
        **settings,
    )(features)
