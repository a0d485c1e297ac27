"""Parts that augmentation chains share: reading a window of a picture, colours, normalisation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet.native import calls, library
from ssd_centernet.ops import color, crops
from ssd_centernet.ops import image as image_ops

Example = dict[str, tf.Tensor]

# Lengths to which lists of pixels are filled up: each is compiled once, and two in every octave
# waste a fifth of the work at most on average.
_SMALLEST_LENGTH = 2**14
_LARGEST_OCTAVE = 16


def spaced_seed(seed: tf.Tensor) -> tf.Tensor:
    """Return int64 [2] with room for 1024 seeds before those of the next seed."""
    return tf.cast(seed, tf.int64) * tf.constant([1, 1024], tf.int64)


def keep_objects(example: Example, boxes: tf.Tensor, kept: tf.Tensor) -> Example:
    """Return the example with new boxes, keeping those where `kept`, bool [N], is True."""
    rows = tf.where(kept)[:, 0]
    fields = {
        name: tf.gather(example[name], rows)
        for name in ("classes", "is_crowd", "area")
        if name in example
    }
    return {**example, **fields, "boxes": tf.gather(boxes, rows)}


def has_area(boxes: tf.Tensor) -> tf.Tensor:
    """Return bool [N]: True for boxes whose height and width are both positive."""
    return tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)


class Augmentation:
    """A chain of steps from an example to the network's input, in two parts.

    `plan` draws and decides: it moves the boxes and says in a few small numbers, the view, what is
    to be done with the pixels. `render` does that to the part of the picture that the view names.
    Only `render` sees pixels, so that it can run elsewhere than where pictures are decoded.
    """

    def __call__(self, example: Mapping[str, tf.Tensor], seed: tf.Tensor) -> Example:
        """Augment one example.

        Args:
            example: an Example with either `encoded` (bytes of a JPEG or PNG) or `image`
                (uint8 [H, W, 3]).
            seed: integer [2], stateless seed; the same seed gives the same result.

        Returns:
            The example with `image` float32 [h, w, 3], normalised, without `encoded`; the boxes
            that the result shows, as fractions of it, and their other fields. A chain that pads
            adds `extent` float32 [2], the share (height, width) of the result that is picture.
        """
        example = dict(example)
        picture = Picture(example)
        example, view = self.plan(example, picture.size, seed)
        pixels, window = picture.read_around(view["window"], margin=self.window_margin)
        compiled = self.compiled_form(view) if library.active() else None
        if compiled is None:
            pixels = tf.ensure_shape(crops.cut(pixels, window), [None, None, 3])
            example["image"] = self.render(pixels, view)
        else:
            example["image"] = calls.render(
                pixels,
                window,
                self.image_size,
                flip=view["flip"],
                mean=self.mean,
                std=self.std,
                channels=self.channels,
                **compiled,
            )
        return example

    def at_size(self, image_size: Sequence[int]) -> Augmentation:
        """Return the same chain for images of another size.

        Args:
            image_size: (height, width) of its results in pixels.
        """
        chain = copy.copy(self)
        chain.image_size = tuple(image_size)
        return chain

    # Pixels beside a window that must be decoded with it, so that it equals a part of the whole.
    window_margin = crops.DECODE_MARGIN

    def plan(
        self, example: Example, size: tf.Tensor, seed: tf.Tensor
    ) -> tuple[Example, dict[str, tf.Tensor]]:
        """Draw what happens to one example.

        Args:
            example: an Example without its picture; may be changed.
            size: int32 [2], (height, width) of the picture in pixels.
            seed: integer [2], stateless seed.

        Returns:
            The example as `__call__` returns it, but for `image`; and the view, small tensors of
            static shape: `window` int32 [4], (y, x, height, width) of the pixels that are needed,
            `flip` bool, and what else `render` asks for.
        """
        raise NotImplementedError

    def render(self, pixels: tf.Tensor, view: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Make the network's input.

        Args:
            pixels: uint8 [height, width, 3], RGB: the `window` of the view.
            view: from `plan`.

        Returns:
            float32 [h, w, 3], normalised.
        """
        raise NotImplementedError

    def compiled_form(self, view: Mapping[str, tf.Tensor]) -> dict[str, Any] | None:
        """Say what `render` does in the terms of the compiled operation.

        Args:
            view: from `plan`.

        Returns:
            Arguments of `native.calls.render`; None where that cannot do it.
        """
        del view
        return None

    def _normalize_with(
        self, mean: Sequence[float], std: Sequence[float], scale: float, channels: str, compiled
    ) -> None:
        """Note how pixels are normalised, which must be as the detector's preprocessing does."""
        self.mean, self.std = tuple(mean), tuple(std)
        self.scale, self.channels = scale, channels
        self._normalize = normalizer(
            self.mean, self.std, scale=scale, channels=channels, compiled=compiled
        )


