"""Learning-rate schedules as pure functions of the step, so that a resumed run is exact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import gin
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class RunLength:
    """How long a run is, in the units that schedules need.

    Attributes:
      steps_per_epoch: steps that see every training image once.
      total_steps: steps of the whole run.
      global_batch_size: images a step over all processes.
    """

    steps_per_epoch: int
    total_steps: int
    global_batch_size: int


@gin.register
class WarmupCosine:
    """Linear warm-up, a plateau, a half cosine and a floor, all in epochs.

    With `e` the epoch as a fraction, `b` the end of the plateau and `E` the end of the decay, the
    rate is `base * batch / reference_batch_size` times: `peak e / warmup` while e < warmup, `peak`
    until b, `0.5 (1 + cos(pi (e - b) / (E - b))) + floor` until E, `floor` after.

    Source: reference specification ssd_resnet34, section 8.
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
        span_run: bool = False,
    ):
        """Configures the schedule.

        Args:
          base_learning_rate: for a global batch of `reference_batch_size`.
          reference_batch_size: the rate grows linearly with the global batch over this.
          warmup_epochs: length of the linear warm-up; the first step's rate is 0.
          plateau_until_epoch: epoch at which the decay begins.
          decay_until_epoch: epoch at which the floor is reached.
          stretch: the published flag `k`: both epochs are multiplied by 1 + stretch / 10.
          peak: factor of the plateau.
          floor: factor at the end.
          span_run: whether the three epochs are scaled so that the decay ends with the run; the
            published schedule (False) does not know how long the run is.
        """
        self.base_learning_rate = base_learning_rate
        self.reference_batch_size = reference_batch_size
        self.warmup_epochs = warmup_epochs
        self.plateau_until_epoch = plateau_until_epoch
        self.decay_until_epoch = decay_until_epoch
        self.stretch = stretch
        self.peak = peak
        self.floor = floor
        self.span_run = span_run

    def __call__(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Computes the learning rate.

        Args:
          step: integer scalar, 0 at the first update.
          run: the run's length.

        Returns:
          float32 scalar.
        """
        begin = self.plateau_until_epoch * (1.0 + self.stretch / 10.0)
        end = self.decay_until_epoch * (1.0 + self.stretch / 10.0)
        epochs = run.total_steps / run.steps_per_epoch
        scale = epochs / end if self.span_run else 1.0
        epoch = tf.cast(step, tf.float32) / (run.steps_per_epoch * scale)
        # A run shorter than an epoch would otherwise never leave a warm-up of nothing.
        warming = self.peak * epoch / max(self.warmup_epochs, 1e-9)
        phase = (epoch - begin) / max(end - begin, 1e-9)
        decaying = 0.5 * (1.0 + tf.cos(math.pi * phase)) + self.floor
        factor = tf.where(epoch < self.warmup_epochs, warming, self.peak)
        factor = tf.where(epoch < begin, factor, decaying)
        factor = tf.where(epoch < end, factor, self.floor)
        peak_rate = self.base_learning_rate * run.global_batch_size / self.reference_batch_size
        return peak_rate * factor


@gin.register
class ConstantRate:
    """One learning rate for the whole run, after an optional linear warm-up in steps."""

    def __init__(self, learning_rate: float = 1e-3, *, warmup_steps: int = 0):
        """Configures the schedule.

        Args:
          learning_rate: of every step after the warm-up, whatever the batch size.
          warmup_steps: steps over which the rate grows linearly from 0.
        """
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps

    def __call__(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Computes the learning rate, a float32 scalar; see `WarmupCosine`."""
        del run
        warmth = tf.minimum(1.0, tf.cast(step, tf.float32) / max(self.warmup_steps, 1))
        return self.learning_rate * (warmth if self.warmup_steps else 1.0)


@gin.register
class StepDecay:
    """Linear warm-up in steps, then a rate that falls by a factor at given epochs.

    With `i` the step, the rate is `base * batch / reference_batch_size` times
    `ratio + (1 - ratio) i / warmup_steps` while i < warmup_steps, and times `factor` for each
    boundary that is reached, from its first step on.

    Source: reference specification ssd_vgg16, section 12.
    """

    def __init__(
        self,
        base_learning_rate: float = 2e-3,
        *,
        reference_batch_size: int | None = 64,
        boundaries: Sequence[float] = (80.0, 110.0),
        factor: float = 0.1,
        warmup_steps: int = 500,
        warmup_ratio: float = 0.001,
    ):
        """Configures the schedule; the defaults are those of SSD300 VGG-16 over 120 epochs.

        Args:
          base_learning_rate: for a global batch of `reference_batch_size`.
          reference_batch_size: the rate grows linearly with the global batch over this; None keeps
            it for every batch size.
          boundaries: epochs at which the rate falls, ascending.
          factor: by which it falls at each.
          warmup_steps: length of the warm-up, 0 for none; 499 gives the later published form, which
            reaches the full rate a step earlier.
          warmup_ratio: share of the full rate at the first step.

        Raises:
          ValueError: the boundaries do not ascend.
        """
        if list(boundaries) != sorted(boundaries):
            raise ValueError(f"StepDecay.boundaries must ascend, got {tuple(boundaries)}.")
        self.base_learning_rate = base_learning_rate
        self.reference_batch_size = reference_batch_size
        self.boundaries = tuple(boundaries)
        self.factor = factor
        self.warmup_steps = warmup_steps
        self.warmup_ratio = warmup_ratio

    def __call__(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Computes the learning rate, a float32 scalar; see `WarmupCosine`."""
        return tf.cast(self.exact(step, run), tf.float32)

    def exact(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Computes the learning rate as a float64 scalar, before it is rounded."""
        step = tf.cast(step, tf.float64)
        rate = tf.constant(self.base_learning_rate, tf.float64)
        if self.reference_batch_size is not None:
            rate *= run.global_batch_size / self.reference_batch_size
        for boundary in self.boundaries:
            # Rounded as a whole step: a sum of steps must not miss it by a rounding error.
            first = round(boundary * run.steps_per_epoch)
            rate *= tf.where(step >= first, tf.constant(self.factor, tf.float64), 1.0)
        if self.warmup_steps:
            share = tf.minimum(step / self.warmup_steps, 1.0)
            rate *= self.warmup_ratio + (1.0 - self.warmup_ratio) * share
        return rate
