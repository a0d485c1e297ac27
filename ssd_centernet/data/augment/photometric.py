"""Steps on one whole picture: colours as in RandAugment, and rectangles erased."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import gin
import tensorflow as tf

from ssd_centernet.data.augment.common import Example
from ssd_centernet.data.augment.compose import PictureStep, keep_uncovered
from ssd_centernet.ops import crops, pasting, photometric

# Name -> function of (image, strength 0..1, sign -1.0 or 1.0). Strengths are RandAugment's ranges.
_OPERATIONS: dict[str, Callable] = {
    "brightness": lambda image, m, sign: photometric.brightness(image, 1.0 + 0.9 * m * sign),
    "contrast": lambda image, m, sign: photometric.contrast(image, 1.0 + 0.9 * m * sign),
    "color": lambda image, m, sign: photometric.color(image, 1.0 + 0.9 * m * sign),
    "sharpness": lambda image, m, sign: photometric.sharpness(image, 1.0 + 0.9 * m * sign),
    "posterize": lambda image, m, sign: photometric.posterize(image, 8 - round(4 * m)),
    "solarize": lambda image, m, sign: photometric.solarize(image, 256.0 * (1.0 - m)),
    "equalize": lambda image, m, sign: photometric.equalize(image),
    "autocontrast": lambda image, m, sign: photometric.autocontrast(image),
}


@gin.register
class RandomColors(PictureStep):
    """Apply some operations on colours, drawn anew for each picture: RandAugment without geometry.

    Args:
        probability: chance that the colours of a picture change.
        off_for_last: share of the run, at its end, without it.
        operations: names to draw from: 'brightness', 'contrast', 'color', 'sharpness',
            'posterize', 'solarize', 'equalize' and 'autocontrast'.
        count: number of operations, one after the other; one may come twice.
        magnitude: their strength, 0..1 (the paper's 0 to 30 over 30). At 1 the factors of the
            first four are 0.1 or 1.9, of eight bits four are left, and all values are inverted.

    Raises:
        ValueError: a setting that is out of its bounds, or no such operation.

    Source: RandAugment: Practical Automated Data Augmentation (arXiv:1909.13719)
    """

    def __init__(
        self,
        *,
        probability: float = 1.0,
        off_for_last: float = 0.0,
        operations: Sequence[str] = tuple(_OPERATIONS),
        count: int = 2,
        magnitude: float = 0.3,
    ):
        super().__init__(probability=probability, off_for_last=off_for_last)
        self.operations = (operations,) if isinstance(operations, str) else tuple(operations)
        self.count, self.magnitude = count, magnitude
        unknown = [name for name in self.operations if name not in _OPERATIONS]
        if unknown or not self.operations:
            raise ValueError(
                f"RandomColors.operations is {self.operations}; expected one or more of "
                f"{', '.join(map(repr, _OPERATIONS))}."
            )
        self.check_count("count", count, 1, 10)
        self.check("magnitude", magnitude, 0.0, 1.0)

    def apply(self, own: Example, partners, seed, image_size):
        draws = tf.random.stateless_uniform([self.count, 2], seed)
        image = own["image"]
        last = tf.constant(len(self.operations) - 1)
        for turn in range(self.count):
            sign = tf.where(draws[turn, 1] < 0.5, -1.0, 1.0)
            branches = [
                lambda name=name, image=image, sign=sign: tf.ensure_shape(
                    _OPERATIONS[name](image, self.magnitude, sign), [None, None, 3]
                )
                for name in self.operations
            ]
            image = tf.switch_case(pasting.draw_place(last, draws[turn, 0]), branches)
        return {**own, "image": image}


@gin.register
class RandomErasing(PictureStep):
    """Erase rectangles of a picture, and the objects of which too little is left.

    The rectangles lie within the picture, before the chain crops it. `areas = (0.1, 0.1)`,
    `aspect_ratios = (1.0, 1.0)` and `fill = 0` make the squares of Cutout, but for those that
    reach beyond the border.

    Args:
        probability: chance that something of a picture is erased.
        off_for_last: share of the run, at its end, without it.
        count: number of rectangles.
        areas: bounds of the area of each, as a share of the picture's.
        aspect_ratios: bounds of its height / width; ratios and their inverses are equally likely.
        fill: grey level, 0..255, or None for noise.
        min_visible: share of a box's area that must be left for the box to stay.

    Raises:
        ValueError: a setting that is out of its bounds.

    Source: Random Erasing Data Augmentation (arXiv:1708.04896)
        Improved Regularization of Convolutional Neural Networks with Cutout (arXiv:1708.04552)
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        off_for_last: float = 0.0,
        count: int = 1,
        areas: tuple[float, float] = (0.02, 0.2),
        aspect_ratios: tuple[float, float] = (0.3, 3.3),
        fill: int | None = None,
        min_visible: float = 0.3,
    ):
        super().__init__(probability=probability, off_for_last=off_for_last)
        self.count, self.areas, self.aspect_ratios = count, areas, aspect_ratios
        self.fill, self.min_visible = fill, min_visible
        self.check_count("count", count, 1, 20)
        self.check_range("areas", areas, 0.0, 1.0)
        self.check_range("aspect_ratios", aspect_ratios, 0.01, 100.0)
        if fill is not None:
            self.check("fill", fill, 0, 255)
        self.check("min_visible", min_visible, 0.0, 1.0)

    def apply(self, own: Example, partners, seed, image_size):
        image, size = own["image"], tf.shape(own["image"])[:2]
        draws = tf.random.stateless_uniform([self.count, 4], seed)
        area = self.areas[0] + draws[:, 0] * (self.areas[1] - self.areas[0])
        low, high = map(math.log, self.aspect_ratios)
        ratio = tf.exp(low + draws[:, 1] * (high - low))
        pixels = area * tf.cast(size[0] * size[1], tf.float32)
        sides = tf.round(tf.sqrt(tf.stack([pixels * ratio, pixels / ratio], axis=1)))
        sides = tf.clip_by_value(tf.cast(sides, tf.int32), 1, size)
        places = pasting.draw_place(size - sides, draws[:, 2:])
        covers = []
        for turn in range(self.count):
            patch = self._patch(sides[turn], seed + [0, 1 + turn])
            image = pasting.blend_at(image, patch, places[turn], 1.0)
            covers.append(crops.frame_of(tf.concat([places[turn], sides[turn]], axis=0), size))
        return keep_uncovered({**own, "image": image}, tf.stack(covers), self.min_visible)

    def _patch(self, sides: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([sides, [3]], axis=0)
        if self.fill is not None:
            return tf.fill(shape, tf.constant(int(self.fill), tf.uint8))
        noise = tf.random.stateless_uniform(shape, seed, maxval=256, dtype=tf.int32)
        return tf.cast(noise, tf.uint8)
