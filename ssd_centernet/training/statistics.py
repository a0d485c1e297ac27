"""The moving statistics of batch norms: whether they have arrived, and estimates where not."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import (
    is_warmed_up,
    keep_momentum,
    norms_of,
    share_of_beginning,
    warm_up_averages,
)
from ssd_centernet.run_directory import BEST_DIR
from ssd_centernet.training.log_files import recorded_sessions
from ssd_centernet.training.trainer import Trainer

# More of the first values than this, and detections differ from those of the trained network.
LARGEST_SHARE = 0.01
# With batches of 8 to 32 a mean over 100 to 400 images.
_BATCHES = 12


def late_norms(model: keras.Model, steps: int) -> tuple[list[keras.layers.Layer], float]:
    """Find the batch norms whose moving statistics have not arrived.

    Args:
        model: any Keras model.
        steps: number of updates since their first values.

    Returns:
        Those that still hold more than 1 % of their first values, and the largest such share.
    """
    shares = {layer: share_of_beginning(layer, steps) for layer in norms_of(model)}
    late = [layer for layer, share in shares.items() if share > LARGEST_SHARE]
    return late, max(shares.values(), default=0.0)


def describe_averages(model: keras.Model) -> str | None:
    """Say which moving statistics follow the length of the run; None where all are as published."""
    warmed = [norm for norm in norms_of(model) if is_warmed_up(norm)]
    if not warmed:
        return None
    return (
        f"the averages of {len(warmed)} batch norms follow this short run: their momentum grows "
        f"with the steps, to the recipe's {max(norm.momentum for norm in warmed):g} at most"
    )


def describe_late_averages(model: keras.Model, checkpoint: str) -> str | None:
    """Say that the moving statistics of a checkpoint have not arrived; None where they have.

    Args:
        model: with its weights.
        checkpoint: path of the checkpoint, in a run directory or in its best/.
    """
    folder, name = Path(checkpoint).parent, Path(checkpoint).name
    kept = folder.name == BEST_DIR
    sessions = recorded_sessions(folder.parent if kept else folder)
    begun = [one for one in sessions if one.get("event") == "begin"]
    number = name.rpartition("-")[2]
    if not begun or not number.isdigit():
        return None
    if any(one.get("fits_length") for one in begun):
        if kept:  # It holds the estimates that were evaluated.
            return None
        warm_up_averages(model, lambda: 0, begun[-1].get("total_steps"))
    else:
        keep_momentum(model)
    late, share = late_norms(model, int(number))
    if not late:
        return None
    return (
        f"AP is lower than the weights allow: the averages of {len(late)} batch norms hold "
        f"{100 * share:.0f} % of their beginning after {number} steps. Evaluate a later "
        "checkpoint, or the best one, which has estimates."
    )


def estimate_statistics(
    model: keras.Model,
    norms: list[keras.layers.Layer],
    batches: Iterable[dict],
) -> int:
    """Set moving statistics to the means over some batches; nothing else of the model changes.

    Args:
        model: any Keras model of images.
        norms: layers of it.
        batches: of training, with `image`; each is used once.

    Returns:
        The number of batches.
    """
    averages = [average for norm in norms for average in (norm.moving_mean, norm.moving_variance)]
    others = [v for v in model.non_trainable_variables if not any(v is one for one in averages)]
    kept = [variable.numpy() for variable in others]
    forward = tf.function(lambda images: model(images, training=True), autograph=False)
    sums, count = [0.0] * len(averages), 0
    for batch in batches:
        # From 0 a step goes 1 - momentum of the way: the batch's own, without a difference of two
        # large numbers.
        for average in averages:
            average.assign(tf.zeros_like(average))
        forward(batch["image"])
        sums = [total + one.numpy() for total, one in zip(sums, averages, strict=True)]
        count += 1
    steps = [1.0 - norm.momentum for norm in norms for _ in range(2)]
    for average, total, step in zip(averages, sums, steps, strict=True):
        average.assign((total / (count * step)).astype(np.float32))
    for variable, value in zip(others, kept, strict=True):
        variable.assign(value)
    return count


class EarlyStatistics:
    """Give an evaluation the statistics that a run is too young to have, and take them back."""

    def __init__(
        self,
        trainer: Trainer,
        batches: Callable[[], Iterable[dict]],
        say: Callable[[str], None],
    ):
        """Join the parts; nothing is read yet.

        Args:
            trainer: of the run.
            batches: makes the batches of training from the first one of the run, so that an
                evaluation that is made up after a stop has the same statistics.
            say: told what is estimated.
        """
        self._trainer = trainer
        self._batches = batches
        self._say = say

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Replace statistics that have not arrived while the context is open."""
        detector = self._trainer.detector
        norms, share = late_norms(detector, int(self._trainer.step))
        if not norms:
            yield
            return
        moving = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
        kept = [variable.numpy() for variable in moving]
        try:
            batches = itertools.islice(self._batches(), _BATCHES)
            count = estimate_statistics(detector, norms, batches)
            self._say(
                f"the averages of {len(norms)} batch norms hold {100 * share:.0f} % of their "
                f"beginning still: for this evaluation, and best/, they are estimated on {count} "
                "batches"
            )
            yield
        finally:
            for variable, value in zip(moving, kept, strict=True):
                variable.assign(value)
