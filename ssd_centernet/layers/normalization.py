"""Normalisations of feature maps."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer

# An average forgets its beginning as momentum ** steps. The shortest published run, of 6250 steps
# at a momentum of 0.997, is 18.75 of the 1 / (1 - momentum) steps that an average spans.
_SPANS_OF_A_LONG_RUN = 18.0

# Replicas trace in threads, which take turns where they exchange tensors.
_OF_THREAD = threading.local()


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class L2Norm(Float32Layer):
    """Divide each cell's channels by their Euclidean norm and give each channel a learned scale.

    A level with large activations can then train at the same learning rate as the others.

    Source:
        docs/reference/ssd_vgg16.md, section 2.2
        ParseNet: Looking Wider to See Better (arXiv:1506.04579)
    """

    # Whether `fusing` is in force.
    _fuses = False

    def __init__(
        self,
        initial_scale: float = 20.0,
        *,
        epsilon: float = 1e-10,
        name: str = "l2_norm",
        **kwargs,
    ):
        """Configure the layer.

        Args:
            initial_scale: initial scale of every channel.
            epsilon: added to the norm, so that cells of zeros stay zeros.
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.initial_scale = initial_scale
        self.epsilon = epsilon

    def build(self, input_shape) -> None:
        """Create the scales, one per channel."""
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
        )
        super().build(input_shape)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Normalise features [..., C]; the result is float32 of the same shape."""
        if self._fuses:
            return self.scale * tf.math.l2_normalize(features, axis=-1, epsilon=self.epsilon**2)
        squares = tf.reduce_sum(tf.square(features), axis=-1, keepdims=True)
        # The root of zero has no finite gradient; a cell of zeros gives zeros either way.
        safe = tf.where(squares > 0.0, squares, 1.0)
        # Epsilon after the root, as published.
        return self.scale * features / (tf.sqrt(safe) + self.epsilon)

    @classmethod
    @contextlib.contextmanager
    def fusing(cls) -> Iterator[None]:
        """Trace graphs of all layers of this kind in the form that TFLite has in integers.

        They differ by the epsilon, which then bounds the norm from below.
        """
        cls._fuses = True
        try:
            yield
        finally:
            cls._fuses = False


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation whose statistics can span the processes that train together.

    It is Keras' own layer until `synchronize` is called. Keras' synchronous layer works only within
    a `tf.distribute` strategy, and so not across processes that each have their own.

    Source: docs/reference/ssd_resnet34.md, section 11 (`--distributed_bn`)
    """

    # A fused kernel puts n / (n - 1) times the variance of n values into the moving one.
    population_variance = False
    _mean_of_group: Callable[[tf.Tensor], tf.Tensor] | None = None
    _group_size = 1
    _step: Callable[[], tf.Tensor] | None = None

    @classmethod
    @contextlib.contextmanager
    def unmoved(cls) -> Iterator[None]:
        """Trace calls of all layers of this kind that leave the averages as they are.

        What a training computes a second time, for its gradients, must not move them again.
        """
        _OF_THREAD.unmoved = True
        try:
            yield
        finally:
            _OF_THREAD.unmoved = False

    @property
    def _unmoved(self) -> bool:
        """Whether `unmoved` is in force."""
        return getattr(_OF_THREAD, "unmoved", False)

    def warm_up(self, step: Callable[[], tf.Tensor] | None) -> None:
        """Let the momentum grow with the steps of the run: min(momentum, (1 + step) / (10 + step)).

        The averages then follow from the first steps on, and not only after 1 / (1 - momentum).

        Args:
            step: returns the number of updates so far, a scalar of any kind; None for the momentum
                of the layer at every step.

        Source: https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
        """
        self._step = step

    def synchronize(self, mean_of_group: Callable[[tf.Tensor], tf.Tensor], group_size: int) -> None:
        """Compute the statistics of training over several processes.

        Args:
            mean_of_group: averages a float32 tensor over the group that this process belongs to;
                differentiable, usable in a tf.function.
            group_size: number of processes in the group; each has the same number of images.
        """
        self._mean_of_group, self._group_size = mean_of_group, group_size

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Normalise feature maps [B, h, w, C]; in training also move the averages, if trainable."""
        still = training is None or training is False or not self.trainable or self._unmoved
        if self._step is None or still:
            return self._normalized(inputs, training)
        averages = (self.moving_mean, self.moving_variance)
        before = [tf.identity(average) for average in averages]
        outputs = self._normalized(inputs, training)
        step = tf.cast(self._step(), tf.float32)
        momentum = (1.0 + step) / (10.0 + step)
        # They were moved by 1 - momentum of the way to the batch: this goes on, or not at all.
        factor = (1.0 - momentum) / (1.0 - self.momentum)
        for average, old in zip(averages, before, strict=True):
            warmed = old + (average - old) * factor
            average.assign(tf.where(momentum < self.momentum, warmed, average))
        return outputs

    def _normalized(self, inputs: tf.Tensor, training: bool | tf.Tensor | None) -> tf.Tensor:
        # Not trainable means inference, in Keras' sense: the averages are used and stay.
        if self._mean_of_group is None or not training or not self.trainable:
            return super().call(inputs, training=training)
        features = tf.cast(inputs, tf.float32)
        axes = list(range(features.shape.rank - 1))
        # Squares of large values would cancel: the moving mean, the same in the whole group once
        # statistics are shared, is near enough to what is to be subtracted.
        shift = tf.stop_gradient(tf.identity(self.moving_mean))
        shifted = features - shift
        # Processes have as many values each, so that means of means are means. Both travel as one
        # tensor: an all-reduce costs its latency.
        sums = [tf.reduce_mean(shifted, axes), tf.reduce_mean(tf.square(shifted), axes)]
        mean, square = tf.unstack(self._mean_of_group(tf.stack(sums)))
        # Rounding can make it a little less than 0.
        variance = tf.maximum(square - tf.square(mean), 0.0)
        count = self._group_size * tf.cast(tf.size(features) // tf.shape(features)[-1], tf.float32)
        bessel = 1.0 if self.population_variance else count / tf.maximum(count - 1.0, 1.0)
        self._move(self.moving_mean, mean + shift)
        self._move(self.moving_variance, variance * bessel)
        outputs = tf.nn.batch_normalization(
            shifted, mean, variance, self.beta, self.gamma, self.epsilon
        )
        return tf.cast(outputs, inputs.dtype)

    def _move(self, average: tf.Variable, value: tf.Tensor) -> None:
        # As a difference, in Keras' own order of operations.
        if not self._unmoved:
            average.assign_sub((average - tf.stop_gradient(value)) * (1.0 - self.momentum))

    def _assign_new_value(self, variable: tf.Variable, value: tf.Tensor):
        return None if self._unmoved else super()._assign_new_value(variable, value)

    def _assign_moving_average(self, variable: tf.Variable, *args):
        return None if self._unmoved else super()._assign_moving_average(variable, *args)


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class PopulationBatchNorm(BatchNorm):
    """Batch normalisation whose moving variance is the batch's, divided by n instead of n - 1.

    Keras' fused kernels put n / (n - 1) times the variance into the moving one. On large maps the
    difference is negligible. If a network ends in maps of a few cells and its averages forget fast,
    inference would differ from training by a factor of up to two.

    Source: docs/reference/centernet.md, section 1.1
    """

    population_variance = True

    def _normalized(self, inputs: tf.Tensor, training: bool | tf.Tensor | None) -> tf.Tensor:
        if self._mean_of_group is not None:
            return super()._normalized(inputs, training)
        # Keras moves the average by (1 - momentum) n / (n - 1) variance; taking back 1 / n of that
        # leaves (1 - momentum) variance. `share` is 0 where `training` is a tensor that is False.
        before = tf.identity(self.moving_variance)
        outputs = super()._normalized(inputs, training)
        if training is None or training is False or not self.trainable or self._unmoved:
            return outputs
        if inputs.shape.is_fully_defined():
            count = inputs.shape.num_elements() // inputs.shape[-1]
        else:
            count = tf.size(inputs) // tf.shape(inputs)[-1]
        share = tf.cast(training, tf.float32) / tf.cast(count, tf.float32)
        moved = self.moving_variance - self.momentum * before
        self.moving_variance.assign_sub(share * moved)
        return outputs


def norms_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model that move their statistics, nested and foreign ones too."""
    if getattr(model, "quantized", None) is not None:
        return []  # They stay what they are, in training as in a file of integers.
    # Nested ones: necks and heads hold norms of their own. By their averages, since a foreign norm
    # is of any class.
    return [layer for layer in model._flatten_layers() if hasattr(layer, "moving_variance")]


