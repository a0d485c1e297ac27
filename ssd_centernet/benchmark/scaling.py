"""What training in several processes costs, measured within one run of them."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet.benchmark.step import NUM_CLASSES, make_batch, make_trainer, stepping
from ssd_centernet.recipe import Recipe
from ssd_centernet.runtime.device import select_device
from ssd_centernet.runtime.distribution import Communicator
from ssd_centernet.runtime.precision import precision_name


def run(
    recipe: Recipe,
    communicator: Communicator,
    *,
    batch_size: int | None = None,
    windows: int = 5,
    seconds: float = 3.0,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Measure train steps of all processes, the all-reduce by itself, then the first process alone.

    Args:
        recipe: the settings.
        communicator: of the processes; all of them call this, which ends its exchange.
        batch_size: images per step of each process, 8 by default.
        windows: how many windows of each.
        seconds: length of a window, about.
        device: as `train.device`.

    Returns:
        One line on process 0, none on the others: medians of images per second, of step times and
        of the time of an all-reduce of all gradients, and `efficiency`, the speed of all divided
        by their number and by the speed of the first alone.
    """
    batch_size = batch_size or 8
    recipe = recipe.replace(batch_size=batch_size)
    strategy = select_device(device, index=communicator.local_rank)
    with strategy.scope():
        detector = recipe.detector(default_num_classes=NUM_CLASSES)
        trainer = make_trainer(recipe, detector)
    batch = make_batch(recipe, detector, seed=communicator.rank)
    # A step is bound to its processes when it is traced, so one trainer serves for both.
    alone = stepping(trainer, batch, strategy)
    alone(2)
    trainer.communicator = communicator
    together = stepping(trainer, batch, strategy)
    together(2)
    reduce = _all_reduce(communicator, trainer)
    steps = communicator.gather([_steps(together, seconds)])[0]
    seconds_together, seconds_reduce = [], []
    for _ in range(windows):
        communicator.barrier()
        seconds_together.append(_seconds_a_step(together, steps))
        communicator.barrier()
        seconds_reduce.append(_seconds_a_step(reduce, steps))
    # Horovod's thread looks for work a thousand times a second: it would slow the process alone.
    communicator.leave()
    if not communicator.is_chief:
        return []
    seconds_alone = [_seconds_a_step(alone, steps) for _ in range(windows)]
    one, all_, wire = map(statistics.median, (seconds_alone, seconds_together, seconds_reduce))
    return [
        {
            "part": "scaling",
            "processes": communicator.size,
            "batch_size": batch_size,
            "images_per_second_alone": round(batch_size / one, 2),
            "images_per_second": round(batch_size * communicator.size / all_, 2),
            "efficiency": round(one / all_, 3),
            "step_milliseconds_alone": round(1e3 * one, 1),
            "step_milliseconds": round(1e3 * all_, 1),
            "all_reduce_milliseconds": round(1e3 * wire, 1),
            "gradient_megabytes": round(_megabytes(trainer), 2),
            "windows": windows,
            "steps_a_window": steps,
            "image_size": list(detector.image_size),
            "dtype": precision_name(detector.dtype_policy.name),
            "augment_on": recipe.augment_on,
        }
    ]


def _megabytes(trainer) -> float:
    return sum(4.0 * np.prod(v.shape) for v in trainer.train_variables) / 1e6


def _steps(work, seconds: float) -> int:
    begin = time.perf_counter()
    work(1)
    return max(1, round(seconds / (time.perf_counter() - begin)))


def _seconds_a_step(work, steps: int) -> float:
    begin = time.perf_counter()
    work(steps)
    return (time.perf_counter() - begin) / steps


def _all_reduce(communicator: Communicator, trainer):
    """Return the work of averaging tensors as large as the gradients."""
    gradients = [tf.ones_like(variable) for variable in trainer.train_variables]

    @tf.function
    def average() -> tf.Tensor:
        return communicator.mean_gradients(gradients)[0]

    def work(units: int) -> int:
        for _ in range(units):
            average().numpy()
        return units

    work(2)
    return work
