"""The length of a run, and the steps at which to log, save and evaluate."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from ssd_centernet.evaluation.result import METRIC_NAMES

# Prefix of loss parts among an evaluation's metrics; only these are better if lower.
LOSS_PREFIX = "loss_"


@dataclasses.dataclass(frozen=True)
class RunLength:
    """The length of a run, in the units that schedules need.

    Attributes:
        steps_per_epoch: number of steps that use every training image once.
        total_steps: number of steps of the whole run.
        global_batch_size: images per step over all processes.
    """

    steps_per_epoch: int
    total_steps: int
    global_batch_size: int

    @property
    def total_examples(self) -> int:
        """Return the number of images of the whole run over all processes."""
        return self.total_steps * self.global_batch_size

    def has_length(self, length: float | None, unit: str) -> bool:
        """Tell whether the run has this length, to the step.

        Args:
            length: of another run; None is the length of none.
            unit: "epochs" or "steps".
        """
        scale = self.steps_per_epoch if unit == "epochs" else 1
        return length is not None and self.total_steps == round(length * scale)


def run_length(
    images: int, global_batch_size: int, *, steps: int | None, epochs: float | None
) -> RunLength:
    """Compute the length of a run.

    Args:
        images: images per epoch over all processes.
        global_batch_size: images per step over all processes.
        steps: number of steps; wins over `epochs`.
        epochs: passes over the images, rounded to whole steps.

    Returns:
        The run's length; an epoch is ceil(images / global batch) steps.

    Raises:
        ValueError: no length is given, the one used is not above 0, or there are no images.
    """
    if steps is None and epochs is None:
        raise ValueError("the length of the run is not set: give --num_steps or --epochs.")
    name, length = ("--num_steps", steps) if steps is not None else ("--epochs", epochs)
    if not 0 < length < math.inf:
        raise ValueError(
            f"{name} is {length}; expected more than 0. Leave it out to use the recipe's length."
        )
    if images < 1:
        raise ValueError(
            "there are no images to train on: the training split is empty, or no image has "
            "an object and the recipe leaves such images out. Check the converted "
            "annotations, or set train.keep_empty = True to train on images without objects."
        )
    # Rounded up, as the last batch of an epoch is filled with the next one's images.
    steps_per_epoch = math.ceil(images / global_batch_size)
    total = int(steps) if steps is not None else max(1, round(float(epochs) * steps_per_epoch))
    return RunLength(steps_per_epoch, total, global_batch_size)


def to_steps(length: int | str, steps_per_epoch: int, *, setting: str = "a duration") -> int:
    """Convert a duration to steps.

    Args:
        length: a number of steps, or text such as "500 steps", "2.5 epochs".
        steps_per_epoch: length of an epoch.
        setting: name of the setting, for the message.

    Returns:
        Steps, at least 0.

    Raises:
        ValueError: the text has another form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(steps?|epochs?)?\s*", str(length))
    if not found:
        raise ValueError(
            f"{setting} is {length!r}, expected a number of steps or text such as '500 steps' or "
            "'2.5 epochs'."
        )
    value, unit = float(found[1]), found[2] or "steps"
    # 0 of any unit stays 0, which means never; any other share of an epoch is at least one step.
    return max(1, round(value * steps_per_epoch)) if unit[0] == "e" and value else int(value)


def intervals(settings: Any, length: RunLength) -> dict[str, int]:
    """Convert the intervals of a recipe to steps, as `LoopOptions` takes them.

    Args:
        settings: a `Recipe`.
        length: of the run.
    """
    every = {
        name: to_steps(getattr(settings, name), length.steps_per_epoch, setting=f"train.{name}")
        for name in ("log_every", "checkpoint_every", "evaluate_every")
    }
    return every if settings.eval_split else {**every, "evaluate_every": 0}


@dataclasses.dataclass
class LoopOptions:
    """The steps at which to log, save, evaluate and stop.

    Attributes:
        total_steps: step at which the run ends.
        log_every: number of steps of a window.
        checkpoint_every: interval of checkpoints; the last step always gets one.
        evaluate_every: interval of evaluations; 0 means none.
        keep_best: metric that decides which checkpoint is kept in `best/`; None for none.
        higher_is_better: direction of that metric.
        early_stop_patience: evaluations without improvement before the run stops; None never stops.
        recovery: whether a run goes back to its last checkpoint, once, with half of the learning
            rate, where a loss is not finite; else it ends.
        loop_in_graph: whether the steps of a call are a loop of TensorFlow's graph; else Python
            calls each.
    """

    total_steps: int
    log_every: int = 100
    checkpoint_every: int = 1000
    evaluate_every: int = 0
    keep_best: str | None = "AP"
    higher_is_better: bool = True
    early_stop_patience: int | None = None
    recovery: bool = False
    loop_in_graph: bool = True

    def __post_init__(self):
        """Raise an error for settings that would fail at the first window or evaluation."""
        for name in ("log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"train.{name} is {getattr(self, name)} steps, expected 1 or more; for fewer "
                    "lines or checkpoints set a large number."
                )
        if self.keep_best in (None, *METRIC_NAMES) or self.keep_best.startswith(LOSS_PREFIX):
            return
        raise ValueError(
            f"train.keep_best is {self.keep_best!r}, expected one of {', '.join(METRIC_NAMES)}, a "
            f"loss part such as {LOSS_PREFIX}box, or None."
        )
