"""Preparation of images for a network; it belongs to the weights."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.ops import image as image_ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class Preprocessing(Float32Layer):
    """Resize and normalise RGB images: `(pixels / scale - mean) / std`.

    The defaults are those of SSD300 ResNet-34; every recipe binds its own.

    Source:
        docs/reference/ssd_resnet34.md, section 7.5
        docs/reference/ssd320_resnet50_fpn.md, section 2.6
        docs/reference/ssd_vgg16.md, section 11.7
        docs/reference/centernet.md, sections 5.2 and 5.3
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (300, 300),
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        scale: float = 255.0,
        resize: str = "legacy_bilinear",
        keep_aspect: bool = False,
        channels: str = "RGB",
        round_pixels: bool = False,
        name: str = "preprocessing",
        **kwargs,
    ):
        """Configure the preprocessing.

        Args:
            image_size: (height, width) of the network's input in pixels.
            mean: means of the three channels after division by `scale`, in the order of `channels`.
            std: deviations of the three channels after division by `scale`, in the order of
                `channels`.
            scale: divisor of the pixels (0..255), applied first.
            resize: "bilinear" samples with half-pixel centres, "legacy_bilinear" without them, as
                in TensorFlow 1.
            keep_aspect: whether to keep the aspect ratio and fill `image_size` up with zeros
                (black, before normalisation) at the bottom and the right.
            channels: order of the network's channels, "RGB" or "BGR".
            round_pixels: whether to round resized pixels to whole numbers, as a resize of bytes
                does.
            name: name of the layer.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: `resize` or `channels` is not one of its two choices.
        """
        super().__init__(name=name, **kwargs)
        self.image_size = tuple(image_size)
        self.mean = tuple(mean)
        self.std = tuple(std)
        for setting, value, choices in (
            ("resize", resize, ("legacy_bilinear", "bilinear")),
            ("channels", channels, ("RGB", "BGR")),
        ):
            if value not in choices:
                raise ValueError(f"Preprocessing.{setting} must be in {choices}, got {value!r}.")
        self.scale = scale
        self.resize = resize
        self.keep_aspect = keep_aspect
        self.channels = channels
        self.round_pixels = round_pixels

    def at_size(self, image_size: tuple[int, int], *, before: tuple[int, int]) -> Preprocessing:
        """Return the same preparation for images of another size; see `Detector.at_size`."""
        del before
        return type(self).from_config({**self.get_config(), "image_size": tuple(image_size)})

    def extent(self, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Compute the share of the network's input that an image covers.

        Args:
            height: int [...], height of the image in pixels.
            width: int [...], width of the image in pixels.

        Returns:
            float32 [..., 2]: shares (height, width) in (0, 1]; ones if nothing is padded.
        """
        if not self.keep_aspect:
            # If the batch size is open, only the graph knows the number of rows.
            return tf.ones_like(tf.stack([height, width], axis=-1), tf.float32)
        inner = image_ops.fitted_size(height, width, self.image_size)
        return tf.cast(inner, tf.float32) / tf.constant(self.image_size, tf.float32)

    def call(self, images: tf.Tensor, *, portable: bool = False) -> tf.Tensor:
        """Prepare uint8 RGB images, [H, W, 3] or [B, H, W, 3], as float32 of `image_size`.

        Args:
            images: of any size.
            portable: whether to use only operations of TFLite and ONNX; this needs a batch.

        Returns:
            float32 of the same rank.
        """
        return self.normalize(self.resized(images, portable=portable))

    def resized(self, images: tf.Tensor, *, portable: bool = False) -> tf.Tensor:
        """Resize images, as in a call, and leave their pixels in 0..255: float32."""
        legacy = self.resize == "legacy_bilinear"
        if self.keep_aspect:
            resized = image_ops.resize_and_pad(
                images, self.image_size, legacy=legacy, portable=portable
            )
        elif portable:
            resized = image_ops.resize_by_gathering(images, self.image_size, legacy=legacy)
        elif legacy:
            resized = image_ops.resize_legacy_bilinear(images, self.image_size)
        else:
            resized = image_ops.resize_bilinear(images, self.image_size)
        if self.round_pixels:
            resized = tf.round(resized)
        return resized

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Normalise float32 RGB images [..., 3] in 0..255 that have their final size."""
        # Before the mean, which is in the network's order of channels.
        if self.channels == "BGR":
            images = tf.reverse(images, axis=[-1])
        if self.scale != 1.0:
            images = images / self.scale
        return image_ops.normalize(images, self.mean, self.std)

    def denormalize(self, images: tf.Tensor) -> np.ndarray:
        """Turn network inputs [..., 3] back into uint8 RGB pixels of the same shape."""
        pixels = np.asarray(images, np.float32) * np.asarray(self.std, np.float32)
        pixels = (pixels + np.asarray(self.mean, np.float32)) * self.scale
        # Augmented inputs may leave 0..255, and those of a failed run may be NaN.
        pixels = np.nan_to_num(pixels).round().clip(0, 255).astype(np.uint8)
        return pixels[..., ::-1] if self.channels == "BGR" else pixels
