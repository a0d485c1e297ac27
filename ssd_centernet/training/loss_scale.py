"""Loss scaling for float16 gradients."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class LossScale(tf.Module):
    """Multiplies the loss so that float16 gradients do not vanish, and adapts the factor.

    The factor doubles after `growth_steps` finite steps and halves after a step that overflowed,
    which is skipped.

    Attributes:
      value: float32 variable, the factor.
      skipped: int64 variable, steps skipped so far.
      dynamic: whether the factor adapts; a fixed factor never excuses an overflow.
    """

    def __init__(self, initial: float = 2.0**15, *, growth_steps: int = 2000, dynamic: bool = True):
        """Sets the first factor and after how many finite steps it doubles."""
        super().__init__(name="loss_scale")
        self.dynamic = dynamic
        self.growth_steps = growth_steps
        self.value = tf.Variable(initial, dtype=tf.float32, trainable=False, name="value")
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="good_steps")
        self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped")

    def scale(self, loss: tf.Tensor) -> tf.Tensor:
        """Multiplies a float32 scalar loss by the factor."""
        return loss * self.value if self.dynamic else loss

    def unscale(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Divides gradients by the factor."""
        if not self.dynamic:
            return list(gradients)
        return [gradient / self.value for gradient in gradients]

    def succeeded(self) -> None:
        """Notes a finite step."""
        if not self.dynamic:
            return
        grow = self.good_steps + 1 >= self.growth_steps
        self.value.assign(tf.where(grow, self.value * 2.0, self.value))
        self.good_steps.assign(tf.where(grow, tf.zeros_like(self.good_steps), self.good_steps + 1))

    def overflowed(self) -> tf.Tensor:
        """Notes a step that is not finite.

        Returns:
          bool scalar: whether a lower factor may help, so that skipping the step is all it takes.
        """
        if not self.dynamic:
            return tf.constant(False)
        excusable = self.value > 1.0
        self.value.assign(tf.maximum(self.value / 2.0, 1.0))
        self.good_steps.assign(tf.zeros_like(self.good_steps))
        self.skipped.assign_add(1)
        return excusable
