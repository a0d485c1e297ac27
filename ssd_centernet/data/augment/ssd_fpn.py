"""The augmentation of SSD320 ResNet-50 FPN: flip, random crop, legacy resize, mean subtraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gin
import tensorflow as tf

from ssd_centernet.data.augment import common
from ssd_centernet.data.augment.ssd import check_image_size
from ssd_centernet.native import calls
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import crops
from ssd_centernet.ops import image as image_ops

Example = common.Example


@gin.register
class SSDFPNAugment(common.Augmentation):
    """Horizontal flip, a crop that keeps most of the image, resize and mean subtraction.

    Every part can be switched off; with all parts off, only the evaluation path remains
    (legacy bilinear resize and mean subtraction). There is no colour jitter.

    Args:
        image_size: (height, width) of the result in pixels.
        mean: channel means after division by `scale`, in the order of `channels`.
        std: channel deviations after division by `scale`, in the order of `channels`.
        scale: divisor of the pixels (0..255), applied first.
        channels: order of the channels of the result, "RGB" or "BGR".
        flip_probability: chance of a horizontal flip.
        crop: whether every image is cropped.
        min_object_covered: share of at least one box that a crop must contain.
        aspect_ratios: bounds of a crop's width / height, in pixels.
        areas: bounds of a crop's area as a share of the image's.
        max_attempts: number of crops tried before the whole image is kept.
        min_overlap: share of a box's area that must lie in the crop for the box to stay; 0 keeps
            whatever the crop touches, except boxes without area.
        compiled: whether to compile the mean subtraction with XLA.

    Raises:
        ValueError: an image size that is not two positive numbers, a probability outside 0..1, or
            another order of channels.

    Source: docs/reference/ssd320_resnet50_fpn.md, sections 2.5 and 2.6
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (320, 320),
        *,
        mean: Sequence[float] = (123.68, 116.779, 103.939),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        scale: float = 1.0,
        channels: str = "RGB",
        flip_probability: float = 0.5,
        crop: bool = True,
        min_object_covered: float = 0.0,
        aspect_ratios: tuple[float, float] = (0.75, 3.0),
        areas: tuple[float, float] = (0.75, 1.0),
        max_attempts: int = 100,
        min_overlap: float = 0.0,
        compiled: bool = True,
    ):
        self.image_size = check_image_size(image_size)
        self._normalize_with(mean, std, scale, channels, compiled)
        self.flip_probability = flip_probability
        self.crop = crop
        self.min_overlap = min_overlap
        common.check_settings(self, probabilities=("flip_probability", "min_overlap"))
        self._window_options = {
            "min_object_covered": min_object_covered,
            "aspect_ratios": tuple(aspect_ratios),
            "areas": tuple(areas),
            "max_attempts": max_attempts,
        }

    def plan(self, example: Example, size: tf.Tensor, seed: tf.Tensor):
        seed = common.spaced_seed(seed)
        flip = tf.random.stateless_uniform([], seed) < self.flip_probability
        boxes = example["boxes"]
        boxes = tf.where(flip, box_ops.flip_left_right(boxes), boxes)
        window = common.whole_window(size)
        if self.crop:
            window = crops.sample_window(size, boxes, seed + [0, 1], **self._window_options)
            frame = crops.frame_of(window, size)
            boxes, kept = crops.crop_boxes(boxes, frame, min_overlap=self.min_overlap)
            example = common.keep_objects(example, boxes, kept)
        else:
            example["boxes"] = boxes
        # Of the picture as it was before it was mirrored.
        window = tf.where(flip, crops.mirror_window(window, size[1]), window)
        return example, {"window": window, "flip": flip}

    def render(self, pixels: tf.Tensor, view: Mapping[str, tf.Tensor]) -> tf.Tensor:
        pixels = common.mirror(pixels, view["flip"])
        return self._normalize(image_ops.resize_legacy_bilinear(pixels, self.image_size))

    def compiled_form(self, view: Mapping[str, tf.Tensor]) -> dict:
        size = view["window"][2:]
        places = calls.places(common.whole_window(size), canvas=size, scaled=self.image_size)
        return {
            "sampling": "legacy",
            "places": places,
            "mirror_picture": True,
            "divisor": self.scale,
        }
