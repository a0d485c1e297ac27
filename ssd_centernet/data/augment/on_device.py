"""A chain in two places: the input pipeline decodes and decides, the device makes the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import tensorflow as tf

from ssd_centernet.data.augment.common import Augmentation, Example, Picture
from ssd_centernet.data.augment.ssd import check_image_size
from ssd_centernet.ops import crops
from ssd_centernet.ops.rendering import render_batch

# What differs from image to image in the terms of `ops.rendering`.
_TENSORS = ("places", "box", "colors")


@gin.configurable
class DeviceRendering:
    """Ship the windows of pictures that a chain chooses as bytes, and render them in the step.

    The draws are those of the chain, so crops, boxes and targets are the same as where the pipeline
    renders, and pixels are the same to rounding. Batches hold, instead of `image`: `pixels` uint8
    [B, H, W, 3], the windows at the top left of frames of one size; `pixel_sizes` int32 [B, 2]; and
    `view`, a dict of small tensors that says what becomes of them.
    """

    def __init__(self, chain: Callable, *, window_size: tuple[int, int] = (640, 640)) -> None:
        """Take a chain apart.

        Args:
            chain: of `data/augment/`.
            window_size: (height, width) of the frames in pixels: at least those of the largest
                picture. COCO's have 640 at most.

        Raises:
            ValueError: the chain cannot be taken apart.
        """
        if not isinstance(chain, Augmentation):
            raise ValueError(
                f"train.augment_on is 'device', but {_name(chain)} is no chain of the kind of "
                "SSDAugment, which draws first and makes pixels then. Set it to 'host'."
            )
        self._chain = chain
        try:
            self.window_size = check_image_size(window_size)
        except ValueError as error:
            raise ValueError(f"DeviceRendering.window_size: {error}") from error
        self._settings = self._settings_of(chain)

    def at_size(self, image_size: Sequence[int]) -> DeviceRendering:
        """Return what does the same for the chain at another size, (height, width) in pixels."""
        chain = self._chain.at_size(image_size)
        return DeviceRendering(chain, window_size=self.window_size)

    @staticmethod
    def _settings_of(chain: Augmentation) -> dict[str, Any]:
        """Find what is the same for all images."""
        with tf.Graph().as_default():
            example = {
                "boxes": tf.zeros([1, 4]),
                "classes": tf.zeros([1], tf.int32),
                "is_crowd": tf.zeros([1], tf.bool),
                "area": tf.zeros([1]),
            }
            _, view = chain.plan(example, tf.constant([32, 32]), tf.constant([0, 0]))
            form = chain.compiled_form(view)
        if form is None:
            raise ValueError(
                f"train.augment_on is 'device', but {_name(chain)} has a setting that is only made "
                "by the input pipeline, such as SSDVGGAugment.distort_last. Set it to 'host'."
            )
        settings = {key: value for key, value in form.items() if key not in _TENSORS}
        return {**settings, "mean": chain.mean, "std": chain.std, "channels": chain.channels}

    def check_fit(self, largest: tuple[int, int]) -> None:
        """Refuse pictures that the frames may not hold, before a training and not in its midst.

        Args:
            largest: height and width of the largest pictures, in pixels.

        Raises:
            ValueError: says what is needed.
        """
        needed = tuple(map(max, self.window_size, largest))
        if needed != self.window_size:
            raise ValueError(
                f"the step makes the pixels (train.augment_on = 'device') from frames of "
                f"DeviceRendering.window_size = {self.window_size}, (height, width), but the "
                f"pictures to train on have up to {largest[0]} rows and {largest[1]} columns: set "
                f"DeviceRendering.window_size = {needed}, or train.augment_on = 'host'."
            )

    def ship(self, example: Mapping[str, tf.Tensor], seed: tf.Tensor) -> Example:
        """Decode the window of one example, in the input pipeline.

        Args:
            example: as the chain takes it.
            seed: integer [2], stateless seed.

        Returns:
            The example as the chain gives it, with `pixels`, `pixel_sizes` and `view` instead of
            `image`.
        """
        example = dict(example)
        picture = Picture(example)
        example, view = self._chain.plan(example, picture.size, seed)
        around = picture.read_around(view["window"], margin=self._chain.window_margin)
        pixels = tf.ensure_shape(crops.cut(*around), [None, None, 3])
        size = tf.shape(pixels)[:2]
        message = (
            f"the step makes the pixels (train.augment_on) from frames of {self.window_size}, but "
            "a picture needs more: set DeviceRendering.window_size to the (height, width) of the "
            "largest picture. Needed (height and width):"
        )
        fits = tf.debugging.Assert(
            tf.reduce_all(size <= tf.constant(self.window_size)), [message, size]
        )
        with tf.control_dependencies([fits] if fits is not None else []):
            margin = tf.constant(self.window_size) - size
        padded = tf.pad(pixels, [[0, margin[0]], [0, margin[1]], [0, 0]])
        form = self._chain.compiled_form(view)
        example["pixels"] = tf.ensure_shape(padded, [*self.window_size, 3])
        example["pixel_sizes"] = size
        example["view"] = {"flip": view["flip"]} | {
            key: form[key] for key in _TENSORS if form.get(key) is not None
        }
        return example

    def render(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Make the images of a batch, on the device.

        Args:
            batch: with `pixels`, `pixel_sizes` and `view`.

        Returns:
            The batch with `image` float32 [B, h, w, 3], normalised, instead of these.
        """
        batch = dict(batch)
        pixels, sizes, view = (batch.pop(key) for key in ("pixels", "pixel_sizes", "view"))
        size = self._chain.image_size
        batch["image"] = render_batch(pixels, sizes, size, **view, **self._settings)
        return batch


def _name(chain: Any) -> str:
    return "None" if chain is None else getattr(chain, "__name__", type(chain).__name__)
