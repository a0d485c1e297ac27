"""Learning-rate schedules as pure functions of the step, so that a resumed run is exact."""

from __future__ import annotations

import math
from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet.training.length import RunLength
from ssd_centernet.training.warmup_cosine import WarmupCosine, check_rates

__all__ = ["ConstantRate", "RunLength", "StepDecay", "WarmupCosine", "WarmupCosineSteps"]


@gin.register
class ConstantRate:
    """One learning rate for the whole run, after an optional linear warm-up in steps."""

    def __init__(self, learning_rate: float = 1e-3, *, warmup_steps: int = 0):
        """Configure the schedule.

        Args:
            learning_rate: rate after the warm-up, for any batch size.
            warmup_steps: steps over which the rate grows linearly from 0.

        Raises:
            ValueError: the rate is below 0.
        """
        check_rates(self, learning_rate=learning_rate)
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps

    def __call__(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Compute the learning rate, a float32 scalar; see `WarmupCosine`."""
        del run
        warmth = tf.minimum(1.0, tf.cast(step, tf.float32) / max(self.warmup_steps, 1))
        return self.learning_rate * (warmth if self.warmup_steps else 1.0)

    def describe(self, run: RunLength) -> str | None:
        """Explain why the schedule does not fit a run; None if it does."""
        if 0 < run.total_steps <= self.warmup_steps:
            return (
                f"the warm-up of {self.warmup_steps} steps is not shorter than the run of "
                f"{run.total_steps}. Set ConstantRate.warmup_steps."
            )
        return None


@gin.register
class StepDecay:
    """Linear warm-up in steps, then a rate that falls by a factor at given epochs or steps.

    With `i` the step, the rate is `base * batch / reference_batch_size` times
    `ratio + (1 - ratio) i / warmup_steps` while i < warmup_steps, and times `factor` for each
    boundary that is reached, from its first step on.

    CenterNet ResNet-101 FPN: base 1e-3 whatever the batch, boundaries 90000 and 120000 of a length
    of 140000 steps, no warm-up.

    Source:
        docs/reference/ssd_vgg16.md, section 12
        docs/reference/centernet.md, section 6
    """

    def __init__(
        self,
        base_learning_rate: float = 2e-3,
        *,
        reference_batch_size: int | None = 64,
        boundaries: Sequence[float] = (80.0, 110.0),
        unit: str = "epochs",
        length: float | None = None,
        factor: float = 0.1,
        warmup_steps: int = 500,
        warmup_ratio: float = 0.001,
        warmup_limit: float | None = None,
    ):
        """Configure the schedule; the defaults are those of SSD300 VGG-16 over 120 epochs.

        Args:
            base_learning_rate: rate for a global batch of `reference_batch_size`.
            reference_batch_size: the rate grows linearly with global batch / reference_batch_size;
                None keeps it for every batch size.
            boundaries: epochs or steps at which the rate falls, ascending.
            unit: "epochs" or "steps", of `boundaries` and `length`.
            length: length of the run that the boundaries are for; they are scaled to the real run.
                None uses them unscaled.
            factor: factor of the rate at each boundary.
            warmup_steps: length of the warm-up, 0 for none; 499 gives the later published form,
                which reaches the full rate a step earlier.
            warmup_ratio: share of the full rate at the first step.
            warmup_limit: largest share of the run that the warm-up takes; None for no limit.

        Raises:
            ValueError: the boundaries do not ascend, the unit is another one, or the rate is
                below 0.
        """
        check_rates(self, base_learning_rate=base_learning_rate)
        if unit not in ("epochs", "steps"):
            raise ValueError(f"StepDecay.unit must be 'epochs' or 'steps', got {unit!r}.")
        if list(boundaries) != sorted(boundaries):
            raise ValueError(f"StepDecay.boundaries must ascend, got {tuple(boundaries)}.")
        self.base_learning_rate = base_learning_rate
        self.reference_batch_size = reference_batch_size
        self.boundaries = tuple(boundaries)
        self.unit = unit
        self.length = length
        self.factor = factor
        self.warmup_steps = warmup_steps
        self.warmup_ratio = warmup_ratio
        self.warmup_limit = warmup_limit

    def __call__(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Compute the learning rate, a float32 scalar; see `WarmupCosine`."""
        return tf.cast(self.exact(step, run), tf.float32)

    def boundary_steps(self, run: RunLength) -> tuple[int, ...]:
        """Return the first step of each smaller rate."""
        scale = run.steps_per_epoch if self.unit == "epochs" else 1
        if self.length is not None:
            scale = run.total_steps / self.length
        # Rounded as a whole step: a sum of steps must not miss it by a rounding error.
        return tuple(round(boundary * scale) for boundary in self.boundaries)

    def exact(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Compute the learning rate as a float64 scalar, before it is rounded."""
        # The original's rates are Python floats; the step rounds them once.
        step = tf.cast(step, tf.float64)
        rate = tf.constant(self.base_learning_rate, tf.float64)
        if self.reference_batch_size is not None:
            rate *= run.global_batch_size / self.reference_batch_size
        for first in self.boundary_steps(run):
            rate *= tf.where(step >= first, tf.constant(self.factor, tf.float64), 1.0)
        warmup = _limited(self.warmup_steps, self.warmup_limit, run.total_steps)
        # The warm-up multiplies: boundaries inside it count too.
        if warmup:
            share = tf.minimum(step / warmup, 1.0)
            rate *= self.warmup_ratio + (1.0 - self.warmup_ratio) * share
        return rate

    def describe(self, run: RunLength) -> str | None:
        """Explain why the schedule does not fit a run; None if it does."""
        falls = self.boundary_steps(run)
        late = [step for step in falls if step >= run.total_steps]
        early = falls and run.total_steps > 2 * falls[-1]
        if self.length is None and (late or early):
            told = f"should fall at step {late[0]}" if late else f"falls last at step {falls[-1]}"
            return (
                f"the learning rate {told}, but the run ends at {run.total_steps}. Set "
                "StepDecay.length to the length that the boundaries are for, and they are scaled "
                "to the run."
            )
        if late:
            return (
                f"of StepDecay.boundaries {self.boundaries}, some are at or after StepDecay.length "
                f"= {self.length:g}: the learning rate should fall at step {late[0]}, but the run "
                f"ends at {run.total_steps}. Boundaries and length must count {self.unit} of the "
                "same run."
            )
        warmup = _limited(self.warmup_steps, self.warmup_limit, run.total_steps)
        if warmup >= run.total_steps:
            return (
                f"the warm-up of {warmup} steps is not shorter than the run of {run.total_steps}. "
                "Set StepDecay.warmup_steps, or StepDecay.warmup_limit to a share of the run."
            )
        if warmup < self.warmup_steps:
            return _shortened("StepDecay", self.warmup_steps, warmup, run)
        if falls and self.length is not None and not run.has_length(self.length, self.unit):
            return (
                f"the learning rate is scaled to this run of {run.total_steps} steps: it falls at "
                f"{_listed('step', falls)}, where the recipe has {self.boundaries} of "
                f"{self.length:g} {self.unit}. Set StepDecay.length = None to keep the recipe's "
                f"{self.unit}."
            )
        return None


@gin.register
class WarmupCosineSteps:
    """Linear warm-up, then half a cosine to 0, in steps.

    With W the warm-up and T the length, the rate grows from `warmup_learning_rate` to the value of
    the cosine at W, follows the cosine until T and is 0 after it. The cosine begins at W
    (`shifted`, as in SSD320) or at step 0 (as in CenterNet Hourglass, whose warm-up therefore ends
    a little below the base).

    Published settings of SSD320, by devices with 32 images each (base, warm-up from, over, length):
    1: 0.02, 0.0086664, 8000, 100000; 4: 0.08, 0.0346656, 2000, 25000; 8: 0.16, 0.0693312, 1000,
    12500; 16: 0.32, 0.1386624, 500, 6250. All four are base 0.02 from 0.0086664 with
    `reference_batch_size` 32 and a warm-up of 0.08 of the length, which are the defaults.
    CenterNet: 5e-4 (GPU) or 1e-3 (TPU) from 0 over 2000 steps, not shifted, whatever the batch.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, section 8
        docs/reference/centernet.md, section 6
    """

    def __init__(
        self,
        base_learning_rate: float = 0.02,
        *,
        warmup_learning_rate: float = 0.0086664,
        warmup_steps: float = 0.08,
        total_steps: int | None = None,
        shifted: bool = True,
        reference_batch_size: int | None = 32,
        warmup_limit: float | None = None,
    ):
        """Configure the schedule.

        Args:
            base_learning_rate: height of the cosine.
            warmup_learning_rate: rate of the first step.
            warmup_steps: length of the warm-up in steps or, below 1, as a share of the whole.
            total_steps: step at which the rate reaches 0; None is the end of the run.
            shifted: whether the cosine begins after the warm-up instead of at step 0.
            reference_batch_size: both rates are for this global batch and grow linearly with it;
                None uses them unscaled.
            warmup_limit: largest share of the run that the warm-up takes; None for no limit.

        Raises:
            ValueError: the warm-up or a rate is negative, or the length is not above 0.
        """
        rates = {"warmup_learning_rate": warmup_learning_rate}
        check_rates(self, base_learning_rate=base_learning_rate, **rates)
        if warmup_steps < 0:
            raise ValueError(
                f"WarmupCosineSteps.warmup_steps is {warmup_steps}; expected 0 or more."
            )
        if total_steps is not None and total_steps < 1:
            raise ValueError(
                f"WarmupCosineSteps.total_steps is {total_steps}; expected 1 or more, or None for "
                "the length of the run."
            )
        self.base_learning_rate = base_learning_rate
        self.warmup_learning_rate = warmup_learning_rate
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.shifted = shifted
        self.reference_batch_size = reference_batch_size
        self.warmup_limit = warmup_limit

    def lengths(self, run: RunLength) -> tuple[int, int]:
        """Return the steps of the warm-up and the step at which the rate reaches 0."""
        total = self.total_steps or run.total_steps
        asked = self._asked(total)
        return _limited(asked, self.warmup_limit, min(total, run.total_steps)), total

    def _asked(self, total: int) -> int:
        return round(self.warmup_steps * total if self.warmup_steps < 1 else self.warmup_steps)

    def peak(self, run: RunLength) -> float:
        """Return the rate at which the cosine takes over from the warm-up."""
        warmup, total = self.lengths(run)
        begin = warmup if self.shifted else 0
        # How far the cosine has come when the warm-up ends: not at all if `shifted`.
        share = min(max(warmup - begin, 0) / max(total - begin, 1), 1.0)
        height = 0.5 * self.base_learning_rate * (1.0 + math.cos(math.pi * share))
        return height * _batch_factor(self.reference_batch_size, run)

    def __call__(self, step: tf.Tensor, run: RunLength) -> tf.Tensor:
        """Compute the learning rate, a float32 scalar; see `WarmupCosine`."""
        warmup, total = self.lengths(run)
        begin = warmup if self.shifted else 0
        factor = _batch_factor(self.reference_batch_size, run)
        first = self.warmup_learning_rate * factor
        position = tf.cast(step, tf.float32)
        phase = tf.clip_by_value((position - begin) / max(total - begin, 1), 0.0, 1.0)
        rate = 0.5 * self.base_learning_rate * factor * (1.0 + tf.cos(math.pi * phase))
        slope = (self.peak(run) - first) / max(warmup, 1)
        rate = tf.where(position < warmup, first + position * slope, rate)
        # At `total` itself the cosine is 0 but for its rounding; after it, as published, exactly.
        return tf.where(position > total, 0.0, rate)

    def describe(self, run: RunLength) -> str | None:
        """Explain why the schedule does not fit a run; None if it does."""
        warmup, total = self.lengths(run)
        base = self.base_learning_rate * _batch_factor(self.reference_batch_size, run)
        peak = self.peak(run)
        if total < run.total_steps:
            return (
                f"the learning rate is 0 from step {total} on, but the run has {run.total_steps} "
                "steps: the rest learns nothing. Leave WarmupCosineSteps.total_steps unset to "
                "span the run."
            )
        if warmup >= run.total_steps or (warmup and 2 * peak < base):
            highest = float(self(min(warmup, run.total_steps - 1), run))
            return (
                f"the warm-up of {warmup} steps is too long for the run of {run.total_steps}: the "
                f"learning rate reaches {highest:.3g} instead of {base:.3g}. "
                "Set WarmupCosineSteps.warmup_limit = 0.1 to shorten the warm-up with the run."
            )
        if total > run.total_steps:
            return (
                f"the learning rate decays until step {total}, but the run ends at "
                f"{run.total_steps}. Leave WarmupCosineSteps.total_steps unset to span the run."
            )
        if warmup < self._asked(total):
            return _shortened("WarmupCosineSteps", self._asked(total), warmup, run, peak)
        return None


def _listed(word: str, numbers: Sequence[int]) -> str:
    return f"{word}{'s' if len(numbers) > 1 else ''} {' and '.join(map(str, numbers))}"


def _batch_factor(reference_batch_size: int | None, run: RunLength) -> float:
    return run.global_batch_size / reference_batch_size if reference_batch_size else 1.0


def _limited(warmup: int, limit: float | None, length: int) -> int:
    """Return the steps of a warm-up, at most the share `limit` of a length."""
    return warmup if limit is None else min(warmup, int(limit * length))


def _shortened(schedule: str, asked: int, warmup: int, run: RunLength, peak: float | None = None):
    reached = "" if peak is None else f", and the learning rate reaches {peak:.3g}"
    return (
        f"the warm-up of {asked} steps is shortened to {warmup} in this run of "
        f"{run.total_steps}{reached}. Set {schedule}.warmup_limit = None to keep its length."
    )
