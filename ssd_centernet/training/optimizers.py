"""The optimizers that recipes name."""

from __future__ import annotations

import gin
import tensorflow as tf

from ssd_centernet._keras import keras


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class Momentum(keras.optimizers.Optimizer):
    """SGD with momentum, the learning rate outside the accumulator: m = a m + g; v = v - lr m.

    Keras' own SGD keeps `lr g` in the accumulator, which differs wherever the rate changes.

    Source: docs/reference/ssd_resnet34.md, section 8
    """

    def __init__(
        self, momentum: float = 0.9, *, learning_rate: float = 0.0, name: str = "momentum"
    ):
        """Configure the optimizer.

        Args:
            momentum: a, in [0, 1).
            learning_rate: rate of the next update; the trainer sets it from the schedule every
                step.
            name: name of the optimizer.
        """
        # Keras' default of 0 would subtract nothing from every weight in every step.
        super().__init__(name=name, jit_compile=False, weight_decay=None)
        self.momentum = momentum
        self._learning_rate = self._build_learning_rate(learning_rate)

    def build(self, var_list) -> None:
        """Create one accumulator for each variable; a second call changes nothing."""
        super().build(var_list)
        # Keras builds again at the first update; fresh accumulators would forget restored ones.
        if not hasattr(self, "accumulators"):
            self.accumulators = [
                self.add_variable_from_reference(variable, "momentum") for variable in var_list
            ]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Apply one gradient, dense or sparse."""
        accumulator = self.accumulators[self._index_dict[self._var_key(variable)]]
        gradient = tf.convert_to_tensor(gradient)
        # One kernel reads and writes both variables once; the two lines below are the same update.
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
        """Return the constructor's arguments."""
        rate = self._serialize_hyperparameter(self._learning_rate)
        return {"name": self.name, "momentum": self.momentum, "learning_rate": rate}


def _has_fused_kernels(variable: tf.Variable) -> bool:
    """Tell whether TensorFlow itself runs the device; vendors' plug-ins lack the fused update."""
    kind = tf.DeviceSpec.from_string(variable.device or "").device_type
    return kind in (None, "CPU", "GPU", "TPU")


@gin.register(module="keras")
@keras.saving.register_keras_serializable(package="ssd_centernet")
class Adam(keras.optimizers.Adam):
    """Keras' Adam with its state, settings and formulas; one kernel updates a variable.

    Keras' own update is about 20 operations for each variable, each of which passes over it. The
    kernel is that of TensorFlow 1 and of Keras before 2.11. It takes 1 - beta in float32: updates
    differ from Keras' own by about 1e-5 of their size.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Apply one gradient, dense or sparse."""
        unusual = self.amsgrad or getattr(self, "adaptive_epsilon", False)
        if unusual or isinstance(gradient, tf.IndexedSlices) or not _has_fused_kernels(variable):
            super().update_step(gradient, variable)
            return
        place = self._index_dict[self._var_key(variable)]
        beta_1, beta_2 = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )
