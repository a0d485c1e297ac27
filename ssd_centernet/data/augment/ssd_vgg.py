"""The augmentation of SSD with VGG-16: colours, expansion, a crop by overlap, resize, flip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import gin
import tensorflow as tf

from ssd_centernet.data.augment.common import (
    Augmentation,
    Example,
    check_settings,
    keep_objects,
    spaced_seed,
    whole_window,
)
from ssd_centernet.data.augment.overlap_crop import crop_boxes, expansion, sample_crop
from ssd_centernet.data.augment.ssd import check_image_size
from ssd_centernet.native import calls
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import color
from ssd_centernet.ops import image as image_ops

# Of 0..255, RGB: what the published VGG-16 weights were trained with.
VGG_MEAN = (123.675, 116.28, 103.53)

# Of the 1024 seeds that belong to one example, the turns of the crop search take the first ones.
_COLOR_WORD = 1023
_PLACE_WORD = 1022
# The arguments of `ops.color.distort`.
_COLORS = ("brightness", "contrast_first", "saturation", "hue", "contrast_last", "order")


def _taps(start: tf.Tensor, length: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the two samples of each result along one side, int32 [2 * count], and their blend.

    Positions are those of a bilinear resize with half-pixel centres that repeats the border.
    """
    positions = tf.range(count, dtype=tf.float64) + 0.5
    positions = positions * (tf.cast(length, tf.float64) / count) - 0.5
    lower = tf.floor(positions)
    both = tf.concat([lower, lower + 1.0], axis=0)
    both = tf.clip_by_value(tf.cast(both, tf.int32), 0, length - 1)
    return start + both, tf.cast(positions - lower, tf.float32)


