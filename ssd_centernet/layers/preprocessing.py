"""What must be done to an image before a network sees it; it belongs to the weights."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.ops import image as image_ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class Preprocessing(Float32Layer):
    """Resizes (without keeping the aspect ratio) and normalises RGB images.

    Source: reference specification ssd_resnet34, section 7.5.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (300, 300),
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        name: str = "preprocessing",
        **kwargs,
    ):
        """Configures the preprocessing.

        Args:
          image_size: (height, width) of the network's input in pixels.
          mean: of R, G, B in [0, 1].
          std: of R, G, B in [0, 1].
          name: of the layer.
          **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.image_size = tuple(image_size)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Prepares uint8 RGB images, [H, W, 3] or [B, H, W, 3], as float32 of `image_size`."""
        resized = image_ops.resize_legacy_bilinear(images, self.image_size)
        return image_ops.normalize(resized / 255.0, self.mean, self.std)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
        }
