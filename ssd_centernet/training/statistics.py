"""The moving statistics of the batch norms of a run: what is said of them, and estimates."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import (
    is_warmed_up,
    keep_momentum,
    norms_of,
    warm_up_averages,
)
from ssd_centernet.models.moving_statistics import late_norms, settled
from ssd_centernet.run_directory import BEST_DIR
from ssd_centernet.training.log_files import recorded_sessions
from ssd_centernet.training.trainer import Trainer


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
        detector, step = self._trainer.detector, int(self._trainer.step)
        with settled(detector, step, self._batches, self._say, "this evaluation, and best/,"):
            yield
