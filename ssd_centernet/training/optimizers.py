"""The optimizers that recipes name."""

from __future__ import annotations

import re
from collections.abc import Sequence

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

    # What all variables of an update share, made once: (graph, dtype) -> values; see `_common`.
    _shared: dict | None = None

    def apply_gradients(self, grads_and_vars, *args, **kwargs):
        """Update all variables once, see Keras' method."""
        # Keras would track a dict that it sees to be set.
        object.__setattr__(self, "_shared", {})
        try:
            return super().apply_gradients(grads_and_vars, *args, **kwargs)
        finally:
            object.__setattr__(self, "_shared", None)

    def _common(self, dtype: tf.DType) -> dict[str, tf.Tensor]:
        """Return the kernel's arguments that are no variable's own.

        A graph gets them once for an update: for each of a network's 500 variables they were
        thousands of operations.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        shared = {} if self._shared is None else self._shared
        if (graph, dtype) not in shared:
            beta_1, beta_2 = (tf.cast(beta, dtype) for beta in (self.beta_1, self.beta_2))
            step = tf.cast(self.iterations + 1, dtype)
            shared[graph, dtype] = {
                "beta1_power": tf.pow(beta_1, step),
                "beta2_power": tf.pow(beta_2, step),
                "lr": tf.cast(self.learning_rate, dtype),
                "beta1": beta_1,
                "beta2": beta_2,
                "epsilon": tf.cast(self.epsilon, dtype),
            }
        return shared[graph, dtype]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Apply one gradient, dense or sparse."""
        unusual = self.amsgrad or getattr(self, "adaptive_epsilon", False)
        if unusual or isinstance(gradient, tf.IndexedSlices) or not _has_fused_kernels(variable):
            super().update_step(gradient, variable)
            return
        place = self._index_dict[self._var_key(variable)]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            grad=gradient,
            **self._common(variable.dtype),
        )


# Norms and biases have no direction that a decay would shorten.
_NOT_DECAYED = ("_norm/", "bias")


@gin.register(module="keras")
@keras.saving.register_keras_serializable(package="ssd_centernet")
class AdamW(Adam):
    """Adam, and beside it a decay of the weights in proportion to the learning rate.

    Leave `train.weight_decay` at 0: that decay would go through Adam's moments.

    Source: Decoupled Weight Decay Regularization (arXiv:1711.05101)
    """

    decays_weights = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        weight_decay: float = 0.01,
        decay_exclude: Sequence[str] = _NOT_DECAYED,
        name: str = "adamw",
        **kwargs,
    ):
        """Configure the optimizer.

        Args:
            learning_rate: rate of the next update; the trainer sets it from the schedule every
                step.
            weight_decay: a step takes this times the learning rate of each weight.
            decay_exclude: regular expressions, searched in the names of variables that do not
                decay.
            name: name of the optimizer.
            **kwargs: arguments of Keras' Adam, such as `beta_2`.
        """
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.decay_exclude = tuple(decay_exclude)
        self.exclude_from_weight_decay(var_names=list(self.decay_exclude))

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        return {**super().get_config(), "decay_exclude": self.decay_exclude}


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class LAMB(keras.optimizers.Optimizer):
    """Adam whose update of each variable is scaled to the length of its weights, for large batches.

    With r the bias-corrected update of Adam plus `weight_decay` times the weights, a variable moves
    by the rate times `|v| / |r|` times r. Variables that do not decay move by the rate times r, as
    in the authors' code.

    Source: Large Batch Optimization for Deep Learning (arXiv:1904.00962)
    """

    decays_weights = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        decay: float = 0.01,
        decay_exclude: Sequence[str] = _NOT_DECAYED,
        name: str = "lamb",
    ):
        """Configure the optimizer.

        Args:
            learning_rate: rate of the next update; the trainer sets it from the schedule every
                step.
            beta_1: decay of the mean of gradients, in [0, 1).
            beta_2: decay of the mean of their squares, in [0, 1).
            epsilon: added to the root of the latter.
            decay: coefficient of the weights in the update.
            decay_exclude: regular expressions, searched in the names of variables that do not
                decay and are not scaled.
            name: name of the optimizer.
        """
        super().__init__(name=name, jit_compile=False, weight_decay=None)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.decay = decay
        self.decay_exclude = tuple(decay_exclude)
        self._learning_rate = self._build_learning_rate(learning_rate)

    def build(self, var_list) -> None:
        """Create both means of each variable; a second call changes nothing."""
        super().build(var_list)
        if not hasattr(self, "means"):
            self.means, self.squares = (
                [self.add_variable_from_reference(variable, kind) for variable in var_list]
                for kind in ("m", "v")
            )

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Apply one gradient, dense or sparse."""
        place = self._index_dict[self._var_key(variable)]
        gradient = tf.convert_to_tensor(gradient)
        mean, square = self.means[place], self.squares[place]
        step = tf.cast(self.iterations + 1, variable.dtype)
        mean.assign(self.beta_1 * mean + (1.0 - self.beta_1) * gradient)
        square.assign(self.beta_2 * square + (1.0 - self.beta_2) * gradient**2)
        corrected = mean / (1.0 - tf.pow(tf.cast(self.beta_1, variable.dtype), step))
        deviation = square / (1.0 - tf.pow(tf.cast(self.beta_2, variable.dtype), step))
        update = corrected / (tf.sqrt(deviation) + self.epsilon)
        if not any(re.search(pattern, variable.name) for pattern in self.decay_exclude):
            update += self.decay * variable
            length, reach = tf.norm(variable), tf.norm(update)
            # Weights of 0, and updates of 0, move as in Adam.
            trust = tf.where((length > 0.0) & (reach > 0.0), length / tf.maximum(reach, 1e-30), 1.0)
            update *= trust
        variable.assign_sub(tf.cast(self.learning_rate, variable.dtype) * update)

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        names = ("name", "beta_1", "beta_2", "epsilon", "decay", "decay_exclude")
        rate = self._serialize_hyperparameter(self._learning_rate)
        return {**{name: getattr(self, name) for name in names}, "learning_rate": rate}
