"""Optimizers and what happens to gradients before they are applied."""

from __future__ import annotations

import re
from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.patterns import as_patterns, check_matches


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class Momentum(keras.optimizers.Optimizer):
    """SGD with momentum, the learning rate outside the accumulator: m = a m + g; v = v - lr m.

    Keras' own SGD keeps `lr g` in the accumulator, which differs wherever the rate changes.

    Source: reference specification ssd_resnet34, section 8.
    """

    def __init__(
        self, momentum: float = 0.9, *, learning_rate: float = 0.0, name: str = "momentum"
    ):
        """Configures the optimizer.

        Args:
          momentum: a, in [0, 1).
          learning_rate: of the next update; the trainer sets it from the schedule every step.
          name: of the optimizer.
        """
        super().__init__(name=name, jit_compile=False)
        self.momentum = momentum
        self._learning_rate = self._build_learning_rate(learning_rate)

    def build(self, var_list) -> None:
        """Creates one accumulator for each variable; a second call changes nothing."""
        super().build(var_list)
        if not hasattr(self, "accumulators"):
            self.accumulators = [
                self.add_variable_from_reference(variable, "momentum") for variable in var_list
            ]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Applies one gradient, dense or sparse."""
        accumulator = self.accumulators[self._index_dict[self._var_key(variable)]]
        gradient = tf.convert_to_tensor(gradient)
        if _has_fused_kernels(variable):
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=accumulator.handle,
                lr=tf.cast(self.learning_rate, variable.dtype),
                grad=gradient,
                momentum=self.momentum,
            )
            return
        updated = accumulator.assign(self.momentum * accumulator + gradient)
        variable.assign_sub(tf.cast(self.learning_rate, variable.dtype) * updated)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        rate = self._serialize_hyperparameter(self._learning_rate)
        return {"name": self.name, "momentum": self.momentum, "learning_rate": rate}


def _has_fused_kernels(variable: tf.Variable) -> bool:
    """Tells whether TensorFlow itself runs the device; vendors' plug-ins lack the fused update."""
    kind = tf.DeviceSpec.from_string(variable.device or "").device_type
    return kind in (None, "CPU", "GPU", "TPU")


# Keras' own, by their names in recipes.
Adam = gin.external_configurable(keras.optimizers.Adam, module="keras")


# Of batch norms; networks without any are no mistake.
NORMS = ("_norm/",)


def decay_mask(variables: Sequence[tf.Variable], exclude: str | Sequence[str]) -> list[bool]:
    """Tells which variables decay: those whose name contains no match of `exclude`.

    Args:
      variables: whose names are looked at.
      exclude: regular expressions, searched anywhere in the name.

    Returns:
      One bool a variable.

    Raises:
      ValueError: a pattern other than `NORMS` matches nothing.
    """
    patterns = as_patterns(exclude, setting="train.decay_exclude")
    names = [variable.name for variable in variables]
    chosen = [pattern for pattern in patterns if pattern not in NORMS]
    check_matches(chosen, names, setting="train.decay_exclude", anywhere=True)
    return [not any(re.search(pattern, name) for pattern in patterns) for name in names]


def add_weight_decay(
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    mask: Sequence[bool],
    coefficient: float,
) -> list[tf.Tensor]:
    """Adds the gradient of `coefficient * 0.5 |v|^2` (coupled decay, as an L2 loss would).

    Args:
      gradients: float32, one a variable.
      variables: in the same order.
      mask: which of them decay.
      coefficient: at least 0; 0 adds nothing.

    Returns:
      The new gradients.

    Source: reference specification ssd_resnet34, section 6, "Weight decay".
    """
    if not coefficient:
        return list(gradients)
    return [
        gradient + coefficient * variable if decays else gradient
        for gradient, variable, decays in zip(gradients, variables, mask, strict=True)
    ]
