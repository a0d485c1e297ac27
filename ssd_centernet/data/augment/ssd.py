"""Augmentation chains: `chain(example, seed) -> example`, pure and with stateless seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import gin
import tensorflow as tf

from ssd_centernet.data.augment.common import (
    Augmentation,
    keep_objects,
    spaced_seed,
    whole_window,
)
from ssd_centernet.native import calls, library
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import color, crops
from ssd_centernet.ops import image as image_ops

Example = dict[str, tf.Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
_NUM_PROPOSALS = 50
# Attempts searched together: enough that most images need one turn of the loop, few enough that
# the search stays small beside decoding.
_ATTEMPTS_PER_TURN = 4
# The reference never gives up. Each attempt keeps the whole image with probability 1/7, so with
# that default the cap is reached once in 10^67 images.
_MAX_ATTEMPTS = 1000
# Of the 1024 seeds that belong to one example, the turns of the crop search take the first ones.
_COLOR_WORD = 1023


def crop_proposals(
    uniforms: tf.Tensor, *, min_extent: float = 0.3, max_extent: float = 1.0
) -> tf.Tensor:
    """Turn uniform draws into crop windows.

    Args:
        uniforms: float32 [..., 4, P] in [0, 1): draws of the two extents, then the two offsets.
        min_extent: smallest extent as a fraction of the image.
        max_extent: largest extent as a fraction of the image.

    Returns:
        float32 [..., P, 4], yxyx fractions of the image.

    Source: docs/reference/ssd_resnet34.md, section 7.4
    """
    extents = uniforms[..., :2, :] * (max_extent - min_extent) + min_extent
    offsets = uniforms[..., 2:, :] * (1.0 - extents)
    windows = tf.concat([offsets, offsets + extents], axis=-2)
    return tf.linalg.matrix_transpose(windows)


def centers_inside(boxes: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Tell which boxes have their centre strictly inside a window.

    Args:
        boxes: float32 [N, 4], yxyx.
        windows: float32 [..., 4], yxyx, in the frame of the boxes.

    Returns:
        bool [..., N].
    """
    centers = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    windows = windows[..., tf.newaxis, :]
    inside = tf.logical_and(windows[..., :2] < centers, centers < windows[..., 2:])
    return tf.reduce_all(inside, axis=-1)


def valid_crops(
    boxes: tf.Tensor, windows: tf.Tensor, min_iou: tf.Tensor, *, max_aspect_ratio: float = 2.0
) -> tf.Tensor:
    """Tell which crop windows are valid.

    A window is valid if neither extent is `max_aspect_ratio` times the other or more (as fractions
    of the image, not pixels), its IoU with every box exceeds `min_iou`, and at least one box has
    its centre strictly inside. For an image without boxes only the first condition applies.

    Args:
        boxes: float32 [N, 4], yxyx fractions of the image.
        windows: float32 [..., P, 4], in the same frame.
        min_iou: float32 [...], one bound for the P windows.
        max_aspect_ratio: bound on the ratio of the extents, > 1.

    Returns:
        bool [..., P].

    Source: docs/reference/ssd_resnet34.md, section 7.4
    """
    height, width = tf.unstack(windows[..., 2:] - windows[..., :2], axis=-1)
    aspect = tf.logical_and(width / height < max_aspect_ratio, height / width < max_aspect_ratio)
    overlap = box_ops.iou(windows, boxes) > min_iou[..., tf.newaxis, tf.newaxis]
    centers = tf.reduce_any(centers_inside(boxes, windows), axis=-1)
    centers = tf.logical_or(centers, tf.equal(tf.shape(boxes)[0], 0))
    return aspect & tf.reduce_all(overlap, axis=-1) & centers


