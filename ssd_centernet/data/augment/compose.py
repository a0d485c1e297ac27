"""Steps that make a picture of one or several whole ones, before a chain sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.data.augment.common import Example, keep_objects
from ssd_centernet.ops import image as image_ops
from ssd_centernet.ops import pasting

# An entry is what `data/epochs.py` gives for a record, and this turns it into an example.
Entry = tuple[tf.Tensor, ...]
Parse = Callable[..., Mapping[str, tf.Tensor]]

# Apart from the draws of the chains and of the partners.
_FIRST_WORD = 20
# Of a share of a box in float32, so that half of it is half.
_ROUNDING = 1e-5
OBJECTS = ("boxes", "classes", "is_crowd", "area")


class PictureStep:
    """A step on whole pictures, such as `Mosaic`: it draws, makes pixels and moves boxes.

    It works on decoded pictures, uint8 RGB of any size, so every chain can follow it, wherever
    the pixels of the chain are made. A subclass has `apply`, and may have `partners` and
    `largest_canvas`.
    """

    partners: int = 0
    """Number of other pictures that it takes."""
    adds_all_objects: bool = True
    """Whether the objects of all partners may come into the picture."""

    def __init__(self, *, probability: float = 1.0, off_for_last: float = 0.0) -> None:
        """Check what all steps have.

        Args:
            probability: chance that a picture goes through the step.
            off_for_last: share of the run, at its end, in which none does.

        Raises:
            ValueError: not within 0..1.
        """
        self.probability, self.off_for_last = probability, off_for_last
        self.check("probability", probability, 0.0, 1.0)
        self.check("off_for_last", off_for_last, 0.0, 1.0)

    def check(self, name: str, value: float, low: float, high: float) -> None:
        """Refuse a setting that is no number from `low` to `high`.

        Raises:
            ValueError: names the setting, its value and the bounds.
        """
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and low <= value <= high):
            raise ValueError(
                f"{type(self).__name__}.{name} is {value!r}; expected a number from {low:g} to "
                f"{high:g}."
            )

    def check_count(self, name: str, value: int, low: int, high: int) -> None:
        """Refuse a setting that is no whole number from `low` to `high`.

        Raises:
            ValueError: names the setting, its value and the bounds.
        """
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and low <= value <= high):
            raise ValueError(
                f"{type(self).__name__}.{name} is {value!r}; expected a whole number from {low} to "
                f"{high}."
            )

    def check_range(self, name: str, value: Sequence[float], low: float, high: float) -> None:
        """Refuse a setting that is no pair (smallest, largest) of numbers from `low` to `high`.

        Raises:
            ValueError: names the setting, its value and the bounds.
        """
        if not (isinstance(value, Sequence) and len(value) == 2):
            raise ValueError(
                f"{type(self).__name__}.{name} is {value!r}; expected two numbers, the smallest "
                "and the largest."
            )
        for one in value:
            self.check(name, one, low, high)
        if value[0] > value[1]:
            raise ValueError(
                f"{type(self).__name__}.{name} is {tuple(value)}; expected the smallest number "
                "first."
            )

    def apply(
        self,
        own: Example,
        partners: Sequence[Example],
        seed: tf.Tensor,
        image_size: tuple[int, int] | None,
    ) -> Example:
        """Make a picture.

        Args:
            own: an Example with `image`, uint8 [H, W, 3].
            partners: as many others.
            seed: int64 [2], stateless seed.
            image_size: (height, width) of the network's input in pixels, if it is known.

        Returns:
            The own example with another `image`, uint8 [H, W, 3], and its objects.
        """
        raise NotImplementedError

    def largest_canvas(
        self, largest: tuple[int, int], image_size: tuple[int, int] | None
    ) -> tuple[int, int]:
        """Return the largest height and width that a picture has after the step, in pixels.

        Args:
            largest: height and width before it.
            image_size: as in `apply`.
        """
        del image_size
        return largest


class Composition:
    """The steps of a recipe, in their order."""

    def __init__(
        self,
        steps: PictureStep | Sequence[PictureStep] | None,
        *,
        image_size: tuple[int, int] | None = None,
        total_examples: int | None = None,
    ) -> None:
        """Take the steps.

        Args:
            steps: none, one or several: each gets what the one before it made, and partners that
                went through none.
            image_size: (height, width) of the network's input in pixels.
            total_examples: examples of this process in the whole run.
        """
        several = steps if isinstance(steps, Sequence) else [steps]
        self.steps = tuple(step for step in several if step is not None)
        self._image_size, self._total = image_size, total_examples

    @property
    def partners(self) -> int:
        """Return the number of other pictures that all steps take together."""
        return sum(step.partners for step in self.steps)

    @property
    def ends_early(self) -> bool:
        """Return whether a step ends before the run, whose length must then be known."""
        return any(step.off_for_last for step in self.steps)

    def largest_canvas(self, largest: tuple[int, int]) -> tuple[int, int]:
        """Return the largest height and width that the chain sees.

        Args:
            largest: height and width of the largest pictures, in pixels.
        """
        for step in self.steps:
            made = step.largest_canvas(largest, self._image_size)
            always = step.probability == 1.0 and not step.off_for_last
            largest = made if always else tuple(map(max, largest, made))
        return largest

    def notes(self, objects: np.ndarray, limits: Mapping[str, int]) -> list[str]:
        """Say how many joined pictures have more objects than something can hold.

        Args:
            objects: int [R], number of objects of each picture.
            limits: setting -> number of objects that it allows.

        Returns:
            A sentence for each setting that is exceeded.
        """
        pictures = 1 + sum(step.partners for step in self.steps if step.adds_all_objects)
        if pictures == 1 or not len(objects):
            return []
        orders = np.random.default_rng(0)
        sums = sum(orders.permutation(objects) for _ in range(pictures))
        return [
            f"train.compose joins up to {pictures} pictures: about {share:.1%} of them have "
            f"more than {limit} objects, whose rest may be left out: set {setting} = {sums.max()}"
            for setting, limit in limits.items()
            if (share := (sums > limit).mean()) > 0
        ]

    def __call__(
        self, joined: tuple[tf.Tensor, Sequence[Entry]], parse: Parse, *, seed: tf.Tensor
    ) -> Example:
        """Make the example that the chain gets.

        Args:
            joined: int64, number of the own example among those of the run; its entry and those of
                the partners.
            parse: makes an example with `encoded` of an entry.
            seed: int64 [2], of the own one.

        Returns:
            The example with `image`, uint8 [H, W, 3], instead of `encoded`.
        """
        position, (own, *others) = joined
        example = decoded(parse(*own))
        for number, step in enumerate(self.steps):
            drawn = _word(seed, _FIRST_WORD + number)
            mine, others = others[: step.partners], others[step.partners :]
            example = self._apply(step, example, mine, parse, drawn, position)
        return example

    def _apply(
        self,
        step: PictureStep,
        example: Example,
        entries: Sequence[Entry],
        parse: Parse,
        seed: tf.Tensor,
        position: tf.Tensor,
    ) -> Example:
        def applied() -> Example:
            pictures = [decoded(parse(*entry)) for entry in entries]
            made = step.apply(dict(example), pictures, _word(seed, 1), self._image_size)
            return {**made, "image": tf.ensure_shape(made["image"], [None, None, 3])}

        if step.probability == 1.0 and not step.off_for_last:
            return applied()
        chosen = tf.random.stateless_uniform([], _word(seed, 0)) < step.probability
        if step.off_for_last:
            self._check_length(step)
            chosen &= position < round((1.0 - step.off_for_last) * self._total)
        # Partners of a picture that goes as it is are neither parsed nor decoded.
        return tf.cond(chosen, applied, lambda: dict(example))

    def _check_length(self, step: PictureStep) -> None:
        if self._total is None:
            name = type(step).__name__
            raise ValueError(
                f"{name}.off_for_last is {step.off_for_last}, a share of the run, but its length "
                "is not known: give training_batches total_examples, or set "
                f"{name}.off_for_last = 0.0."
            )


def composed(settings: Any, data_dir: Any, *, processes: int) -> dict[str, Any]:
    """Return the arguments of `training_batches` that only a recipe with steps has.

    Args:
        settings: a `Recipe`.
        data_dir: of its data, which may say how long the run is.
        processes: that train together.
    """
    options = {"compose": settings.compose} if settings.compose else {}
    if Composition(settings.compose).ends_early:
        length = settings.length(settings.count_images(data_dir), processes=processes)
        options["total_examples"] = length.total_examples // processes
    return options


def decoded(example: Mapping[str, tf.Tensor]) -> Example:
    """Return an example with the pixels of its picture, `image`, instead of `encoded`."""
    example = dict(example)
    if "encoded" in example:
        example["image"] = image_ops.decode_image(example.pop("encoded"))
    return example


def of_pixels(chain: Callable, by: str) -> Callable:
    """Return somebody's own chain for pictures that are pixels already.

    Args:
        chain: (example with `image`, seed) -> example.
        by: the setting that makes them so.

    Returns:
        The chain; where it asks for `encoded`, which is no more, the error says why.
    """

    def chain_of_pixels(example: Example, seed: tf.Tensor) -> Example:
        try:
            return chain(example, seed)
        except KeyError as error:
            if "encoded" not in str(error):
                raise
            raise ValueError(
                f"train.augment asks for example['encoded'], the bytes of a file, but {by} "
                "makes pictures of pixels: let the chain take example['image'], uint8 [H, W, 3], "
                f"where it is given, or leave {by} out."
            ) from error

    return chain_of_pixels


def join_objects(*examples: Mapping[str, tf.Tensor]) -> Example:
    """Return the first example with the objects of all, in their order."""
    fields = [name for name in OBJECTS if name in examples[0]]
    joined = {name: tf.concat([one[name] for one in examples], axis=0) for name in fields}
    return {**examples[0], **joined}


def keep_uncovered(example: Example, covers: tf.Tensor, min_visible: float) -> Example:
    """Return an example without the objects that some rectangles hide.

    Args:
        example: an Example.
        covers: float32 [K, 4], yxyx fractions of the picture.
        min_visible: share of a box that must stay to be seen; one of which nothing does always
            goes.

    Returns:
        The example with fewer objects; boxes are not cut.
    """
    shown = 1.0 - pasting.covered_share(example["boxes"], covers)
    kept = (shown > _ROUNDING) & (shown >= min_visible - _ROUNDING)
    return keep_objects(example, example["boxes"], kept)


def _word(seed: tf.Tensor, word: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, word)
