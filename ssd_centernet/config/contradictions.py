"""Settings of a recipe that do not fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# They say how a checkpoint is read, and nothing without one.
_OF_A_CHECKPOINT = ("fine_tune_checkpoint_type", "fine_tune_exclude", "fine_tune_channels")


def refuse_contradictions(settings: Any) -> None:
    """Refuse settings that would fail, or mean something else, after hours of training.

    Args:
        settings: a `Recipe`.

    Raises:
        ValueError: names the settings, their values and which to change.
    """
    given = [name for name in _OF_A_CHECKPOINT if getattr(settings, name)]
    if given and not settings.fine_tune_checkpoint:
        name = given[0]
        flag = "--" if name == "fine_tune_checkpoint_type" else "train."
        raise ValueError(
            f"{flag}{name} is {getattr(settings, name)!r}, but there is no checkpoint for it: "
            "give --fine_tune_checkpoint=PATH too, or leave it out."
        )
    if settings.weight_decay and getattr(settings.optimizer, "decays_weights", False):
        name = settings.optimizer.__name__
        raise ValueError(
            f"train.weight_decay is {settings.weight_decay}, and train.optimizer is {name}, which "
            "decays the weights itself: weights would decay twice. Set train.weight_decay = 0.0."
        )
    steps = settings.compose if isinstance(settings.compose, Sequence) else [settings.compose]
    for step in filter(None, steps):
        name = type(step).__name__
        for setting, never in (("probability", 0.0), ("off_for_last", 1.0)):
            if getattr(step, setting, None) == never:
                raise ValueError(
                    f"train.compose has {name}, but {name}.{setting} is {never}: no picture would "
                    f"go through it. Expected a number {'above' if never == 0.0 else 'below'} "
                    f"{never}; set it, or leave {name} out of train.compose."
                )
    if settings.early_stop_patience and settings.keep_best is None:
        raise ValueError(
            f"train.early_stop_patience is {settings.early_stop_patience}, but train.keep_best is "
            "None: no metric tells what is better. Set train.keep_best = 'AP', or leave the "
            "patience out."
        )