def warm_up_averages(
    model: keras.Model, step: Callable[[], tf.Tensor], total_steps: int | None = None
) -> int:
    """Warm up the moving statistics that a run is too short for; call it before the first trace.

    A run of 18 / (1 - momentum) steps or more, as the published ones are, keeps the momentum of its
    recipe at every step.

    Args:
        model: any Keras model; norms of other libraries stay as they are.
        step: see `BatchNorm.warm_up`.
        total_steps: length of the run; None is one of unknown length, which is warmed up.

    Returns:
        The number of layers that are warmed up.
    """
    ours = [layer for layer in norms_of(model) if isinstance(layer, BatchNorm)]
    # With a momentum of 0.1 or less, as the Hourglass has, there is nothing to warm up.
    short = [
        layer
        for layer in ours
        if 0.1 < layer.momentum < 1.0
        and (total_steps is None or total_steps * (1.0 - layer.momentum) < _SPANS_OF_A_LONG_RUN)
    ]
    for layer in ours:
        layer.warm_up(step if layer in short else None)
    return len(short)


def keep_momentum(model: keras.Model) -> None:
    """Take back what `warm_up_averages` did."""
    for layer in norms_of(model):
        if isinstance(layer, BatchNorm):
            layer.warm_up(None)


def is_warmed_up(layer: keras.layers.Layer) -> bool:
    """Tell whether the momentum of a layer's averages grows with the steps."""
    return getattr(layer, "_step", None) is not None


