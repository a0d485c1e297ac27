"""How fast a train step is and how much memory it takes, on one batch that stays the same."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from ssd_centernet.benchmark import measure, records
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.fake import random_batch
from ssd_centernet.models.detector import Detector
from ssd_centernet.recipe import Recipe
from ssd_centernet.runtime.device import select_device
from ssd_centernet.runtime.precision import precision_name
from ssd_centernet.training.length import RunLength
from ssd_centernet.training.trainer import Trainer

# What a step does by where `train.augment_on` has the pixels made.
STEP = {"host": "train step", "device": "render and train step"}
_OBJECTS = 7
# Of COCO: what a recipe without data is measured with, where it does not say its classes itself.
NUM_CLASSES = 80
_LENGTH = RunLength(steps_per_epoch=1000, total_steps=60_000, global_batch_size=0)


def batch_with_targets(detector: Detector, batch_size: int, *, seed: int = 0) -> dict:
    """Make a batch of noise with random objects and the targets that belong to them.

    Args:
        detector: whose size, classes and targets it is for.
        batch_size: B.
        seed: of noise and boxes.

    Returns:
        The keys of a training batch that the train step reads.
    """
    counts = [_OBJECTS] * batch_size
    batch = random_batch(detector.image_size, counts, num_classes=detector.num_classes, seed=seed)
    keys = ("boxes", "classes", "is_crowd", "valid")
    return {**batch, "targets": detector.make_targets(*(batch[key] for key in keys))}


def make_batch(
    recipe: Recipe, detector: Detector, data_dir: str | Path | None = None, *, seed: int = 0
) -> dict:
    """Make a batch as the step of a recipe gets it: images, or what it makes them of.

    Args:
        recipe: whose `augment_on` says which.
        detector: that is trained.
        data_dir: folder with record files, of which the first training batch is taken; None makes
            random pictures.
        seed: of these.

    Returns:
        The keys of a training batch that the train step reads.
    """
    if data_dir is not None:
        return next(iter(recipe.training_batches(detector, data_dir, for_step=True).take(1)))
    if recipe.augment_on == "host":
        return batch_with_targets(detector, recipe.batch_size, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        classes = {"num_classes": detector.num_classes, "split": recipe.train_split}
        records.write_records(
            folder,
            num_images=recipe.batch_size,
            size=records.fitting_size(recipe),
            num_shards=1,
            seed=seed,
            **classes,
        )
        return make_batch(recipe, detector, folder)


def make_trainer(recipe: Recipe, detector: Detector) -> Trainer:
    """Build the trainer of a recipe, as `train` does for a run of COCO's length.

    Args:
        recipe: the settings; gradients are not accumulated, as a step is measured on one batch.
        detector: what is trained.

    Returns:
        The trainer at step 0.

    Raises:
        ValueError: the recipe trains at several sizes.
    """
    recipe.check_one_size("a benchmark")
    length = dataclasses.replace(_LENGTH, global_batch_size=recipe.batch_size)
    return recipe.replace(accumulate_steps=1).trainer(detector, length)


def stepping(trainer: Trainer, batch: dict, strategy: tf.distribute.Strategy) -> measure.Work:
    """Return the work of train steps on a batch, compiled as a run compiles them."""
    images = len(batch["valid"])
    with tf.device(trainer.train_variables[0].device):  # Where a run prefetches its batches to.
        batch = tf.nest.map_structure(tf.identity, batch)

    @tf.function
    def step() -> None:
        strategy.run(trainer.compiled_step, args=(batch,))

    def work(units: int) -> int:
        for _ in range(units):
            step()
        # Reading a variable waits for an asynchronous device.
        trainer.step.numpy()
        trainer.raise_if_failed()
        return units * images

    return work


def prepare(
    recipe: Recipe, data_dir: str | Path | None, *, device: str | None = None
) -> tuple[measure.Work, Trainer]:
    """Build a recipe's train step and a batch for it.

    Args:
        recipe: the settings.
        data_dir: folder with record files, of which the first training batch is taken; None makes
            a random batch.
        device: as `train.device`.

    Returns:
        The work, and the trainer that does it.
    """
    strategy = select_device(device)
    label_map = None if data_dir is None else load_label_map(data_dir)
    with strategy.scope():
        detector = recipe.detector(label_map, default_num_classes=NUM_CLASSES)
        trainer = make_trainer(recipe, detector)
    batch = make_batch(recipe, detector, data_dir)
    return stepping(trainer, batch, strategy), trainer


def run(
    recipe: Recipe,
    data_dir: str | Path | None = None,
    *,
    batch_size: int | None = None,
    windows: int = 5,
    seconds: float = 3.0,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Measure the train step of a recipe.

    Args:
        recipe: the settings.
        data_dir: folder with record files for the batch; None makes a random one.
        batch_size: images per step, 8 by default.
        windows: how many windows.
        seconds: length of a window.
        device: as `train.device`.

    Returns:
        One line.
    """
    batch_size = batch_size or 8
    work, trainer = prepare(recipe.replace(batch_size=batch_size), data_dir, device=device)
    name = STEP[recipe.augment_on]
    rates = measure.alternate({name: work}, windows=windows, seconds=seconds, warm_up=2)
    detector = trainer.detector
    return [
        {
            "part": "step",
            "name": name,
            **measure.summary(rates[name]),
            "batch_size": batch_size,
            "dtype": precision_name(detector.dtype_policy.name),
            "image_size": list(detector.image_size),
            "augment_on": recipe.augment_on,
            **measure.peak_memory(),
        }
    ]