@gin.register
class SSDVGGAugment(Augmentation):
    """The augmentation of SSD300 and SSD512 with VGG-16, to be used with crowd = "ignore".

    Colours are distorted. The picture is put on a canvas of the mean colour, up to four times as
    large, cropped by its overlap with the boxes (all of them, crowd regions too), resized without
    keeping the aspect ratio, normalised and flipped. The canvas is never made: each pixel of the
    result has four samples; those on the picture are read, the others have the mean colour.

    Args:
        image_size: (height, width) of the result in pixels.
        mean: channel means on the 0..255 scale, RGB; also the canvas' colour.
        std: channel deviations on the 0..255 scale, RGB.
        distort: whether to distort colours; each kind has a chance of 1/2.
        distort_last: whether to distort colours after the resize, as later versions of the original
            do; the resize then gives whole numbers, and the canvas is distorted too.
        brightness: largest amount added, on the 0..255 scale.
        contrast: bounds of the contrast factor.
        saturation: bounds of the saturation factor.
        hue: largest change of the hue, in degrees.
        expand_probability: chance of a larger canvas.
        max_expansion: largest ratio of the canvas' sides to the picture's.
        crop: whether to crop.
        min_ious: overlaps; each turn of the crop search draws one.
        no_crop_probability: chance, in each turn, of keeping the whole picture.
        min_extent: smallest height and width of a crop as fractions of the picture's.
        flip_probability: chance of a horizontal flip.
        compiled: whether to compile the work on pixels with XLA.

    Raises:
        ValueError: an image size that is not two positive numbers, or a probability outside 0..1.

    Source: docs/reference/ssd_vgg16.md, section 11
    """

    scale = 1.0
    channels = "RGB"

    def __init__(
        self,
        image_size: tuple[int, int] = (300, 300),
        *,
        mean: tuple[float, float, float] = VGG_MEAN,
        std: tuple[float, float, float] = (1.0, 1.0, 1.0),
        distort: bool = True,
        distort_last: bool = False,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 18.0,
        expand_probability: float = 0.5,
        max_expansion: float = 4.0,
        crop: bool = True,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0),
        no_crop_probability: float = 1 / 7,
        min_extent: float = 0.3,
        flip_probability: float = 0.5,
        compiled: bool = True,
    ):
        self.image_size = check_image_size(image_size)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.distort = distort
        self.distort_last = distort_last
        self.expand_probability = expand_probability
        self.max_expansion = max_expansion
        self.crop = crop
        self.no_crop_probability = no_crop_probability
        self.flip_probability = flip_probability
        check_settings(
            self, probabilities=("expand_probability", "no_crop_probability", "flip_probability")
        )
        self._crop_options = {
            "min_ious": tuple(min_ious),
            "no_crop_probability": no_crop_probability,
            "min_extent": min_extent,
        }
        self._bounds = ((-brightness, brightness), tuple(contrast), tuple(saturation), (-hue, hue))
        self._finish: Callable = tf.function(self._pixels, jit_compile=compiled, autograph=False)

    def plan(self, example: Example, size: tf.Tensor, seed: tf.Tensor):
        place = self.place(size, example["boxes"], seed)
        example = keep_objects(example, place["boxes"], place["kept"])
        # Of the picture, only what the result shows is read; never less than a pixel.
        start, end = place["window"][:2] - place["offset"], place["window"][2:] - place["offset"]
        first = tf.clip_by_value(start, 0, size - 1)
        last = tf.clip_by_value(end, first + 1, size)
        view = {
            "window": tf.concat([first, last - first], axis=0),
            "shown": tf.concat([start, end - start], axis=0),
            "size": size,
            "flip": place["flip"],
            **self.color_draws(seed),
        }
        return example, view

    def place(self, size: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draw the place of the result on the canvas and compute the boxes in it.

        Args:
            size: int32 [2], (height, width) of the picture in pixels.
            boxes: float32 [N, 4], yxyx fractions of the picture.
            seed: integer [2], stateless seed.

        Returns:
            `canvas` int32 [2], its (height, width); `offset` int32 [2], the picture's (y, x) on it;
            `window` int32 [4], yxyx pixels of the canvas; `bound` float32, the overlap that the
            window was drawn with, 1 for the whole canvas; `flip` bool; `boxes` float32 [N, 4],
            fractions of the result; `kept` bool [N].
        """
        draws = tf.random.stateless_uniform([5], seed=spaced_seed(seed) + [0, _PLACE_WORD])
        canvas, offset = expansion(
            size,
            draws[:4],
            probability=self.expand_probability,
            max_ratio=self.max_expansion,
        )
        sides, shift = tf.cast(size, tf.float32), tf.cast(offset, tf.float32)
        boxes = boxes * tf.concat([sides, sides], axis=0) + tf.concat([shift, shift], axis=0)
        window = tf.concat([tf.zeros([2]), tf.cast(canvas, tf.float32)], axis=0)
        bound = tf.constant(1.0)
        if self.crop:
            window, bound = sample_crop(boxes, canvas, seed, **self._crop_options)
        boxes, kept = crop_boxes(boxes, window, bound)
        extent = window[2:] - window[:2]
        boxes = box_ops.clip(boxes / tf.concat([extent, extent], axis=0))
        flip = draws[4] < self.flip_probability
        boxes = tf.where(flip, box_ops.flip_left_right(boxes), boxes)
        return {
            "canvas": canvas,
            "offset": offset,
            "window": tf.cast(window, tf.int32),
            "bound": bound,
            "flip": flip,
            "boxes": boxes,
            "kept": kept,
        }

    def color_draws(self, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draw the arguments of `ops.color.distort`; kinds left out get values without effect.

        Args:
            seed: integer [2], stateless seed.

        Returns:
            Scalars by argument name.
        """
        draws = tf.random.stateless_uniform([11], seed=spaced_seed(seed) + [0, _COLOR_WORD])
        applied = draws[:5] < 0.5
        neutral = (0.0, 1.0, 1.0, 0.0)
        values = [
            tf.where(applied[kind], low + (high - low) * draws[5 + kind], neutral[kind])
            for kind, (low, high) in enumerate(self._bounds)
        ]
        # The contrast comes before or after the change of hue and saturation, half the time each.
        first = draws[9] < 0.5
        orders = len(color.CHANNEL_ORDERS)
        order = tf.minimum(tf.cast(draws[10] * orders, tf.int32), orders - 1)
        return {
            "brightness": values[0],
            "contrast_first": tf.where(first, values[1], 1.0),
            "saturation": values[2],
            "hue": values[3],
            "contrast_last": tf.where(first, 1.0, values[1]),
            "order": tf.where(applied[4], order, 0),
        }

    def render(self, pixels: tf.Tensor, view: Mapping[str, tf.Tensor]) -> tf.Tensor:
        samples, inside, blends = [], [], []
        for side, count in enumerate(self.image_size):
            first, length = view["window"][side], view["window"][side + 2]
            taps, blend = _taps(view["shown"][side], view["shown"][side + 2], count)
            inside.append(tf.logical_and(taps >= 0, taps < view["size"][side]))
            samples.append(tf.clip_by_value(taps, first, first + length - 1) - first)
            blends.append(blend)
        # Columns first: rows, which lie together in memory, are then repeated more cheaply.
        pixels = tf.gather(tf.gather(pixels, samples[1], axis=1), samples[0], axis=0)
        pixels = tf.ensure_shape(pixels, [2 * self.image_size[0], 2 * self.image_size[1], 3])
        colors = {name: view[name] for name in _COLORS}
        return self._finish(pixels, inside, blends, colors, view["flip"])

    def compiled_form(self, view: Mapping[str, tf.Tensor]) -> dict | None:
        if self.distort_last:
            # It rounds what was sampled, and the last bit decides where a half goes.
            return None
        window, shown = view["window"], view["shown"]
        form = {
            "sampling": "half_pixel_exact",
            "places": calls.places(
                whole_window(window[2:]),
                canvas=shown[2:],
                scaled=self.image_size,
                offset=window[:2] - shown[:2],
            ),
            "fill": self.mean,
        }
        if self.distort:
            colors = tf.stack([tf.cast(view[name], tf.float32) for name in _COLORS])
            form.update(color_kind="distort", colors=colors)
        return form

    def _pixels(self, pixels, inside, blends, colors: dict, flip: tf.Tensor) -> tf.Tensor:
        """Distort, blend, normalise and flip the samples uint8 [2h, 2w, 3]."""
        height, width = self.image_size
        samples = tf.cast(pixels, tf.float32)
        fill = tf.constant(self.mean)
        if self.distort and not self.distort_last:
            samples = color.distort(samples, **colors)
        elif self.distort_last:
            fill = tf.floor(fill)  # A canvas of bytes.
        shown = inside[0][:, tf.newaxis, tf.newaxis] & inside[1][:, tf.newaxis]
        samples = tf.reshape(tf.where(shown, samples, fill), [2, height, 2, width, 3])
        blend = blends[0][:, tf.newaxis, tf.newaxis, tf.newaxis]
        samples = samples[0] * (1.0 - blend) + samples[1] * blend
        blend = blends[1][:, tf.newaxis]
        image = samples[:, 0] * (1.0 - blend) + samples[:, 1] * blend
        if self.distort_last:
            image = tf.round(image)
            image = color.distort(image, **colors) if self.distort else image
        image = image_ops.normalize(image, self.mean, self.std)
        return tf.where(flip, image_ops.flip_left_right(image), image)
