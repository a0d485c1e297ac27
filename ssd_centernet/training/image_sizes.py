"""Training at several sizes of images: what the input pipeline and the step have for each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.loading import AtSize, resize_only
from ssd_centernet.models.detector import Detector, size_in_words
from ssd_centernet.models.siblings import missing_cells
from ssd_centernet.training.teacher import Lessons


@dataclasses.dataclass(frozen=True)
class Form:
    """Hold what a step knows of one size of images.

    Attributes:
        detector: with an input of this size; all forms share their variables.
        render: makes the images of a batch that holds pixels and views; None where they are there.
        lessons: of a teacher, whose losses are added; None for none.
    """

    detector: Detector
    render: Callable[[dict], dict] | None = None
    lessons: Lessons | None = None

    def losses(
        self, batch: dict, tape: tf.GradientTape, progress: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the total loss of a batch with images, and its parts by name.

        Args:
            batch: see docs/architecture.md.
            tape: records the network.
            progress: float32 scalar, the share of the run that is over.
        """
        outputs = self.detector(batch["image"], training=True)
        batch = {**batch, "progress": progress}
        parts = self.detector.compute_losses(outputs, batch)
        total = self.detector.total_loss(parts)
        if self.lessons is not None:
            taught = self.lessons.of_images(outputs, batch["image"], tape)
            total += self.lessons.total(taught)
            parts = {**parts, **taught}
        return total, parts

    def static(self, batch: dict) -> dict[str, Any]:
        """Return a batch of this size with the static shapes that the graph could not know."""
        batch = dict(batch)
        if "image" in batch:
            count = batch["image"].shape[0]
            batch["image"] = tf.ensure_shape(batch["image"], [count, *self.detector.image_size, 3])
        if "targets" in batch:
            shapes = self._target_shapes
            batch["targets"] = {
                name: tf.ensure_shape(value, [value.shape[0], *shapes[name]])
                for name, value in batch["targets"].items()
            }
        return batch

    @functools.cached_property
    def _target_shapes(self) -> dict[str, list[int]]:
        make = tf.function(self.detector.pipeline_targets(), autograph=False)
        objects = (tf.zeros([1, 4]), tf.zeros([1], tf.int32), tf.zeros([1], tf.bool))
        made = make.get_concrete_function(*objects, extent=tf.ones([2])).structured_outputs
        return {name: list(one.shape) for name, one in made.items()}


def at_its_size(batch: dict, forms: Sequence[Form], run: Callable[[dict, int], Any]) -> None:
    """Run the form of a batch, which its `image_size` names; each form is a branch of the graph.

    Args:
        batch: of `training_batches` with `at_sizes`.
        forms: of all sizes.
        run: called with a batch of static shapes and the number of its form.
    """
    sizes = tf.constant([form.detector.image_size for form in forms])
    same = tf.reduce_all(batch["image_size"][0] == sizes, axis=1)

    def branch(number: int) -> tf.Tensor:
        run(forms[number].static(batch), number)
        return tf.constant(0)

    branches = [functools.partial(branch, number) for number in range(len(forms))]
    tf.switch_case(tf.argmax(same, output_type=tf.int32), branches)


def sized_parts(
    detector: Detector,
    sizes: Sequence[Sequence[int]],
    augment: Callable | None,
    rendering: DeviceRendering | None,
) -> list[tuple[Detector, Callable, DeviceRendering | None]]:
    """Return detector, chain and rendering for each size of a training.

    Args:
        detector: what is trained.
        sizes: (height, width) of each size in pixels.
        augment: chain of the recipe; None resizes and normalises.
        rendering: of the chain, where the device makes the pixels.

    Raises:
        ValueError: the chain or the network has no form of another size, or a size is less than
            a cell of its maps.
    """
    parts = []
    for size in map(tuple, sizes):
        form = detector.at_size(size)
        _check_cells(detector, form)
        chain = augment or resize_only(form.preprocessing)
        if augment is not None:
            if not hasattr(augment, "at_size"):
                name = getattr(augment, "__name__", type(augment).__name__)
                raise ValueError(
                    f"train.image_sizes has {size}, but train.augment is {name}, which has no form "
                    "of another size: give it a method at_size(image_size) that returns one, as "
                    "SSDAugment has, or set train.image_sizes = None."
                )
            chain = augment.at_size(size)
        parts.append((form, chain, rendering and rendering.at_size(size)))
    return parts


def _check_cells(detector: Detector, form: Detector) -> None:
    """Refuse a size that is less than a cell of a map.

    Raises:
        ValueError: says which map, and what was expected.
    """
    if reason := missing_cells(detector, form):
        raise ValueError(
            f"train.image_sizes has {form.image_size}, which is too small for this network: "
            f"{reason}. Expected images that hold a cell of each map, such as the recipe's of "
            f"{detector.image_size} pixels: take this size out of train.image_sizes."
        )


def loading(
    detector: Detector, chain: Callable, rendering: DeviceRendering | None, in_pipeline: bool
) -> AtSize:
    """Say what the input pipeline does for one size; see `sized_parts`."""
    augment = rendering.ship if rendering else chain
    return AtSize(detector.image_size, augment, detector.pipeline_targets(in_pipeline))


def in_words(sizes: Sequence[Sequence[int]]) -> str:
    """Write sizes as '256 x 256, 300 x 300 or 352 x 352'."""
    *others, last = map(size_in_words, sizes)
    return f"{', '.join(others)} or {last}" if others else last