def share_of_beginning(layer: keras.layers.Layer, steps: int) -> float:
    """Return the share that the first value has in moving statistics after some steps, 0..1."""
    if not layer.trainable or layer.momentum >= 1.0:
        return 0.0  # They do not move, and are meant to stay.
    if not is_warmed_up(layer):
        return float(layer.momentum) ** steps
    return math.prod(min(layer.momentum, (1 + i) / (10 + i)) for i in range(min(steps, 50)))


def synchronize(
    model: keras.Model, mean_of_group: Callable[[tf.Tensor], tf.Tensor], group_size: int
) -> int:
    """Make every batch norm of a model span a group of processes; call it before the first trace.

    Args:
        model: any Keras model.
        mean_of_group: see `BatchNorm.synchronize`.
        group_size: number of processes in a group.

    Returns:
        The number of layers changed.

    Raises:
        ValueError: the model has batch norms of other libraries, as in a Model Garden backbone.
    """
    layers = norms_of(model)
    foreign = [layer.name for layer in layers if not isinstance(layer, BatchNorm)]
    if foreign:
        raise ValueError(
            f"{len(foreign)} batch norms, such as {foreign[0]!r}, cannot be synchronised between "
            "processes: they belong to a backbone of the Model Garden. Leave out "
            "train.sync_batch_norm (--distributed_bn), or choose a backbone of this library."
        )
    for layer in layers:
        layer.synchronize(mean_of_group, group_size)
    return len(layers)
