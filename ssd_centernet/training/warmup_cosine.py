"""The learning-rate schedule in epochs of SSD300 ResNet-34; `schedules.py` has the others."""

from __future__ import annotations

import math

import gin
import tensorflow as tf

from ssd_centernet.training.length import RunLength

# A run may outlast its decay a little, as the published 64 epochs do with a decay of 55.
_LONG = 1.25


def check_rates(schedule: object, **rates: float) -> None:
    """Refuse a learning rate that is not a finite number of 0 or more.

    Args:
        schedule: whose settings they are.
        **rates: by name.

    Raises:
        ValueError: names the setting as recipes do, and the value.
    """
    for name, rate in rates.items():
        if not 0 <= rate < math.inf:
            raise ValueError(
                f"{type(schedule).__name__}.{name} must be a number of 0 or more, got {rate!r}."
            )


@gin.register
class WarmupCosine:
    """Linear warm-up, a plateau, a half cosine and a floor, all in epochs.

    With `e` the epoch as a fraction, `b` the end of the plateau and `E` the end of the decay, the
    rate is `base * batch / reference_batch_size` times: `peak e / warmup` while e < warmup, `peak`
    until b, `0.5 (1 + cos(pi (e - b) / (E - b))) + floor` until E, `floor` after.

    A run of the published 64 epochs has the published rates. In a run of another length the three
    epochs are scaled, so that the decay ends with the run.

    Source:
        docs/reference/ssd_resnet34.md, section 8
        Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour (arXiv:1706.02677)
    """

    def __init__(
        self,
        base_learning_rate: float = 3e-3,
        *,
        reference_batch_size: int = 32,
        warmup_epochs: float = 7.0,
        plateau_until_epoch: float = 15.0,
        decay_until_epoch: float = 55.0,
        stretch: float = 0.0,
        peak: float = 1.01,
        floor: float = 0.01,
        span_run: bool | None = None,
        length: float | None = 64.0,
    ):
        """Configure the schedule.

        Args:
            base_learning_rate: rate for a global batch of `reference_batch_size`.
            reference_batch_size: the rate grows linearly with global batch / reference_batch_size.
            warmup_epochs: length of the linear warm-up; the first step's rate is 0.
            plateau_until_epoch: epoch at which the decay begins.
            decay_until_epoch: epoch at which the floor is reached.
            stretch: the published flag `k`: both epochs are multiplied by 1 + stretch / 10.
            peak: factor of the plateau.
            floor: factor at the end.
            span_run: whether to scale the three epochs so that the decay ends with the run; None
                scales them unless the run has the length that they are for. The published schedule
                (False) ignores the length of the run.
            length: epochs of the run that the three epochs are for; None: no run.

        Raises:
            ValueError: the rate is below 0.
        """
        check_rates(self, base_learning_rate=base_learning_rate)
        self.base_learning_rate = base_learning_rate
        self.reference_batch_size = reference_batch_size
        self.warmup_epochs = warmup_epochs
        self.plateau_until_epoch = plateau_until_epoch
        self.decay_until_epoch = decay_until_epoch
        self.stretch = stretch
        self.peak = peak
        self.floor = floor
        self.span_run = span_run
        self.length = length

    def __call__(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Compute the learning rate.

        Args:
            step: integer scalar, 0 at the first update.
            run: length of the run.

        Returns:
            float32 scalar.
        """
        begin = self.plateau_until_epoch * (1.0 + self.stretch / 10.0)
        end = self.decay_until_epoch * (1.0 + self.stretch / 10.0)
        epochs = run.total_steps / run.steps_per_epoch
        # Epochs of the schedule then pass faster or slower than those of the run, so that they end
        # together.
        scale = epochs / end if self._spans(run) else 1.0
        epoch = tf.cast(step, tf.float32) / (run.steps_per_epoch * scale)
        # A run shorter than an epoch would otherwise never leave a warm-up of nothing.
        warming = self.peak * epoch / max(self.warmup_epochs, 1e-9)
        phase = (epoch - begin) / max(end - begin, 1e-9)
        # 1 + floor where the decay begins, which is the published peak of 1.01: no jump there.
        decaying = 0.5 * (1.0 + tf.cos(math.pi * phase)) + self.floor
        # The last condition that holds wins: a warm-up longer than the plateau is cut off by the
        # decay, as published.
        factor = tf.where(epoch < self.warmup_epochs, warming, self.peak)
        factor = tf.where(epoch < begin, factor, decaying)
        factor = tf.where(epoch < end, factor, self.floor)
        # The rule of linear scaling.
        peak_rate = self.base_learning_rate * run.global_batch_size / self.reference_batch_size
        return peak_rate * factor

    def describe(self, run: RunLength) -> str | None:
        """Explain in a sentence why the schedule does not fit a run; None if it does."""
        end = self.decay_until_epoch * (1.0 + self.stretch / 10.0)
        epochs = run.total_steps / run.steps_per_epoch
        if self.span_run or self._is_published(run):
            return None
        if self._spans(run):
            if epochs == end:
                return None
            warm = self.warmup_epochs * epochs / end
            return (
                f"the learning rate is scaled to this run of {epochs:g} epochs: it warms up over "
                f"{warm:.3g} epochs, and its decay, which the recipe ends at epoch {end:g}, ends "
                "with the run. Set WarmupCosine.span_run = False to keep the recipe's epochs."
            )
        if end <= epochs <= _LONG * end:
            return None
        rest = "" if epochs < end else f"; the rest has {100 * self.floor:g} % of the peak"
        return (
            f"the learning rate decays until epoch {end:g}, but the run ends at {epochs:g}{rest}. "
            "Set WarmupCosine.span_run = True to span the run."
        )

    def _is_published(self, run: RunLength) -> bool:
        return run.has_length(self.length, "epochs")

    def _spans(self, run: RunLength) -> bool:
        return not self._is_published(run) if self.span_run is None else self.span_run