def choose_crop(
    boxes: tf.Tensor,
    uniforms: tf.Tensor,
    min_iou: tf.Tensor,
    no_crop: tf.Tensor,
    *,
    min_extent: float = 0.3,
    max_extent: float = 1.0,
    max_aspect_ratio: float = 2.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose the crop that the given draws lead to, for any number of attempts at once.

    Args:
        boxes: float32 [N, 4], yxyx fractions of the image.
        uniforms: float32 [..., 4, P] in [0, 1), see `crop_proposals`.
        min_iou: float32 [...], the IoU bound of each attempt.
        no_crop: bool [...], whether the attempt keeps the whole image.
        min_extent: smallest extent of a crop as a fraction of the image.
        max_extent: largest extent of a crop as a fraction of the image.
        max_aspect_ratio: bound on the ratio of the extents.

    Returns:
        Window float32 [..., 4]: the valid proposal with the highest index, or the whole image.
        Accepted bool [...]: whether the attempt found a valid proposal or keeps the whole image;
        where it is False, ignore the window.

    Source: docs/reference/ssd_resnet34.md, section 7.4
    """
    windows = crop_proposals(uniforms, min_extent=min_extent, max_extent=max_extent)
    valid = valid_crops(boxes, windows, min_iou, max_aspect_ratio=max_aspect_ratio)
    order = tf.range(1, tf.shape(windows)[-2] + 1)
    last = tf.reduce_max(tf.where(valid, order, 0), axis=-1)
    window = tf.gather(windows, tf.maximum(last - 1, 0), axis=-2, batch_dims=windows.shape.rank - 2)
    window = tf.where(no_crop[..., tf.newaxis], tf.constant(_WHOLE_IMAGE), window)
    return window, tf.logical_or(no_crop, last > 0)


def sample_crop(
    boxes: tf.Tensor,
    seed: tf.Tensor,
    *,
    min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
    no_crop_probability: float = 1 / 7,
    min_extent: float = 0.3,
    max_extent: float = 1.0,
    max_aspect_ratio: float = 2.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw crops until one is accepted.

    Args:
        boxes: float32 [N, 4], yxyx fractions of the image.
        seed: integer [2], stateless seed.
        min_ious: IoU bounds; each attempt draws one.
        no_crop_probability: chance, in each attempt, of keeping the whole image.
        min_extent: smallest extent of a crop as a fraction of the image.
        max_extent: largest extent of a crop as a fraction of the image.
        max_aspect_ratio: bound on the ratio of the extents.

    Returns:
        Window float32 [4], and bool scalar: whether the whole image was kept. After 1000 attempts
        without success the whole image is kept too; with the default probability this does not
        happen.

    Source: docs/reference/ssd_resnet34.md, section 7.4 (which has no limit of attempts)
    """
    seed = spaced_seed(seed)
    if library.active():
        window, _, whole = calls.find_crop(
            boxes,
            seed,
            min_ious=min_ious,
            no_crop_probability=no_crop_probability,
            min_extent=min_extent,
            max_extent=max_extent,
            max_aspect_ratio=max_aspect_ratio,
        )
        return window, whole
    bounds = tf.constant(min_ious, tf.float32)

    def attempt(turn, window, whole, done):
        draws = tf.random.stateless_uniform(
            [_ATTEMPTS_PER_TURN, 2 + 4 * _NUM_PROPOSALS],
            seed=tf.stack([seed[0], seed[1] + tf.cast(turn, tf.int64)]),
        )
        no_crop = draws[:, 0] < no_crop_probability
        choice = tf.cast(draws[:, 1] * len(min_ious), tf.int32)
        windows, accepted = choose_crop(
            boxes,
            tf.reshape(draws[:, 2:], [_ATTEMPTS_PER_TURN, 4, _NUM_PROPOSALS]),
            tf.gather(bounds, choice),
            no_crop,
            min_extent=min_extent,
            max_extent=max_extent,
            max_aspect_ratio=max_aspect_ratio,
        )
        first = tf.argmax(tf.cast(accepted, tf.int32))
        done = accepted[first]
        window = tf.where(done, windows[first], window)
        return turn + 1, window, tf.logical_or(no_crop[first], tf.logical_not(done)), done

    _, window, whole, _ = tf.while_loop(
        lambda turn, window, whole, done: tf.logical_not(done),
        attempt,
        (tf.constant(0), tf.constant(_WHOLE_IMAGE), tf.constant(True), tf.constant(False)),
        maximum_iterations=_MAX_ATTEMPTS // _ATTEMPTS_PER_TURN,
    )
    return window, whole


def crop_boxes(
    boxes: tf.Tensor, window: tf.Tensor, whole: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut boxes to a crop and express them as fractions of it.

    Args:
        boxes: float32 [N, 4], yxyx fractions of the image.
        window: float32 [4], yxyx fractions of the image.
        whole: bool scalar; True keeps every box.

    Returns:
        Boxes float32 [N, 4] as fractions of the crop, and bool [N]: which boxes stay (those whose
        centre is strictly inside the crop).

    Source: docs/reference/ssd_resnet34.md, section 7.4
    """
    kept = tf.logical_or(centers_inside(boxes, window), whole)
    start, end = window[:2], window[2:]
    corners = tf.clip_by_value(tf.reshape(boxes, [-1, 2, 2]), start, end)
    return tf.reshape((corners - start) / (end - start), [-1, 4]), kept


@gin.register
class SSDAugment(Augmentation):
    """The augmentation of SSD300 ResNet-34: random crop, resize, flip, colour jitter, normalise.

    Every part can be switched off; with all parts off, only the evaluation path remains
    (legacy bilinear resize and normalisation).

    Args:
        image_size: (height, width) of the result in pixels.
        mean: channel means on the 0..1 scale, RGB.
        std: channel deviations on the 0..1 scale, RGB.
        crop: whether to crop at random (`sample_crop`).
        min_ious: IoU bounds; each crop attempt draws one.
        no_crop_probability: chance, in each crop attempt, of keeping the whole image.
        min_extent: smallest extent of a crop as a fraction of the image.
        max_aspect_ratio: bound on the ratio of a crop's extents, as fractions of the image.
        flip_probability: chance of a horizontal flip.
        jitter: whether to jitter the colours; all four kinds then run on every image.
        brightness: largest amount added, on the 0..1 scale.
        contrast: bounds of the contrast factor.
        saturation: bounds of the saturation factor.
        hue: largest change of the hue, as a fraction of the circle.
        compiled: whether to compile the colour part with XLA (about five times as fast on a CPU).

    Raises:
        ValueError: an image size that is not two positive numbers, or a probability outside 0..1.

    Source: docs/reference/ssd_resnet34.md, sections 7.3 to 7.5
    """

    window_margin = 0  # `crops.window_around` has it.
    channels = "RGB"

    def __init__(
        self,
        image_size: tuple[int, int] = (300, 300),
        *,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        crop: bool = True,
        min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
        no_crop_probability: float = 1 / 7,
        min_extent: float = 0.3,
        max_aspect_ratio: float = 2.0,
        flip_probability: float = 0.5,
        jitter: bool = True,
        brightness: float = 0.125,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 0.05,
        compiled: bool = True,
    ):
        self.image_size = check_image_size(image_size)
        for name, value in (
            ("no_crop_probability", no_crop_probability),
            ("flip_probability", flip_probability),
        ):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"SSDAugment.{name} is {value}; expected a number from 0 to 1.")
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.flip_probability = flip_probability
        self.crop = crop
        self.jitter = jitter
        self._crop_options = {
            "min_ious": tuple(min_ious),
            "no_crop_probability": no_crop_probability,
            "min_extent": min_extent,
            "max_aspect_ratio": max_aspect_ratio,
        }
        lower = (-brightness, contrast[0], saturation[0], -hue)
        upper = (brightness, contrast[1], saturation[1], hue)
        self._lower = lower
        self._spread = tuple(high - low for low, high in zip(lower, upper, strict=True))
        self._finish: Callable = tf.function(self._colors, jit_compile=compiled, autograph=False)

    def plan(self, example: Example, size: tf.Tensor, seed: tf.Tensor):
        draws = tf.random.stateless_uniform([5], seed=spaced_seed(seed) + [0, _COLOR_WORD])
        flip = draws[4] < self.flip_probability
        view = {"window": whole_window(size), "flip": flip, "draws": draws[:4]}
        if self.crop:
            box, whole = sample_crop(example["boxes"], seed, **self._crop_options)
            example = keep_objects(example, *crop_boxes(example["boxes"], box, whole))
            view["window"], view["box"] = crops.window_around(box, size)
        if self.flip_probability > 0:
            boxes = example["boxes"]
            example["boxes"] = tf.where(flip, box_ops.flip_left_right(boxes), boxes)
        return example, view

    def render(self, pixels: tf.Tensor, view: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if self.crop:
            image = image_ops.crop_and_resize(pixels, view["box"], self.image_size)
        else:
            image = image_ops.resize_legacy_bilinear(pixels, self.image_size)
        return self._finish(image, view["draws"], view["flip"])

    def compiled_form(self, view: Mapping[str, tf.Tensor]) -> dict:
        form = {"sampling": "crop", "box": view.get("box"), "divisor": 255.0}
        if not self.crop:
            size = view["window"][2:]
            form["sampling"] = "legacy"
            form["places"] = calls.places(whole_window(size), canvas=size, scaled=self.image_size)
        if self.jitter:
            form.update(color_kind="jitter", colors=self._factors(view["draws"]))
        return form

    def _factors(self, draws: tf.Tensor) -> tf.Tensor:
        return draws * tf.constant(self._spread) + tf.constant(self._lower)

    def _colors(self, image: tf.Tensor, draws: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
        image = image / 255.0
        if self.flip_probability > 0:
            image = tf.where(flip, image_ops.flip_left_right(image), image)
        if self.jitter:
            image = color.jitter(image, *tf.unstack(self._factors(draws)))
        return image_ops.normalize(image, self.mean, self.std)


def check_image_size(image_size: Sequence[int]) -> tuple[int, int]:
    """Return (height, width) as ints.

    Raises:
        ValueError: not two positive whole numbers.
    """
    size = tuple(image_size) if isinstance(image_size, Sequence) else image_size
    if not (isinstance(size, tuple) and len(size) == 2 and all(int(n) == n > 0 for n in size)):
        raise ValueError(
            f"image_size is {image_size!r}; expected (height, width) in pixels, e.g. (300, 300)."
        )
    return int(size[0]), int(size[1])
