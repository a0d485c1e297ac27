"""What becomes of one example of a training, at one size of images or at one of several."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from ssd_centernet.data.augment.compose import Composition, decoded, of_pixels
from ssd_centernet.data.batch_shapes import finish
from ssd_centernet.data.epochs import as_written
from ssd_centernet.native import library

Example = dict[str, tf.Tensor]
Augment = Callable[[Mapping[str, tf.Tensor], tf.Tensor], Example]
MakeTargets = Callable[..., Mapping[str, tf.Tensor]]

# The draw of a size is apart from those of an epoch.
_SIZE_WORD = 0x517E


@dataclasses.dataclass(frozen=True)
class AtSize:
    """Say what makes images of one size, and their targets.

    Attributes:
        image_size: (height, width) in pixels; None checks nothing.
        augment: as in `training_batches`, for images of this size.
        make_targets: the same.
    """

    image_size: tuple[int, int] | None
    augment: Augment
    make_targets: MakeTargets | None = None


@dataclasses.dataclass(frozen=True)
class SizeDraw:
    """Draw a size for each update, by the seed and the number of the update alone.

    So it is the same on all processes, and after a resume.

    Attributes:
        seed: of the run.
        batch_size: examples of a batch of this process.
        batches: of an update, of this process.
        start_example: number of the example that the stream begins with.
        part: (i, n) as in `training_batches`: the stream has every n-th batch alone.
    """

    seed: int
    batch_size: int
    batches: int = 1
    start_example: int = 0
    part: tuple[int, int] = (0, 1)

    def index(self, number: tf.Tensor, count: int) -> tf.Tensor:
        """Return which of `count` sizes the example of this number in the stream has, int32 []."""
        first, every = self.part
        batch = number // self.batch_size * every + first
        # From where the stream begins, so that a batch is of one update in any case.
        update = self.start_example // (self.batch_size * self.batches) + batch // self.batches
        seed = tf.stack([tf.constant(self.seed, tf.int64), update])
        seed = tf.random.experimental.stateless_fold_in(seed, _SIZE_WORD)
        return tf.random.stateless_uniform([], seed, maxval=count, dtype=tf.int32)


def loader(
    at: AtSize,
    composition: Composition,
    parse: Callable,
    *,
    max_boxes: int,
    dtype: tf.DType | str,
    native: bool | None,
    pixels_by: str | None,
) -> Callable[[tf.Tensor, Example], Example]:
    """Return the function that makes a row of a batch of an example.

    Args:
        at: chain and targets.
        composition: steps on whole pictures, at the same size.
        parse: makes an example of an entry, for partners.
        max_boxes: as in `training_batches`.
        dtype: as in `training_batches`.
        native: as in `training_batches`.
        pixels_by: the setting by which pictures are pixels and not files, if one does so.

    Returns:
        (seed int64 [2], example) -> row.
    """
    augment = at.augment
    if not _is_ours(augment):
        augment = tf.function(augment)
        augment = of_pixels(augment, pixels_by) if pixels_by else augment

    @as_written
    def load(seeds: tf.Tensor, example: Example) -> Example:
        with library.use(native):
            if composition.steps:
                example = composition(example, parse, seed=seeds)
            example = augment(example, seeds)
            if "image" in example:  # Else the step makes it.
                _check_image_size(example["image"], at.image_size)
            targets = made_targets(example, at.make_targets)
        return finish(example, max_boxes, dtype, targets)

    return load


def load_sized(
    loads: Sequence[Callable], sizes: Sequence[tuple[int, int]], draw: SizeDraw
) -> Callable[[tf.Tensor, tuple], Example]:
    """Return the function that makes a row of the size that the number of the example draws.

    Args:
        loads: functions of `loader`, one for each size.
        sizes: (height, width) of each in pixels.
        draw: which size has its turn.

    Returns:
        (number of the example in the stream, (seed, example)) -> row with `image_size` int32 [2].
    """

    def at(place: int, seeds: tf.Tensor, example: Example) -> Example:
        return {**loads[place](seeds, example), "image_size": tf.constant(sizes[place])}

    @as_written
    def load(number: tf.Tensor, numbered: tuple) -> Example:
        branches = [functools.partial(at, place, *numbered) for place in range(len(loads))]
        return tf.switch_case(draw.index(number, len(loads)), branches)

    return load


def made_targets(
    example: Example, make_targets: MakeTargets | None
) -> Mapping[str, tf.Tensor] | None:
    """Make the targets of all objects of an image, before these are cut or padded.

    Args:
        example: augmented.
        make_targets: as in `training_batches`.
    """
    if make_targets is None:
        return None
    objects = (example[key] for key in ("boxes", "classes", "is_crowd"))
    return make_targets(*objects, extent=example.get("extent", tf.ones([2])))


def _check_image_size(image: tf.Tensor, image_size: tuple[int, int] | None) -> None:
    if image_size is not None and tuple(image.shape[:2]) != tuple(image_size):
        raise ValueError(
            f"The augmentation makes images of shape {image.shape}, but the network expects "
            f"(height, width) = {tuple(image_size)}. Give both the same image_size."
        )


def _is_ours(function: Callable) -> bool:
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.partition(".")[0] == __package__.partition(".")[0]


def resize_only(preprocess: Callable[[tf.Tensor], tf.Tensor]) -> Augment:
    """Make the chain for training without augmentation.

    Args:
        preprocess: as in `evaluation_batches`.

    Returns:
        A chain (example with `encoded`, seed) -> example with `image`, see `data/augment/`.
    """

    def chain(example: Mapping[str, tf.Tensor], seed: tf.Tensor) -> Example:
        del seed
        return preprocess_example(example, preprocess)

    return chain


def preprocess_example(
    example: Mapping[str, tf.Tensor], preprocess: Callable[[tf.Tensor], tf.Tensor]
) -> Example:
    """Decode an example and prepare it as for detection.

    Args:
        example: an Example with `encoded`, or `image`.
        preprocess: as in `evaluation_batches`.

    Returns:
        The example with `image`, `extent` and boxes as fractions of the network's input.
    """
    example = decoded(example)
    image = example["image"]
    example["image"] = preprocess(image)
    if hasattr(preprocess, "extent"):
        extent = preprocess.extent(*tf.unstack(tf.shape(image)[:2]))
        example["extent"] = extent
        example["boxes"] = example["boxes"] * tf.concat([extent, extent], axis=0)
    return example
