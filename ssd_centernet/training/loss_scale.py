"""Loss scaling for float16 gradients."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet.runtime.ascend import has_saturated


@gin.register
class LossScale(tf.Module):
    """Scale the loss so that float16 gradients do not vanish, and adapt the factor.

    The factor doubles after `growth_steps` finite steps and halves after a step that overflowed,
    which is skipped.

    Source: Mixed Precision Training (arXiv:1710.03740)

    Attributes:
        value: float32 variable, the factor.
        good_steps: int64 variable, finite steps since the factor changed.
        skipped: int64 variable, steps skipped so far.
        dynamic: whether the factor adapts; with a fixed factor every overflow is an error.
    """

    def __init__(self, initial: float = 2.0**15, *, growth_steps: int = 2000, dynamic: bool = True):
        """Configure the factor.

        Args:
            initial: the first factor, at least 1; powers of two change no digit of a gradient.
            growth_steps: number of finite steps after which it doubles.
            dynamic: whether it adapts.

        Raises:
            ValueError: a setting is below 1.
        """
        if initial < 1.0 or growth_steps < 1:
            raise ValueError(
                f"LossScale got initial={initial} and growth_steps={growth_steps}; expected 1 or "
                "more for both: a smaller factor would let float16 gradients vanish."
            )
        super().__init__(name="loss_scale")
        self.dynamic = dynamic
        self._initial = float(initial)
        self.growth_steps = growth_steps
        self.value = tf.Variable(initial, dtype=tf.float32, trainable=False, name="value")
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="good_steps")
        self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped")

    def scale(self, loss: tf.Tensor) -> tf.Tensor:
        """Multiply a float32 scalar loss by the factor."""
        return loss if self._is_none else loss * self.value

    def unscale(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Divide gradients by the factor."""
        if self._is_none:
            return list(gradients)
        return [gradient / self.value for gradient in gradients]

    def saturation(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor]:
        """Ask the device for an overflow that the gradients do not show.

        Some NPUs give the largest number of a type instead of infinity, and note that they did.

        Args:
            gradients: of the scaled loss, of this process.

        Returns:
            A float32 scalar, above 0 where it happened; nothing where gradients show it themselves.
        """
        found = None if self._is_none else has_saturated(gradients)
        return [] if found is None else [tf.cast(found, tf.float32)]

    @property
    def _is_none(self) -> bool:
        return not self.dynamic and self._initial == 1.0

    def restored(self) -> None:
        """Correct the state from a checkpoint if it is not that of a factor like this one.

        A fixed factor is a setting, not a state. A run begun in float32 leaves a factor of 1 that
        was never too large; in float16 it begins with the initial factor.
        """
        if self._is_none:  # The state of a run in float16 is kept until that run goes on.
            return
        if not self.dynamic or (float(self.value) == 1.0 and int(self.skipped) == 0):
            self.value.assign(self._initial)

    def succeeded(self) -> None:
        """Count a finite step."""
        if not self.dynamic:
            return
        # With `tf.where`, not in Python: both are variables of the graph.
        grow = self.good_steps + 1 >= self.growth_steps
        self.value.assign(tf.where(grow, self.value * 2.0, self.value))
        self.good_steps.assign(tf.where(grow, tf.zeros_like(self.good_steps), self.good_steps + 1))

    def overflowed(self) -> tf.Tensor:
        """Count a step that is not finite.

        Returns:
            bool scalar: whether a lower factor may help, so that it is enough to skip the step.
        """
        if not self.dynamic:
            return tf.constant(False)
        # At a factor of 1 a lower one cannot help, and the step is a failure to report.
        excusable = self.value > 1.0
        self.value.assign(tf.maximum(self.value / 2.0, 1.0))
        self.good_steps.assign(tf.zeros_like(self.good_steps))
        self.skipped.assign_add(1)
        return excusable
