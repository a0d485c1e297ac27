"""Normalisations of feature maps."""

from __future__ import annotations

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class L2Norm(Float32Layer):
    """Divides each cell's channels by their Euclidean norm and gives each channel a learned scale.

    It lets a head share a learning rate between a level of large activations and the others.

    Source: reference specification ssd_vgg16, section 2.2.
    """

    def __init__(
        self,
        initial_scale: float = 20.0,
        *,
        epsilon: float = 1e-10,
        name: str = "l2_norm",
        **kwargs,
    ):
        """Configures the layer.

        Args:
          initial_scale: of every channel.
          epsilon: added to the norm, so that cells of zeros stay zeros.
          name: of the layer.
          **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.initial_scale = initial_scale
        self.epsilon = epsilon

    def build(self, input_shape) -> None:
        """Creates the scales, one a channel."""
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
        )
        super().build(input_shape)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Normalises features [..., C]; the result is float32 of the same shape."""
        squares = tf.reduce_sum(tf.square(features), axis=-1, keepdims=True)
        # The root of zero has no finite gradient; a cell of zeros gives zeros either way.
        safe = tf.where(squares > 0.0, squares, 1.0)
        return self.scale * features / (tf.sqrt(safe) + self.epsilon)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "initial_scale": self.initial_scale,
            "epsilon": self.epsilon,
        }


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class PopulationBatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation whose moving variance is that of the batch, divided by n and not n - 1.

    Keras' fused kernels put n / (n - 1) times the variance into the moving one. That is nothing on
    large maps; where a network ends in maps of a few cells and its averages forget fast, inference
    would differ from training by up to a factor of two.

    Source: reference specification centernet, section 1.1.
    """

    def call(self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        """Normalises feature maps [B, h, w, C]; in training moves the averages, if trainable."""
        before = tf.identity(self.moving_variance)
        outputs = super().call(inputs, training=training)
        if training is None or training is False or not self.trainable:
            return outputs
        count = tf.size(inputs) // tf.shape(inputs)[-1]
        share = tf.cast(training, tf.float32) / tf.cast(count, tf.float32)
        moved = self.moving_variance - self.momentum * before
        self.moving_variance.assign_sub(share * moved)
        return outputs
