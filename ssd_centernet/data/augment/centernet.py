"""The augmentation chains of the two CenterNets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet.data.augment import common
from ssd_centernet.data.augment.ssd import check_image_size
from ssd_centernet.native import calls
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import crops
from ssd_centernet.ops import image as image_ops

Example = common.Example


@gin.register
class SquareCropAugment(common.Augmentation):
    """The chain of CenterNet Hourglass-104: flip, colour jitter, a square crop, half-pixel resize.

    The square may reach beyond the image. It is black there, and this padding counts as part of the
    picture, as in the published runs. With `square_crop` off, the image is resized to fit
    `image_size` times a factor drawn from `scales`, and a random part of what does not fit is cut
    off; `extent` then tells how much is black at the bottom and the right. With a factor of 1, no
    flip and no jitter, only the evaluation path remains.

    Args:
        image_size: (height, width) of the result in pixels.
        mean: channel means after division by `scale`, in the order of `channels`.
        std: channel deviations after division by `scale`, in the order of `channels`.
        scale: divisor of the pixels (0..255), applied first.
        channels: order of the channels of the result, "RGB" or "BGR".
        flip_probability: chance of a horizontal flip.
        square_crop: whether to cut squares.
        scales: bounds of the square's side over the image's longer side or, without squares, of the
            factor on a fit into `image_size`.
        num_scales: number of evenly spaced sides to draw from; without squares the factor is drawn
            from the whole range.
        jitter: whether to jitter the colours; all four kinds then run on every image.
        hue: largest change of the hue, as a fraction of the circle.
        contrast: bounds of the contrast factor.
        saturation: bounds of the saturation factor.
        brightness: largest amount added, on the 0..1 scale. Without squares, the original adds the
            same number on the 0..255 scale: 0.2 / 255 here.
        clip_each: whether to clip colours after each of the four kinds; off clips once at the end,
            as the original does without squares.
        compiled: whether to compile the colours with XLA (about eight times as fast on a CPU).

    Raises:
        ValueError: an image size that is not two positive numbers, or not square although squares
            are cut, a probability outside 0..1, or another order of channels.

    Source: docs/reference/centernet.md, section 5.2
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (512, 512),
        *,
        mean: Sequence[float] = (104.01362025, 114.03422265, 119.9165958),
        std: Sequence[float] = (73.6027665, 69.89082075, 70.9150767),
        scale: float = 1.0,
        channels: str = "BGR",
        flip_probability: float = 0.5,
        square_crop: bool = True,
        scales: tuple[float, float] = (0.6, 1.3),
        num_scales: int = 8,
        jitter: bool = True,
        hue: float = 0.02,
        contrast: tuple[float, float] = (0.8, 1.25),
        saturation: tuple[float, float] = (0.8, 1.25),
        brightness: float = 0.2,
        clip_each: bool = True,
        compiled: bool = True,
    ):
        self.image_size = check_image_size(image_size)
        self._normalize_with(mean, std, scale, channels, compiled)
        self.flip_probability = flip_probability
        self.square_crop = square_crop
        self.scales = tuple(scales)
        self.num_scales = num_scales
        common.check_settings(self, probabilities=("flip_probability",))
        self._jitter = None
        if jitter:
            self._jitter = common.HueFirstJitter(
                hue=hue,
                contrast=contrast,
                saturation=saturation,
                brightness=brightness,
                clip_each=clip_each,
                compiled=compiled,
            )

    def plan(self, example: Example, size: tf.Tensor, seed: tf.Tensor):
        # One call for all: the flip, four for the colours, three for the crop.
        draws = tf.random.stateless_uniform([8], common.spaced_seed(seed))
        flip = draws[0] < self.flip_probability
        boxes = tf.where(flip, box_ops.flip_left_right(example["boxes"]), example["boxes"])
        place = self._square if self.square_crop else self._scaled
        boxes, kept, example["extent"], view = place(size, boxes, draws[5:])
        example = common.keep_objects(example, boxes, kept & common.has_area(boxes))
        window = common.whole_window(size)
        if self.square_crop and self._jitter is None:
            window = view["part"]
            view["part"] = common.whole_window(window[2:])  # Of the window: all.
        # Of the picture as it was before it was mirrored.
        window = tf.where(flip, crops.mirror_window(window, size[1]), window)
        return example, {"window": window, "flip": flip, "draws": draws[1:5], **view}

    def render(self, pixels: tf.Tensor, view: Mapping[str, tf.Tensor]) -> tf.Tensor:
        image = common.mirror(pixels, view["flip"])
        # Contrast is a matter of the whole image, whatever part of it is used.
        if self._jitter is not None:
            image = self._jitter(image, view["draws"])
        if self.square_crop:
            canvas = crops.paste(crops.cut(image, view["part"]), view["offset"], view["canvas"])
            image = image_ops.resize_and_pad(canvas, self.image_size)
        else:
            place = view["scaled"], view["offset"]
            image = crops.resize_scaled_crop(image, self.image_size, *place)
        return self._normalize(image)

    def compiled_form(self, view: Mapping[str, tf.Tensor]) -> dict:
        size = view["window"][2:]
        if self.square_crop:
            canvas = view["canvas"]
            places = calls.places(
                view["part"],
                offset=view["offset"],
                canvas=canvas,
                scaled=image_ops.fitted_size(canvas[0], canvas[1], self.image_size),
            )
        else:
            places = calls.places(
                common.whole_window(size), canvas=size, scaled=view["scaled"], cut=view["offset"]
            )
        colors = {} if self._jitter is None else self._jitter.compiled_form(view["draws"])
        return {
            "sampling": "half_pixel",
            "places": places,
            "mirror_picture": True,
            "divisor": self.scale,
            **colors,
        }

    def _square(self, size, boxes, draws):
        choices = tf.constant(np.linspace(*self.scales, self.num_scales), tf.float32)
        scale = choices[tf.cast(draws[0] * self.num_scales, tf.int32)]
        border = crops.square_crop_border(size)
        # Both ends of the range are drawn. A side of one pixel leaves it empty.
        span = tf.cast(tf.maximum(size - 2 * border + 1, 1), tf.float32)
        center = border + tf.cast(draws[1:] * span, tf.int32)
        part, offset, square = crops.square_crop(size, scale, center)
        boxes, kept = crops.crop_boxes(boxes, crops.frame_of(square, size))
        # A square does not fill a frame that is not square.
        extent = tf.constant([min(self.image_size) / side for side in self.image_size])
        view = {"part": part, "offset": offset, "canvas": square[2:]}
        return boxes * tf.tile(extent, [2]), kept, extent, view

    def _scaled(self, size, boxes, draws):
        scale = self.scales[0] + draws[0] * (self.scales[1] - self.scales[0])
        scaled, offset = crops.scaled_crop(size, self.image_size, scale, draws[1:])
        frame = crops.frame_of(tf.concat([offset, self.image_size], axis=0), scaled)
        boxes, kept = crops.crop_boxes(boxes, frame)
        extent = tf.minimum(scaled - offset, self.image_size) / tf.constant(self.image_size)
        return boxes, kept, tf.cast(extent, tf.float32), {"scaled": scaled, "offset": offset}