class Picture:
    """The pixels of an example; only the windows asked for are decoded."""

    def __init__(self, example: Example):
        """Take `encoded` or `image` from an example.

        Args:
            example: an Example with either `encoded` or `image` (uint8 [H, W, 3]); it loses both.
        """
        encoded, image = example.pop("encoded", None), example.pop("image", None)
        self._encoded = encoded
        if encoded is None:
            self._image = tf.convert_to_tensor(image)
            self.size = tf.shape(self._image)[:2]
        else:
            # Only of a JPEG can a window be decoded; of others the whole is, once.
            self._is_jpeg = tf.io.is_jpeg(encoded)
            self._image, self.size = tf.cond(
                self._is_jpeg,
                lambda: (tf.zeros([0, 0, 3], tf.uint8), tf.io.extract_jpeg_shape(encoded)[:2]),
                lambda: self._decoded(encoded),
            )

    @staticmethod
    def _decoded(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = image_ops.decode_image(encoded)
        return image, tf.shape(image)[:2]

    def read_around(self, window: tf.Tensor, *, margin: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Read a part of the picture.

        Args:
            window: int32 [4], (y, x, height, width) in pixels.
            margin: see `ops.crops.decode_around`.

        Returns:
            uint8 [h, w, 3], RGB, the part and perhaps more; int32 [4], where it lies therein.
        """
        if self._encoded is None:
            return self._image, window
        pixels, place = tf.cond(
            self._is_jpeg,
            lambda: crops.decode_around(self._encoded, window, margin=margin),
            lambda: (self._image, window),
        )
        return pixels, tf.ensure_shape(place, [4])


def whole_window(size: tf.Tensor) -> tf.Tensor:
    """Return the window (y, x, height, width), int32 [4], of a whole picture of `size`."""
    return tf.concat([tf.zeros([2], tf.int32), size], axis=0)


def mirror(pixels: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Mirror pixels [H, W, 3] where `flip`, bool scalar, says so."""
    pixels = tf.cond(flip, lambda: image_ops.flip_left_right(pixels), lambda: pixels)
    return tf.ensure_shape(pixels, [None, None, 3])


class HueFirstJitter:
    """Draw and apply hue, contrast, saturation and brightness, in this order.

    Source: docs/reference/centernet.md, section 5.2, steps 2 and 3
    """

    def __init__(
        self,
        *,
        hue: float = 0.02,
        contrast: Sequence[float] = (0.8, 1.25),
        saturation: Sequence[float] = (0.8, 1.25),
        brightness: float = 0.2,
        clip_each: bool = True,
        compiled: bool = True,
    ):
        """Configure the draws.

        Args:
            hue: largest change of the hue, as a fraction of the circle.
            contrast: bounds of the contrast factor.
            saturation: bounds of the saturation factor.
            brightness: largest amount added, on the 0..1 scale.
            clip_each: whether to clip values after each of the four, or only at the end.
            compiled: whether to compile with XLA.
        """
        self.clip_each = clip_each
        self._lower = (-hue, contrast[0], saturation[0], -brightness)
        upper = (hue, contrast[1], saturation[1], brightness)
        self._spread = tuple(high - low for low, high in zip(self._lower, upper, strict=True))

        def apply(pixels, count, factors):
            return color.hue_first_jitter(pixels, count, *tf.unstack(factors), clip_each=clip_each)

        signature = [
            tf.TensorSpec([None, 3], tf.uint8),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([4], tf.float32),
        ]
        self._apply: Callable = tf.function(
            apply, input_signature=signature, jit_compile=compiled, autograph=False
        )

    def factors(self, uniforms: tf.Tensor) -> tf.Tensor:
        """Turn draws, float32 [4] in [0, 1), into the amounts of the four, float32 [4]."""
        return uniforms * tf.constant(self._spread) + tf.constant(self._lower)

    def compiled_form(self, uniforms: tf.Tensor) -> dict[str, Any]:
        """Return the arguments of `native.calls.render` for these draws."""
        kind = {"color_kind": "hue_first", "clip_each": self.clip_each}
        return {**kind, "colors": self.factors(uniforms)}

    def __call__(self, image: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Jitter an image.

        Args:
            image: uint8 [H, W, 3], RGB.
            uniforms: float32 [4] in [0, 1), in the order of the four.

        Returns:
            float32 [H, W, 3] in 0..255.
        """
        factors = self.factors(uniforms)
        shape = tf.shape(image)
        count = shape[0] * shape[1]
        pixels = tf.reshape(image, [-1, 3])
        length = _filled_length(count)
        pixels = self._apply(tf.pad(pixels, [[0, length - count], [0, 0]]), count, factors)
        return tf.ensure_shape(tf.reshape(pixels[:count], shape), [None, None, 3])


def _filled_length(count: tf.Tensor) -> tf.Tensor:
    lengths = [
        _SMALLEST_LENGTH * 2**k * half // 2 for k in range(_LARGEST_OCTAVE) for half in (2, 3)
    ]
    return tf.constant(lengths)[tf.searchsorted(lengths, [count])[0]]


def normalizer(
    mean: Sequence[float],
    std: Sequence[float],
    *,
    scale: float,
    channels: str,
    compiled: bool = True,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Make the function that normalises pixels as `layers.Preprocessing` does.

    Args:
        mean: channel means after division by `scale`, in the order of `channels`.
        std: channel deviations after division by `scale`, in the order of `channels`.
        scale: divisor of the pixels, applied first.
        channels: "RGB" or "BGR", the order of the result.
        compiled: whether to compile with XLA, which takes one pass instead of four.

    Returns:
        A function of float32 [h, w, 3], RGB in 0..255, of static shape.
    """

    def normalize(image: tf.Tensor) -> tf.Tensor:
        if channels == "BGR":
            image = tf.reverse(image, axis=[-1])
        return image_ops.normalize(image / scale if scale != 1.0 else image, mean, std)

    return tf.function(normalize, jit_compile=compiled, autograph=False)


def check_settings(owner: object, *, probabilities: Sequence[str]) -> None:
    """Check the settings of a chain.

    Args:
        owner: the chain, with the settings and `channels` as attributes.
        probabilities: names of those that must lie in 0..1.
    Raises:
        ValueError: a probability outside 0..1, or another order than RGB and BGR.
    """
    kind = type(owner).__name__
    for name in probabilities:
        value = getattr(owner, name)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{kind}.{name} is {value}; expected a number from 0 to 1.")
    if owner.channels not in ("RGB", "BGR"):
        raise ValueError(f"{kind}.channels must be 'RGB' or 'BGR', got {owner.channels!r}.")
