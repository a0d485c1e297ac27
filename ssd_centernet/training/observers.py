"""Observers of the train loop: the profile of chosen steps, the times of all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ssd_centernet.run_directory import SUMMARY_DIR
from ssd_centernet.training.performance import StepTimes
from ssd_centernet.training.profiling import StepProfiler
from ssd_centernet.training.trainer import Trainer


class StepObserver(Protocol):
    """Watch the calls in which steps run; a call runs one step or many."""

    def limit(self, step: int) -> int:
        """Return the largest number of steps of the next call, after `step` steps.

        All processes must return the same number.
        """

    def call_begins(self, step: int) -> None:
        """Prepare for a call; `step` steps are done."""

    def call_ended(self, before: int, after: int, seconds: float) -> None:
        """Note a finished call from step `before` to step `after`."""

    def close(self) -> None:
        """Finish, once, at the end of the run."""


def make_observers(
    model_dir: str | Path,
    trainer: Trainer,
    say: Callable[[str], None],
    profile: Sequence[int] | None,
    use_performance: bool,
) -> list[StepObserver]:
    """Make the observers that measure a run.

    Args:
        model_dir: directory of the run.
        trainer: trainer of the run, already restored.
        say: function that prints a line.
        profile: first and last step to trace, see `StepProfiler`; None for no profile.
        use_performance: whether to write `summary/summary.json`.

    Returns:
        The observers; only those of the first process write anything.

    Raises:
        ValueError: both are asked for, although a profile slows steps down; or `profile` is not two
            steps in order.
    """
    if profile is not None and use_performance:
        raise ValueError(
            "train.profile and train.use_performance exclude each other: tracing makes "
            "a step slower. Leave out --profile (or --use_profiler) or --use_performance."
        )
    is_chief = trainer.communicator.is_chief
    observers: list[StepObserver] = []
    if profile is not None:
        # On every process, as all must run the same number of steps in a call.
        start = int(trainer.step)
        observers.append(StepProfiler(model_dir, profile, start=start, say=say, write=is_chief))
    if use_performance and is_chief:
        folder = Path(model_dir) / SUMMARY_DIR
        observers.append(StepTimes(folder, trainer.length.global_batch_size, say=say))
    return observers