@gin.register
class CropPadAugment(common.Augmentation):
    """The chain of CenterNet ResNet-101 FPN: flip, crop, colour jitter, padding, legacy resize.

    The image is resized with its aspect ratio kept and lies at the top left; `extent` tells how
    much is black at the bottom and the right. With flip, crop, jitter and padding off, only the
    evaluation path remains.

    Args:
        image_size: (height, width) of the result in pixels.
        mean: channel means after division by `scale`, in the order of `channels`.
        std: channel deviations after division by `scale`, in the order of `channels`.
        scale: divisor of the pixels (0..255), applied first.
        channels: order of the channels of the result, "RGB" or "BGR".
        flip_probability: chance of a horizontal flip.
        crop_probability: chance of a crop; without one every box stays.
        min_object_covered: share of at least one box that a crop must contain.
        aspect_ratios: bounds of a crop's width / height, in pixels.
        areas: bounds of a crop's area as a share of the image's.
        max_attempts: number of crops tried before the whole image is kept.
        min_overlap: share of a box's area that must lie in the crop for the box to stay.
        jitter: whether to jitter the colours; all four kinds then run on every image.
        hue: largest change of the hue, as a fraction of the circle.
        contrast: bounds of the contrast factor.
        saturation: bounds of the saturation factor.
        brightness: largest amount added, on the 0..1 scale.
        max_padding: bound (exclusive) of the black rows and columns, in pixels of the original,
            that are added around the picture; 0 adds none.
        compiled: whether to compile the colours with XLA (about eight times as fast on a CPU).

    Raises:
        ValueError: an image size that is not two positive numbers, a probability outside 0..1, or
            another order of channels.

    Source: docs/reference/centernet.md, section 5.3
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (512, 512),
        *,
        mean: Sequence[float] = (103.939, 116.779, 123.68),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        scale: float = 1.0,
        channels: str = "BGR",
        flip_probability: float = 0.5,
        crop_probability: float = 0.75,
        min_object_covered: float = 1.0,
        aspect_ratios: tuple[float, float] = (0.5, 1.7),
        areas: tuple[float, float] = (0.1, 1.0),
        max_attempts: int = 100,
        min_overlap: float = 0.3,
        jitter: bool = True,
        hue: float = 0.02,
        contrast: tuple[float, float] = (0.8, 1.25),
        saturation: tuple[float, float] = (0.8, 1.25),
        brightness: float = 0.2,
        max_padding: int = 200,
        compiled: bool = True,
    ):
        self.image_size = check_image_size(image_size)
        self._normalize_with(mean, std, scale, channels, compiled)
        self.flip_probability = flip_probability
        self.crop_probability = crop_probability
        self.min_overlap = min_overlap
        self.max_padding = max_padding
        probabilities = ("flip_probability", "crop_probability", "min_overlap")
        common.check_settings(self, probabilities=probabilities)
        self._window_options = {
            "min_object_covered": min_object_covered,
            "aspect_ratios": tuple(aspect_ratios),
            "areas": tuple(areas),
            "max_attempts": max_attempts,
        }
        self._jitter = None
        if jitter:
            self._jitter = common.HueFirstJitter(
                hue=hue,
                contrast=contrast,
                saturation=saturation,
                brightness=brightness,
                compiled=compiled,
            )

    def plan(self, example: Example, size: tf.Tensor, seed: tf.Tensor):
        seed = common.spaced_seed(seed)
        # The flip, whether to crop, four for the colours, four for the padding. The crop itself
        # tries an unknown number of windows, so it has a seed of its own.
        draws = tf.random.stateless_uniform([10], seed)
        flip = draws[0] < self.flip_probability
        boxes = tf.where(flip, box_ops.flip_left_right(example["boxes"]), example["boxes"])
        window, boxes, kept = tf.cond(
            draws[1] < self.crop_probability,
            lambda: self._crop(size, boxes, seed + [0, 1]),
            lambda: (common.whole_window(size), boxes, tf.ones_like(boxes[:, 0], tf.bool)),
        )
        canvas, offset = self._padding(window[2:], draws[6:])
        inner = image_ops.fitted_size(canvas[0], canvas[1], self.image_size)
        extent = tf.cast(inner, tf.float32) / tf.constant(self.image_size, tf.float32)
        boxes = crops.reframe_boxes(
            boxes, crops.frame_of(tf.concat([-offset, canvas], 0), window[2:])
        )
        example = common.keep_objects(example, boxes * tf.tile(extent, [2]), kept)
        example["extent"] = extent
        # Of the picture as it was before it was mirrored.
        window = tf.where(flip, crops.mirror_window(window, size[1]), window)
        view = {"window": window, "flip": flip, "draws": draws[2:6]}
        return example, {**view, "offset": offset, "canvas": canvas}

    def render(self, pixels: tf.Tensor, view: Mapping[str, tf.Tensor]) -> tf.Tensor:
        image = common.mirror(pixels, view["flip"])
        if self._jitter is not None:
            image = self._jitter(image, view["draws"])
        canvas = crops.paste(image, view["offset"], view["canvas"])
        return self._normalize(image_ops.resize_and_pad(canvas, self.image_size, legacy=True))

    def compiled_form(self, view: Mapping[str, tf.Tensor]) -> dict:
        canvas = view["canvas"]
        colors = {} if self._jitter is None else self._jitter.compiled_form(view["draws"])
        return {
            "sampling": "legacy",
            "places": calls.places(
                common.whole_window(view["window"][2:]),
                offset=view["offset"],
                canvas=canvas,
                scaled=image_ops.fitted_size(canvas[0], canvas[1], self.image_size),
            ),
            "mirror_picture": True,
            "divisor": self.scale,
            **colors,
        }

    def _crop(self, size, boxes, seed):
        window = crops.sample_window(size, boxes, seed, **self._window_options)
        frame = crops.frame_of(window, size)
        return window, *crops.crop_boxes(boxes, frame, min_overlap=self.min_overlap)

    def _padding(self, size: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return size and offset (y, x) of the canvas around a picture of `size`, int32 [2]."""
        more = tf.cast(draws[:2] * self.max_padding, tf.int32)
        return size + more, tf.cast(draws[2:] * tf.cast(more, tf.float32), tf.int32)
